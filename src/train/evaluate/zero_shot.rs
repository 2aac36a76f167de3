//! Zero-shot classification as CLIP-Italian was measured: Italian names of ImageNet's classes put
//! into Italian templates.
//!
//! A class is the mean of the unit vectors of its name in every template, made a unit vector again
//! (Radford et al., 2021, section 3.1.4); an image belongs to the nearest. Names and templates are
//! the files that CLIP-Italian's repository keeps under `evaluation/`: `imagenet_labels_IT.tsv`
//! (columns `set_id` and `query_short_translated`) and `italian_templates_IT.txt`. Several classes
//! have the same name there; see [`super::metrics`] for how such ties count.

use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::io::Read;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use rayon::prelude::*;

use super::metrics::{Rank, accuracy_at};
use super::write::{key, rounded};
use crate::bundle::Bundle;
use crate::config::Shape;
use crate::encoder;
use crate::label_bank::PromptCache;
use crate::prompts;
use crate::train::data::{Dataset, Item, Names, Skips};
use crate::train::demo::progress;
use crate::train::embed;

/// Places that are counted.
pub const PLACES: [usize; 4] = [1, 5, 10, 100];

/// Accuracy@1, @5, @10, @100 as published, on ImageNet's validation images.
pub const PUBLISHED: [(&str, [f64; 4]); 2] = [
    ("CLIP-Italian", [0.2211, 0.4369, 0.5255, 0.8108]),
    ("mCLIP", [0.2015, 0.3657, 0.4291, 0.6711]),
];

/// Longest list of names or templates, bytes.
const MAX_BYTES: u64 = 4 << 20;
/// Most templates.
const MAX_TEMPLATES: usize = 1000;
/// Columns of CLIP-Italian's list of names.
const COLUMNS: [&str; 2] = ["set_id", "query_short_translated"];

/// Folder and Italian name of a class.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Class {
    /// Folder of its images.
    pub folder: String,
    /// What stands in the templates.
    pub name: String,
}

/// What images are compared with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Question {
    /// Classes, in the order of the list; names may repeat.
    pub classes: Vec<Class>,
    /// Each with one `{}`.
    pub templates: Vec<String>,
}

/// One class's share of the result.
#[derive(Clone, Debug)]
pub struct OfClass {
    /// Position in [`Question::classes`].
    pub class: usize,
    /// Its images.
    pub images: usize,
    /// Accuracy at each of [`PLACES`].
    pub accuracy: [f64; 4],
}

/// What was measured.
#[derive(Clone, Debug)]
pub struct Report {
    /// Images that were classified.
    pub images: usize,
    /// Classes they were told apart from.
    pub classes: usize,
    /// Accuracy at each of [`PLACES`], mean over images.
    pub accuracy: [f64; 4],
    /// Classes that have images.
    pub of_classes: Vec<OfClass>,
    /// What could not be used.
    pub skipped: Skips,
}

impl Report {
    /// Rows of the manifest's `[evaluation]`.
    pub fn table(&self, set: &str) -> BTreeMap<String, f64> {
        let set = key(set);
        #[expect(clippy::cast_precision_loss, reason = "a count of photos")]
        let mut table = BTreeMap::from([
            (format!("{set}_images"), self.images as f64),
            (format!("{set}_classes"), self.classes as f64),
        ]);
        for (n, place) in PLACES.iter().enumerate() {
            table.insert(format!("{set}_top{place}"), rounded(self.accuracy[n]));
        }
        table
    }
}

impl Report {
    /// Every class that has images as a line of a TSV: folder, name, images, accuracy at each of
    /// [`PLACES`].
    pub fn per_class(&self, question: &Question) -> String {
        let mut lines = "folder\tname\timages".to_owned();
        for place in PLACES {
            lines += &format!("\taccuracy@{place}");
        }
        lines.push('\n');
        for of in &self.of_classes {
            let class = &question.classes[of.class];
            lines += &format!("{}\t{}\t{}", class.folder, class.name, of.images);
            for accuracy in of.accuracy {
                lines += &format!("\t{accuracy:.4}");
            }
            lines.push('\n');
        }
        lines
    }
}

