//! What a lookout expects of the next frame, so that it is decoded while it is looked at.

use std::sync::Arc;
use std::time::Duration;

use vedetta::bundle::{Bundle, Limits};
use vedetta::calibrate::Applied;
use vedetta::config::{Config, Environment, Shape};
use vedetta::daemon;
use vedetta::decide::{Board, RandomUlids};
use vedetta::decode::Picture;
use vedetta::encoder;
use vedetta::frame::Frame;
use vedetta::lookout::{Lookout, Model};
use vedetta::moment::{Clock, Moment};
use vedetta::preprocess::Preprocessor;

use crate::support::tiny_bundle;

fn lookout(folder: &std::path::Path) -> Lookout<RandomUlids> {
    let files = tiny_bundle::files();
    let manifest = tiny_bundle::manifest(&files);
    tiny_bundle::write(&folder.join("bundle"), &files, &manifest);
    let bundle = Bundle::open(&folder.join("bundle"), &Limits::default()).unwrap();
    let toml = "[mqtt]\nhost = \"127.0.0.1\"\n\
        [[camera]]\nid = \"c\"\nreplay = \"photos\"\ngate = { force_every_s = 3600 }\n\
        [[camera.zone]]\nid = \"a\"\nrectangle = [0.0, 0.0, 0.5, 0.5]\n\
        [[camera.zone]]\nid = \"b\"\nrectangle = [0.5, 0.5, 0.5, 0.5]\n\
        [[label]]\nid = \"rosso\"\nprompts = [\"rosso\"]\n\
        [[label]]\nid = \"verde\"\nprompts = [\"verde\"]\n";
    let config = Config::from_toml(toml, "vedetta.toml", &[], &Environment::bare()).unwrap();
    let calibrated = Applied::of_config(&config, &bundle);
    let cameras = daemon::watch(&config, &bundle, &calibrated, folder, &mut || {}).unwrap();
    let model = Model {
        encoder: encoder::load_image(&bundle, config.model.threads).unwrap(),
        preprocessor: Preprocessor::new(&bundle.manifest().image),
        scoring: bundle.manifest().scoring.clone(),
    };
    let board = Board::new("boot", &bundle.id(), 1, RandomUlids);
    let mut lookout = Lookout::new(model, board, false);
    lookout.configure(cameras, &at(0));
    lookout
}

fn at(seconds: u64) -> Moment {
    Moment {
        uptime: Duration::from_secs(seconds),
        wall: "2026-10-02T09:00:00Z".parse().unwrap(),
        clock: Clock::Synced,
    }
}

fn photo(name: &str) -> Frame {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/photos");
    Frame::mjpeg(0, 0, std::fs::read(format!("{folder}/{name}.jpg")).unwrap())
}

#[test]
fn zones_that_were_scored_are_expected_again_and_unchanged_ones_are_not() {
    let folder = tempfile::tempdir().unwrap();
    let mut lookout = lookout(folder.path());
    assert!(lookout.expected(0).is_none(), "nothing was seen");
    let look = |lookout: &mut Lookout<_>, name, second| {
        let picture = Picture::expecting(photo(name), lookout.expected(0)).unwrap();
        lookout.frame(0, Arc::new(picture), &at(second));
    };
    look(&mut lookout, "arance", 1);
    let expected = lookout.expected(0).expect("two zones were scored");
    assert_eq!(expected.regions.len(), 2);
    assert_eq!(
        Some(expected.size),
        Picture::of(photo("arance")).unwrap().size_in_parts()
    );
    look(&mut lookout, "banane", 2);
    assert!(lookout.expected(0).is_some(), "everything changed");
    assert_eq!(lookout.counts(0).encoded, 2);
    look(&mut lookout, "banane", 3);
    assert!(lookout.expected(0).is_none(), "nothing changed");
    assert_eq!(lookout.counts(0).unchanged, 1);
}

#[test]
fn inputs_are_the_same_whether_they_were_expected_or_not() {
    let folder = tempfile::tempdir().unwrap();
    let files = tiny_bundle::files();
    tiny_bundle::write(folder.path(), &files, &tiny_bundle::manifest(&files));
    let bundle = Bundle::open(folder.path(), &Limits::default()).unwrap();
    let preprocessor = Preprocessor::new(&bundle.manifest().image);
    let shapes = [
        Shape::Full,
        Shape::Polygon(vec![[0.1, 0.1], [0.9, 0.3], [0.4, 0.8]]),
    ];
    for name in ["arance", "banane", "latte", "limoni"] {
        let plain = Picture::of(photo(name)).unwrap();
        let expected = preprocessor.expected(plain.size_in_parts().unwrap(), shapes.iter());
        let ahead = Picture::expecting(photo(name), Some(&expected.unwrap())).unwrap();
        let inputs = |picture| preprocessor.prepare_live(picture, shapes.iter()).unwrap();
        assert!(inputs(&plain) == inputs(&ahead), "{name}");
    }
}
