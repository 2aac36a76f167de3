//! Bundles as hostile input: every field wrong, files swapped or cut, archives that lie.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

use ruzstd::encoding::{CompressionLevel, compress_to_vec};
use tar::{Builder, EntryType, Header};
use vedetta::bundle::store::{Store, StoreError};
use vedetta::bundle::{Bundle, Limits, MANIFEST, pack};

use crate::support::tiny_bundle;

fn tiny() -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("tiny");
    tiny_bundle::write_good(&path);
    (folder, path)
}

fn refusal(path: &Path) -> String {
    match Bundle::open(path, &Limits::default()) {
        Ok(_) => panic!("the bundle was accepted"),
        Err(error) => error.to_string(),
    }
}

/// The tiny bundle's manifest with `from` replaced by `to`, opened.
fn edited(from: &str, to: &str) -> String {
    let (_folder, path) = tiny();
    let manifest = fs::read_to_string(path.join(MANIFEST)).unwrap();
    assert!(manifest.contains(from), "{from:?} is not in:\n{manifest}");
    fs::write(path.join(MANIFEST), manifest.replacen(from, to, 1)).unwrap();
    refusal(&path)
}

#[test]
fn a_good_bundle_opens_and_names_itself() {
    let (_folder, path) = tiny();
    let bundle = Bundle::open(&path, &Limits::default()).unwrap();
    let id = bundle.id();
    assert!(id.starts_with("tiny@sha256:"), "{id}");
    assert_eq!(id.len(), "tiny@sha256:".len() + 12);
    assert!(bundle.sha256().starts_with(id.rsplit(':').next().unwrap()));
    assert_eq!(
        bundle.read("LICENSES.md", 1000).unwrap(),
        b"Made for tests, CC0.\n"
    );
}

#[test]
fn every_field_is_checked_and_the_message_names_it() {
    let cases = [
        ("schema = 1", "schema = 2", "schema is 2; legal: 1"),
        (
            "name = \"tiny\"",
            "name = \"../tiny\"",
            "name is ../tiny; legal: 1 to 64 of a-z",
        ),
        ("name = \"tiny\"", "name = \"\"", "name is empty"),
        (
            "\nversion = \"1.0.0\"",
            "\nversion = \"new\"",
            "version is new",
        ),
        (
            "minimum_vedetta = \"0.1.0\"",
            "minimum_vedetta = \"1\"",
            "minimum_vedetta is 1",
        ),
        (
            "minimum_vedetta = \"0.1.0\"",
            "minimum_vedetta = \"99.0.0\"",
            "needs vedetta 99.0.0",
        ),
        ("language = \"it\"", "language = \"IT?\"", "language is IT?"),
        (
            "embedding_dim = 4",
            "embedding_dim = 0",
            "embedding_dim is 0; legal: 2 to 8192",
        ),
        ("embedding_dim = 4", "embedding_dim = -4", "embedding_dim"),
        (
            "size_px = 32",
            "size_px = 4096",
            "image.size_px is 4096; legal: 32 to 1024",
        ),
        ("resize = \"bicubic\"", "resize = \"nearest\"", "nearest"),
        ("crop = \"center\"", "crop = \"left\"", "left"),
        ("channels = \"rgb\"", "channels = \"rgba\"", "rgba"),
        ("mean = [0.5, ", "mean = [nan, ", "image.mean is NaN"),
        ("mean = [0.5, ", "mean = [127.0, ", "image.mean is 127"),
        ("std = [0.5, ", "std = [0.0, ", "image.std is 0"),
        ("std = [0.5, ", "std = [-1.0, ", "image.std is -1"),
        (
            "max_tokens = 8",
            "max_tokens = 3",
            "text.max_tokens is 3; legal: 4 to 512",
        ),
        ("padding = \"max-length\"", "padding = \"left\"", "left"),
        ("pad_id = 0", "pad_id = 99999999", "text.pad_id is 99999999"),
        (
            "logit_scale = 10.0",
            "logit_scale = 0.5",
            "scoring.logit_scale is 0.5",
        ),
        (
            "logit_scale = 10.0",
            "logit_scale = inf",
            "scoring.logit_scale is inf",
        ),
        (
            "image = \"f16\"",
            "image = \"bf16\"",
            "precision.image is bf16; legal: f32, f16 or int8",
        ),
        ("text = \"f16\"", "text = \"\"", "precision.text is empty"),
        (
            "colours_top1 = 1.0",
            "colours_top1 = nan",
            "evaluation.colours_top1 is NaN",
        ),
        ("command = \"tests", "other = \"tests", "other"),
        (
            "sources = [\"nothing, CC0\"]",
            "sources = []",
            "provenance.sources is empty",
        ),
        ("schema = 1", "schema = 1\nextra = 1", "extra"),
        ("schema = 1", "schema = [[[[", "TOML parse error"),
        (
            "[files.\"image.onnx\"]",
            "[files.\"../image.onnx\"]",
            "files.\"image.onnx\" is missing",
        ),
        (
            "[files.\"image.onnx\"]",
            "[files.\"more\"]\nsha256 = \"\"\nbytes = 1\n[files.\"image.onnx\"]",
            "files is more; legal: only",
        ),
    ];
    for (from, to, expected) in cases {
        let message = edited(from, to);
        assert!(message.contains(expected), "{to:?} gave: {message}");
        assert!(message.contains("tiny"), "{message}");
    }
}

