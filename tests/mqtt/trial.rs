//! Bundles that are good files and do not do what this board is for: refused before they are used, or
//! given up while they are.

use image::{Rgb, RgbImage};
use vedetta::event::Info;

use crate::board::Board;
use crate::download::{packed_with, sha256};
use crate::server::Answer;
use crate::tiny_bundle;

const UNSIGNED: &str = "require_signature = false\ntrial_s = 3600";

/// Bundle `nuovo` with another image tower.
fn with_tower(tower: Vec<u8>) -> Vec<u8> {
    let mut files = tiny_bundle::files();
    files.insert("image.onnx".to_owned(), tower);
    packed_with("nuovo", files)
}

/// A picture with something to see in it, since an even one is a camera that is covered.
fn stripes(light: [u8; 3], dark: [u8; 3]) -> RgbImage {
    RgbImage::from_fn(320, 240, |x, _| match (x / 40).is_multiple_of(2) {
        true => Rgb(light),
        false => Rgb(dark),
    })
}

/// Installs it; the message of the refusal. Whatever ran before still does.
fn refused(board: &Board) -> String {
    let (seen, info) = board.info(0, |_| true);
    assert!(info.bundle.starts_with("tiny@"), "{info:?}");
    board.ask_install("a", &sha256(&board.file));
    let outcome = board.outcome("a");
    assert_eq!(outcome["code"], "refused", "{outcome}");
    board.ask("reload", &serde_json::json!({"id": "b"}));
    let (_, info) = board.info(seen - 1, |_| true);
    assert!(info.bundle.starts_with("tiny@"), "{info:?}");
    assert!(!info.update.trial && info.update.failed.is_none());
    outcome["message"].as_str().unwrap().to_owned()
}

#[test]
fn a_bundle_that_is_too_slow_for_the_board_is_refused() {
    let file = with_tower(tiny_bundle::image_graph_that_is_slow());
    let Some(mut board) = Board::serving(file, UNSIGNED, Answer::file) else {
        return;
    };
    board.configure("rate_fps = 20", "rate_fps = 60");
    board.power_on();
    let message = refused(&board);
    assert!(message.contains("too slow for this board"), "{message}");
}

#[test]
fn a_bundle_whose_image_tower_gives_no_numbers_is_refused() {
    let file = with_tower(tiny_bundle::image_graph(&[f32::NAN; 9]));
    let Some(mut board) = Board::serving(file, UNSIGNED, Answer::file) else {
        return;
    };
    board.power_on();
    let message = refused(&board);
    assert!(message.contains("tried and refused"), "{message}");
}

#[test]
fn a_bundle_that_fails_while_it_runs_is_given_up_for_the_one_before() {
    let file = with_tower(tiny_bundle::image_graph_of_bright_pictures());
    let Some(mut board) = Board::serving(file, UNSIGNED, Answer::file) else {
        return;
    };
    board.show(&stripes([220, 180, 180], [180, 150, 150]));
    board.power_on();
    let (seen, _) = board.info(0, |_| true);
    board.ask_install("a", &sha256(&board.file));
    let outcome = board.outcome("a");
    assert_eq!(outcome["ok"], true, "{outcome}");
    let (seen, info) = board.info(seen, |info: &Info| info.bundle.starts_with("nuovo@"));
    assert!(info.update.trial, "{info:?}");
    board.show(&stripes([220, 30, 30], [110, 15, 15]));
    let (_, info) = board.info(seen, |info: &Info| info.bundle.starts_with("tiny@"));
    let failed = info.update.failed.unwrap();
    assert!(failed.bundle.starts_with("nuovo@"), "{failed:?}");
    assert!(failed.reason.contains("could not be scored"), "{failed:?}");
    assert!(!info.update.trial);
}
