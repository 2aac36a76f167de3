//! Signed bundles: what `vedetta-train` signs, the daemon and the real `minisign` verify, and the
//! other way round.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use vedetta::bundle::signature::{PublicKey, SignatureError, beside};
use vedetta::bundle::{Bundle, Limits, pack};

use crate::support::tiny_bundle;

/// Whether the tool is there; says so when it is not.
fn minisign_is_there() -> bool {
    let there = Command::new("minisign").arg("-v").output().is_ok();
    if !there {
        println!("SKIPPED: there is no minisign here (apt install minisign)");
    }
    there
}

fn run(command: &mut Command, input: &str) -> Output {
    let mut child = command
        .env_remove("VEDETTA_KEY_PASSWORD")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // Whoever asks for nothing may be gone already.
    let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
    child.wait_with_output().unwrap()
}

fn text(output: &Output) -> String {
    String::from_utf8_lossy(&[&output.stdout[..], &output.stderr].concat()).into_owned()
}

fn minisign(folder: &Path, arguments: &[&str], input: &str) -> Output {
    let mut command = Command::new("minisign");
    run(command.current_dir(folder).args(arguments), input)
}

/// A folder with a packed bundle in it.
fn packed() -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    tiny_bundle::write_good(&folder.path().join("tiny"));
    let bundle = Bundle::open(&folder.path().join("tiny"), &Limits::default()).unwrap();
    let path = folder.path().join("tiny.tar.zst");
    pack(&bundle, fs::File::create(&path).unwrap()).unwrap();
    (folder, path)
}

fn vedetta_verify(path: &Path, key: &str) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_vedetta"));
    let arguments = ["bundle", "verify", path.to_str().unwrap(), "--key", key];
    run(command.args(arguments), "")
}

#[test]
fn what_minisign_signs_is_verified() {
    if !minisign_is_there() {
        return;
    }
    let (folder, path) = packed();
    let made = minisign(
        folder.path(),
        &["-G", "-W", "-p", "a.pub", "-s", "a.key"],
        "",
    );
    assert!(made.status.success(), "{}", text(&made));
    let comment = "stagione 2026";
    let signed = minisign(
        folder.path(),
        &["-S", "-s", "a.key", "-t", comment, "-m", "tiny.tar.zst"],
        "",
    );
    assert!(signed.status.success(), "{}", text(&signed));
    let key_file = folder.path().join("a.pub");
    let key = PublicKey::read(&key_file).unwrap();
    assert_eq!(key.verify(&path).unwrap(), comment);
    let line = key.to_string();
    for given in [line.as_str(), key_file.to_str().unwrap()] {
        let output = vedetta_verify(&path, given);
        assert!(output.status.success(), "{}", text(&output));
        assert!(text(&output).contains("signed: stagione 2026"));
    }
    let output = vedetta_verify(&folder.path().join("tiny"), &line);
    assert!(text(&output).contains("a folder is not signed"));

    let good = fs::read_to_string(beside(&path)).unwrap();
    let refusal = || key.verify(&path).unwrap_err();

    // Every byte of the file counts.
    let bytes = fs::read(&path).unwrap();
    for at in [0, bytes.len() / 2, bytes.len() - 1] {
        let mut changed = bytes.clone();
        changed[at] ^= 1;
        fs::write(&path, changed).unwrap();
        assert!(matches!(refusal(), SignatureError::Wrong { .. }), "{at}");
    }
    fs::write(&path, &bytes[..bytes.len() - 1]).unwrap();
    assert!(matches!(refusal(), SignatureError::Wrong { .. }));
    fs::write(&path, &bytes).unwrap();

    // So does the trusted comment.
    fs::write(beside(&path), good.replace("2026", "2027")).unwrap();
    assert!(matches!(refusal(), SignatureError::Wrong { .. }));

    for garbage in ["", "a", "a\nb\nc\nd\n", &"x".repeat(100_000)] {
        fs::write(beside(&path), garbage).unwrap();
        key.verify(&path).unwrap_err();
    }
    fs::remove_file(beside(&path)).unwrap();
    let message = refusal().to_string();
    assert!(message.contains("signature beside it"), "{message}");

    // The legacy scheme hashes nothing beforehand.
    let arguments = ["-S", "-l", "-s", "a.key", "-m", "tiny.tar.zst"];
    assert!(minisign(folder.path(), &arguments, "").status.success());
    assert!(matches!(refusal(), SignatureError::Legacy(_)));

    let made = minisign(
        folder.path(),
        &["-G", "-W", "-p", "b.pub", "-s", "b.key"],
        "",
    );
    assert!(made.status.success());
    let arguments = ["-S", "-s", "b.key", "-m", "tiny.tar.zst"];
    assert!(minisign(folder.path(), &arguments, "").status.success());
    assert!(matches!(refusal(), SignatureError::OtherKey { .. }));
    let output = vedetta_verify(&path, &line);
    assert!(!output.status.success());
    assert!(text(&output).contains("made with another key"));
}

#[test]
fn a_key_that_is_none_is_refused_by_name() {
    let folder = tempfile::tempdir().unwrap();
    for wrong in ["", "RW", "RWQ=", "nowhere.pub", "\u{1}\u{2}"] {
        let error = PublicKey::given(wrong, folder.path()).unwrap_err();
        assert!(!error.to_string().contains('\u{1}'), "{error}");
    }
    let path = folder.path().join("long.pub");
    fs::write(&path, vec![b'R'; 1 << 20]).unwrap();
    assert!(PublicKey::given("long.pub", folder.path()).is_err());
}

