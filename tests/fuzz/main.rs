//! Every parser over the committed seeds and a few thousand of their mutations, the same ones at
//! each run: what `run.sh` does for longer and with more cunning, where there is no fuzzer.

#[path = "../support/tiny_bundle.rs"]
#[allow(dead_code, reason = "each test file uses a part")]
mod tiny_bundle;

mod memory;
mod mutate;
mod parsers;
mod seeds;
mod watch;

use std::panic::{AssertUnwindSafe, catch_unwind};

use memory::Meter;
use mutate::Mutations;
use parsers::{Parser, named};

#[global_allocator]
static METER: Meter = Meter;

/// Bytes that one input may take beside itself. The greatest legal picture has 120 MB.
const MOST_BYTES: usize = 512 << 20;

/// How many times more mutations are read, for a longer run.
const MORE_VARIABLE: &str = "VEDETTA_FUZZ_MORE";

/// Reads all seeds and `rounds` mutations.
fn feed(name: &str, rounds: usize) {
    let parser = named(name);
    let seeds = seeds::of(name);
    assert!(!seeds.is_empty(), "tests/fuzz/seeds/{name} is empty");
    let accepted = seeds.iter().filter(|seed| judge(parser, seed)).count();
    assert!(
        accepted > 0,
        "none of the seeds of {name} is good: nothing behind the first check is reached"
    );
    let mut mutations = Mutations::new(&seeds);
    let more = std::env::var(MORE_VARIABLE).map_or(1, |more| more.parse().expect("a number"));
    for _ in 0..rounds * more {
        judge(parser, &mutations.next());
    }
}

/// Whether the parser accepts the input. Fails with the input in a file when it panics, hangs or takes
/// too much memory.
fn judge(parser: Parser, input: &[u8]) -> bool {
    let guard = watch::begin(parser.name, input);
    let (outcome, most) =
        memory::most_during(|| catch_unwind(AssertUnwindSafe(|| (parser.read)(input))));
    drop(guard);
    if outcome.is_err() || most > MOST_BYTES {
        let path = watch::keep(parser.name, input);
        let what = if outcome.is_err() {
            "panicked".to_owned()
        } else {
            format!("took {most} bytes")
        };
        panic!("{} {what}; the input is in {}", parser.name, path.display());
    }
    outcome.unwrap_or(false)
}

macro_rules! parsers_survive {
    ($($test:ident: $parser:literal, $rounds:literal;)*) => {$(
        #[test]
        fn $test() {
            feed($parser, $rounds);
        }
    )*};
}

parsers_survive! {
    any_archive_is_read_or_refused: "archive", 3000;
    any_calibration_is_read_or_refused: "calibration", 3000;
    any_configuration_is_read_or_refused: "config", 2000;
    any_announcement_is_compared_or_ignored: "discovery", 3000;
    any_frame_is_decoded_or_refused: "frame", 3000;
    any_board_is_read_whatever_it_says: "heat", 1500;
    any_manifest_is_read_or_refused: "manifest", 3000;
    any_message_is_obeyed_or_refused: "message", 5000;
    any_graph_is_run_or_refused: "onnx", 400;
    any_packed_tower_is_read_or_refused: "packed", 3000;
    any_photo_is_read_or_refused: "photo", 2000;
    any_range_is_read_or_refused: "range", 5000;
    any_signature_is_refused: "signature", 3000;
    any_state_is_read_or_made_anew: "state", 1500;
    any_tokenizer_is_used_or_refused: "tokenizer", 600;
}

#[cfg(feature = "train")]
parsers_survive! {
    any_checkpoint_is_read_or_refused: "checkpoint", 3000;
    any_dataset_is_read_or_refused: "dataset", 2000;
    any_import_is_read_or_refused: "import", 2000;
}

/// A single input, as `VEDETTA_FUZZ_INPUT=parser:file`: to look at what the fuzzer found.
#[test]
fn an_input_from_outside_is_survived() {
    let Ok(given) = std::env::var("VEDETTA_FUZZ_INPUT") else {
        return;
    };
    let (name, path) = given
        .split_once(':')
        .expect("VEDETTA_FUZZ_INPUT=parser:file");
    judge(named(name), &std::fs::read(path).expect("the input"));
}

#[test]
fn every_parser_has_its_test_and_its_fuzz_target() {
    let source = include_str!("main.rs");
    for parser in parsers::PARSERS {
        assert!(
            source.contains(&format!(": {:?}, ", parser.name)),
            "{} is not tested",
            parser.name
        );
        let manifest = include_str!("Cargo.toml");
        let bins = manifest
            .matches(&format!("name = {:?}\n", parser.name))
            .count();
        assert_eq!(bins, 1, "{} has {bins} targets in Cargo.toml", parser.name);
    }
}

/// The judge itself: each way to fail is seen.
#[test]
fn a_parser_that_panics_or_takes_too_much_is_found_out() {
    fn panics(input: &[u8]) -> bool {
        assert_ne!(input, b"x");
        true
    }
    fn takes(input: &[u8]) -> bool {
        std::hint::black_box(vec![0_u8; input.len() << 29]).is_empty()
    }
    for (read, input, word) in [
        (panics as fn(&[u8]) -> bool, "x", "panicked"),
        (takes, "xx", "took"),
    ] {
        let parser = Parser { name: "bad", read };
        let found = catch_unwind(|| judge(parser, input.as_bytes())).unwrap_err();
        let text = found.downcast_ref::<String>().expect("a message");
        assert!(text.contains(word), "{text}");
    }
    let fine = Parser {
        name: "fine",
        read: panics,
    };
    assert!(judge(fine, b"y"));
}
