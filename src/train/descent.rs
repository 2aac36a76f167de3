//! Gradient descent over candle variables with a state that can be saved: AdamW, and AdaBelief with
//! adaptive gradient clipping, as CLIP-Italian was trained.
//!
//! Both are checked against PyTorch and optax (`tests/fixtures/optimizer/make.py`).

use std::collections::HashMap;

use anyhow::{Context, Result, ensure};
use candle_core::backprop::GradStore;
use candle_core::{D, Device, Tensor, Var};

use super::optimizer::Step;

const BETAS: (f32, f32) = (0.9, 0.999);

/// How a gradient becomes a step.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Rule {
    /// Loshchilov & Hutter, ICLR 2019.
    AdamW {
        /// Pull towards zero, decoupled from the gradient.
        decay: f32,
    },
    /// Zhuang et al., NeurIPS 2020: the second moment is that of the gradient around its own mean.
    AdaBelief,
}

/// What adaptive clipping takes together: what feeds one output. So does optax, whose matrices are
/// `[inputs, outputs]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// All values: a bias, a scale.
    Whole,
    /// What the first axis counts: a matrix `[outputs, inputs]`, a kernel of a convolution.
    Rows,
    /// What the last axis counts: a matrix `[inputs, outputs]`, a table of embeddings.
    Columns,
}

/// A variable that can be learnt.
#[derive(Clone, Debug)]
pub struct Learnable {
    /// Its name in a checkpoint.
    pub name: String,
    /// It; f32.
    pub var: Var,
    /// For adaptive clipping.
    pub unit: Unit,
}

impl Learnable {
    /// A matrix `[outputs, inputs]` or a vector.
    pub fn new(name: &str, var: &Var) -> Self {
        Self {
            name: name.to_owned(),
            var: var.clone(),
            unit: if var.rank() < 2 {
                Unit::Whole
            } else {
                Unit::Rows
            },
        }
    }
}

/// Rule and state.
pub struct Descent {
    rule: Rule,
    /// Largest norm of a unit's gradient relative to the unit's own (Brock et al., ICML 2021).
    clip: Option<f32>,
    slots: Vec<Slot>,
    step: i32,
}

struct Slot {
    name: String,
    var: Var,
    weights: Vec<f32>,
    first: Vec<f32>,
    second: Vec<f32>,
    unit: Unit,
}

impl Descent {
    /// Takes over variables. `clip` is the factor of adaptive gradient clipping, 0.01 in
    /// CLIP-Italian's recipe.
    ///
    /// # Errors
    /// A variable that is not f32.
    pub fn new(vars: &[Learnable], rule: Rule, clip: Option<f32>) -> Result<Self> {
        let slot = |learnable: &Learnable| {
            let weights = learnable.var.flatten_all()?.to_vec1::<f32>()?;
            Ok(Slot {
                name: learnable.name.clone(),
                var: learnable.var.clone(),
                first: vec![0.0; weights.len()],
                second: vec![0.0; weights.len()],
                weights,
                unit: learnable.unit,
            })
        };
        Ok(Self {
            rule,
            clip,
            slots: vars.iter().map(slot).collect::<Result<_>>()?,
            step: 0,
        })
    }

    /// One step at `rate`.
    ///
    /// # Errors
    /// A variable without a gradient (an operation on its way drops gradients), or a gradient that
    /// is not finite.
    pub fn step(&mut self, gradients: &GradStore, rate: f32) -> Result<()> {
        self.step += 1;
        for slot in &mut self.slots {
            let name = &slot.name;
            let gradient = gradients
                .get(&slot.var)
                .with_context(|| format!("{name} got no gradient"))?;
            let mut gradient = gradient.flatten_all()?.to_vec1::<f32>()?;
            ensure!(
                gradient.iter().all(|g| g.is_finite()),
                "the gradient of {name} is not finite: lower the learning rate"
            );
            if let Some(clip) = self.clip {
                let axis = match slot.unit {
                    Unit::Whole => gradient.len(),
                    Unit::Rows => gradient.len() / slot.var.dim(0)?.max(1),
                    Unit::Columns => slot.var.dim(D::Minus1)?,
                };
                if slot.unit == Unit::Columns {
                    clip_columns(&mut gradient, &slot.weights, axis, clip);
                } else {
                    clip_rows(&mut gradient, &slot.weights, axis, clip);
                }
            }
            slot.follow(&gradient, self.rule, self.step, rate);
            slot.show()?;
        }
        Ok(())
    }

    /// Variables, moments and number of steps, to be stored.
    ///
    /// # Errors
    /// candle's.
    pub fn state(&self) -> Result<HashMap<String, Tensor>> {
        let step = Tensor::new(&[i64::from(self.step)], &Device::Cpu)?;
        let mut state = HashMap::from([("descent.step".to_owned(), step)]);
        for slot in &self.slots {
            let parts = [
                ("value", &slot.weights),
                ("first", &slot.first),
                ("second", &slot.second),
            ];
            for (part, values) in parts {
                let tensor = Tensor::from_slice(values, slot.var.shape(), &Device::Cpu)?;
                state.insert(format!("{}.{part}", slot.name), tensor);
            }
        }
        Ok(state)
    }

