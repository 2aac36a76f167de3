//! One connection attempt to the broker, MQTT 5 or 3.1.1: the two client libraries behind one face.
//! A [`Link`] is used for one connection and thrown away; what has to survive lives in the session.

use std::time::Duration;

use rumqttc::{TlsConfiguration, Transport};
use thiserror::Error;

use crate::config::{Mqtt, MqttVersion};

mod v311;
mod v5;

/// Larger packets from the broker are refused (MQTT 5: announced; 3.1.1: they end the connection).
pub const MAX_INCOMING_BYTES: u32 = 256 * 1024;
/// Largest packet to the broker. A picture and its topic are under 100 KiB; the Home Assistant
/// configuration of a device with very many zones may be larger.
const MAX_OUTGOING_BYTES: usize = 4 << 20;
/// Messages handed to the client and not yet acknowledged, at most; see [`Link::try_publish`].
pub const MAX_UNACKNOWLEDGED: usize = 32;
/// Messages that an MQTT 5 broker may have on their way to us without a receipt.
pub const MAX_UNRECEIPTED: u16 = 64;
/// Receipts handed to the client and not yet written, at most.
pub const MAX_RECEIPTS: usize = 16;
/// Room in the client's request channel: what may be unacknowledged, receipts, subscriptions,
/// disconnect.
const REQUESTS: usize = 64;
/// Packet identifiers go round after this many. Far over [`MAX_UNACKNOWLEDGED`], so that a message
/// never meets one that still has its identifier.
const PACKET_IDS: u16 = 1024;
/// TCP, TLS and MQTT handshake together.
const CONNECT_TIMEOUT_S: u64 = 10;
/// How long an MQTT 5 broker waits before it publishes the last will.
const WILL_DELAY_S: u32 = 10;
/// How long it keeps our session: over the will's delay, or the will would not wait.
const SESSION_EXPIRY_S: u32 = 30;

/// One message on its way to the broker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    pub topic: String,
    pub payload: Vec<u8>,
    /// At least once, else at most once.
    pub acknowledged: bool,
    pub retain: bool,
    /// MQTT 5: the broker may drop it after this many seconds.
    pub expiry_s: Option<u32>,
    /// MQTT 5: MIME type.
    pub content_type: Option<&'static str>,
}

impl Message {
    /// Size of its packet, rounded up.
    pub fn packet_bytes(&self) -> usize {
        self.topic.len() + self.payload.len() + 256
    }
}

/// What the broker said, or the client did.
#[derive(Debug)]
pub enum Happening {
    /// The broker accepted the connection.
    Connected(Terms),
    /// The next published message got this packet identifier; 0 is at most once, and is done.
    Sent(u16),
    /// The broker took a message, or says why not.
    Acknowledged(u16, Result<(), Refusal>),
    /// A subscription was refused.
    SubscriptionRefused(String),
    /// A message from the broker.
    Received {
        topic: String,
        payload: Vec<u8>,
        retained: bool,
        /// Owed to the broker; `None` where none is, or it was given already.
        receipt: Option<Receipt>,
    },
    /// A receipt was written.
    ReceiptGiven,
    /// DISCONNECT was written.
    Disconnected,
    /// Nothing to act on, from the broker: it lives.
    Heard,
    /// Nothing to act on, from ourselves.
    Nothing,
}

/// The acknowledgement of a message from the broker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Receipt {
    /// Packet identifier.
    pub id: u16,
    /// The first of the two steps of exactly once.
    pub exactly_once: bool,
}

/// What the broker offers on this connection.
#[derive(Clone, Copy, Debug)]
pub struct Terms {
    /// Largest packet it takes.
    pub max_packet_bytes: usize,
    /// Pings go out this often.
    pub keep_alive: Duration,
}

/// Why a broker did not take a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// Reason code in words.
    pub reason: String,
    /// It will never take it: the message is at fault, not the moment.
    pub hopeless: bool,
}

/// Why a connection ended or did not come up.
#[derive(Debug, Error)]
#[error("{message}")]
pub struct LinkError {
    pub message: String,
    /// A packet over [`MAX_INCOMING_BYTES`] ended it.
    pub oversized: bool,
}

/// What stays the same over all connections of a session.
#[derive(Clone)]
pub struct Options {
    pub mqtt: Mqtt,
    pub tls: Option<TlsConfiguration>,
    /// `B/status`.
    pub status_topic: String,
    pub boot: String,
}

