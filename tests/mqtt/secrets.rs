//! Secrets stay where they are: not in the log at its most talkative, not in what is published, not in
//! the process list, not in the state directory.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Stdio};

use image::{Rgb, RgbImage};

use crate::broker::{Broker, free_port, password_file};
use crate::device::{BASE, until};
use crate::listener::Listener;
use crate::tiny_bundle;

const SECRET: &str = "s3gret-o-che-nessuno-legge";

/// Everything in the files under a folder.
fn contents(folder: &Path) -> Vec<u8> {
    let entries = fs::read_dir(folder).unwrap().flatten();
    let of_entry = |path: std::path::PathBuf| match path.is_dir() {
        true => contents(&path),
        false => fs::read(path).unwrap(),
    };
    entries.flat_map(|entry| of_entry(entry.path())).collect()
}

fn holds(bytes: &[u8], text: &str) -> bool {
    bytes
        .windows(text.len())
        .any(|window| window == text.as_bytes())
}

#[test]
fn the_password_is_in_no_log_no_message_no_process_list_and_no_state() {
    let port = free_port();
    let Some(broker) = Broker::with(|own| {
        let passwords = password_file(own, "negozio", SECRET);
        format!(
            "listener {port} 127.0.0.1\nallow_anonymous false\npassword_file {}\n",
            passwords.display()
        )
    }) else {
        return;
    };
    let listener = Listener::on(broker.port);
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    let files = tiny_bundle::files();
    tiny_bundle::write(&path("models/demo"), &files, &tiny_bundle::manifest(&files));
    fs::create_dir(path("photos")).unwrap();
    let code = |n: u32| u8::try_from(n % 200).unwrap();
    let photo = RgbImage::from_fn(320, 240, |x, y| Rgb([code(x), code(y), 40]));
    photo.save(path("photos/a.png")).unwrap();
    fs::write(path("password"), format!("{SECRET}\n")).unwrap();
    fs::set_permissions(path("password"), fs::Permissions::from_mode(0o600)).unwrap();
    let text = format!(
        "device = \"negozio-1\"\nstate_dir = \"state\"\n\
         [mqtt]\nhost = \"127.0.0.1\"\nport = {port}\nusername = \"negozio\"\n\
         password_file = \"password\"\nhealth_every_s = 1\n\
         [[camera]]\nreplay = \"photos\"\nrate_fps = 5\n\
         [[label]]\nnoun = \"rosso\"\n"
    );
    fs::write(path("vedetta.toml"), text).unwrap();
    let mut daemon = Command::new(env!("CARGO_BIN_EXE_vedetta"))
        .args(["run", "--config"])
        .arg(path("vedetta.toml"))
        .env("VEDETTA_MODELS", path("models"))
        .env("RUST_LOG", "trace")
        .stdout(Stdio::null())
        .stderr(fs::File::create(path("log")).unwrap())
        .spawn()
        .unwrap();
    listener.wait_count(&format!("{BASE}/health"), 2);
    let arguments = fs::read(format!("/proc/{}/cmdline", daemon.id())).unwrap();
    // Whoever may read this may read the file with the password as well; it has no need to be there.
    let environment = fs::read(format!("/proc/{}/environ", daemon.id())).unwrap();
    daemon.kill().unwrap();
    daemon.wait().unwrap();
    until("a long log", || {
        fs::metadata(path("log")).unwrap().len() > 1000
    });
    let published: Vec<u8> = listener.everything();
    assert!(holds(&published, "negozio-1"), "something was published");
    for (what, bytes) in [
        ("the log", fs::read(path("log")).unwrap()),
        ("what was published", published),
        ("the process list", arguments),
        ("the environment", environment),
        ("the state directory", contents(&path("state"))),
    ] {
        assert!(!holds(&bytes, SECRET), "{what} has the password");
    }
    for arguments in [
        &["check", "--effective", "--config"][..],
        &["check", "--config"],
    ] {
        let mut command = Command::new(env!("CARGO_BIN_EXE_vedetta"));
        let output = command
            .args(arguments)
            .arg(path("vedetta.toml"))
            .output()
            .unwrap();
        let said = [output.stdout, output.stderr].concat();
        assert!(!holds(&said, SECRET), "{arguments:?}");
    }
}
