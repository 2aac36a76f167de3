//! Gradient descent over candle variables with a state that can be saved: AdamW, and AdaBelief with
//! adaptive gradient clipping, as CLIP-Italian was trained.
//!
//! Both are checked against PyTorch and optax (`tests/fixtures/optimizer/make.py`).

use std::collections::HashMap;

use anyhow::{Context, Result, ensure};
use candle_core::backprop::GradStore;
use candle_core::{Device, Tensor, Var};

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

/// Rule and state.
pub struct Descent {
    rule: Rule,
    /// Largest norm of a unit's gradient relative to the unit's own (Brock et al., ICML 2021).
    clip: Option<f32>,
    slots: Vec<Slot>,
    step: i32,
}

struct Slot {
    name: &'static str,
    var: Var,
    weights: Vec<f32>,
    first: Vec<f32>,
    second: Vec<f32>,
    /// Values of one unit: a row of a matrix, all of a vector.
    unit: usize,
}

impl Descent {
    /// Takes over named variables. `clip` is the factor of adaptive gradient clipping, 0.01 in
    /// CLIP-Italian's recipe.
    ///
    /// # Errors
    /// A variable that is not f32.
    pub fn new(vars: &[(&'static str, Var)], rule: Rule, clip: Option<f32>) -> Result<Self> {
        let slot = |(name, var): &(&'static str, Var)| {
            let weights = var.flatten_all()?.to_vec1::<f32>()?;
            let unit = match var.dims() {
                [_, columns] => *columns,
                _ => weights.len(),
            };
            Ok(Slot {
                name,
                var: var.clone(),
                first: vec![0.0; weights.len()],
                second: vec![0.0; weights.len()],
                weights,
                unit,
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
            let name = slot.name;
            let gradient = gradients
                .get(&slot.var)
                .with_context(|| format!("{name} got no gradient"))?;
            let mut gradient = gradient.flatten_all()?.to_vec1::<f32>()?;
            ensure!(
                gradient.iter().all(|g| g.is_finite()),
                "the gradient of {name} is not finite: lower the learning rate"
            );
            if let Some(clip) = self.clip {
                adaptive_clip(&mut gradient, &slot.weights, slot.unit, clip);
            }
            slot.follow(&gradient, self.rule, self.step, rate);
            let values = Tensor::from_slice(&slot.weights, slot.var.shape(), &Device::Cpu)?;
            slot.var.set(&values)?;
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
            let values = Tensor::from_slice(&slot.weights, slot.var.shape(), &Device::Cpu)?;
            slot.var.set(&values)?;
        }
        Ok(())
    }
}

impl Slot {
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

/// Scales the gradient of every unit so that its norm is at most `clip` times the unit's own, where
/// a unit counts as no shorter than 0.001.
fn adaptive_clip(gradient: &mut [f32], weights: &[f32], unit: usize, clip: f32) {
    let norm = |values: &[f32]| values.iter().map(|v| v * v).sum::<f32>().sqrt();
    let unit = unit.max(1);
    for (gradient, weights) in gradient.chunks_mut(unit).zip(weights.chunks(unit)) {
        let (most, found) = (clip * norm(weights).max(1e-3), norm(gradient));
        if found > most {
            gradient.iter_mut().for_each(|g| *g *= most / found);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde::Deserialize;

    #[derive(Deserialize)]
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
        fn vars(&self) -> [(&'static str, Var); 2] {
            let var = |tensor: candle_core::Result<Tensor>| Var::from_tensor(&tensor.unwrap());
            [
                ("w", var(Tensor::new(self.w.clone(), &Device::Cpu)).unwrap()),
                ("b", var(Tensor::new(self.b.clone(), &Device::Cpu)).unwrap()),
            ]
        }
    }

    fn reference() -> Reference {
        let json = include_str!("../../tests/fixtures/optimizer/steps.json");
        serde_json::from_str(json).unwrap()
    }

    /// The loss whose gradient is `gradient` whatever the variables are.
    fn gradients(vars: &[(&'static str, Var)], gradient: &Values) -> GradStore {
        let product = |var: &Var, (_, g): &(&str, Var)| {
            let product = (var.as_tensor() * g.as_tensor()).unwrap();
            product.sum_all().unwrap()
        };
        let wanted = gradient.vars();
        let loss = product(&vars[0].1, &wanted[0]) + product(&vars[1].1, &wanted[1]);
        loss.unwrap().backward().unwrap()
    }

    fn follows(rule: Rule, clip: Option<f32>, expected: &[Values]) {
        let reference = reference();
        let vars = reference.start.vars();
        let mut descent = Descent::new(&vars, rule, clip).unwrap();
        assert_eq!(expected.len(), reference.gradients.len());
        for (step, (gradient, expected)) in reference.gradients.iter().zip(expected).enumerate() {
            descent.step(&gradients(&vars, gradient), 1e-2).unwrap();
            let w = vars[0].1.to_vec2::<f32>().unwrap().concat();
            let b = vars[1].1.to_vec1::<f32>().unwrap();
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
            vars[0].1.to_vec2::<f32>().unwrap()
        };
        assert_eq!(run(false), run(true));
    }

    #[test]
    fn a_variable_without_a_gradient_is_an_error() {
        let reference = reference();
        let vars = reference.start.vars();
        let mut descent = Descent::new(&vars, Rule::AdaBelief, None).unwrap();
        let loss = vars[0].1.sum_all().unwrap();
        let error = descent.step(&loss.backward().unwrap(), 0.1).unwrap_err();
        assert!(error.to_string().contains('b'), "{error}");
    }
}