/// Sends; [`Wire`] is its other half.
#[derive(Clone)]
pub enum Link {
    V5(v5::Sender),
    V311(rumqttc::AsyncClient),
}

/// Does the work; has to be polled all the time.
pub enum Wire {
    /// With the keep alive that was asked for.
    V5(Box<rumqttc::v5::EventLoop>, Duration),
    V311(Box<rumqttc::EventLoop>),
}

/// Prepares a connection; the first [`Wire::poll`] opens it. `resume` asks an MQTT 5 broker to keep
/// the session of the connection that was lost, and so not to publish the will.
pub fn prepare(options: &Options, resume: bool) -> (Link, Wire) {
    match options.mqtt.version {
        MqttVersion::V5 => v5::prepare(options, resume),
        MqttVersion::V311 => v311::prepare(options),
    }
}

impl Options {
    fn transport(&self) -> Transport {
        match &self.tls {
            Some(tls) => Transport::Tls(tls.clone()),
            None => Transport::Tcp,
        }
    }
}

impl Link {
    /// Hands `message` to the client. False when its channel is full, which cannot be as long as
    /// the caller keeps to [`MAX_UNACKNOWLEDGED`]. Never blocks: waiting here, in the task that
    /// polls, would be a deadlock.
    pub fn try_publish(&self, message: Message) -> bool {
        match self {
            Self::V5(sender) => sender.try_publish(message),
            Self::V311(client) => v311::try_publish(client, message),
        }
    }

    /// Subscribes at least once to `filters`.
    pub fn try_subscribe(&self, filters: &[String]) -> bool {
        match self {
            Self::V5(sender) => sender.try_subscribe(filters),
            Self::V311(client) => v311::try_subscribe(client, filters),
        }
    }

    /// Gives the broker a receipt that was kept back, see [`Wire::keep_receipts`].
    pub fn try_acknowledge(&self, receipt: Receipt) -> bool {
        match self {
            Self::V5(sender) => sender.try_acknowledge(receipt),
            Self::V311(client) => v311::try_acknowledge(client, receipt),
        }
    }

    /// Says goodbye after everything handed over before.
    pub fn try_disconnect(&self) -> bool {
        match self {
            Self::V5(sender) => sender.try_disconnect(),
            Self::V311(client) => client.try_disconnect().is_ok(),
        }
    }
}

impl Wire {
    /// Whether receipts are kept back. A broker that gets none stops sending once it has
    /// [`MAX_UNRECEIPTED`] messages (MQTT 3.1.1: as many as it likes) on their way. Has to be called
    /// before every poll: what was read together is dealt with alike, so that it may hold only later.
    pub fn keep_receipts(&mut self, keep: bool) {
        match self {
            Self::V5(wire, _) if wire.state.events.is_empty() => wire.state.manual_acks = keep,
            Self::V311(wire) if wire.state.events.is_empty() => wire.state.manual_acks = keep,
            _ => {}
        }
    }

    /// The next thing that happens. After an error the wire is of no use: it would reconnect by
    /// itself, without any delay.
    pub async fn poll(&mut self) -> Result<Happening, LinkError> {
        match self {
            Self::V5(wire, keep_alive) => match wire.poll().await {
                Ok(event) => Ok(v5::translate(event, wire, *keep_alive)),
                Err(error) => Err(v5::explain(&error)),
            },
            Self::V311(wire) => match wire.poll().await {
                Ok(event) => Ok(v311::translate(event, wire)),
                Err(error) => Err(v311::explain(&error)),
            },
        }
    }
}

fn translate_outgoing(outgoing: &rumqttc::Outgoing) -> Happening {
    match outgoing {
        rumqttc::Outgoing::Publish(id) => Happening::Sent(*id),
        rumqttc::Outgoing::Disconnect => Happening::Disconnected,
        rumqttc::Outgoing::PubAck(_) | rumqttc::Outgoing::PubRec(_) => Happening::ReceiptGiven,
        _ => Happening::Nothing,
    }
}

/// Without the client library's layers in front of the cause.
fn plain(message: &str) -> String {
    const LAYERS: [&str; 5] = [
        "Mqtt state: ",
        "Mqtt serialization/deserialization error: ",
        "Io error: ",
        "I/O: ",
        "IO: ",
    ];
    let mut rest = message;
    while let Some(shorter) = LAYERS.iter().find_map(|layer| rest.strip_prefix(layer)) {
        rest = shorter;
    }
    rest.to_owned()
}