impl Question {
    /// Reads both lists. `names` is CLIP-Italian's table, or one of folder and name.
    ///
    /// # Errors
    /// Lists of another form.
    pub fn read(names: &Path, templates: &Path) -> Result<Self> {
        let text = text(names)?;
        let has_columns = text.lines().next().is_some_and(|heading| {
            let columns: Vec<&str> = heading.split('\t').map(str::trim).collect();
            COLUMNS.iter().all(|column| columns.contains(column))
        });
        let classes = if has_columns {
            translated(&text).with_context(|| names.display().to_string())?
        } else {
            let names = Names::read(names)?;
            let class = |folder: &str| {
                Ok(Class {
                    folder: folder.to_owned(),
                    name: names.noun(folder)?,
                })
            };
            names.keys().map(class).collect::<Result<_>>()?
        };
        ensure!(
            classes.len() > 1,
            "{} names one class at most",
            names.display()
        );
        Ok(Self {
            classes,
            templates: self::templates(templates)?,
        })
    }

    /// The prompts of a class; a template that is listed twice counts twice.
    fn prompts(&self, class: &Class) -> Vec<String> {
        let fill = |template: &String| template.replacen("{}", &class.name, 1);
        self.templates.iter().map(fill).collect()
    }
}

/// Classifies the images of `dataset`, folders named as the classes are.
///
/// # Errors
/// No image of any class, or a model that fails.
pub fn evaluate(bundle: &Bundle, question: &Question, dataset: &Dataset) -> Result<Report> {
    let by_folder: HashMap<&str, usize> = question
        .classes
        .iter()
        .enumerate()
        .map(|(n, class)| (class.folder.as_str(), n))
        .collect();
    let mut skipped = dataset.skipped.clone();
    let (mut items, mut right): (Vec<&Item>, Vec<usize>) = Default::default();
    for item in &dataset.items {
        match class_of(&by_folder, &item.name) {
            Some(class) => {
                items.push(item);
                right.push(class);
            }
            None => skipped.add(&item.name, "its folder is not in the list of names"),
        }
    }
    ensure!(
        !items.is_empty(),
        "no image lies in a folder that the list names, such as {:?}",
        question.classes[0].folder
    );
    let bank = bank(bundle, question)?;
    let (embeddings, unread) = embed::photos(bundle, &items, &Shape::Full)?;
    skipped.merge(&unread);
    let ranks: Vec<(usize, Rank)> = embeddings
        .par_iter()
        .zip(&right)
        .filter_map(|(image, right)| {
            let image = image.as_ref()?;
            let scores: Vec<f32> = bank.iter().map(|class| image.dot(class)).collect();
            Some((*right, Rank::of(&scores, *right)))
        })
        .collect();
    let mut of_classes: BTreeMap<usize, Vec<Rank>> = BTreeMap::new();
    for (class, rank) in &ranks {
        of_classes.entry(*class).or_default().push(*rank);
    }
    let all: Vec<Rank> = ranks.iter().map(|(_, rank)| *rank).collect();
    Ok(Report {
        images: all.len(),
        classes: question.classes.len(),
        accuracy: PLACES.map(|k| accuracy_at(&all, k)),
        of_classes: of_classes
            .into_iter()
            .map(|(class, ranks)| OfClass {
                class,
                images: ranks.len(),
                accuracy: PLACES.map(|k| accuracy_at(&ranks, k)),
            })
            .collect(),
        skipped,
    })
}

fn bank(bundle: &Bundle, question: &Question) -> Result<Vec<encoder::Embedding>> {
    let prompts: Vec<Vec<String>> = question
        .classes
        .iter()
        .map(|class| question.prompts(class))
        .collect();
    let sets: Vec<&[String]> = prompts.iter().map(Vec::as_slice).collect();
    let cache = PromptCache::new(None, bundle.sha256(), bundle.manifest().embedding_dim);
    let bar = progress("prompts");
    let embeddings = cache.embed(&sets, || encoder::load_text(bundle), &mut |done, of| {
        bar.set_length(of as u64);
        bar.set_position(done as u64);
    });
    bar.finish_and_clear();
    Ok(embeddings?)
}

/// The class of the longest part of the path that is a class's folder.
fn class_of(by_folder: &HashMap<&str, usize>, name: &str) -> Option<usize> {
    let mut part = name;
    while let Some((folder, _)) = part.rsplit_once('/') {
        if let Some(class) = by_folder.get(folder) {
            return Some(*class);
        }
        part = folder;
    }
    None
}

fn text(path: &Path) -> Result<String> {
    let context = || path.display().to_string();
    let mut text = String::new();
    File::open(path)
        .and_then(|file| file.take(MAX_BYTES + 1).read_to_string(&mut text))
        .with_context(context)?;
    ensure!(
        text.len() as u64 <= MAX_BYTES,
        "{} is longer than {MAX_BYTES} bytes",
        path.display()
    );
    Ok(text.trim_start_matches('\u{feff}').to_owned())
}

