//! `vedetta-train evaluate` as a user runs it, on the tiny bundle.

use std::path::Path;
use std::process::Command;

use image::{Rgb, RgbImage};
use vedetta::bundle::{Bundle, Limits};

use crate::support::tiny_bundle;

const COLOURS: [(&str, [u8; 3]); 3] = [
    ("rosso", [250, 5, 5]),
    ("verde", [5, 250, 5]),
    ("blu", [5, 5, 250]),
];

/// A bundle, one folder of pictures per colour, and a list of captions.
fn stage() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    tiny_bundle::write_good(&folder.path().join("bundle"));
    let mut captions = "image\tcaption\n".to_owned();
    for (name, rgb) in COLOURS {
        let place = folder.path().join("foto").join(&name[..1]);
        std::fs::create_dir_all(&place).unwrap();
        RgbImage::from_pixel(40, 40, Rgb(rgb))
            .save(place.join("1.png"))
            .unwrap();
        captions += &format!("{}/1.png\t{name}\n", &name[..1]);
    }
    // Half red, half green: no longer the nearest to red alone.
    let mixed = RgbImage::from_fn(40, 40, |x, _| {
        Rgb(if x < 18 { COLOURS[0].1 } else { COLOURS[1].1 })
    });
    mixed.save(folder.path().join("foto/r/2.png")).unwrap();
    let write = |name: &str, text: &str| std::fs::write(folder.path().join(name), text).unwrap();
    write("foto/didascalie.tsv", &captions);
    write("nomi.tsv", "r\trosso\nv\tverde\nb\tblu\n");
    write("templates.txt", "{}\nun {}\n");
    folder
}

fn evaluate(folder: &Path, arguments: &[&str]) -> Result<String, String> {
    let output = Command::new(env!("CARGO_BIN_EXE_vedetta-train"))
        .current_dir(folder)
        .args(["evaluate", "--bundle", "bundle"])
        .args(arguments)
        .output()
        .unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    match output.status.success() {
        true => Ok(text(output.stdout)),
        false => Err(text(output.stderr)),
    }
}

fn row(text: &str, start: &str) -> Vec<String> {
    let line = text.lines().find(|line| line.trim().starts_with(start));
    let line = line.unwrap_or_else(|| panic!("no {start} in {text}"));
    line.split_whitespace().map(str::to_owned).collect()
}

fn evaluation(folder: &Path, key: &str) -> f64 {
    let bundle = Bundle::open(&folder.join("bundle"), &Limits::default()).unwrap();
    bundle.manifest().evaluation[key]
}

#[test]
fn zero_shot_counts_nearest_names_and_sets_the_published_rows_beside_it() {
    let stage = stage();
    std::fs::remove_file(stage.path().join("foto/didascalie.tsv")).unwrap();
    let arguments = [
        "--zero-shot",
        "--names",
        "nomi.tsv",
        "--templates",
        "templates.txt",
        "--images",
        "foto",
        "--write",
        "--per-class",
        "classi.tsv",
    ];
    let said = evaluate(stage.path(), &arguments).unwrap();
    let classes = std::fs::read_to_string(stage.path().join("classi.tsv")).unwrap();
    let rows: Vec<&str> = classes.lines().collect();
    assert_eq!(
        rows,
        [
            "folder\tname\timages\taccuracy@1\taccuracy@5\taccuracy@10\taccuracy@100",
            "b\tblu\t1\t1.0000\t1.0000\t1.0000\t1.0000",
            "r\trosso\t2\t0.5000\t1.0000\t1.0000\t1.0000",
            "v\tverde\t1\t1.0000\t1.0000\t1.0000\t1.0000",
        ]
    );
    // Three of four, and the mixed picture is second.
    let ours = row(&said, "tiny@");
    assert_eq!(ours[1..], ["75.00", "100.00", "100.00", "100.00"], "{said}");
    assert!(row(&said, "CLIP-Italian").contains(&"22.11".to_owned()));
    assert!(said.contains("not comparable unless"), "{said}");
    assert_eq!(evaluation(stage.path(), "foto_top1"), 0.75);
    assert_eq!(
        evaluation(stage.path(), "colours_top1"),
        1.0,
        "what was there stays"
    );
}

#[test]
fn retrieval_looks_every_caption_up_among_all_images() {
    let stage = stage();
    let arguments = [
        "--retrieval",
        "--images",
        "foto",
        "--write",
        "--set",
        "Colori IT",
    ];
    let said = evaluate(stage.path(), &arguments).unwrap();
    assert!(said.contains("3 captions, each among 3 images"), "{said}");
    assert_eq!(row(&said, "tiny@")[1..], ["1.0000"; 6]);
    assert!(row(&said, "mCLIP").contains(&"0.2874".to_owned()));
    assert_eq!(evaluation(stage.path(), "colori_it_mrr10"), 1.0);
}

/// The mixed picture has two captions, each of which another picture fits better.
#[test]
fn a_right_image_in_second_place_counts_half_at_five() {
    let stage = stage();
    let rows = [
        ("r/1", "rosso"),
        ("r/2", "rosso"),
        ("r/2", "verde"),
        ("v/1", "verde"),
        ("b/1", "blu"),
    ];
    let rows = rows.map(|(image, caption)| format!("{image}.png\t{caption}\n"));
    let list = format!("image\tcaption\n{}", rows.concat());
    std::fs::write(stage.path().join("foto/didascalie.tsv"), list).unwrap();
    let said = evaluate(stage.path(), &["--retrieval", "--images", "foto"]).unwrap();
    assert!(said.contains("5 captions, each among 4 images"), "{said}");
    let ours = row(&said, "tiny@");
    let expected = ["0.6000", "0.8000", "0.8000", "0.6000", "1.0000", "1.0000"];
    assert_eq!(ours[1..], expected, "{said}");
}

#[test]
fn what_is_missing_is_said() {
    let stage = stage();
    for (arguments, expected) in [
        (&[][..], "--retrieval"),
        (&["--zero-shot", "--images", "foto"], "--names"),
        (&["--retrieval"], "--images"),
        (&["--calibration", "x.toml"], "--frames"),
        (&["--retrieval", "--images", "foto/r"], "no photo"),
        (
            &["--frames", "foto", "--calibration", "nomi.tsv"],
            "nomi.tsv",
        ),
    ] {
        let error = evaluate(stage.path(), arguments).unwrap_err();
        assert!(error.contains(expected), "{arguments:?}: {error}");
    }
}

#[test]
fn frames_are_drawn_and_measured() {
    let stage = stage();
    std::fs::remove_file(stage.path().join("foto/didascalie.tsv")).unwrap();
    let arguments = [
        "--frames",
        "foto",
        "--names",
        "nomi.tsv",
        "--picture",
        "p.svg",
        "--exclusive",
    ];
    let said = evaluate(stage.path(), &arguments).unwrap();
    assert!(
        said.contains("rosso: not calibrated: 2 frame(s) show it and 2 do not"),
        "{said}"
    );
    let svg = std::fs::read_to_string(stage.path().join("p.svg")).unwrap();
    assert!(
        svg.matches("<path ").count() == 6 && svg.contains(">un rosso<"),
        "{svg}"
    );
}
