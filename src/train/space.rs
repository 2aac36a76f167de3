//! The shared space: a small map from the teacher's sentence space into `D` dimensions in which
//! the classes of the photos lie apart and all other Italian keeps its neighbours.
//!
//! `M(x) = unit(A x + C relu(B x + b))`. It is learned together with a head on frozen features
//! (both are pulled to where the other can follow), while the cosines between arbitrary texts are
//! held to the teacher's.

use std::collections::HashMap;
use std::path::Path;

use anyhow::{Context, Result};
use candle_core::{DType, Device, Tensor, Var};
use candle_nn::optim::{AdamW, Optimizer, ParamsAdamW};
use rand::{SeedableRng, rngs::StdRng};

use super::anchors::Anchors;
use super::contrast::{Goals, Shares, Shows, top1};
use super::demo::report_line;
use super::fitting::{draw, head_optimizer, mixed_batch};
use super::head::{Dropout, Head, everyday_names};
use super::optimizer::cosine;
use super::targets::{Bank, EVERYDAY, select, unit_rows};

/// Dimensions of the shared space.
pub const DIM: usize = 256;
/// Dimensions of the teacher's.
pub const TEACHER_DIM: usize = 512;
const HIDDEN: usize = 512;

/// The map `M`.
pub struct Space {
    vars: Vec<(&'static str, Var)>,
}

impl Space {
    /// Starts as the teacher's principal directions, which keep cosines best, and no bend.
    ///
    /// # Errors
    /// candle's.
    pub fn new(teacher: &Tensor) -> Result<Self> {
        let device = Device::Cpu;
        let vars = vec![
            (
                "linear.weight",
                Var::from_tensor(&principal_directions(teacher, DIM)?)?,
            ),
            (
                "hidden.weight",
                Var::randn(0f32, 0.08, (HIDDEN, TEACHER_DIM), &device)?,
            ),
            ("hidden.bias", Var::zeros(HIDDEN, DType::F32, &device)?),
            (
                "output.weight",
                Var::randn(0f32, 0.005, (DIM, HIDDEN), &device)?,
            ),
        ];
        Ok(Self { vars })
    }

    fn var(&self, name: &str) -> &Tensor {
        let found = self.vars.iter().find(|(n, _)| *n == name);
        found.map_or_else(
            || unreachable!("the map has {name}"),
            |(_, v)| v.as_tensor(),
        )
    }

    /// `[n, 512]` → unit rows `[n, D]`.
    ///
    /// # Errors
    /// candle's.
    pub fn map(&self, teacher: &Tensor) -> candle_core::Result<Tensor> {
        let bent = teacher
            .matmul(&self.var("hidden.weight").t()?)?
            .broadcast_add(self.var("hidden.bias"))?
            .relu()?
            .matmul(&self.var("output.weight").t()?)?;
        unit_rows(&(teacher.matmul(&self.var("linear.weight").t()?)? + bent)?)
    }

    /// Reads a saved map.
    ///
    /// # Errors
    /// A file without one.
    pub fn load(path: &Path) -> Result<Self> {
        let mut tensors = candle_core::safetensors::load(path, &Device::Cpu)
            .with_context(|| path.display().to_string())?;
        let vars = [
            "linear.weight",
            "hidden.weight",
            "hidden.bias",
            "output.weight",
        ]
        .into_iter()
        .map(|name| {
            let t = tensors
                .remove(name)
                .with_context(|| format!("no {name} in {}", path.display()))?;
            Ok((name, Var::from_tensor(&t)?))
        })
        .collect::<Result<_>>()?;
        Ok(Self { vars })
    }

