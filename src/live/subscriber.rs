//! Listens to a broker on a thread of its own, reconnects by itself, and never publishes.

use std::sync::mpsc::{self, Receiver, RecvTimeoutError, SyncSender};
use std::thread;
use std::time::{Duration, Instant};

use rumqttc::{Client, Event, Incoming, MqttOptions, QoS, Transport};

use crate::config::{Credentials, Mqtt, Tls};
use crate::publish::backoff::Backoff;
use crate::publish::{PublishError, tls};

/// Messages that may wait to be looked at; beyond that the broker waits.
const WAITING: usize = 256;
/// Largest packet that is taken in: a picture has 96 KiB.
const MAX_PACKET_BYTES: usize = 1 << 20;
/// Seldom enough for a broker with many watchers, often enough to notice that it is gone.
const KEEP_ALIVE: Duration = Duration::from_secs(15);
/// A person is waiting: the pauses of a daemon would be too long.
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// Where a broker is and how to log in.
#[derive(Clone, Debug)]
pub struct Address {
    /// Host name or address.
    pub host: String,
    /// TCP port.
    pub port: u16,
    /// Login.
    pub credentials: Option<Credentials>,
    /// TLS.
    pub tls: Option<Tls>,
}

impl From<&Mqtt> for Address {
    fn from(mqtt: &Mqtt) -> Self {
        Self {
            host: mqtt.host.clone(),
            port: mqtt.port,
            credentials: mqtt.credentials.clone(),
            tls: mqtt.tls.clone(),
        }
    }
}

/// What a [`Subscriber`] has to say.
#[derive(Clone, Debug, PartialEq)]
pub enum Heard {
    /// The broker accepted the connection.
    Connected,
    /// A message.
    Message {
        /// Its topic.
        topic: String,
        /// Its payload.
        payload: Vec<u8>,
    },
    /// The connection failed or ended, and why. It is tried again.
    Lost(String),
}

/// One subscription. The thread ends after this is dropped.
#[derive(Debug)]
pub struct Subscriber {
    inbox: Receiver<Heard>,
}

impl Subscriber {
    /// Subscribes to `filter`, for as long as it takes. MQTT 3.1.1: every broker speaks it.
    ///
    /// # Errors
    /// A TLS file that cannot be used, or no thread to be had. An unreachable broker is no error.
    pub fn start(address: &Address, filter: String) -> Result<Self, PublishError> {
        let mut options = MqttOptions::new(client_id(), &address.host, address.port);
        options.set_keep_alive(KEEP_ALIVE);
        options.set_max_packet_size(MAX_PACKET_BYTES, MAX_PACKET_BYTES);
        if let Some(login) = &address.credentials {
            options.set_credentials(&login.username, &login.password);
        }
        if let Some(tls) = &address.tls {
            options.set_transport(Transport::Tls(tls::configure(tls)?));
        }
        let (outbox, inbox) = mpsc::sync_channel(WAITING);
        thread::Builder::new()
            .name("subscriber".to_owned())
            .spawn(move || listen(options, &filter, &outbox))?;
        Ok(Self { inbox })
    }

    /// What comes next, waiting at most `timeout`.
    pub fn next(&self, timeout: Duration) -> Option<Heard> {
        match self.inbox.recv_timeout(timeout) {
            Ok(heard) => Some(heard),
            Err(RecvTimeoutError::Timeout) => None,
            Err(RecvTimeoutError::Disconnected) => {
                thread::sleep(timeout);
                None
            }
        }
    }
}

fn listen(options: MqttOptions, filter: &str, outbox: &SyncSender<Heard>) {
    let (client, mut connection) = Client::new(options, 8);
    let mut backoff = Backoff::default();
    let mut connected_at: Option<Instant> = None;
    while let Ok(polled) = connection.recv() {
        let heard = match polled {
            Ok(Event::Incoming(Incoming::ConnAck(_))) => {
                connected_at = Some(Instant::now());
                // The queue of requests is empty after a connect: it has room.
                let _ = client.try_subscribe(filter, QoS::AtLeastOnce);
                Heard::Connected
            }
            Ok(Event::Incoming(Incoming::Publish(publish))) => Heard::Message {
                topic: publish.topic,
                payload: publish.payload.to_vec(),
            },
            Ok(_) => continue,
            Err(error) => {
                let lived = connected_at.take().map(|at| at.elapsed());
                if outbox.send(Heard::Lost(error.to_string())).is_err() {
                    return;
                }
                thread::sleep(backoff.delay(lived, chance()).min(LONGEST_PAUSE));
                continue;
            }
        };
        if outbox.send(heard).is_err() {
            return;
        }
    }
}

fn client_id() -> String {
    format!(
        "vedetta-watch-{}-{:04x}",
        std::process::id(),
        random() >> 16
    )
}

fn random() -> u32 {
    getrandom::u32().unwrap_or(0x8000_0000)
}

/// Uniform in 0–1.
fn chance() -> f64 {
    f64::from(random()) / f64::from(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_certificate_is_named() {
        let tls = Tls {
            ca_file: "/nowhere/ca.pem".into(),
            client: None,
        };
        let host = "localhost".to_owned();
        let address = Address {
            host,
            port: 8883,
            credentials: None,
            tls: Some(tls),
        };
        let error = Subscriber::start(&address, "vedetta/#".to_owned()).unwrap_err();
        assert!(error.to_string().contains("/nowhere/ca.pem"), "{error}");
    }

    #[test]
    fn a_broker_that_is_not_there_is_said_and_tried_again() {
        // Bound and dropped: nobody listens there now.
        let port = std::net::TcpListener::bind("127.0.0.1:0")
            .unwrap()
            .local_addr()
            .unwrap()
            .port();
        let host = "127.0.0.1".to_owned();
        let address = Address {
            host,
            port,
            credentials: None,
            tls: None,
        };
        let subscriber = Subscriber::start(&address, "vedetta/#".to_owned()).unwrap();
        for _ in 0..2 {
            let heard = subscriber.next(Duration::from_secs(20));
            assert!(matches!(heard, Some(Heard::Lost(_))), "{heard:?}");
        }
    }
}