#[test]
fn wrong_hashes_and_lengths_are_refused_by_name() {
    let (_folder, path) = tiny();
    let text = fs::read_to_string(path.join(MANIFEST)).unwrap();
    let manifest: vedetta::bundle::Manifest = toml::from_str(&text).unwrap();
    for (edit, expected) in [
        ("0".repeat(64), "SHA-256"),
        ("0".repeat(63), "64 lower-case hex digits"),
        ("G".repeat(64), "64 lower-case hex digits"),
    ] {
        let mut wrong = manifest.clone();
        wrong.files.get_mut("text.onnx").unwrap().sha256 = edit;
        fs::write(path.join(MANIFEST), toml::to_string(&wrong).unwrap()).unwrap();
        let message = refusal(&path);
        assert!(
            message.contains(expected) && message.contains("text.onnx"),
            "{message}"
        );
    }
    for (bytes, expected) in [
        (0, "bytes is 0; legal: 1 to"),
        (10_000_000_000, "bytes is 10000000000; legal: 1 to"),
        (i64::MAX as u64, "legal: 1 to"),
        (1_000_000, "truncated"),
        (10, "longer than the 10 bytes listed"),
    ] {
        let mut wrong = manifest.clone();
        wrong.files.get_mut("image.onnx").unwrap().bytes = bytes;
        fs::write(path.join(MANIFEST), toml::to_string(&wrong).unwrap()).unwrap();
        let message = refusal(&path);
        assert!(
            message.contains(expected) && message.contains("image.onnx"),
            "{message}"
        );
    }
}

#[test]
fn the_limits_of_the_caller_hold() {
    let (_folder, path) = tiny();
    let limits = Limits {
        max_total_bytes: 500,
        ..Limits::default()
    };
    let message = Bundle::open(&path, &limits).unwrap_err().to_string();
    assert!(message.contains("at most 500"), "{message}");
}

#[test]
fn missing_and_swapped_files_are_refused() {
    for name in ["image.onnx", "LICENSES.md", MANIFEST] {
        let (_folder, path) = tiny();
        fs::remove_file(path.join(name)).unwrap();
        let message = refusal(&path);
        assert!(
            message.contains(name) && message.contains("is missing"),
            "{message}"
        );
    }
    let (_folder, path) = tiny();
    fs::copy(path.join("image.onnx"), path.join("text.onnx")).unwrap();
    assert!(refusal(&path).contains("text.onnx"));
    let (_folder, path) = tiny();
    fs::write(path.join(MANIFEST), vec![b'#'; 65 * 1024]).unwrap();
    assert!(refusal(&path).contains("longer than 65536 bytes"));
    assert!(refusal(Path::new("/nonexistent")).contains("give a bundle directory"));
}

#[test]
fn a_link_is_not_followed() {
    let (folder, path) = tiny();
    let elsewhere = folder.path().join("elsewhere");
    fs::rename(path.join("text.onnx"), &elsewhere).unwrap();
    std::os::unix::fs::symlink(&elsewhere, path.join("text.onnx")).unwrap();
    assert!(refusal(&path).contains("text.onnx: is not a plain file"));
}