    /// Writes the map, replacing the file in one step.
    ///
    /// # Errors
    /// The file system's.
    pub fn save(&self, path: &Path) -> Result<()> {
        let tensors: HashMap<String, Tensor> = self
            .vars
            .iter()
            .map(|(n, v)| ((*n).to_owned(), v.as_tensor().clone()))
            .collect();
        super::optimizer::save(&tensors, path)
    }
}

/// The `dim` leading directions of the centred rows of `x [n, d]`, as rows of unit length
/// (orthogonal iteration).
fn principal_directions(x: &Tensor, dim: usize) -> Result<Tensor> {
    let centred = x.broadcast_sub(&x.mean_keepdim(0)?)?;
    let gram = centred.t()?.contiguous()?.matmul(&centred)?;
    let mut q = orthonormal(&Tensor::randn(0f32, 1f32, (dim, x.dim(1)?), &Device::Cpu)?)?;
    for _ in 0..12 {
        q = orthonormal(&q.matmul(&gram)?)?;
    }
    Ok(q)
}

/// Gram–Schmidt on the rows.
fn orthonormal(rows: &Tensor) -> Result<Tensor> {
    let (n, d) = rows.dims2()?;
    let mut out: Vec<Vec<f64>> = Vec::with_capacity(n);
    for row in rows.to_vec2::<f32>()? {
        let mut v: Vec<f64> = row.into_iter().map(f64::from).collect();
        for u in &out {
            let dot: f64 = v.iter().zip(u).map(|(a, b)| a * b).sum();
            v.iter_mut().zip(u).for_each(|(a, b)| *a -= dot * b);
        }
        let norm = v.iter().map(|a| a * a).sum::<f64>().sqrt().max(1e-12);
        v.iter_mut().for_each(|a| *a /= norm);
        out.push(v);
    }
    Ok(Tensor::from_vec(out.concat(), (n, d), &Device::Cpu)?.to_dtype(DType::F32)?)
}

/// Frozen features of photos to learn the space with.
pub struct Examples {
    /// `[n, 1280]`, several views of each photo.
    pub features: Tensor,
    /// What each row shows.
    pub shows: Vec<Shows>,
}

/// How [`fit`] works.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// Steps of 256 images.
    pub steps: usize,
    /// Weight of holding cosines to the teacher's.
    pub geometry: f64,
    /// Random seed.
    pub seed: u64,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            steps: 900,
            geometry: 30.0,
            seed: 1,
        }
    }
}

/// Learns the map with a head that is only needed meanwhile. `check` are features with classes to
/// report on.
///
/// # Errors
/// candle's.
#[expect(clippy::too_many_arguments, reason = "each is its own thing")]
pub fn fit(
    teacher: &Tensor,
    bank: &Bank,
    head: &Head,
    examples: &Examples,
    anchors: &Anchors,
    check: &Examples,
    settings: Settings,
    progress: &indicatif::ProgressBar,
) -> Result<Space> {
    let mut rng = StdRng::seed_from_u64(settings.seed);
    let space = Space::new(teacher)?;
    let mean = teacher.mean_keepdim(0)?;
    let bend = space.vars.iter().map(|(_, v)| v.clone()).collect();
    let mut map_optimizer = AdamW::new(
        bend,
        ParamsAdamW {
            weight_decay: 0.0,
            ..ParamsAdamW::default()
        },
    )?;
    let mut head_optimizer = head_optimizer(head)?;
    let texts = teacher.dim(0)?;
    progress.set_length(settings.steps as u64);
    for step in 0..settings.steps {
        head_optimizer.set_learning_rate(1e-3 * cosine(step, settings.steps, 50));
        map_optimizer.set_learning_rate(4e-4 * cosine(step, settings.steps, 50));
        let (features, shows) = mixed_batch(examples, anchors, &mut rng)?;
        let candidates = space.map(&select(teacher, &bank.draw(0.4, &mut rng))?)?;
        let names = candidates.narrow(0, candidates.dim(0)? - EVERYDAY, EVERYDAY)?;
        let embeddings = head.forward(
            &features,
            &names,
            Some(Dropout {
                features: 0.2,
                hidden: 0.4,
            }),
        )?;
        let goals = Goals::new(bank, &shows, 0.05)?;
        let contrast = goals.loss(&embeddings, &candidates, &head.scale()?, Shares::default())?;

        let sample = select(teacher, &draw(&mut rng, texts, 384)?)?;
        let theirs = unit_rows(&sample.broadcast_sub(&mean)?)?;
        let theirs = theirs.matmul(&theirs.t()?)?;
        let ours = space.map(&sample)?;
        let ours = ours.matmul(&ours.t()?)?;
        let geometry = (ours - theirs)?.sqr()?.mean_all()?;
        let loss = (&contrast + (&geometry * settings.geometry)?)?;
        let gradients = loss.backward()?;
        head_optimizer.step(&gradients)?;
        map_optimizer.step(&gradients)?;
        progress.inc(1);
        if step % 100 == 99 || step + 1 == settings.steps {
            let all = space.map(teacher)?;
            let (fine, coarse) = report(bank, head, &all, check)?;
            report_line(
                progress,
                &format!(
                    "step {}: loss {:.3}, cosine error {:.3}, fine {fine:.1} %, coarse {coarse:.1} %, scale {:.1}",
                    step + 1,
                    contrast.to_scalar::<f32>()?,
                    geometry.to_scalar::<f32>()?.sqrt(),
                    head.scale()?.to_vec1::<f32>()?[0],
                ),
            );
        }
    }
    Ok(space)
}

