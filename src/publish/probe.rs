//! One handshake with the broker, for `vedetta check`: address, TLS, protocol and login in one go.

use std::time::Duration;

use rumqttc::{ConnectionError, MqttOptions, Transport, v5};
use thiserror::Error;

use super::{PublishError, tls};
use crate::config::{Mqtt, MqttVersion};

/// Why the broker cannot be used, as far as one attempt can tell.
#[derive(Debug, Error)]
pub enum ProbeError {
    /// The TLS files cannot be used, or there is no runtime.
    #[error(transparent)]
    Local(#[from] PublishError),
    /// The broker answered no; the reason code in words.
    #[error("the broker refused the connection: {0}")]
    Refused(String),
    /// It did not answer in time.
    #[error("it did not answer the MQTT handshake within {0} s")]
    Silent(u64),
    /// TCP, TLS or the protocol failed.
    #[error("{0}")]
    Failed(String),
}

/// Connects, waits for the CONNACK and disconnects. Says neither `online` nor a last will, and uses
/// a client id of its own, so that a running daemon is not thrown out.
///
/// # Errors
/// [`ProbeError`], after `timeout` at the latest.
pub fn probe(mqtt: &Mqtt, timeout: Duration) -> Result<(), ProbeError> {
    let transport = match &mqtt.tls {
        Some(tls) => Transport::Tls(tls::configure(tls)?),
        None => Transport::Tcp,
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(PublishError::Thread)?;
    let silent = || ProbeError::Silent(timeout.as_secs());
    runtime.block_on(async {
        let handshake = tokio::time::timeout(timeout, async {
            match mqtt.version {
                MqttVersion::V5 => handshake_v5(mqtt, transport, timeout).await,
                MqttVersion::V311 => handshake_v311(mqtt, transport, timeout).await,
            }
        });
        handshake.await.unwrap_or_else(|_| Err(silent()))
    })
}

fn client_id(mqtt: &Mqtt) -> String {
    format!("{}-check", mqtt.client_id)
}

async fn handshake_v5(
    mqtt: &Mqtt,
    transport: Transport,
    timeout: Duration,
) -> Result<(), ProbeError> {
    let mut options = v5::MqttOptions::new(client_id(mqtt), &mqtt.host, mqtt.port);
    options
        .set_transport(transport)
        .set_clean_start(true)
        .set_connection_timeout(timeout.as_secs().max(1));
    if let Some(login) = &mqtt.credentials {
        options.set_credentials(&login.username, &login.password);
    }
    let (client, mut wire) = v5::AsyncClient::new(options, 4);
    let answer = wire.poll().await;
    // The CONNACK is the first thing that a broker may send.
    let failed = match answer {
        Ok(_) => None,
        Err(v5::ConnectionError::ConnectionRefused(code)) => {
            Some(ProbeError::Refused(format!("{code:?}")))
        }
        Err(v5::ConnectionError::Timeout(_)) => Some(ProbeError::Silent(timeout.as_secs())),
        Err(error) => Some(ProbeError::Failed(error.to_string())),
    };
    if let Some(error) = failed {
        return Err(error);
    }
    if client.try_disconnect().is_ok() {
        // Best effort: closing the connection does as well, without a will.
        while wire
            .poll()
            .await
            .is_ok_and(|event| !matches!(event, v5::Event::Outgoing(rumqttc::Outgoing::Disconnect)))
        {
        }
    }
    Ok(())
}

async fn handshake_v311(
    mqtt: &Mqtt,
    transport: Transport,
    timeout: Duration,
) -> Result<(), ProbeError> {
    let mut options = MqttOptions::new(client_id(mqtt), &mqtt.host, mqtt.port);
    options.set_transport(transport).set_clean_session(true);
    if let Some(login) = &mqtt.credentials {
        options.set_credentials(&login.username, &login.password);
    }
    let (client, mut wire) = rumqttc::AsyncClient::new(options, 4);
    wire.network_options
        .set_connection_timeout(timeout.as_secs().max(1));
    let failed = match wire.poll().await {
        Ok(_) => None,
        Err(ConnectionError::ConnectionRefused(code)) => {
            Some(ProbeError::Refused(format!("{code:?}")))
        }
        Err(ConnectionError::NetworkTimeout) => Some(ProbeError::Silent(timeout.as_secs())),
        Err(error) => Some(ProbeError::Failed(error.to_string())),
    };
    if let Some(error) = failed {
        return Err(error);
    }
    if client.try_disconnect().is_ok() {
        while wire.poll().await.is_ok_and(|event| {
            !matches!(
                event,
                rumqttc::Event::Outgoing(rumqttc::Outgoing::Disconnect)
            )
        }) {}
    }
    Ok(())
}
