//! A calibration on its way: made from frames, applied by `vedetta score`, in force in the daemon.

use std::path::Path;
use std::time::Duration;

use image::{Rgb, RgbImage};
use vedetta::bundle::{Bundle, Limits};
use vedetta::calibrate::{Applied, Calibration, Fit, Platt, Thresholds};
use vedetta::check::{self, Verdict};
use vedetta::config::{Config, Environment, Id, Loaded, Probability, Shape};
use vedetta::daemon::{self, Settings, in_force};
use vedetta::decide::{Board, RandomUlids};
use vedetta::encoder;
use vedetta::event::{Event, EventType};
use vedetta::label_set::LabelSet;
use vedetta::lookout::{Lookout, Model};
use vedetta::matcher;
use vedetta::moment::{Clock, Moment};
use vedetta::preprocess::Preprocessor;
use vedetta::publish::{Change, Outgoing};

use crate::support::tiny_bundle;

fn p(value: f32) -> Probability {
    Probability::new(value).unwrap()
}

/// A bundle that knows colours, a configuration that looks for red, and a red frame.
struct Shop {
    folder: tempfile::TempDir,
    bundle: Bundle,
}

impl Shop {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let files = tiny_bundle::files();
        let mut manifest = tiny_bundle::manifest(&files);
        manifest.scoring.logit_scale = 2.0;
        tiny_bundle::write(&folder.path().join("bundle"), &files, &manifest);
        let bundle = Bundle::open(&folder.path().join("bundle"), &Limits::default()).unwrap();
        std::fs::create_dir(folder.path().join("photos")).unwrap();
        frame().save(folder.path().join("photos/1.png")).unwrap();
        Self { folder, bundle }
    }

    fn toml(&self, more: &str) -> String {
        format!(
            "state_dir = \"state\"\n[model]\nbundle = \"bundle\"\ncalibration = \"calibration.toml\"\n\
             [mqtt]\nhost = \"127.0.0.1\"\nport = 1\n\
             [decision]\nenter = 0.7\nleave = 0.5\ndwell_s = 0\nwindow = 1\n\
             [[camera]]\nid = \"c\"\nreplay = \"photos\"\ngate = {{ enabled = false }}\n\
             [[label]]\nid = \"rosso\"\nprompts = [\"rosso\"]\n\
             [[label]]\nid = \"verde\"\nprompts = [\"verde\"]\n{more}"
        )
    }

    fn loaded(&self, more: &str) -> Loaded {
        let name = self.folder.path().join("vedetta.toml");
        let name = name.display().to_string();
        Loaded::parse(&self.toml(more), &name, &[], &Environment::bare()).unwrap()
    }

    fn config(&self) -> Config {
        self.loaded("").config
    }

    /// What the frame scores for red, before calibration.
    fn raw(&self) -> f32 {
        let config = self.config();
        let set = LabelSet::new(&config.labels, &config.negatives).unwrap();
        let bank = set.bank(&self.bundle, None, &mut |_, _| {}).unwrap();
        let manifest = self.bundle.manifest();
        let input = Preprocessor::new(&manifest.image).prepare(&frame(), &Shape::Full);
        let mut encoder = encoder::load_image(&self.bundle, config.model.threads).unwrap();
        let embedding = &encoder.encode_images(&[input.unwrap()]).unwrap()[0];
        matcher::score(embedding, &bank, manifest.scoring.logit_scale)[0].probability
    }

    fn calibrate(&self, platt: Platt, enter: f32) {
        let config = self.config();
        let set = LabelSet::new(&config.labels, &config.negatives).unwrap();
        let leave = p(enter / 2.0);
        let red = Fit {
            platt: Some(platt),
            thresholds: Some(Thresholds {
                enter: p(enter),
                leave,
            }),
            measured: None,
        };
        let calibration = Calibration {
            bundle: self.bundle.id(),
            model_sha256: self.bundle.model_sha256(),
            precision: p(0.95),
            set,
            fits: vec![red, Fit::default()],
            few_shot: None,
        };
        let path = self.folder.path().join("calibration.toml");
        std::fs::write(path, calibration.to_toml()).unwrap();
    }

    /// What the daemon's inference side confirms when it sees the frame for a while.
    fn confirmed(&self, settings: &Settings) -> Vec<Event> {
        let (config, calibrated) = in_force(&self.config(), settings, &self.bundle);
        let state = self.folder.path().join("state");
        let cameras = daemon::watch(&config, &self.bundle, &calibrated, &state).unwrap();
        let manifest = self.bundle.manifest();
        let model = Model {
            encoder: encoder::load_image(&self.bundle, config.model.threads).unwrap(),
            preprocessor: Preprocessor::new(&manifest.image),
            scoring: manifest.scoring.clone(),
        };
        let board = Board::new("boot", &self.bundle.id(), 1, RandomUlids);
        let mut lookout = Lookout::new(model, board, false);
        lookout.configure(cameras, &at(0));
        let messages = (1..6).flat_map(|n| lookout.frame(0, frame(), &at(n)).messages);
        let events = messages.filter_map(|message| match message {
            Outgoing::Event { event, .. } => Some(*event),
            _ => None,
        });
        events
            .filter(|event| event.kind == EventType::Confirmed)
            .collect()
    }
}

fn at(seconds: u64) -> Moment {
    Moment {
        uptime: Duration::from_secs(seconds),
        wall: "2026-10-02T09:00:00Z".parse().unwrap(),
        clock: Clock::Synced,
    }
}