/// The map that comes nearest to `embeddings [N, D]`, unit rows, from `teacher [N, 512]`, after so
/// many steps of so many texts.
///
/// # Errors
/// Tables of different length, or candle's.
pub fn resembling(
    teacher: &Tensor,
    embeddings: &Tensor,
    (steps, batch): (usize, usize),
    seed: u64,
    progress: &indicatif::ProgressBar,
) -> Result<Space> {
    let texts = teacher.dim(0)?;
    anyhow::ensure!(
        embeddings.dims2()? == (texts, DIM),
        "tables of different length"
    );
    let mut rng = StdRng::seed_from_u64(seed);
    let space = Space::new(teacher)?;
    let mut optimizer = AdamW::new(
        space.vars.iter().map(|(_, v)| v.clone()).collect(),
        ParamsAdamW {
            weight_decay: 0.0,
            ..ParamsAdamW::default()
        },
    )?;
    progress.set_length(steps as u64);
    for step in 0..steps {
        optimizer.set_learning_rate(3e-3 * cosine(step, steps, 50));
        let rows = draw(&mut rng, texts, batch)?;
        let mapped = space.map(&select(teacher, &rows)?)?;
        let mean = (mapped * select(embeddings, &rows)?)?.sum_all()?;
        #[expect(clippy::cast_precision_loss, reason = "a batch")]
        let loss = (1.0 - (mean / batch as f64)?)?;
        optimizer.step(&loss.backward()?)?;
        progress.inc(1);
        if step % 200 == 199 {
            let near = 1.0 - loss.to_scalar::<f32>()?;
            report_line(progress, &format!("step {}: cosine {near:.3}", step + 1));
        }
    }
    Ok(space)
}

/// Fine and coarse accuracy in percent of a head on features, with `texts [N, D]`.
///
/// # Errors
/// candle's.
pub fn report(bank: &Bank, head: &Head, texts: &Tensor, check: &Examples) -> Result<(f64, f64)> {
    let names = everyday_names(bank, texts)?;
    let embeddings = head.forward(&check.features, &names, None)?;
    let classes = |fine: bool| -> Vec<usize> {
        check
            .shows
            .iter()
            .map(|s| match *s {
                Shows::Grocery { fine: f, coarse: c } => {
                    if fine {
                        f
                    } else {
                        c
                    }
                }
                Shows::Everyday(id) => id,
            })
            .collect()
    };
    Ok((
        top1(
            &embeddings,
            &select(texts, bank.fine_prompts())?,
            &classes(true),
        )?,
        top1(
            &embeddings,
            &select(texts, bank.coarse_prompts())?,
            &classes(false),
        )?,
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_map_that_resembles_embeddings_finds_a_rotation() {
        let teacher = Tensor::randn(0f32, 1f32, (600, TEACHER_DIM), &Device::Cpu).expect("tensor");
        let teacher = unit_rows(&teacher).expect("rows");
        let turned = Tensor::randn(0f32, 1f32, (TEACHER_DIM, DIM), &Device::Cpu).expect("tensor");
        let wanted = unit_rows(&teacher.matmul(&turned).expect("product")).expect("rows");
        let bar = indicatif::ProgressBar::hidden();
        let space = resembling(&teacher, &wanted, (150, 256), 1, &bar).expect("a map");
        let found = space.map(&teacher).expect("rows");
        let cosines = (found * wanted).and_then(|t| t.sum_all()).expect("cosines");
        let mean = cosines.to_scalar::<f32>().expect("scalar") / 600.0;
        assert!(mean > 0.8, "mean cosine {mean}");
    }

    #[test]
    fn the_map_starts_by_keeping_the_cosines_of_centred_texts() {
        // Rows in a 40-dimensional subspace: 256 principal directions keep everything.
        let basis = Tensor::randn(0f32, 1f32, (40, TEACHER_DIM), &Device::Cpu).expect("tensor");
        let codes = Tensor::randn(0f32, 1f32, (300, 40), &Device::Cpu).expect("tensor");
        let rows = codes.matmul(&basis).expect("product");
        let rows = rows
            .broadcast_sub(&rows.mean_keepdim(0).expect("mean"))
            .expect("centred");
        let q = principal_directions(&rows, 256).expect("directions");
        let kept = rows.matmul(&q.t().expect("transpose")).expect("product");
        let norm = |t: &Tensor| {
            t.sqr()
                .and_then(|t| t.sum_all())
                .and_then(|t| t.to_scalar::<f32>())
                .expect("norm")
        };
        assert!((norm(&kept) / norm(&rows) - 1.0).abs() < 1e-3);
    }
}