#[cfg(feature = "train")]
mod trainer {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn train(folder: &Path, arguments: &[&str], password: Option<&str>) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_vedetta-train"));
        command.current_dir(folder).args(arguments);
        if let Some(password) = password {
            // `run` takes the variable away.
            let mut with = Command::new("env");
            with.current_dir(folder)
                .arg(format!("VEDETTA_KEY_PASSWORD={password}"))
                .arg(env!("CARGO_BIN_EXE_vedetta-train"))
                .args(arguments);
            command = with;
        }
        run(&mut command, "")
    }

    fn good(output: &Output) {
        assert!(output.status.success(), "{}", text(output));
    }

    #[test]
    fn keys_are_private_and_never_overwritten() {
        let folder = tempfile::tempdir().unwrap();
        let make = || train(folder.path(), &["keygen", "-W", "-o", "negozio"], None);
        let output = make();
        good(&output);
        let key = folder.path().join("negozio.key");
        let mode = fs::metadata(&key).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let public = PublicKey::read(&folder.path().join("negozio.pub")).unwrap();
        assert!(text(&output).contains(&format!("public_key = \"{public}\"")));
        let before = fs::read(&key).unwrap();
        let again = make();
        assert!(!again.status.success() && text(&again).contains("is there already"));
        fs::remove_file(folder.path().join("negozio.pub")).unwrap();
        assert!(!make().status.success());
        assert_eq!(fs::read(&key).unwrap(), before);
    }

    #[test]
    fn packing_is_repeatable_and_what_it_signs_is_verified() {
        let (folder, path) = packed();
        let folder = folder.path();
        good(&train(folder, &["keygen", "-W", "-o", "k"], None));
        let pack = |name: &str, more: &[&str]| {
            let arguments = [&["pack", "tiny", "-o", name], more].concat();
            train(folder, &arguments, None)
        };
        good(&pack("one.tar.zst", &["--key", "k.key"]));
        good(&pack("two.tar.zst", &["--key", "k.key"]));
        let read = |name: &str| fs::read(folder.join(name)).unwrap();
        assert_eq!(read("one.tar.zst"), read("two.tar.zst"));
        assert_eq!(read("one.tar.zst"), fs::read(&path).unwrap());
        let one = folder.join("one.tar.zst");
        let key = PublicKey::read(&folder.join("k.pub")).unwrap();
        let comment = key.verify(&one).unwrap();
        let bundle = Bundle::open(&one, &Limits::default()).unwrap();
        assert!(comment.starts_with("bundle:tiny version:1.0.0 manifest-sha256:"));
        assert!(comment.ends_with(bundle.sha256()));
        let output = vedetta_verify(&one, folder.join("k.pub").to_str().unwrap());
        good(&output);
        assert!(text(&output).contains("signed: bundle:tiny"));
        if minisign_is_there() {
            let arguments = ["-V", "-p", "k.pub", "-m", "one.tar.zst"];
            let output = minisign(folder, &arguments, "");
            good(&output);
            assert!(text(&output).contains("Trusted comment: bundle:tiny"));
            // And its owner can go on with the other tool.
            let arguments = ["-S", "-s", "k.key", "-m", "two.tar.zst"];
            good(&minisign(folder, &arguments, ""));
            key.verify(&folder.join("two.tar.zst")).unwrap();
        }
        let output = pack("one.tar.zst", &[]);
        assert!(text(&output).contains("--force"), "{}", text(&output));
        assert!(beside(&one).exists());
        good(&pack("one.tar.zst", &["--force"]));
        assert!(
            !beside(&one).exists(),
            "a signature that is not of this file"
        );
        let output = pack("one.zip", &[]);
        assert!(text(&output).contains("must end in .tar.zst"));
        fs::write(folder.join("tiny/text.onnx"), "damaged").unwrap();
        assert!(!pack("three.tar.zst", &[]).status.success());
        let left: Vec<_> = fs::read_dir(folder)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .filter(|name| name.contains("three") || name.contains("partial"))
            .collect();
        assert!(left.is_empty(), "{left:?}");
    }

    #[test]
    fn a_key_with_a_password_signs_only_with_it() {
        let (folder, path) = packed();
        let folder = folder.path();
        good(&train(folder, &["keygen", "-o", "k"], Some("cavallo")));
        let pack = |password| {
            let arguments = ["pack", "tiny", "-o", "a.tar.zst", "--key", "k.key"];
            train(folder, &arguments, Some(password))
        };
        let output = pack("mulo");
        assert!(
            text(&output).contains("Wrong password"),
            "{}",
            text(&output)
        );
        assert!(!folder.join("a.tar.zst").exists());
        good(&pack("cavallo"));
        let key = PublicKey::read(&folder.join("k.pub")).unwrap();
        key.verify(&folder.join("a.tar.zst")).unwrap();
        if minisign_is_there() {
            let arguments = ["-S", "-s", "k.key", "-m", "tiny.tar.zst"];
            good(&minisign(folder, &arguments, "cavallo\n"));
            key.verify(&path).unwrap();
        }
    }
}
