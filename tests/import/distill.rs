//! Students of every kind, from teacher to a bundle that the daemon runs.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use indicatif::ProgressBar;
use vedetta::bundle::Bundle;
use vedetta::train::descent::Rule;
use vedetta::train::distill::student::Begun;
use vedetta::train::distill::{Options, Origin, Size, Student, distill};
use vedetta::train::fit::distillation::Objective;
use vedetta::train::fit::report;
use vedetta::train::fit::taught::Teaching;
use vedetta::train::fit::tuning::Tuning;
use vedetta::train::fit::{self, Outcome};
use vedetta::train::onnx::Store;
use vedetta::train::quantize;

use crate::refresh::{imported, open, options as fitting, photos};

fn size(text: &str) -> Size {
    text.parse().unwrap()
}

fn options(folder: &Path, student: Student) -> Options {
    Options {
        student,
        name: None,
        fit: fit::Options {
            epochs: Some(4),
            rate: 2e-3,
            rule: Rule::AdamW { decay: 0.0 },
            strength: None,
            force: false,
            tuning: Some(Tuning::full()),
            teaching: Teaching {
                objective: Objective {
                    contrast: 0.0,
                    mse: 1.0,
                    affinity: 1.0,
                },
                ..Teaching::default()
            },
            ..fitting(folder)
        },
    }
}

fn hashes(bundle: &Bundle) -> BTreeMap<String, String> {
    let files = bundle.manifest().files.iter();
    files
        .map(|(name, file)| (name.clone(), file.sha256.clone()))
        .collect()
}

fn closer(outcome: &Outcome) {
    let taught = outcome.distilled_from().unwrap();
    let [before, after] = taught.agreement;
    println!("{before:?} → {after:?}");
    assert!(after.cosine() > before.cosine() + 0.05);
    // Measured twice, the photos in other batches: the same but for rounding.
    let first = outcome.learnt.curve[0].accuracy;
    assert!((first - before.cosine()).abs() < 1e-6, "{first}");
    assert!(outcome.written.is_some());
}

/// The written towers are run by the daemon's engine and compared with what was learnt inside; a
/// difference over 1e-4 is an error.
#[test]
fn new_towers_come_closer_to_their_teacher_and_are_a_bundle_like_any_other() {
    let folder = tempfile::tempdir().unwrap();
    photos(&folder.path().join("photos"));
    let texts = folder.path().join("texts.txt");
    fs::write(
        &texts,
        "un gatto\nuna mela\nil mercato\nla casa\n".repeat(3),
    )
    .unwrap();
    let teacher = imported("dual-encoder", Store::Half, folder.path());
    let out = folder.path().join("student");
    let student = Student {
        bundle: None,
        image: Origin::New(size("8x1x2/16")),
        text: Origin::New(size("8x1x2")),
    };
    let mut options = options(folder.path(), student);
    options.fit.teaching.texts = Some(texts);
    let (outcome, notes) = distill(&teacher, &out, &options).unwrap_or_else(|e| panic!("{e:#}"));
    println!("{notes:?}");
    closer(&outcome);
    let html = report::html(&outcome, "x").unwrap();
    assert!(html.contains("cosine to the teacher") && html.contains("right, student"));
    let (old, new) = (open(&teacher), open(&out));
    let manifest = new.manifest();
    assert_eq!(
        (manifest.name.as_str(), manifest.version.as_str()),
        ("imported-student", "0.1.0")
    );
    assert_eq!(manifest.precision, old.manifest().precision);
    assert!(manifest.provenance.sources[0].contains(old.sha256()));
    assert!(
        manifest
            .evaluation
            .contains_key("distill_to_teacher_photos")
    );
    let bytes = |bundle: &Bundle| bundle.manifest().files["text.onnx"].bytes;
    assert!(bytes(&new) < bytes(&old));
    let left = fs::read_dir(folder.path().join("cache")).unwrap();
    for entry in left {
        let name = entry.unwrap().file_name().into_string().unwrap();
        assert!(name.starts_with("embeddings-"), "{name} is left over");
    }

    // The same command gives the same files.
    let again = folder.path().join("again");
    distill(&teacher, &again, &options).unwrap();
    assert_eq!(hashes(&open(&again)), hashes(&new));

    let options = quantize::Options {
        photos: folder.path().join("photos"),
        keep_float: 0,
        sensitivity: false,
        zero_shot: None,
        force: true,
        command: "a test".to_owned(),
    };
    let int8 = folder.path().join("int8");
    let report = quantize::quantize(&out, &int8, &options, &ProgressBar::hidden()).unwrap();
    assert!(report.towers.iter().all(|tower| tower.quantized));
}