    /// Takes up what [`Self::state`] gave.
    ///
    /// # Errors
    /// A tensor that is missing or of another shape.
    pub fn restore(&mut self, state: &HashMap<String, Tensor>) -> Result<()> {
        let stored = |name: &str| {
            state
                .get(name)
                .with_context(|| format!("the checkpoint lacks {name}"))
        };
        let step = stored("descent.step")?.to_vec1::<i64>()?;
        self.step = i32::try_from(*step.first().context("the checkpoint's step is empty")?)?;
        for slot in &mut self.slots {
            let part = |part: &str| -> Result<Vec<f32>> {
                let tensor = stored(&format!("{}.{part}", slot.name))?;
                let fits = tensor.dims() == slot.var.dims();
                ensure!(fits, "the checkpoint's {} has another shape", slot.name);
                Ok(tensor.flatten_all()?.to_vec1::<f32>()?)
            };
            (slot.weights, slot.first, slot.second) =
                (part("value")?, part("first")?, part("second")?);
            slot.show()?;
        }
        Ok(())
    }
}

impl Slot {
    /// Writes the weights into the variable.
    fn show(&self) -> Result<()> {
        let values = Tensor::from_slice(&self.weights, self.var.shape(), self.var.device())?;
        Ok(self.var.set(&values)?)
    }

    fn follow(&mut self, gradient: &[f32], rule: Rule, step: i32, rate: f32) {
        let parts = self.weights.iter_mut().zip(&mut self.first);
        let parts = parts.zip(&mut self.second).zip(gradient);
        match rule {
            Rule::AdamW { decay } => {
                let step = Step::new(BETAS, step);
                for (((w, first), second), g) in parts {
                    let move_by = step.direction(first, second, *g);
                    *w -= rate * (move_by + decay * *w);
                }
            }
            Rule::AdaBelief => {
                let step = Belief::new(step);
                for (((w, first), second), g) in parts {
                    *w -= rate * step.direction(first, second, *g);
                }
            }
        }
    }
}

/// One step of AdaBelief, as optax has it: ε = 1e-16 inside the root, added to what is kept, and
/// outside.
struct Belief {
    corrections: (f32, f32),
}

impl Belief {
    const EPSILON: f32 = 1e-16;

    /// Step number `t`, counted from 1.
    fn new(t: i32) -> Self {
        Self {
            corrections: (1.0 - BETAS.0.powi(t), 1.0 - BETAS.1.powi(t)),
        }
    }

    fn direction(&self, first: &mut f32, second: &mut f32, g: f32) -> f32 {
        *first = BETAS.0 * *first + (1.0 - BETAS.0) * g;
        let surprise = g - *first;
        *second = BETAS.1 * *second + (1.0 - BETAS.1) * surprise * surprise + Self::EPSILON;
        (*first / self.corrections.0) / ((*second / self.corrections.1).sqrt() + Self::EPSILON)
    }
}

/// The factor that brings a gradient of norm `found` down to `clip` times the norm of its unit, which
/// counts as no shorter than 0.001; `None` where it is short enough.
fn shorten(found: f32, own: f32, clip: f32) -> Option<f32> {
    let most = clip * own.max(1e-3);
    (found > most).then(|| most / found)
}

/// Clips every row of `length` values by itself.
fn clip_rows(gradient: &mut [f32], weights: &[f32], length: usize, clip: f32) {
    let norm = |values: &[f32]| values.iter().map(|v| v * v).sum::<f32>().sqrt();
    let length = length.max(1);
    for (gradient, weights) in gradient.chunks_mut(length).zip(weights.chunks(length)) {
        if let Some(factor) = shorten(norm(gradient), norm(weights), clip) {
            gradient.iter_mut().for_each(|g| *g *= factor);
        }
    }
}

