//! `vedetta score` as a user runs it, on the tiny bundle.

use std::path::Path;
use std::process::{Command, Output};

use image::{Rgb, RgbImage};
use serde_json::Value;

use crate::support::tiny_bundle;

struct Desk(tempfile::TempDir);

impl Desk {
    /// A folder with a bundle, a red and a green picture, and one that is none.
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        tiny_bundle::write_good(&folder.path().join("bundle"));
        let desk = Self(folder);
        for (name, rgb) in [("rosso.png", [250, 5, 5]), ("verde.png", [5, 250, 5])] {
            let picture = RgbImage::from_pixel(60, 40, Rgb(rgb));
            picture.save(desk.path().join(name)).unwrap();
        }
        std::fs::write(desk.path().join("rotta.jpg"), "not a picture").unwrap();
        desk
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    fn score(&self, arguments: &[&str]) -> Output {
        Command::new(env!("CARGO_BIN_EXE_vedetta"))
            .current_dir(self.path())
            .args(["score", "--bundle", "bundle"])
            .args(arguments)
            .output()
            .unwrap()
    }
}

fn lines(output: &Output) -> Vec<Value> {
    let text = String::from_utf8(output.stdout.clone()).unwrap();
    text.lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

const LABELS: [&str; 6] = ["--label", "verde", "--label", "rosso", "--label", "blu"];

#[test]
fn json_has_one_object_per_image_in_order_best_label_first() {
    let desk = Desk::new();
    let images = ["--json", "verde.png", "rosso.png", "verde.png"];
    let output = desk.score(&[&LABELS[..], &images].concat());
    assert!(output.status.success(), "{output:?}");
    let lines = lines(&output);
    assert_eq!(lines.len(), 3);
    for (line, (image, best)) in lines.iter().zip([
        ("verde.png", "verde"),
        ("rosso.png", "rosso"),
        ("verde.png", "verde"),
    ]) {
        assert_eq!(line["image"], image);
        let labels = line["labels"].as_array().unwrap();
        assert_eq!(labels.len(), 3);
        assert_eq!(labels[0]["label"], best);
        assert!(labels[0]["cosine"].as_f64().unwrap() > 0.9);
        let probabilities: Vec<f64> = labels
            .iter()
            .map(|l| l["probability"].as_f64().unwrap())
            .collect();
        assert!(probabilities.is_sorted_by(|a, b| a >= b));
        assert!((probabilities.iter().sum::<f64>() - 1.0).abs() < 1e-5);
    }
}

#[test]
fn an_unreadable_image_is_an_error_line_and_the_others_are_scored() {
    let desk = Desk::new();
    let images = ["--json", "rotta.jpg", "rosso.png", "niente.jpg"];
    let output = desk.score(&[&LABELS[..], &images].concat());
    assert_eq!(output.status.code(), Some(1));
    let lines = lines(&output);
    assert!(lines[0]["error"].is_string() && lines[0]["image"] == "rotta.jpg");
    assert_eq!(lines[1]["labels"][0]["label"], "rosso");
    assert!(lines[2]["error"].is_string());
    let errors = String::from_utf8(output.stderr).unwrap();
    assert!(
        errors.contains("rotta.jpg: ") && errors.contains("niente.jpg: "),
        "{errors}"
    );
    assert!(!errors.contains("panicked"), "{errors}");
}

#[test]
fn the_table_shows_the_best_label_first() {
    let desk = Desk::new();
    let output = desk.score(&[&LABELS[..], &["rosso.png"]].concat());
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(
        text.find("rosso ").unwrap() < text.find("verde").unwrap(),
        "{text}"
    );
}

#[test]
fn labels_come_from_a_file_one_a_line() {
    let desk = Desk::new();
    std::fs::write(
        desk.path().join("labels.txt"),
        "\u{feff}rosso\r\n\n  verde \n",
    )
    .unwrap();
    let output = desk.score(&["--labels", "labels.txt", "--json", "rosso.png"]);
    let labels = &lines(&output)[0]["labels"];
    assert_eq!(labels[0]["label"], "rosso");
    assert_eq!(labels[1]["label"], "verde");
}

#[test]
fn results_are_drawn_into_a_file_or_a_folder() {
    let desk = Desk::new();
    let one = desk.score(&[&LABELS[..], &["rosso.png", "--annotate", "out.jpg"]].concat());
    assert!(one.status.success(), "{one:?}");
    assert!(vedetta::photo::read(&desk.path().join("out.jpg")).is_ok());
    let images = ["rosso.png", "verde.png", "--annotate", "drawn"];
    let several = desk.score(&[&LABELS[..], &images].concat());
    assert!(several.status.success(), "{several:?}");
    for name in ["drawn/rosso.jpg", "drawn/verde.jpg"] {
        assert!(vedetta::photo::read(&desk.path().join(name)).is_ok());
    }
}

#[test]
fn a_bundle_that_was_tampered_with_is_refused_by_name() {
    let desk = Desk::new();
    std::fs::write(
        desk.path().join("bundle/LICENSES.md"),
        "another text, same file\n",
    )
    .unwrap();
    let output = desk.score(&[&LABELS[..], &["rosso.png"]].concat());
    assert!(!output.status.success());
    let errors = String::from_utf8(output.stderr).unwrap();
    assert!(errors.contains("LICENSES.md"), "{errors}");
}