#[test]
fn a_file_that_changes_after_opening_is_noticed_when_it_is_read() {
    let (_folder, path) = tiny();
    let bundle = Bundle::open(&path, &Limits::default()).unwrap();
    let mut bytes = fs::read(path.join("image.onnx")).unwrap();
    bytes[9] ^= 1;
    fs::write(path.join("image.onnx"), bytes).unwrap();
    let message = bundle.read("image.onnx", 1 << 20).unwrap_err().to_string();
    assert!(message.contains("SHA-256"), "{message}");
}

/// Packs `entries` as a `.tar.zst` in a folder.
fn archive(entries: &[(&str, EntryType, &[u8])]) -> (tempfile::TempDir, PathBuf) {
    let mut builder = Builder::new(Vec::new());
    for (name, kind, bytes) in entries {
        let mut header = Header::new_ustar();
        header.as_mut_bytes()[..name.len()].copy_from_slice(name.as_bytes());
        header.set_entry_type(*kind);
        header.set_size(bytes.len() as u64);
        header.set_mode(0o644);
        if *kind == EntryType::Symlink {
            header.set_link_name("/etc/passwd").unwrap();
        }
        header.set_cksum();
        builder.append(&header, *bytes).unwrap();
    }
    write_archive(&builder.into_inner().unwrap())
}

fn write_archive(tar: &[u8]) -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("tiny.tar.zst");
    fs::write(&path, compress_to_vec(tar, CompressionLevel::Fastest)).unwrap();
    (folder, path)
}

/// The good bundle's files, the manifest first.
fn entries() -> Vec<(String, Vec<u8>)> {
    let files = tiny_bundle::files();
    let manifest = toml::to_string(&tiny_bundle::manifest(&files)).unwrap();
    let mut entries = vec![(MANIFEST.to_owned(), manifest.into_bytes())];
    entries.extend(files);
    entries
}

fn archive_of(entries: &[(String, Vec<u8>)]) -> (tempfile::TempDir, PathBuf) {
    let entries: Vec<_> = entries
        .iter()
        .map(|(name, bytes)| (name.as_str(), EntryType::Regular, bytes.as_slice()))
        .collect();
    archive(&entries)
}

#[test]
fn a_packed_bundle_is_the_same_bundle_in_memory_and_unpacked() {
    let (folder, path) = tiny();
    let directory = Bundle::open(&path, &Limits::default()).unwrap();
    let packed = folder.path().join("tiny.tar.zst");
    pack(&directory, fs::File::create(&packed).unwrap()).unwrap();
    let memory = Bundle::open(&packed, &Limits::default()).unwrap();
    let store = Store::open(folder.path());
    let lock = store.lock().unwrap();
    let staged = store.stage(&lock, &packed, &Limits::default()).unwrap();
    for bundle in [&memory, staged.bundle()] {
        assert_eq!(bundle.id(), directory.id());
        for name in directory.manifest().files.keys() {
            let read = |b: &Bundle| b.read(name, 1 << 20).unwrap();
            assert_eq!(read(bundle), read(&directory));
        }
    }
    let mut again = Vec::new();
    pack(&memory, &mut again).unwrap();
    assert_eq!(again, fs::read(&packed).unwrap());
}

#[test]
fn a_folder_is_installed_like_the_archive_that_it_was_packed_into() {
    let (folder, path) = tiny();
    let store = Store::open(folder.path());
    let lock = store.lock().unwrap();
    assert!(matches!(store.lock(), Err(StoreError::Busy(_))));
    let staged = store.stage(&lock, &path, &Limits::default()).unwrap();
    let id = staged.bundle().id();
    let pointer = store.switch(&lock, staged).unwrap();
    assert_eq!(pointer.current.unwrap().bundle_id(), id);
    let installed = Bundle::open(&store.current().unwrap(), &Limits::default()).unwrap();
    assert_eq!(installed.id(), id);
    fs::write(path.join("text.onnx"), "damaged").unwrap();
    let error = store.stage(&lock, &path, &Limits::default()).unwrap_err();
    assert!(error.to_string().contains("text.onnx"), "{error}");
    assert_eq!(
        Bundle::open(&store.current().unwrap(), &Limits::default())
            .unwrap()
            .id(),
        id
    );
}

