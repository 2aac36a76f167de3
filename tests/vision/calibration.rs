//! A calibration in force in the daemon, and what `vedetta check` says of one.

use std::sync::Arc;
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
        let cameras =
            daemon::watch(&config, &self.bundle, &calibrated, &state, &mut || {}).unwrap();
        let manifest = self.bundle.manifest();
        let model = Model {
            encoder: encoder::load_image(&self.bundle, config.model.threads).unwrap(),
            preprocessor: Preprocessor::new(&manifest.image),
            scoring: manifest.scoring.clone(),
        };
        let board = Board::new("boot", &self.bundle.id(), 1, RandomUlids);
        let mut lookout = Lookout::new(model, board, false);
        lookout.configure(cameras, &at(0));
        let messages =
            (1..6).flat_map(|n| lookout.frame(0, Arc::new(frame().into()), &at(n)).messages);
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
