//! From one's own photos to a packed bundle that the daemon's tools score with, command by command as
//! `models/README.md` walks it.

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use image::{Rgb, RgbImage};

use crate::calibrate::agree;
use crate::support::tiny_bundle;

/// A shop that calls colours by each other's names, and a colour it has no name for.
const THINGS: [(&str, [u8; 3]); 4] = [
    ("rosso", [20, 60, 220]),
    ("verde", [230, 40, 30]),
    ("blu", [40, 210, 60]),
    ("nessuno", [200, 200, 200]),
];

fn pictures(folder: &Path, things: &[(&str, [u8; 3])], shades: std::ops::Range<u8>) {
    for (name, colour) in things {
        fs::create_dir_all(folder.join(name)).unwrap();
        for shade in shades.clone() {
            let picture = RgbImage::from_fn(48, 40, |x, y| {
                let noise = u8::try_from((x * 7 + y * 5 + u32::from(shade) * 11) % 30).unwrap();
                Rgb(colour.map(|c| c.saturating_sub(noise + shade)))
            });
            let path = folder.join(name).join(format!("{shade}.png"));
            picture.save(path).unwrap();
        }
    }
}

fn output(folder: &Path, program: &str, arguments: &str) -> Output {
    Command::new(program)
        .current_dir(folder)
        .args(arguments.split_whitespace())
        .output()
        .unwrap()
}

fn run(folder: &Path, program: &str, arguments: &str) -> String {
    let output = output(folder, program, arguments);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{arguments}: {errors}");
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn from_own_photos_to_a_packed_bundle_whose_scores_are_those_that_were_evaluated() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    tiny_bundle::write_good(&folder.join("bundle"));
    pictures(&folder.join("foto"), &THINGS[..3], 0..10);
    pictures(&folder.join("fotogrammi"), &THINGS, 10..20);
    let train = |arguments: &str| run(folder, env!("CARGO_BIN_EXE_vedetta-train"), arguments);
    let vedetta = |arguments: &str| run(folder, env!("CARGO_BIN_EXE_vedetta"), arguments);

    let said = train(
        "fit bundle -o negozio --data foto --epochs 30 --views 2 --batch 32 --rate 0.01 --strength 0.01 \
         --cache cache",
    );
    assert!(said.contains("→ 100.0 %"), "{said}");
    assert!(folder.join("negozio-report.html").exists());
    let before = train("evaluate --bundle negozio --frames fotogrammi");
    assert!(before.contains("rosso"), "{before}");
    // Towers without a transformer stay float; those with one are quantized in tests/import.
    let quantize = "quantize negozio -o negozio-int8 --photos foto";
    let refused = output(folder, env!("CARGO_BIN_EXE_vedetta-train"), quantize);
    let why = String::from_utf8_lossy(&refused.stderr);
    assert!(
        !refused.status.success() && why.contains("transformer"),
        "{why}"
    );
    train("calibrate --bundle negozio --frames fotogrammi -o soglie.toml");
    train("keygen -o negozi -W");
    train("pack negozio -o negozio.tar.zst --key negozi.key");
    vedetta("bundle verify negozio.tar.zst --key negozi.pub");

    let evaluated =
        train("evaluate --bundle negozio.tar.zst --frames fotogrammi --calibration soglie.toml");
    let images = THINGS
        .iter()
        .flat_map(|(name, _)| (10..20).map(move |shade| format!("fotogrammi/{name}/{shade}.png")));
    let images = images.collect::<Vec<_>>().join(" ");
    let scored = vedetta(&format!(
        "score --bundle negozio.tar.zst --json --calibration soglie.toml {images}"
    ));
    let mut compared = agree(&evaluated, &scored);
    compared.sort_unstable();
    assert_eq!(compared, ["blu", "rosso", "verde"], "{evaluated}");
}
