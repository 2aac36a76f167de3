//! `vedetta-train calibrate` on real photos and the bundle that ships, and what `vedetta score` and
//! `vedetta-train evaluate` make of it.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

use serde_json::Value;

use crate::support::tiny_bundle;

const ROOT: &str = env!("CARGO_MANIFEST_DIR");

/// Photos of groceries sorted by label: `label/name`, where it is from.
const PHOTOS: [(&str, &str); 14] = [
    ("arancia/1.jpg", "models/photos/05-arancia.jpg"),
    ("arancia/2.jpg", "tests/fixtures/photos/arance.jpg"),
    ("arancia/3.png", "tests/fixtures/photos/arance.png"),
    ("latte/1.jpg", "models/photos/03-latte.jpg"),
    ("latte/2.jpg", "tests/fixtures/photos/latte.jpg"),
    ("latte/3.png", "tests/fixtures/photos/latte.png"),
    ("limone/1.jpg", "models/photos/08-limone.jpg"),
    ("limone/2.jpg", "tests/fixtures/photos/limoni.jpg"),
    ("nessuno/1.jpg", "models/photos/01-banana.jpg"),
    ("nessuno/2.jpg", "tests/fixtures/photos/banane.jpg"),
    ("nessuno/3.jpg", "models/photos/02-carota.jpg"),
    ("nessuno/4.jpg", "models/photos/04-mela.jpg"),
    ("nessuno/5.jpg", "models/photos/06-pomodoro.jpg"),
    ("nessuno/6.jpg", "models/photos/07-ananas.jpg"),
];

fn frames() -> Option<tempfile::TempDir> {
    let folder = tempfile::tempdir().unwrap();
    for (name, from) in PHOTOS {
        let to = folder.path().join("frames").join(name);
        std::fs::create_dir_all(to.parent().unwrap()).unwrap();
        let from = Path::new(ROOT).join(from);
        if std::fs::copy(&from, &to).is_err() {
            println!("SKIPPED: {} is not there", from.display());
            return None;
        }
    }
    Some(folder)
}

fn run(program: &str, folder: &Path, arguments: &[&str]) -> String {
    let bundle = format!("{ROOT}/models/demo");
    let output = Command::new(program)
        .current_dir(folder)
        .arg(arguments[0])
        .args(["--bundle", &bundle])
        .args(&arguments[1..])
        .output()
        .unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{errors}");
    String::from_utf8(output.stdout).unwrap()
}

fn train(folder: &Path, arguments: &[&str]) -> String {
    run(env!("CARGO_BIN_EXE_vedetta-train"), folder, arguments)
}

/// Asserts that what `score --json --calibration` says of frames in `…/<label>/name` is what
/// `evaluate --frames --calibration` counted; returns the labels that have a threshold.
pub fn agree(evaluated: &str, scored: &str) -> Vec<String> {
    let mut counts: BTreeMap<String, (u32, u32, u32)> = BTreeMap::new();
    for line in scored.lines() {
        let line: Value = serde_json::from_str(line).unwrap();
        let shows = line["image"].as_str().unwrap().split('/').nth(1).unwrap();
        for label in line["labels"].as_array().unwrap() {
            let name = label["label"].as_str().unwrap();
            let Some(over) = label["over"].as_bool() else {
                continue;
            };
            let count = counts.entry(name.to_owned()).or_default();
            count.0 += u32::from(shows == name);
            count.1 += u32::from(over && shows == name);
            count.2 += u32::from(over && shows != name);
        }
    }
    for (label, (shown, found, mistaken)) in &counts {
        let row = evaluated
            .lines()
            .find(|line| line.trim().starts_with(label))
            .unwrap();
        let (f, m, s) = (f64::from(*found), f64::from(*mistaken), f64::from(*shown));
        let precision = format!("{:.3}", f / (f + m));
        let recall = format!("{:.3}", f / s);
        let expected = [precision, recall, found.to_string(), mistaken.to_string()];
        let cells: Vec<&str> = row.split_whitespace().collect();
        assert!(
            cells.ends_with(&expected.each_ref().map(String::as_str)),
            "{row}: {expected:?}"
        );
    }
    counts.into_keys().collect()
}

#[test]
fn score_and_evaluate_agree_on_what_calibrate_made() {
    let Some(folder) = frames() else { return };
    let folder = folder.path();
    for few_shot in [&[][..], &["--few-shot"]] {
        let said = train(
            folder,
            &[
                &["calibrate", "--frames", "frames", "--precision", "0.8"],
                few_shot,
            ]
            .concat(),
        );
        assert!(
            said.contains("limone: not calibrated: 2 frame(s)"),
            "{said}"
        );
        let evaluated = train(
            folder,
            &[
                "evaluate",
                "--frames",
                "frames",
                "--calibration",
                "calibration.toml",
            ],
        );

        let images: Vec<String> = PHOTOS
            .iter()
            .map(|(name, _)| format!("frames/{name}"))
            .collect();
        let images: Vec<&str> = images.iter().map(String::as_str).collect();
        let arguments = [
            &["score", "--json", "--calibration", "calibration.toml"],
            &images[..],
        ];
        let scored = run(env!("CARGO_BIN_EXE_vedetta"), folder, &arguments.concat());
        let compared = agree(&evaluated, &scored);
        assert!(compared.contains(&"arancia".to_owned()), "{said}");
    }
}

#[test]
fn what_is_no_calibration_is_not_replaced_and_another_bundle_is_refused() {
    let Some(folder) = frames() else { return };
    let folder = folder.path();
    train(folder, &["calibrate", "--frames", "frames"]);
    tiny_bundle::write_good(&folder.join("tiny"));
    let score = Command::new(env!("CARGO_BIN_EXE_vedetta"))
        .current_dir(folder)
        .args([
            "score",
            "--bundle",
            "tiny",
            "--calibration",
            "calibration.toml",
        ])
        .arg("frames/latte/1.jpg")
        .output()
        .unwrap();
    let errors = String::from_utf8_lossy(&score.stderr);
    assert!(
        !score.status.success() && errors.contains("was made for demo@"),
        "{errors}"
    );
    std::fs::write(folder.join("mine.toml"), "label = 1\n").unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_vedetta-train"))
        .current_dir(folder)
        .args([
            "calibrate",
            "--bundle",
            "tiny",
            "--frames",
            "frames",
            "-o",
            "mine.toml",
        ])
        .output()
        .unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(
        !output.status.success() && errors.contains("is no calibration"),
        "{errors}"
    );
    assert_eq!(
        std::fs::read_to_string(folder.join("mine.toml")).unwrap(),
        "label = 1\n"
    );
}
