//! Files as they are written, and as somebody may have changed them.

use proptest::prelude::*;

use super::check::MAX_NEGATIVES;
use super::*;
use crate::calibrate::{FewShot, Measured, Thresholds};
use crate::config::Probability;
use crate::label_set::LabelSet;

fn example() -> Calibration {
    let label = |id: &str, prompt: &str, group: Option<&str>| Contender {
        id: Id::new(id).unwrap(),
        prompts: vec![prompt.to_owned(), format!("una foto di {prompt}")],
        group: group.map(|g| Id::new(g).unwrap()),
    };
    let unit = |values: &[f32]| Embedding::normalized(values.to_vec()).unwrap();
    let p = |value| Probability::new(value).unwrap();
    Calibration {
        bundle: "tiny@sha256:0123456789ab".to_owned(),
        model_sha256: "ab".repeat(32),
        precision: p(0.95),
        set: LabelSet {
            labels: vec![
                label("mela", "una mela", Some("frutta")),
                label("pera", "una pera", None),
            ],
            negatives: vec!["una foto".to_owned()],
        },
        fits: vec![
            Fit {
                platt: Platt::new(1.5, -0.25),
                thresholds: Some(Thresholds {
                    enter: p(0.6),
                    leave: p(0.4),
                }),
                measured: Some(Measured {
                    frames: 20,
                    shown: 5,
                    found: 4,
                    mistaken: 0,
                }),
            },
            Fit::default(),
        ],
        few_shot: Some(FewShot {
            alpha: 2.0,
            beta: 5.5,
            keys: [unit(&[1.0, 0.5]), unit(&[0.3, -1.0])].into(),
            shows: vec![Some(0), None],
        }),
    }
}

#[test]
fn what_is_written_is_read_again_bit_by_bit() {
    let calibration = example();
    let text = calibration.to_toml();
    assert_eq!(
        Calibration::from_toml(&text).unwrap(),
        calibration,
        "{text}"
    );
    let plain = Calibration {
        few_shot: None,
        ..calibration
    };
    assert_eq!(Calibration::from_toml(&plain.to_toml()).unwrap(), plain);
}

#[test]
fn nonsense_is_refused_with_what_is_wrong() {
    let good = example().to_toml();
    let changes = [
        ("schema = 1", "schema = 2", "schema 2"),
        ("precision = 0.95", "precision = nan", "precision must be"),
        ("a = 1.5", "a = -1.5", "a has to be over 0"),
        ("a = 1.5", "a = nan", "a has to be over 0"),
        ("leave = 0.4", "leave = 0.7", "at most enter"),
        ("enter = 0.6", "enter = 1.6", "enter must be"),
        ("alpha = 2.0", "alpha = inf", "alpha must be"),
        ("beta = 5.5", "beta = -1.0", "beta must be"),
        ("label = \"mela\"", "label = \"kiwi\"", "no label here"),
        ("id = \"pera\"", "id = \"mela\"", "two labels mela"),
        ("id = \"pera\"", "id = \"Pera!\"", "an id must be"),
        ("\"una foto\"", "\"una  foto\"", "needless space"),
        ("\"una foto\"", "\"\"", "no text"),
        ("model_sha256 = \"ab", "model_sha256 = \"AB", "SHA-256"),
        ("schema = 1", "schema = 1\nowner = 3", "unknown field"),
    ];
    for (from, to, expected) in changes {
        let text = good.replacen(from, to, 1);
        assert_ne!(text, good, "{from}");
        let error = Calibration::from_toml(&text).unwrap_err();
        assert!(error.contains(expected), "{to}: {error}");
    }
    let nan: String = [f32::NAN, 1.0]
        .iter()
        .flat_map(|v| v.to_le_bytes())
        .map(|b| format!("{b:02x}"))
        .collect();
    let key = to_hex(&example().few_shot.unwrap().keys[0]);
    for embedding in [nan.as_str(), "", "00", "zz00000000000000", "0000803f"] {
        let text = good.replacen(&key, embedding, 1);
        assert!(Calibration::from_toml(&text).is_err(), "{embedding}");
    }
}

#[test]
fn sizes_are_capped() {
    let mut many = example();
    many.set.negatives = vec!["una foto".to_owned(); MAX_NEGATIVES + 1];
    assert!(
        Calibration::from_toml(&many.to_toml())
            .unwrap_err()
            .contains("negatives")
    );
    let mut many = example();
    let shots = many.few_shot.as_mut().unwrap();
    shots.keys = vec![shots.keys[0].clone(); MAX_FRAMES + 1].into();
    shots.shows = vec![None; MAX_FRAMES + 1];
    assert!(
        Calibration::from_toml(&many.to_toml())
            .unwrap_err()
            .contains("frames")
    );
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("calibration.toml");
    let longest = usize::try_from(MAX_BYTES).unwrap() + 1;
    std::fs::write(&path, " ".repeat(longest)).unwrap();
    let error = Calibration::load(&path).unwrap_err().to_string();
    assert!(error.contains("longer than"), "{error}");
    let error = Calibration::load(&folder.path().join("none"))
        .unwrap_err()
        .to_string();
    assert!(error.contains("vedetta-train calibrate"), "{error}");
}

proptest! {
    #[test]
    fn a_damaged_file_never_panics(at in any::<prop::sample::Index>(), byte: u8, cut: bool) {
        let mut bytes = example().to_toml().into_bytes();
        let at = at.index(bytes.len());
        if cut { bytes.truncate(at) } else { bytes[at] = byte }
        if let Ok(text) = std::str::from_utf8(&bytes) {
            let _ = Calibration::from_toml(text);
        }
    }
}
