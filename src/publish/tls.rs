//! TLS towards the broker: the authorities of a file, and a client certificate where there is one.

use std::fs::File;
use std::io::BufReader;
use std::path::Path;
use std::sync::Arc;

use rumqttc::TlsConfiguration;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore};

use super::PublishError;
use crate::config::Tls;

/// Reads the files that `tls` names.
///
/// # Errors
/// Files that cannot be read or hold no certificate or key, and a key that does not fit.
pub fn configure(tls: &Tls) -> Result<TlsConfiguration, PublishError> {
    let authorities = certificates(&tls.ca_file)?;
    let mut roots = RootCertStore::empty();
    // System-wide files often hold a few certificates that are not understood; one good is enough.
    let (added, _) = roots.add_parsable_certificates(authorities);
    if added == 0 {
        return Err(wrong(&tls.ca_file, "holds no certificate that can be used"));
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| wrong(&tls.ca_file, &error.to_string()))?
        .with_root_certificates(roots);
    let config = match &tls.client {
        None => builder.with_no_client_auth(),
        Some((certificate, key)) => builder
            .with_client_auth_cert(certificates(certificate)?, private_key(key)?)
            .map_err(|error| wrong(certificate, &format!("does not go with its key: {error}")))?,
    };
    Ok(TlsConfiguration::Rustls(Arc::new(config)))
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, PublishError> {
    let found: Result<Vec<_>, _> = rustls_pemfile::certs(&mut open(path)?).collect();
    match found {
        Ok(found) if found.is_empty() => Err(wrong(path, "holds no PEM certificate")),
        Ok(found) => Ok(found),
        Err(error) => Err(wrong(path, &error.to_string())),
    }
}

fn private_key(path: &Path) -> Result<PrivateKeyDer<'static>, PublishError> {
    rustls_pemfile::private_key(&mut open(path)?)
        .map_err(|error| wrong(path, &error.to_string()))?
        .ok_or_else(|| wrong(path, "holds no PEM private key"))
}

fn open(path: &Path) -> Result<BufReader<File>, PublishError> {
    File::open(path)
        .map(BufReader::new)
        .map_err(|error| wrong(path, &error.to_string()))
}

fn wrong(path: &Path, message: &str) -> PublishError {
    PublishError::Tls {
        path: path.to_owned(),
        message: message.to_owned(),
    }
}
