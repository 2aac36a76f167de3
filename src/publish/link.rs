//! One connection attempt to the broker, MQTT 5 or 3.1.1: the two client libraries behind one face.
//! A [`Link`] is used for one connection and thrown away; what has to survive lives in the session.

use std::time::Duration;

use rumqttc::v5;
use rumqttc::v5::mqttbytes::v5::{
    ConnectProperties, Filter as FilterV5, LastWill as WillV5, LastWillProperties, PubAckReason,
    PublishProperties, SubscribeReasonCode as SubAckV5,
};
use rumqttc::{TlsConfiguration, Transport};
use thiserror::Error;

use crate::config::{Mqtt, MqttVersion};
use crate::event::SCHEMA;

/// Larger packets from the broker are refused (MQTT 5: announced; 3.1.1: they end the connection).
pub const MAX_INCOMING_BYTES: u32 = 256 * 1024;
/// Largest packet to the broker. A picture and its topic are under 100 KiB; the Home Assistant
/// configuration of a device with very many zones may be larger.
const MAX_OUTGOING_BYTES: usize = 4 << 20;
/// Messages handed to the client and not yet acknowledged, at most; see [`Link::try_publish`].
pub const MAX_UNACKNOWLEDGED: usize = 32;
/// Room in the client's request channel: what may be unacknowledged, subscriptions, disconnect.
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
    },
    /// DISCONNECT was written.
    Disconnected,
    /// Nothing to act on, from the broker: it lives.
    Heard,
    /// Nothing to act on, from ourselves.
    Nothing,
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
    V5(v5::AsyncClient, Vec<(String, String)>),
    V311(rumqttc::AsyncClient),
}

/// Does the work; has to be polled all the time.
pub enum Wire {
    V5(Box<v5::EventLoop>),
    V311(Box<rumqttc::EventLoop>),
}

/// Prepares a connection; the first [`Wire::poll`] opens it. `resume` asks an MQTT 5 broker to keep
/// the session of the connection that was lost, and so not to publish the will.
pub fn prepare(options: &Options, resume: bool) -> (Link, Wire) {
    match options.mqtt.version {
        MqttVersion::V5 => prepare_v5(options, resume),
        MqttVersion::V311 => prepare_v311(options),
    }
}

fn transport(options: &Options) -> Transport {
    match &options.tls {
        Some(tls) => Transport::Tls(tls.clone()),
        None => Transport::Tcp,
    }
}

fn prepare_v5(options: &Options, resume: bool) -> (Link, Wire) {
    let mqtt = &options.mqtt;
    let properties = vec![
        ("schema".to_owned(), SCHEMA.to_string()),
        ("boot".to_owned(), options.boot.clone()),
    ];
    let mut settings = v5::MqttOptions::new(&mqtt.client_id, &mqtt.host, mqtt.port);
    let will = WillV5 {
        topic: options.status_topic.clone().into(),
        message: "offline".into(),
        qos: v5::mqttbytes::QoS::AtLeastOnce,
        retain: true,
        properties: Some(LastWillProperties {
            delay_interval: Some(WILL_DELAY_S),
            payload_format_indicator: Some(1),
            message_expiry_interval: None,
            content_type: None,
            response_topic: None,
            correlation_data: None,
            user_properties: properties.clone(),
        }),
    };
    settings
        .set_keep_alive(mqtt.keep_alive)
        .set_clean_start(!resume)
        .set_transport(transport(options))
        .set_connection_timeout(CONNECT_TIMEOUT_S)
        .set_outgoing_inflight_upper_limit(PACKET_IDS)
        .set_last_will(will);
    let mut connect = ConnectProperties::new();
    connect.session_expiry_interval = Some(SESSION_EXPIRY_S);
    connect.max_packet_size = Some(MAX_INCOMING_BYTES);
    settings.set_connect_properties(connect);
    if let Some(login) = &mqtt.credentials {
        settings.set_credentials(&login.username, &login.password);
    }
    let mut network = settings.network_options();
    network.set_tcp_nodelay(true);
    network.set_connection_timeout(CONNECT_TIMEOUT_S);
    settings.set_network_options(network);
    let (client, wire) = v5::AsyncClient::new(settings, REQUESTS);
    (Link::V5(client, properties), Wire::V5(Box::new(wire)))
}

