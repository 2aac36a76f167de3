//! TLS with a private authority and a client certificate, and passwords.

use std::fs;
use std::path::Path;

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose,
};
use vedetta::publish;

use crate::broker::{Broker, free_port, password_file};
use crate::device::{BASE, Device, config, event, until};
use crate::listener::Listener;

/// Writes `ca.pem`, and certificate and key for `server` and `client`.
pub fn certificates(folder: &Path) {
    let authority_key = KeyPair::generate().unwrap();
    let mut authority = CertificateParams::new(Vec::new()).unwrap();
    // OpenSSL takes a certificate that is named like its authority for a self-signed one.
    authority
        .distinguished_name
        .push(DnType::CommonName, "authority");
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    authority.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    let certificate = authority.self_signed(&authority_key).unwrap();
    fs::write(folder.join("ca.pem"), certificate.pem()).unwrap();
    let issuer = Issuer::new(authority, authority_key);
    let roles = [
        ("server", "127.0.0.1", ExtendedKeyUsagePurpose::ServerAuth),
        ("client", "negozio-1", ExtendedKeyUsagePurpose::ClientAuth),
    ];
    for (role, name, usage) in roles {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        params.distinguished_name.push(DnType::CommonName, role);
        params.extended_key_usages = vec![usage];
        let certificate = params.signed_by(&key, &issuer).unwrap();
        fs::write(folder.join(format!("{role}.pem")), certificate.pem()).unwrap();
        fs::write(folder.join(format!("{role}.key")), key.serialize_pem()).unwrap();
    }
}

/// A broker with a second, guarded listener; its port and the folder of the certificates.
fn guarded() -> Option<(Broker, u16, tempfile::TempDir)> {
    let folder = tempfile::tempdir().unwrap();
    certificates(folder.path());
    let port = free_port();
    let here = folder.path().display().to_string();
    let broker = Broker::with(|own| {
        let passwords = password_file(own, "negozio", "segreto");
        format!(
            "listener {port} 127.0.0.1\nallow_anonymous false\npassword_file {}\n\
             cafile {here}/ca.pem\ncertfile {here}/server.pem\nkeyfile {here}/server.key\n\
             require_certificate true\n",
            passwords.display()
        )
    })?;
    Some((broker, port, folder))
}

fn login(folder: &Path, password: &str, client: bool) -> String {
    let here = folder.display();
    let certificate = match client {
        true => format!("cert_file = \"{here}/client.pem\"\nkey_file = \"{here}/client.key\"\n"),
        false => String::new(),
    };
    format!(
        "username = \"negozio\"\npassword = \"{password}\"\n\
         [mqtt.tls]\nca_file = \"{here}/ca.pem\"\n{certificate}"
    )
}

#[test]
fn tls_with_a_private_authority_a_client_certificate_and_a_password() {
    let Some((broker, port, folder)) = guarded() else {
        return;
    };
    let listener = Listener::on(broker.port);
    for version in ["5", "3.1.1"] {
        let login = login(folder.path(), "segreto", true);
        let device = Device::start(port, &format!("version = \"{version}\"\n{login}"));
        device.publisher.send(event(1));
        let _ = listener.wait_count(&format!("{BASE}/event"), if version == "5" { 1 } else { 2 });
        assert!(device.publisher.shutdown(std::time::Duration::from_secs(5)));
    }
}

#[test]
fn a_wrong_login_is_said_and_not_hammered() {
    let Some((_broker, port, folder)) = guarded() else {
        return;
    };
    let fails = |login: &str, expected: &str| {
        let device = Device::start(port, login);
        until(expected, || device.publisher.last_error().is_some());
        let error = device.publisher.last_error().unwrap();
        assert!(error.contains(expected), "{error}");
        assert!(!device.publisher.is_connected());
    };
    fails(&login(folder.path(), "sbagliato", true), "NotAuthorized");
    fails(&login(folder.path(), "segreto", false), "");
    let stranger = tempfile::tempdir().unwrap();
    certificates(stranger.path());
    fails(&login(stranger.path(), "segreto", true), "certificate");
}

#[test]
fn tls_files_that_cannot_be_used_are_named() {
    let folder = tempfile::tempdir().unwrap();
    certificates(folder.path());
    let check = || {
        let config = config(folder.path(), 8883, &login(folder.path(), "segreto", true));
        publish::check(&config.mqtt)
    };
    assert!(check().is_ok());
    for file in ["client.key", "client.pem", "ca.pem"] {
        fs::write(folder.path().join(file), "nothing of use").unwrap();
        let error = check().unwrap_err().to_string();
        assert!(
            error.starts_with("mqtt.tls: ") && error.contains(file),
            "{error}"
        );
    }
}
