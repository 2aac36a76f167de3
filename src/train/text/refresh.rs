//! Goes on training the text tower of a bundle with new texts, so that its image tower still fits.
//!
//! What images are compared with most, the names of the classes and what is said with them, keeps the
//! embeddings it had. All other texts are aimed at the teacher, through a map from its space to the
//! bundle's that is learned from the tower as it is; and descriptions at their classes.

use anyhow::{Context, Result, ensure};
use candle_core::{Device, Tensor, Var};

use super::corpus::{Corpus, SpaceMap, load_tokenizer, read_texts, targets, tokenize};
use super::distil::{Settings, go_on};
use super::restore::from_onnx;
use super::tower::Tower;
use super::{EMBEDDING_DIM, Work, measure, write_atomically};
use crate::bundle::manifest::FILES;
use crate::bundle::{Bundle, Limits};
use crate::train::demo::progress;
use crate::train::space;
use crate::train::targets::read_teacher;
use crate::train::texts::Text;

/// Steps for the map from the teacher's space, and texts in each.
const MAPPING: (usize, usize) = (1200, 1024);

/// Share of the new weights in what is written, the rest being the old ones: in between, a tower
/// knows what it has learnt and forgets less (Wortsman et al., *Robust fine-tuning of zero-shot
/// models*, CVPR 2022).
const NEW_SHARE: f64 = 0.5;

/// What a refresh spends by default: the tower is nearly there.
pub fn settings(seed: u64) -> Settings {
    Settings {
        seed,
        bag_epochs: 0,
        steps: 900,
        rate: 4e-4,
        classes: 0.3,
        ..Settings::default()
    }
}

/// Whether a text's embedding is to stay: images were taught with it.
fn stays(text: &Text) -> bool {
    !matches!(text.kind.as_str(), "corpus" | "caption")
}

/// The work folder gets `bundle`'s text tower as it is, and its embeddings of the texts that images
/// are taught with: what the steps `image`, `head` and `pack` start from.
///
/// # Errors
/// A bundle whose text tower was not made here, no `texts.tsv`, or a file that cannot be written.
pub fn keep(work: &Work, bundle: &Bundle) -> Result<()> {
    let (tower, texts, tokens) = taken(work, bundle)?;
    write_atomically(
        &work.onnx(),
        &bundle.read(FILES[1], Limits::default().max_file_bytes)?,
    )?;
    measure::write_student_texts(work, &texts, &tokens, &tower)
}

/// `bundle`'s tower, the work folder's texts and their tokens; the tokenizer is left in the work
/// folder.
fn taken(work: &Work, bundle: &Bundle) -> Result<(Tower, Vec<Text>, Vec<Vec<u32>>)> {
    let most = Limits::default().max_file_bytes;
    let tower = from_onnx(&bundle.read(FILES[1], most)?)
        .with_context(|| format!("{} of {}", FILES[1], bundle.id()))?;
    let folder = work.tokenizer();
    std::fs::create_dir_all(folder.parent().context("work folder")?)?;
    write_atomically(&work.tokenizer(), &bundle.read(FILES[2], most)?)?;
    let tokenizer = load_tokenizer(work)?;
    ensure!(
        tokenizer.get_vocab_size(true) == tower.shape.vocabulary,
        "tokenizer and text tower of {} do not belong together",
        bundle.id()
    );
    let texts = read_texts(&work.texts())?;
    let plain: Vec<&str> = texts.iter().map(|row| row.text.as_str()).collect();
    let tokens = tokenize(&tokenizer, &plain)?;
    Ok((tower, texts, tokens))
}

/// Step `text` of a bundle that is there: tokenizer and tower are `bundle`'s, texts and teacher's
/// embeddings the work folder's.
///
/// # Errors
/// A bundle whose text tower was not made here, an earlier step that has not run, or a file that
/// cannot be written.
pub fn refresh(work: &Work, bundle: &Bundle, settings: Settings) -> Result<()> {
    let (tower, texts, tokens) = taken(work, bundle)?;
    let sequences: Vec<&[u32]> = tokens.iter().map(Vec::as_slice).collect();
    let own = measure::embed(&tower, &sequences)?;

    let teacher = read_teacher(&work.teacher(), texts.len())?;
    let bar = progress("map from the teacher's space");
    let embeddings = Tensor::from_slice(&own, (texts.len(), EMBEDDING_DIM), &Device::Cpu)?;
    let map = space::resembling(&teacher, &embeddings, MAPPING, settings.seed, &bar)?;
    bar.finish();
    map.save(&work.space())?;
    drop((teacher, embeddings));

    let mut targets = targets(&work.teacher(), &SpaceMap::load(&work.space())?)?;
    let kept = texts.iter().zip(own.chunks_exact(EMBEDDING_DIM));
    for (target, (text, own)) in targets.chunks_exact_mut(EMBEDDING_DIM).zip(kept) {
        if stays(text) {
            target.copy_from_slice(own);
        }
    }
    let corpus = Corpus {
        texts,
        tokens,
        targets,
        vocabulary: tower.shape.vocabulary,
    };
    log::info!("before: {}", measure::against_targets(&corpus, &tower)?);
    let old = copies(&tower.vars)?;
    go_on(&tower, &corpus, settings, |tower, step| {
        log::info!("step {step}: {}", measure::against_targets(&corpus, tower)?);
        Ok(())
    })?;
    mix(&tower.vars, &old, NEW_SHARE)?;
    log::info!("mixed: {}", measure::against_targets(&corpus, &tower)?);
    tower.save(&work.tower())
}

fn copies(vars: &[Var]) -> Result<Vec<Tensor>> {
    vars.iter().map(|var| Ok(var.copy()?)).collect()
}

/// Replaces each variable `w` by `share · w + (1 − share) · old`.
fn mix(vars: &[Var], old: &[Tensor], share: f64) -> Result<()> {
    for (var, old) in vars.iter().zip(old) {
        let mixed = ((var.as_tensor() * share)? + (old * (1.0 - share))?)?;
        var.set(&mixed)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weights_are_mixed_with_those_before() {
        let device = Device::Cpu;
        let var = Var::new(&[1_f32, 5.0], &device).unwrap();
        let old = copies(std::slice::from_ref(&var)).unwrap();
        var.set(&Tensor::new(&[3_f32, 1.0], &device).unwrap())
            .unwrap();
        mix(std::slice::from_ref(&var), &old, 0.25).unwrap();
        assert_eq!(var.to_vec1::<f32>().unwrap(), [1.5, 4.0]);
    }
}