/// Clips each of `count` columns by itself.
fn clip_columns(gradient: &mut [f32], weights: &[f32], count: usize, clip: f32) {
    let count = count.max(1);
    let norms = |values: &[f32]| {
        let mut squares = vec![0f32; count];
        for row in values.chunks(count) {
            squares.iter_mut().zip(row).for_each(|(s, v)| *s += v * v);
        }
        squares.into_iter().map(f32::sqrt)
    };
    let factors = norms(gradient).zip(norms(weights));
    let factors: Vec<f32> = factors
        .map(|(found, own)| shorten(found, own, clip).unwrap_or(1.0))
        .collect();
    for row in gradient.chunks_mut(count) {
        row.iter_mut().zip(&factors).for_each(|(g, f)| *g *= f);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde::Deserialize;

    #[derive(Clone, Deserialize)]
    struct Values {
        w: Vec<Vec<f32>>,
        b: Vec<f32>,
    }

    #[derive(Deserialize)]
    struct Reference {
        start: Values,
        gradients: Vec<Values>,
        adamw: Vec<Values>,
        adabelief: Vec<Values>,
    }

    impl Values {
        fn vars(&self) -> [Learnable; 2] {
            let var = |tensor: candle_core::Result<Tensor>| Var::from_tensor(&tensor.unwrap());
            [
                Learnable::new(
                    "w",
                    &var(Tensor::new(self.w.clone(), &Device::Cpu)).unwrap(),
                ),
                Learnable::new(
                    "b",
                    &var(Tensor::new(self.b.clone(), &Device::Cpu)).unwrap(),
                ),
            ]
        }
    }

    fn reference() -> Reference {
        let json = include_str!("../../tests/fixtures/optimizer/steps.json");
        serde_json::from_str(json).unwrap()
    }

    /// The loss whose gradient is `gradient` whatever the variables are.
    fn gradients(vars: &[Learnable], gradient: &Values) -> GradStore {
        let product = |var: &Learnable, g: &Learnable| {
            let product = (var.var.as_tensor() * g.var.as_tensor()).unwrap();
            product.sum_all().unwrap()
        };
        let wanted = gradient.vars();
        let loss = product(&vars[0], &wanted[0]) + product(&vars[1], &wanted[1]);
        loss.unwrap().backward().unwrap()
    }

    fn follows(rule: Rule, clip: Option<f32>, expected: &[Values]) {
        let reference = reference();
        let vars = reference.start.vars();
        let mut descent = Descent::new(&vars, rule, clip).unwrap();
        assert_eq!(expected.len(), reference.gradients.len());
        for (step, (gradient, expected)) in reference.gradients.iter().zip(expected).enumerate() {
            descent.step(&gradients(&vars, gradient), 1e-2).unwrap();
            let w = vars[0].var.to_vec2::<f32>().unwrap().concat();
            let b = vars[1].var.to_vec1::<f32>().unwrap();
            let pairs = w.iter().zip(expected.w.iter().flatten());
            for (ours, theirs) in pairs.chain(b.iter().zip(&expected.b)) {
                assert!(
                    (ours - theirs).abs() < 2e-6,
                    "step {step}: {ours} {theirs} of {rule:?}"
                );
            }
        }
    }

    #[test]
    fn adamw_steps_as_pytorchs() {
        follows(Rule::AdamW { decay: 0.05 }, None, &reference().adamw);
    }

    #[test]
    fn adabelief_with_adaptive_clipping_steps_as_optaxs() {
        follows(Rule::AdaBelief, Some(0.01), &reference().adabelief);
    }

    #[test]
    fn restored_it_goes_on_as_if_nothing_had_happened() {
        let reference = reference();
        let run = |interrupted: bool| {
            let vars = reference.start.vars();
            let mut descent = Descent::new(&vars, Rule::AdaBelief, Some(0.01)).unwrap();
            for (step, gradient) in reference.gradients.iter().enumerate() {
                if interrupted && step == 3 {
                    let state = descent.state().unwrap();
                    descent = Descent::new(&vars, Rule::AdaBelief, Some(0.01)).unwrap();
                    descent.restore(&state).unwrap();
                }
                descent.step(&gradients(&vars, gradient), 1e-2).unwrap();
            }
            vars[0].var.to_vec2::<f32>().unwrap()
        };
        assert_eq!(run(false), run(true));
    }

    /// A matrix `[inputs, outputs]` is clipped as its transpose is by rows.
    #[test]
    fn columns_are_clipped_as_the_rows_of_the_transpose() {
        let reference = reference();
        let run = |transposed: bool| {
            let turn = |mut values: Values| {
                let turned = (0..4).map(|c| values.w.iter().map(|row| row[c]).collect());
                if transposed {
                    values.w = turned.collect();
                }
                values
            };
            let mut vars = turn(reference.start.clone()).vars();
            if transposed {
                vars[0].unit = Unit::Columns;
            }
            let mut descent = Descent::new(&vars, Rule::AdaBelief, Some(0.01)).unwrap();
            for gradient in &reference.gradients {
                let gradient = gradients(&vars, &turn(gradient.clone()));
                descent.step(&gradient, 1e-2).unwrap();
            }
            let w = vars[0].var.as_tensor().clone();
            let w = if transposed { w.t().unwrap() } else { w };
            w.to_vec2::<f32>().unwrap()
        };
        assert_eq!(run(false), run(true));
    }

    #[test]
    fn a_variable_without_a_gradient_is_an_error() {
        let reference = reference();
        let vars = reference.start.vars();
        let mut descent = Descent::new(&vars, Rule::AdaBelief, None).unwrap();
        let loss = vars[0].var.sum_all().unwrap();
        let error = descent.step(&loss.backward().unwrap(), 0.1).unwrap_err();
        assert!(error.to_string().contains('b'), "{error}");
    }
}