fn prepare_v311(options: &Options) -> (Link, Wire) {
    let mqtt = &options.mqtt;
    let mut settings = rumqttc::MqttOptions::new(&mqtt.client_id, &mqtt.host, mqtt.port);
    let will = rumqttc::LastWill::new(
        &options.status_topic,
        "offline",
        rumqttc::QoS::AtLeastOnce,
        true,
    );
    settings
        .set_keep_alive(mqtt.keep_alive)
        .set_clean_session(true)
        .set_transport(transport(options))
        .set_max_packet_size(MAX_INCOMING_BYTES as usize, MAX_OUTGOING_BYTES)
        .set_inflight(PACKET_IDS)
        .set_last_will(will);
    if let Some(login) = &mqtt.credentials {
        settings.set_credentials(&login.username, &login.password);
    }
    let (client, mut wire) = rumqttc::AsyncClient::new(settings, REQUESTS);
    wire.network_options.set_tcp_nodelay(true);
    wire.network_options
        .set_connection_timeout(CONNECT_TIMEOUT_S);
    (Link::V311(client), Wire::V311(Box::new(wire)))
}

impl Link {
    /// Hands `message` to the client. False when its channel is full, which cannot be as long as
    /// the caller keeps to [`MAX_UNACKNOWLEDGED`]. Never blocks: waiting here, in the task that
    /// polls, would be a deadlock.
    pub fn try_publish(&self, message: Message) -> bool {
        match self {
            Self::V5(client, user_properties) => {
                let qos = match message.acknowledged {
                    true => v5::mqttbytes::QoS::AtLeastOnce,
                    false => v5::mqttbytes::QoS::AtMostOnce,
                };
                let is_text = message.content_type != Some("image/jpeg");
                let properties = PublishProperties {
                    payload_format_indicator: Some(u8::from(is_text)),
                    message_expiry_interval: message.expiry_s,
                    user_properties: user_properties.clone(),
                    content_type: message.content_type.map(str::to_owned),
                    ..PublishProperties::default()
                };
                client
                    .try_publish_with_properties(
                        message.topic,
                        qos,
                        message.retain,
                        message.payload,
                        properties,
                    )
                    .is_ok()
            }
            Self::V311(client) => {
                let qos = match message.acknowledged {
                    true => rumqttc::QoS::AtLeastOnce,
                    false => rumqttc::QoS::AtMostOnce,
                };
                client
                    .try_publish(message.topic, qos, message.retain, message.payload)
                    .is_ok()
            }
        }
    }

    /// Subscribes at least once to `filters`.
    pub fn try_subscribe(&self, filters: &[String]) -> bool {
        match self {
            Self::V5(client, _) => {
                let filter =
                    |path: &String| FilterV5::new(path.clone(), v5::mqttbytes::QoS::AtLeastOnce);
                client
                    .try_subscribe_many(filters.iter().map(filter))
                    .is_ok()
            }
            Self::V311(client) => {
                let filter = |path: &String| {
                    rumqttc::SubscribeFilter::new(path.clone(), rumqttc::QoS::AtLeastOnce)
                };
                client
                    .try_subscribe_many(filters.iter().map(filter))
                    .is_ok()
            }
        }
    }

    /// Says goodbye after everything handed over before.
    pub fn try_disconnect(&self) -> bool {
        match self {
            Self::V5(client, _) => client.try_disconnect().is_ok(),
            Self::V311(client) => client.try_disconnect().is_ok(),
        }
    }
}

impl Wire {
    /// The next thing that happens. After an error the wire is of no use: it would reconnect by
    /// itself, without any delay.
    pub async fn poll(&mut self) -> Result<Happening, LinkError> {
        match self {
            Self::V5(wire) => match wire.poll().await {
                Ok(event) => Ok(translate_v5(event, wire)),
                Err(error) => Err(explain_v5(&error)),
            },
            Self::V311(wire) => match wire.poll().await {
                Ok(event) => Ok(translate_v311(event, wire)),
                Err(error) => Err(explain_v311(&error)),
            },
        }
    }
}