/// Red stripes: a smooth picture would count as a covered lens.
fn frame() -> RgbImage {
    RgbImage::from_fn(320, 240, |x, _| match (x / 40) % 2 {
        0 => Rgb([220, 30, 30]),
        _ => Rgb([110, 15, 15]),
    })
}

#[test]
fn the_calibrated_threshold_decides() {
    let shop = Shop::new();
    let raw = shop.raw();
    assert!(
        (0.01..0.6).contains(&raw),
        "{raw} is under the configured threshold"
    );
    let platt = Platt::new(2.0, 1.0).unwrap();
    let score = platt.apply(raw);
    shop.calibrate(platt, score - 0.01);
    let events = shop.confirmed(&Settings::default());
    assert_eq!(events.len(), 1);
    assert_eq!(events[0].label, "rosso");
    assert!((events[0].probability - score).abs() < 1e-3, "calibrated");
    assert!((events[0].threshold - (score - 0.01)).abs() < 1e-3);
    shop.calibrate(platt, score + 0.01);
    assert_eq!(shop.confirmed(&Settings::default()), []);
}

#[test]
fn a_threshold_set_over_mqtt_wins_over_the_calibration() {
    let shop = Shop::new();
    let platt = Platt::new(2.0, 1.0).unwrap();
    let score = platt.apply(shop.raw());
    shop.calibrate(platt, score + 0.01);
    let mut settings = Settings::default();
    let change = Change::Threshold {
        label: Id::new("rosso").unwrap(),
        value: score - 0.02,
    };
    settings.change(&shop.config(), &change).unwrap();
    assert_eq!(shop.confirmed(&settings).len(), 1);
}

#[test]
fn a_prompt_set_over_mqtt_takes_its_label_out_of_the_calibration() {
    let shop = Shop::new();
    shop.calibrate(Platt::new(2.0, 1.0).unwrap(), 0.3);
    let mut settings = Settings::default();
    let change = Change::Prompt {
        label: Id::new("rosso").unwrap(),
        text: "giallo".to_owned(),
    };
    settings.change(&shop.config(), &change).unwrap();
    let (config, calibrated) = in_force(&shop.config(), &settings, &shop.bundle);
    assert_eq!(calibrated.platt(0), Platt::default());
    assert_eq!(calibrated.refused.len(), 1);
    assert!((config.labels[0].rule.enter.get() - 0.7).abs() < 1e-6);
}

fn findings(shop: &Shop, more: &str) -> Vec<(Verdict, String)> {
    let report = check::everything(&Ok(shop.loaded(more)), "vedetta.toml", &Environment::bare());
    let of = report
        .findings
        .into_iter()
        .filter(|f| f.subject == "calibration");
    of.map(|finding| (finding.verdict, finding.found)).collect()
}

#[test]
fn check_says_what_became_of_the_calibration() {
    let shop = Shop::new();
    let (verdict, found) = findings(&shop, "").remove(0);
    assert!(
        verdict == Verdict::Fail && found.contains("vedetta-train calibrate"),
        "{found}"
    );
    shop.calibrate(Platt::default(), 0.5);
    let found = findings(&shop, "");
    assert!(
        found[0].0 == Verdict::Ok && found[0].1.contains("1 of 2"),
        "{found:?}"
    );
    let found = findings(&shop, "[negatives]\nextra = [\"blu\"]\n");
    assert!(
        found[0].0 == Verdict::Warn && found[0].1.contains("negatives"),
        "{found:?}"
    );
}

#[test]
fn another_evaluation_in_the_manifest_keeps_the_calibration_and_another_model_does_not() {
    let shop = Shop::new();
    shop.calibrate(Platt::default(), 0.5);
    let folder = shop.folder.path().join("bundle");
    let files = tiny_bundle::files();
    let rewritten = |change: &dyn Fn(&mut vedetta::bundle::Manifest)| {
        let mut manifest = shop.bundle.manifest().clone();
        change(&mut manifest);
        tiny_bundle::write(&folder, &files, &manifest);
        let bundle = Bundle::open(&folder, &Limits::default()).unwrap();
        assert_ne!(bundle.sha256(), shop.bundle.sha256());
        Applied::of_config(&shop.config(), &bundle).count()
    };
    let measured = rewritten(&|manifest| {
        manifest.evaluation.insert("more".to_owned(), 0.5);
    });
    assert_eq!(measured, 1);
    assert_eq!(rewritten(&|manifest| manifest.scoring.logit_scale = 9.0), 0);
}

/// The trainer's half, on real photos and the bundle that ships.
#[cfg(feature = "train")]
mod trained {
    use std::collections::BTreeMap;
    use std::process::Command;

    use serde_json::Value;

    use super::*;

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
            assert!(counts.contains_key("arancia"), "{said}");
            for (label, (shown, found, mistaken)) in counts {
                let row = evaluated
                    .lines()
                    .find(|line| line.trim().starts_with(&label))
                    .unwrap();
                let (f, m, s) = (f64::from(found), f64::from(mistaken), f64::from(shown));
                let precision = format!("{:.3}", f / (f + m));
                let recall = format!("{:.3}", f / s);
                let expected = [precision, recall, found.to_string(), mistaken.to_string()];
                let cells: Vec<&str> = row.split_whitespace().collect();
                assert!(
                    cells.ends_with(&expected.each_ref().map(String::as_str)),
                    "{row}: {expected:?}"
                );
            }
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
}