#[test]
fn one_tower_of_another_bundle_learns_into_the_teachers_space_and_the_other_one_stays() {
    let folder = tempfile::tempdir().unwrap();
    photos(&folder.path().join("photos"));
    let demo = Path::new(env!("CARGO_MANIFEST_DIR")).join("models/demo");
    let other = imported("dual-encoder", Store::Float, folder.path());
    let out = folder.path().join("student");
    let student = Student {
        bundle: Some(other.clone()),
        image: Origin::Bundle,
        text: Origin::Teacher,
    };
    // A batch an epoch: eight photos.
    let mut options = options(folder.path(), student);
    (options.fit.epochs, options.fit.rate) = (Some(60), 1e-2);
    let (outcome, notes) = distill(&demo, &out, &options).unwrap();
    assert!(notes[0].contains("12 → 256"), "{notes:?}");
    closer(&outcome);
    let (teacher, other, new) = (open(&demo), open(&other), open(&out));
    let (old, hashes) = (hashes(&teacher), hashes(&new));
    assert_eq!(hashes["text.onnx"], old["text.onnx"]);
    assert_eq!(hashes["tokenizer.json"], old["tokenizer.json"]);
    let manifest = new.manifest();
    assert_eq!(manifest.image, other.manifest().image);
    assert_eq!(manifest.embedding_dim, 256);
    assert!(
        manifest
            .provenance
            .sources
            .iter()
            .any(|s| s.contains(other.sha256()))
    );
}

#[test]
fn a_new_tower_of_the_teachers_own_size_begins_as_the_teacher() {
    let folder = tempfile::tempdir().unwrap();
    photos(&folder.path().join("photos"));
    let path = imported("dual-encoder", Store::Float, folder.path());
    let teacher = open(&path);
    let student = Student {
        bundle: None,
        image: Origin::New(size("16x2x2/8")),
        text: Origin::New(size("16x2x2")),
    };
    let begun = Begun::new(&teacher, &student, None, 1).unwrap();
    let begins = folder.path().join("begins");
    let notes = begun.write(&begins).unwrap();
    for note in &notes {
        let words: Vec<&str> = note.split([' ', ';']).collect();
        let of = words.iter().position(|word| *word == "of").unwrap();
        assert_eq!(words[of - 1], words[of + 1], "all weights: {note}");
    }
    let (old, new) = (hashes(&teacher), hashes(&open(&begins)));
    assert_eq!(new["image.onnx"], old["image.onnx"]);
    // Nothing is left to learn, and that is said.
    let out = folder.path().join("out");
    let (outcome, _) = distill(&path, &out, &options(folder.path(), student)).unwrap();
    let [before, _] = outcome.distilled_from().unwrap().agreement;
    assert!(before.cosine() > 0.99999, "{before:?}");
    assert!(outcome.written.is_none() && !out.exists());
}

#[test]
fn what_cannot_be_distilled_is_refused_with_what_to_do() {
    let folder = tempfile::tempdir().unwrap();
    photos(&folder.path().join("photos"));
    let teacher = imported("dual-encoder", Store::Float, folder.path());
    let refused = |student: Student, contrast_alone: bool| {
        let mut options = options(folder.path(), student);
        if contrast_alone {
            options.fit.teaching.objective = Objective::default();
        }
        let out = folder.path().join("out");
        let error = distill(&teacher, &out, &options).err().unwrap();
        assert!(!out.exists());
        format!("{error:#}")
    };
    let student = |image, text| Student {
        bundle: None,
        image,
        text,
    };
    let new = Origin::New(size("8x1x2/16"));
    let why = refused(student(Origin::Teacher, Origin::Teacher), false);
    assert!(why.contains("--vit"), "{why}");
    let why = refused(student(new, Origin::Teacher), true);
    assert!(why.contains("--loss mse"), "{why}");
    let why = refused(student(Origin::Teacher, new), false);
    assert!(why.contains("no patches"), "{why}");
    let why = refused(student(Origin::Bundle, Origin::Teacher), false);
    assert!(why.contains("--student"), "{why}");
    let why = refused(
        student(Origin::New(size("8x1x2/64")), Origin::Teacher),
        false,
    );
    assert!(why.contains("64 pixels"), "{why}");
}
