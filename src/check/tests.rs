use std::io::{Read, Write};
use std::net::TcpListener;
use std::thread::JoinHandle;

use super::*;
use crate::config::Environment;

/// A broker for one client (and the TCP attempt before it) that answers CONNECT with `connack`.
/// Gives the CONNECT packet it saw.
fn broker(connack: &'static [u8]) -> (u16, JoinHandle<Vec<u8>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let serve = move || {
        drop(listener.accept().unwrap());
        let (mut client, _) = listener.accept().unwrap();
        let mut packet = vec![0; 512];
        let length = client.read(&mut packet).unwrap();
        packet.truncate(length);
        client.write_all(connack).unwrap();
        // Until the client hangs up.
        let _ = client.read_to_end(&mut Vec::new());
        packet
    };
    (port, std::thread::spawn(serve))
}

fn load(text: &str) -> Result<Loaded, ConfigError> {
    let mut environment = Environment::bare();
    environment.directory = "/nowhere".into();
    Loaded::parse(text, "vedetta.toml", &[], &environment)
}

fn config(mqtt: &str) -> Config {
    let start = "[[camera]]\nreplay = \"/nowhere\"\n[[label]]\nnoun = \"mela\"\n[mqtt]\n";
    load(&format!("{start}host = \"127.0.0.1\"\n{mqtt}"))
        .unwrap()
        .config
}

const V5_ACCEPTED: &[u8] = &[0x20, 3, 0, 0, 0];
const V5_BAD_LOGIN: &[u8] = &[0x20, 3, 0, 0x86, 0];
const V311_ACCEPTED: &[u8] = &[0x20, 2, 0, 0];
const V311_NOT_AUTHORIZED: &[u8] = &[0x20, 2, 0, 5];

fn contains(packet: &[u8], part: &str) -> bool {
    packet
        .windows(part.len())
        .any(|window| window == part.as_bytes())
}

#[test]
fn a_broker_that_takes_us_is_ok_and_the_daemon_keeps_its_client_id() {
    for (version, connack) in [("5", V5_ACCEPTED), ("3.1.1", V311_ACCEPTED)] {
        let (port, served) = broker(connack);
        let mqtt = config(&format!("port = {port}\nversion = \"{version}\"\n")).mqtt;
        let findings = broker::check(&mqtt);
        assert_eq!(findings.len(), 1);
        assert_eq!(findings[0].verdict, Verdict::Ok, "{findings:?}");
        let packet = served.join().unwrap();
        assert!(contains(&packet, "vedetta-vedetta-check"));
        assert!(!contains(&packet, "offline"), "a check has no last will");
    }
}

#[test]
fn a_refused_login_is_named_with_what_to_do() {
    let login = "username = \"anna\"\npassword = \"x\"\n";
    let (port, served) = broker(V5_BAD_LOGIN);
    let mqtt = config(&format!("port = {port}\n{login}")).mqtt;
    let finding = broker::check(&mqtt).remove(0);
    assert!(
        finding.found.ends_with("BadUserNamePassword"),
        "{finding:?}"
    );
    let advice = "check mqtt.username and the password";
    assert_eq!(finding.advice.as_deref(), Some(advice));
    served.join().unwrap();

    let (port, served) = broker(V311_NOT_AUTHORIZED);
    let mqtt = config(&format!("port = {port}\nversion = \"3.1.1\"\n")).mqtt;
    let finding = broker::check(&mqtt).remove(0);
    assert_eq!(finding.verdict, Verdict::Fail);
    let advice = "set mqtt.username and mqtt.password_file";
    assert_eq!(finding.advice.as_deref(), Some(advice));
    served.join().unwrap();
}

#[test]
fn what_is_no_broker_is_said_to_be_none() {
    let (port, served) = broker(b"SSH-2.0-OpenSSH_9.2\r\n");
    let finding = broker::check(&config(&format!("port = {port}\n")).mqtt).remove(0);
    assert_eq!(finding.verdict, Verdict::Fail);
    served.join().unwrap();
    let unused = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = unused.local_addr().unwrap().port();
    drop(unused);
    let finding = broker::check(&config(&format!("port = {port}\n")).mqtt).remove(0);
    assert!(finding.found.contains("refused"), "{finding:?}");
}

#[test]
fn a_replay_folder_has_to_have_pictures() {
    let folder = tempfile::tempdir().unwrap();
    let verdict = || {
        let text = format!(
            "[[camera]]\nreplay = {:?}\n[[label]]\nnoun = \"mela\"\n",
            folder.path().display().to_string()
        );
        camera::check(&load(&text).unwrap().config.cameras[0])[0].verdict
    };
    assert_eq!(verdict(), Verdict::Fail, "an empty folder");
    image::RgbImage::from_pixel(64, 48, image::Rgb([200, 30, 30]))
        .save(folder.path().join("mela.png"))
        .unwrap();
    assert_eq!(verdict(), Verdict::Ok);
    folder.close().unwrap();
}

#[test]
fn a_camera_that_is_not_there_fails_with_what_to_do() {
    let text = "[[camera]]\ndevice = \"/dev/video999\"\n[[label]]\nnoun = \"mela\"\n";
    let finding = camera::check(&load(text).unwrap().config.cameras[0]).remove(0);
    assert_eq!(finding.verdict, Verdict::Fail);
    assert!(finding.advice.is_some());
}

#[test]
fn a_wrong_configuration_gives_78_and_the_machine_is_checked_all_the_same() {
    let loaded = load("[mqtt]\nport = 0\n");
    let report = everything(&loaded, "vedetta.toml", &Environment::bare());
    assert_eq!(report.exit_code(), 78);
    let found = |subject: &str| report.findings.iter().any(|one| one.subject == subject);
    assert!(found("configuration") && found("clock") && found("processor"));
    let ports = report
        .findings
        .iter()
        .filter(|one| one.found.contains("mqtt.port = 0"));
    assert_eq!(ports.count(), 1);
}

#[test]
fn the_exit_code_follows_the_worst_finding() {
    let report = |findings: Vec<Finding>| Report {
        findings,
        unusable: false,
    };
    let warning = Finding::warn("a", "b", "c");
    assert_eq!(
        report(vec![Finding::ok("a", "b"), warning.clone()]).exit_code(),
        0
    );
    assert_eq!(
        report(vec![Finding::fail("a", "b", "c"), warning]).exit_code(),
        1
    );
}

#[test]
fn warnings_of_the_configuration_are_in_the_report() {
    let text = "[[camera]]\nreplay = \"/nowhere\"\n[[label]]\nnoun = \"mela\"\n[mqtt]\n\
                host = \"127.0.0.1\"\nport = 1\nusername = \"anna\"\npassword = \"s3gret-o\"\n";
    let report = everything(&load(text), "vedetta.toml", &Environment::bare());
    let clear = report
        .findings
        .iter()
        .find(|one| one.found.contains("clear text"));
    assert_eq!(clear.unwrap().verdict, Verdict::Warn);
    assert!(
        report
            .findings
            .iter()
            .all(|one| !one.found.contains("s3gret-o"))
    );
    assert_eq!(report.exit_code(), 1);
}