fn translate_v5(event: v5::Event, wire: &v5::EventLoop) -> Happening {
    use rumqttc::v5::mqttbytes::v5::Packet;
    match event {
        v5::Event::Incoming(Packet::ConnAck(accepted)) => {
            let limit = accepted.properties.and_then(|p| p.max_packet_size);
            let limit = limit.and_then(|bytes| usize::try_from(bytes).ok());
            Happening::Connected(Terms {
                max_packet_bytes: limit.unwrap_or(MAX_OUTGOING_BYTES),
                keep_alive: wire.options.keep_alive(),
            })
        }
        v5::Event::Incoming(Packet::PubAck(ack)) => {
            let hopeless = matches!(
                ack.reason,
                PubAckReason::TopicNameInvalid | PubAckReason::PayloadFormatInvalid
            );
            let outcome = match ack.reason {
                PubAckReason::Success | PubAckReason::NoMatchingSubscribers => Ok(()),
                reason => {
                    let text = ack.properties.and_then(|p| p.reason_string);
                    let text = text.map_or_else(String::new, |text| format!(" ({text})"));
                    Err(Refusal {
                        reason: format!("{reason:?}{text}"),
                        hopeless,
                    })
                }
            };
            Happening::Acknowledged(ack.pkid, outcome)
        }
        v5::Event::Incoming(Packet::SubAck(ack)) => {
            let refused = ack
                .return_codes
                .iter()
                .find(|code| !matches!(code, SubAckV5::Success(_)));
            match refused {
                Some(code) => Happening::SubscriptionRefused(format!("{code:?}")),
                None => Happening::Heard,
            }
        }
        v5::Event::Incoming(Packet::Publish(message)) => Happening::Received {
            topic: String::from_utf8_lossy(&message.topic).into_owned(),
            payload: message.payload.into(),
            retained: message.retain,
        },
        v5::Event::Incoming(_) => Happening::Heard,
        v5::Event::Outgoing(outgoing) => translate_outgoing(&outgoing),
    }
}

fn translate_v311(event: rumqttc::Event, wire: &rumqttc::EventLoop) -> Happening {
    use rumqttc::{Packet, SubscribeReasonCode};
    match event {
        rumqttc::Event::Incoming(Packet::ConnAck(_)) => Happening::Connected(Terms {
            max_packet_bytes: MAX_OUTGOING_BYTES,
            keep_alive: wire.mqtt_options.keep_alive(),
        }),
        rumqttc::Event::Incoming(Packet::PubAck(ack)) => Happening::Acknowledged(ack.pkid, Ok(())),
        rumqttc::Event::Incoming(Packet::SubAck(ack)) => {
            match ack.return_codes.contains(&SubscribeReasonCode::Failure) {
                true => Happening::SubscriptionRefused("Failure".to_owned()),
                false => Happening::Heard,
            }
        }
        rumqttc::Event::Incoming(Packet::Publish(message)) => Happening::Received {
            topic: message.topic,
            payload: message.payload.into(),
            retained: message.retain,
        },
        rumqttc::Event::Incoming(_) => Happening::Heard,
        rumqttc::Event::Outgoing(outgoing) => translate_outgoing(&outgoing),
    }
}

fn translate_outgoing(outgoing: &rumqttc::Outgoing) -> Happening {
    match outgoing {
        rumqttc::Outgoing::Publish(id) => Happening::Sent(*id),
        rumqttc::Outgoing::Disconnect => Happening::Disconnected,
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

fn explain_v5(error: &v5::ConnectionError) -> LinkError {
    use rumqttc::v5::mqttbytes::Error as Packet;
    use rumqttc::v5::{ConnectionError, StateError};
    let oversized = matches!(
        error,
        ConnectionError::MqttState(
            StateError::Deserialization(Packet::PayloadSizeLimitExceeded { .. })
                | StateError::IncomingPacketTooLarge { .. }
        )
    );
    let message = match error {
        ConnectionError::ConnectionRefused(code) => format!("the broker refused: {code:?}"),
        ConnectionError::Timeout(_) => "no answer in time".to_owned(),
        other => plain(&other.to_string()),
    };
    LinkError { message, oversized }
}

fn explain_v311(error: &rumqttc::ConnectionError) -> LinkError {
    use rumqttc::{ConnectionError, StateError};
    let oversized = matches!(
        error,
        ConnectionError::MqttState(StateError::Deserialization(
            rumqttc::Error::PayloadSizeLimitExceeded(_)
        ))
    );
    let message = match error {
        ConnectionError::ConnectionRefused(code) => format!("the broker refused: {code:?}"),
        ConnectionError::NetworkTimeout | ConnectionError::FlushTimeout => {
            "no answer in time".to_owned()
        }
        other => plain(&other.to_string()),
    };
    LinkError { message, oversized }
}
