//! The demo bundle on the grocery photos.

use std::collections::BTreeMap;
use std::num::NonZeroUsize;
use std::path::Path;

use anyhow::{Context, Result, bail};
use rayon::prelude::*;

use crate::bundle::{Bundle, Limits};
use crate::config::Shape;
use crate::encoder::{self, Embedding};
use crate::matcher;
use crate::photo;
use crate::preprocess::Preprocessor;
use crate::train::demo::progress;
use crate::train::grocery::{FINE, Grocery, Photo};

/// How prompts are made of names.
const PROMPT: &str = "una foto di ";

/// Accuracy of a bundle on labelled photos.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// Top-1 over the 81 fine names, 0–1.
    pub fine: f64,
    /// Top-1 over the 43 coarse names, 0–1.
    pub coarse: f64,
    /// Mean probability of the right coarse name among five coarse names drawn around it.
    pub confidence_of_five: f64,
    /// Photos.
    pub photos: usize,
    /// `right → answered` of the most frequent fine mistakes.
    pub mistakes: Vec<(String, usize)>,
    /// Descriptions whose nearest name, among all of their level, is one of those they describe.
    pub paraphrases: Option<(usize, usize)>,
}

impl Report {
    /// Rows of the manifest's `[evaluation]`.
    pub fn table(&self, set: &str) -> BTreeMap<String, f64> {
        #[expect(clippy::cast_precision_loss, reason = "a few thousand photos")]
        let mut table = BTreeMap::from([
            (format!("{set}_photos"), self.photos as f64),
            (format!("{set}_fine_top1"), round(self.fine)),
            (format!("{set}_coarse_top1"), round(self.coarse)),
            (
                format!("{set}_confidence_of_five"),
                round(self.confidence_of_five),
            ),
        ]);
        if let Some((right, of)) = self.paraphrases {
            #[expect(clippy::cast_precision_loss, reason = "a few dozen")]
            table.insert(
                "paraphrases_heldout_top1".to_owned(),
                round(right as f64 / of as f64),
            );
        }
        table
    }
}

fn round(value: f64) -> f64 {
    (value * 10_000.0).round() / 10_000.0
}

/// Runs the bundle in `folder` over `photos`.
///
/// # Errors
/// A bundle that cannot be used, or a photo that cannot be read.
pub fn evaluate(folder: &Path, grocery: &Grocery, photos: &[Photo]) -> Result<Report> {
    let bundle = Bundle::open(folder, &Limits::default())?;
    let scale = bundle.manifest().scoring.logit_scale;
    let prompt = |name: &String| format!("{PROMPT}{name}");
    let fine: Vec<String> = grocery
        .classes
        .iter()
        .map(|class| prompt(&class.name))
        .collect();
    let coarse: Vec<String> = grocery.coarse_names().iter().map(prompt).collect();
    let (fine, coarse) = (embed(&bundle, &fine)?, embed(&bundle, &coarse)?);
    let embeddings = images(&bundle, photos)?;

    let (mut right_fine, mut right_coarse, mut confidence) = (0usize, 0usize, 0.0f64);
    let mut mistakes: BTreeMap<String, usize> = BTreeMap::new();
    for (image, photo) in embeddings.iter().zip(photos) {
        let answer = nearest(image, &fine);
        right_fine += usize::from(answer == photo.fine);
        if answer != photo.fine {
            let (right, answer) = (
                &grocery.classes[photo.fine].name,
                &grocery.classes[answer].name,
            );
            *mistakes.entry(format!("{right} → {answer}")).or_default() += 1;
        }
        right_coarse += usize::from(nearest(image, &coarse) == photo.coarse);
        let five: Vec<f32> = (0..5)
            .map(|n| image.dot(&coarse[(photo.coarse + n * 8) % coarse.len()]))
            .collect();
        confidence += f64::from(matcher::softmax(&five, scale)[0]);
    }
    let mut mistakes: Vec<_> = mistakes.into_iter().collect();
    mistakes.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
    mistakes.truncate(12);
    #[expect(clippy::cast_precision_loss, reason = "a few thousand photos")]
    let share = |count: f64| count / photos.len().max(1) as f64;
    #[expect(clippy::cast_precision_loss, reason = "a few thousand photos")]
    Ok(Report {
        fine: share(right_fine as f64),
        coarse: share(right_coarse as f64),
        confidence_of_five: share(confidence),
        photos: photos.len(),
        mistakes,
        paraphrases: None,
    })
}

/// One line of a file of descriptions.
struct Description {
    /// Whether it describes fine classes; else coarse ones.
    fine: bool,
    /// Numbers of the classes it describes.
    classes: Vec<usize>,
    text: String,
}

