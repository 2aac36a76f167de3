//! Does the broker take us?

use std::net::{SocketAddr, TcpStream, ToSocketAddrs};
use std::time::Duration;

use super::Finding;
use crate::config::{Mqtt, MqttVersion};
use crate::publish::probe::{ProbeError, probe};

/// A broker may take this long to accept a connection.
const CONNECT: Duration = Duration::from_secs(3);
/// TCP, TLS and MQTT handshake together.
const HANDSHAKE: Duration = Duration::from_secs(5);

/// Name, port, TLS, protocol and login, in this order: the first that fails is reported.
pub fn check(mqtt: &Mqtt) -> Vec<Finding> {
    let address = format!("{}:{}", mqtt.host, mqtt.port);
    let reached = match reach(mqtt) {
        Ok(reached) => reached,
        Err((found, advice)) => {
            return vec![Finding::fail(
                "broker",
                format!("{address}: {found}"),
                advice,
            )];
        }
    };
    let mut findings = Vec::new();
    match probe(mqtt, HANDSHAKE) {
        Ok(()) => findings.push(Finding::ok("broker", accepted(mqtt, &address))),
        Err(error) => {
            let found = format!("{address}: {error}");
            findings.push(Finding::fail("broker", found, advice(mqtt, &error)));
        }
    }
    if mqtt.tls.is_none() && mqtt.credentials.is_some() && !reached.ip().is_loopback() {
        findings.push(Finding::warn(
            "broker",
            "the password crosses the network in clear text",
            "add [mqtt.tls]",
        ));
    }
    findings
}

/// The first address that accepts a TCP connection.
fn reach(mqtt: &Mqtt) -> Result<SocketAddr, (String, &'static str)> {
    let addresses = (mqtt.host.as_str(), mqtt.port)
        .to_socket_addrs()
        .map_err(|error| (error.to_string(), "check mqtt.host and the name server"))?;
    let mut last = "the name has no address".to_owned();
    for address in addresses {
        match TcpStream::connect_timeout(&address, CONNECT) {
            Ok(_) => return Ok(address),
            Err(error) => last = error.to_string(),
        }
    }
    let advice = "is the broker running, mqtt.port right and the firewall open? Events wait on \
                  disk meanwhile";
    Err((last, advice))
}

fn accepted(mqtt: &Mqtt, address: &str) -> String {
    let version = match mqtt.version {
        MqttVersion::V5 => "5",
        MqttVersion::V311 => "3.1.1",
    };
    let tls = match mqtt.tls {
        Some(_) => ", TLS",
        None => "",
    };
    let login = match &mqtt.credentials {
        Some(login) => format!(", as {}", login.username),
        None => ", without a login".to_owned(),
    };
    format!("{address} accepts MQTT {version}{tls}{login}")
}

fn advice(mqtt: &Mqtt, error: &ProbeError) -> &'static str {
    match error {
        ProbeError::Refused(reason) if reason.contains("Protocol") => {
            "try mqtt.version = \"3.1.1\""
        }
        ProbeError::Refused(reason)
            if ["NotAuthorized", "BadUserNamePassword"].contains(&reason.as_str()) =>
        {
            match mqtt.credentials {
                Some(_) => "check mqtt.username and the password",
                None => "set mqtt.username and mqtt.password_file",
            }
        }
        ProbeError::Refused(_) => "look into the broker's log",
        ProbeError::Local(_) => "correct the files of [mqtt.tls]",
        ProbeError::Silent(_) | ProbeError::Failed(_) => match (&mqtt.tls, mqtt.version) {
            (Some(_), _) => {
                "is this the TLS port, and does ca_file hold the authority of this broker?"
            }
            (None, MqttVersion::V5) => {
                "is this an MQTT port without TLS? For an old broker try mqtt.version = \"3.1.1\""
            }
            (None, MqttVersion::V311) => "is this an MQTT port without TLS?",
        },
    }
}