#[test]
fn archives_that_lie_are_refused_and_leave_nothing_behind() {
    let good = entries();
    let manifest = good[0].1.as_slice();
    type Entries = Vec<(String, Vec<u8>)>;
    let with = |edit: &dyn Fn(&mut Entries)| {
        let mut entries = good.clone();
        edit(&mut entries);
        archive_of(&entries)
    };
    let cases = [
        (with(&|e| e.swap(0, 1)), "the first file is"),
        (
            with(&|e| e[1].0 = "../escape".into()),
            "\"../escape\" is not listed",
        ),
        (
            with(&|e| e[1].0 = "/etc/escape".into()),
            "\"/etc/escape\" is not listed",
        ),
        (with(&|e| e[1].0 = "sub/image.onnx".into()), "is not listed"),
        (
            with(&|e| e.push(("extra".into(), vec![0]))),
            "\"extra\" is not listed",
        ),
        (with(&|e| e.push(e[1].clone())), "there twice"),
        (with(&|e| e.truncate(4)), "is missing (truncated?)"),
        (with(&|e| e[2].1.push(0)), "longer than"),
        (with(&|e| e[2].1.truncate(20)), "truncated"),
        (with(&|e| e[2].1[5] ^= 1), "SHA-256"),
        (
            with(&|e| e[0].1 = vec![b'#'; 70_000]),
            "longer than 65536 bytes",
        ),
        (archive(&[]), "holds no bundle.toml"),
        (
            archive(&[(MANIFEST, EntryType::Symlink, b"")]),
            "not a plain file",
        ),
        (
            archive(&[
                (MANIFEST, EntryType::Regular, manifest),
                ("image.onnx", EntryType::Symlink, b""),
            ]),
            "\"image.onnx\" is not a plain file",
        ),
        (
            archive(&[
                (MANIFEST, EntryType::Regular, manifest),
                ("image.onnx", EntryType::Link, b""),
            ]),
            "not a plain file",
        ),
    ];
    for ((folder, path), expected) in &cases {
        assert!(refusal(path).contains(expected), "{}", refusal(path));
        let store = Store::open(folder.path());
        let lock = store.lock().unwrap();
        let error = store.stage(&lock, path, &Limits::default()).unwrap_err();
        assert!(error.to_string().contains(expected), "{error}");
        let left: Vec<_> = fs::read_dir(store.root())
            .unwrap()
            .map(|entry| entry.unwrap().file_name())
            .collect();
        assert_eq!(left, ["lock"], "{expected}");
        assert!(!folder.path().join("escape").exists());
    }
}

#[test]
fn a_tar_that_claims_ten_gigabytes_is_stopped_at_what_is_listed() {
    let good = entries();
    let mut builder = Builder::new(Vec::new());
    let mut header = Header::new_ustar();
    header.set_path(MANIFEST).unwrap();
    header.set_size(good[0].1.len() as u64);
    header.set_cksum();
    builder.append(&header, &good[0].1[..]).unwrap();
    let mut tar = builder.into_inner().unwrap();
    tar.truncate(tar.len() - 1024);
    header.set_path("image.onnx").unwrap();
    header.set_size(8_000_000_000);
    header.set_cksum();
    tar.extend(header.as_bytes());
    tar.extend(vec![0; 3_000_000]);
    let (_folder, path) = write_archive(&tar);
    assert!(refusal(&path).contains("longer than"), "{}", refusal(&path));
}

#[test]
fn a_frame_that_asks_for_a_huge_window_is_refused_before_decoding() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("tiny.tar.zst");
    let mut file = fs::File::create(&path).unwrap();
    // Magic, no single segment, window descriptor with the largest exponent.
    file.write_all(&[0x28, 0xb5, 0x2f, 0xfd, 0x00, 0xff, 0, 0, 0, 0, 0, 0])
        .unwrap();
    assert!(
        refusal(&path).contains("asks for a window of"),
        "{}",
        refusal(&path)
    );
    fs::write(&path, b"PK\x03\x04 not zstd").unwrap();
    assert!(refusal(&path).contains("is not a zstd file"));
    fs::write(&path, b"").unwrap();
    assert!(refusal(&path).contains("is not a zstd file"));
}

#[test]
fn a_truncated_archive_is_refused_at_every_length() {
    let (folder, path) = archive_of(&entries());
    let bytes = fs::read(&path).unwrap();
    let short = folder.path().join("short.tar.zst");
    for length in (0..bytes.len()).step_by(97) {
        fs::write(&short, &bytes[..length]).unwrap();
        assert!(
            Bundle::open(&short, &Limits::default()).is_err(),
            "{length} bytes"
        );
    }
}