/// Reads descriptions: a heading, then `coarse` or `fine`, the classes (names of coarse ones, numbers
/// of fine ones, commas between several) and the text, with tabs between them.
fn descriptions(file: &Path, coarse: &[String]) -> Result<Vec<Description>> {
    let text = std::fs::read_to_string(file).with_context(|| file.display().to_string())?;
    let described = |line: &str| {
        let fields: Vec<&str> = line.split('\t').collect();
        let [level, targets, phrase] = fields[..] else {
            bail!("three columns expected")
        };
        let fine = match level {
            "fine" => true,
            "coarse" => false,
            _ => bail!("{level:?} is neither `coarse` nor `fine`"),
        };
        let class = |target: &str| {
            let found = if fine {
                target.parse().ok().filter(|id| *id < FINE)
            } else {
                coarse.iter().position(|name| name == target)
            };
            found.with_context(|| format!("no {level} class {target:?}"))
        };
        let targets = targets.split(',').map(str::trim);
        Ok(Description {
            fine,
            classes: targets.map(class).collect::<Result<_>>()?,
            text: phrase.to_owned(),
        })
    };
    let lines = text.lines().enumerate().skip(1);
    lines
        .filter(|(_, line)| !line.trim().is_empty())
        .map(|(number, line)| {
            described(line).with_context(|| format!("{}, line {}", file.display(), number + 1))
        })
        .collect()
}

/// How many of the descriptions in `file` (as `models/data/paraphrases_heldout.tsv`) are nearest to
/// the prompt of one of the classes they describe, among all of that level.
///
/// # Errors
/// A file of another form, or a bundle that cannot be used.
pub fn paraphrases(folder: &Path, grocery: &Grocery, file: &Path) -> Result<(usize, usize)> {
    let bundle = Bundle::open(folder, &Limits::default())?;
    let coarse = grocery.coarse_names();
    let descriptions = descriptions(file, &coarse)?;
    let fine: Vec<String> = grocery
        .classes
        .iter()
        .map(|class| class.name.clone())
        .collect();
    let bank = |names: &[String]| {
        embed(
            &bundle,
            &names
                .iter()
                .map(|name| format!("{PROMPT}{name}"))
                .collect::<Vec<_>>(),
        )
    };
    let (coarse_bank, fine_bank) = (bank(&coarse)?, bank(&fine)?);
    let texts: Vec<String> = descriptions.iter().map(|one| one.text.clone()).collect();
    let mut right = 0;
    for (one, embedding) in descriptions.iter().zip(embed(&bundle, &texts)?) {
        let (names, bank) = if one.fine {
            (&fine, &fine_bank)
        } else {
            (&coarse, &coarse_bank)
        };
        let answer = nearest(&embedding, bank);
        let fits = one.classes.contains(&answer);
        right += usize::from(fits);
        if !fits {
            log::debug!("{:?} → {}", one.text, names[answer]);
        }
    }
    Ok((right, descriptions.len()))
}

fn nearest(query: &Embedding, bank: &[Embedding]) -> usize {
    let order = |a: &usize, b: &usize| query.dot(&bank[*a]).total_cmp(&query.dot(&bank[*b]));
    (0..bank.len()).max_by(order).unwrap_or(0)
}

fn embed(bundle: &Bundle, texts: &[String]) -> Result<Vec<Embedding>> {
    let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
    Ok(encoder::load_text(bundle)?.encode_texts(&texts)?)
}

fn images(bundle: &Bundle, photos: &[Photo]) -> Result<Vec<Embedding>> {
    let preprocessor = Preprocessor::new(&bundle.manifest().image);
    let encoder = encoder::load_image(bundle, NonZeroUsize::MIN)?;
    let bar = progress("photos");
    bar.set_length(photos.len() as u64);
    let embeddings = photos
        .par_chunks(8)
        .map_init(
            || encoder.fork(),
            |encoder, chunk| {
                let inputs = chunk
                    .iter()
                    .map(|photo| {
                        let rgb = photo::read(&photo.path)?;
                        Ok(preprocessor.prepare(&rgb, &Shape::Full)?)
                    })
                    .collect::<Result<Vec<_>>>()?;
                bar.inc(chunk.len() as u64);
                Ok(encoder.encode_images(&inputs)?)
            },
        )
        .collect::<Result<Vec<_>>>()?;
    bar.finish_and_clear();
    Ok(embeddings.into_iter().flatten().collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fine_classes_are_described_by_number_and_coarse_ones_by_name() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("descriptions.tsv");
        let coarse = ["mela".to_owned(), "lime".to_owned(), "limone".to_owned()];
        let read = |rows: &str| {
            std::fs::write(&file, format!("level\ttargets\ttext\n{rows}\n")).unwrap();
            descriptions(&file, &coarse)
        };
        let found = read("fine\t14\tcocomero\n\ncoarse\tlimone, lime\tun agrume").unwrap();
        assert_eq!((found[0].fine, &found[0].classes[..]), (true, &[14][..]));
        assert_eq!((found[1].fine, &found[1].classes[..]), (false, &[2, 1][..]));
        for wrong in [
            "fine\t81\tx",
            "fine\tmela\tx",
            "coarse\t0\tx",
            "x\tmela\tx",
            "mela\tx",
        ] {
            let error = read(wrong).err().map(|error| format!("{error:#}"));
            assert!(error.is_some_and(|e| e.contains("line 2")), "{wrong}");
        }
    }

    #[test]
    fn every_held_out_description_names_classes_that_there_are() {
        let Ok(grocery) = Grocery::open(Path::new("../shared/data/grocery")) else {
            println!("skipped: no ../shared/data/grocery with the classes' names");
            return;
        };
        for file in ["paraphrases_heldout.tsv", "paraphrases.tsv"] {
            let file = Path::new("models/data").join(file);
            assert!(descriptions(&file, &grocery.coarse_names()).unwrap().len() > 40);
        }
    }
}