/// CLIP-Italian's table.
fn translated(text: &str) -> Result<Vec<Class>> {
    let mut rows = text.lines().map(|row| row.split('\t').map(str::trim));
    let heading: Vec<&str> = rows.next().into_iter().flatten().collect();
    let at = |column: &str| heading.iter().position(|name| *name == column);
    let (Some(folder), Some(name)) = (at(COLUMNS[0]), at(COLUMNS[1])) else {
        anyhow::bail!(
            "the first line has to name {} and {}",
            COLUMNS[0],
            COLUMNS[1]
        );
    };
    let mut classes: Vec<Class> = Vec::new();
    for (n, row) in rows.enumerate() {
        let fields: Vec<&str> = row.collect();
        if fields.iter().all(|field| field.is_empty()) {
            continue;
        }
        let field = |at: usize| {
            let field = fields.get(at).filter(|field| !field.is_empty());
            field.with_context(|| format!("line {}: {} columns expected", n + 2, heading.len()))
        };
        let class = Class {
            folder: (*field(folder)?).to_owned(),
            name: prompts::clean(field(name)?).with_context(|| format!("line {}", n + 2))?,
        };
        ensure!(
            classes.iter().all(|other| other.folder != class.folder),
            "line {}: {} has a name already",
            n + 2,
            class.folder
        );
        classes.push(class);
    }
    Ok(classes)
}

fn templates(path: &Path) -> Result<Vec<String>> {
    let mut templates = Vec::new();
    for (n, line) in text(path)?.lines().enumerate() {
        let line = line.trim();
        if line.is_empty() {
            continue;
        }
        ensure!(
            line.matches("{}").count() == 1,
            "{}, line {}: a template has one {{}} for the name",
            path.display(),
            n + 1
        );
        templates.push(line.to_owned());
    }
    ensure!(
        (1..=MAX_TEMPLATES).contains(&templates.len()),
        "{} has {} templates; legal: 1 to {MAX_TEMPLATES}",
        path.display(),
        templates.len()
    );
    Ok(templates)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(names: &str, templates: &str) -> Result<Question> {
        let folder = tempfile::tempdir().unwrap();
        let (n, t) = (
            folder.path().join("names.tsv"),
            folder.path().join("templates.txt"),
        );
        std::fs::write(&n, names).unwrap();
        std::fs::write(&t, templates).unwrap();
        Question::read(&n, &t)
    }

    const TABLE: &str = "set_id\tfirst_syn\tquery_short_translated\tclass_id\n\
                         n1\tsnail\tuna lumaca\t114\nn2\tslug\tuna lumaca\t115\n";

    #[test]
    fn clip_italians_own_lists_are_read_and_equal_names_stay_two_classes() {
        let question = read(TABLE, "una foto di {}\n{} ricamato\n").unwrap();
        assert_eq!(question.classes.len(), 2);
        assert_eq!(question.classes[1].folder, "n2");
        let prompts = question.prompts(&question.classes[0]);
        assert_eq!(prompts, ["una foto di una lumaca", "una lumaca ricamato"]);
    }

    #[test]
    fn a_list_of_folder_and_name_does_as_well() {
        let question = read("n1\tuna mela\nn2\tuna pera\n", "{}\n").unwrap();
        assert_eq!(question.classes[1].name, "una pera");
    }

    #[test]
    fn lists_of_another_form_are_refused_with_their_line() {
        for (names, templates, expected) in [
            (TABLE, "una foto\n", "line 1: a template"),
            (TABLE, "\n", "0 templates"),
            (TABLE, "{} e {}\n", "line 1: a template"),
            ("set_id\tquery_short_translated\nn1\n", "{}\n", "line 2"),
            (
                "set_id\tquery_short_translated\nn1\ta\nn1\tb\n",
                "{}\n",
                "line 3: n1",
            ),
            (
                "set_id\tquery_short_translated\nn1\ta\n",
                "{}\n",
                "one class",
            ),
        ] {
            let error = format!("{:#}", read(names, templates).unwrap_err());
            assert!(error.contains(expected), "{names:?}: {error}");
        }
    }

    #[test]
    fn the_innermost_folder_that_is_named_counts() {
        let by_folder = HashMap::from([("a", 0), ("a/b", 1)]);
        assert_eq!(class_of(&by_folder, "a/b/c/1.jpg"), Some(1));
        assert_eq!(class_of(&by_folder, "a/1.jpg"), Some(0));
        assert_eq!(class_of(&by_folder, "c/1.jpg"), None);
        assert_eq!(class_of(&by_folder, "1.jpg"), None);
    }
}
