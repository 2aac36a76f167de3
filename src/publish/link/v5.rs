//! MQTT 5.

use std::time::Duration;

use rumqttc::v5::mqttbytes::QoS;
use rumqttc::v5::mqttbytes::v5::{
    ConnectProperties, DisconnectReasonCode, Filter, LastWill, LastWillProperties, Packet,
    PubAckReason, Publish, PublishProperties, SubscribeReasonCode,
};
use rumqttc::v5::{AsyncClient, ConnectionError, Event, EventLoop, MqttOptions, StateError};

use super::{
    CONNECT_TIMEOUT_S, Happening, Link, LinkError, MAX_INCOMING_BYTES, MAX_OUTGOING_BYTES,
    MAX_UNRECEIPTED, Message, Options, PACKET_IDS, REQUESTS, Receipt, Refusal, SESSION_EXPIRY_S,
    Terms, WILL_DELAY_S, Wire, plain, translate_outgoing,
};
use crate::event::SCHEMA;

/// A client and the user properties of everything it publishes.
#[derive(Clone)]
pub struct Sender {
    client: AsyncClient,
    user_properties: Vec<(String, String)>,
}

impl Sender {
    pub fn try_publish(&self, message: Message) -> bool {
        let qos = match message.acknowledged {
            true => QoS::AtLeastOnce,
            false => QoS::AtMostOnce,
        };
        let is_text = message.content_type != Some("image/jpeg");
        let properties = PublishProperties {
            payload_format_indicator: Some(u8::from(is_text)),
            message_expiry_interval: message.expiry_s,
            user_properties: self.user_properties.clone(),
            content_type: message.content_type.map(str::to_owned),
            ..PublishProperties::default()
        };
        self.client
            .try_publish_with_properties(
                message.topic,
                qos,
                message.retain,
                message.payload,
                properties,
            )
            .is_ok()
    }

    pub fn try_subscribe(&self, filters: &[String]) -> bool {
        let filter = |path: &String| Filter::new(path.clone(), QoS::AtLeastOnce);
        self.client
            .try_subscribe_many(filters.iter().map(filter))
            .is_ok()
    }

    pub fn try_acknowledge(&self, receipt: Receipt) -> bool {
        let qos = match receipt.exactly_once {
            true => QoS::ExactlyOnce,
            false => QoS::AtLeastOnce,
        };
        let received = Publish {
            pkid: receipt.id,
            ..Publish::new("", qos, Vec::new(), None)
        };
        self.client.try_ack(&received).is_ok()
    }

    pub fn try_disconnect(&self) -> bool {
        self.client.try_disconnect().is_ok()
    }
}

pub fn prepare(options: &Options, resume: bool) -> (Link, Wire) {
    let mqtt = &options.mqtt;
    let properties = vec![
        ("schema".to_owned(), SCHEMA.to_string()),
        ("boot".to_owned(), options.boot.clone()),
    ];
    let mut settings = MqttOptions::new(&mqtt.client_id, &mqtt.host, mqtt.port);
    let will = LastWill {
        topic: options.status_topic.clone().into(),
        message: "offline".into(),
        qos: QoS::AtLeastOnce,
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
        .set_transport(options.transport())
        .set_connection_timeout(CONNECT_TIMEOUT_S)
        .set_outgoing_inflight_upper_limit(PACKET_IDS)
        .set_last_will(will);
    let mut connect = ConnectProperties::new();
    connect.session_expiry_interval = Some(SESSION_EXPIRY_S);
    connect.max_packet_size = Some(MAX_INCOMING_BYTES);
    connect.receive_maximum = Some(MAX_UNRECEIPTED);
    settings.set_connect_properties(connect);
    if let Some(login) = &mqtt.credentials {
        settings.set_credentials(&login.username, &login.password);
    }
    let mut network = settings.network_options();
    network.set_tcp_nodelay(true);
    network.set_connection_timeout(CONNECT_TIMEOUT_S);
    settings.set_network_options(network);
    let (client, wire) = AsyncClient::new(settings, REQUESTS);
    let sender = Sender {
        client,
        user_properties: properties,
    };
    let wire = Wire::V5(Box::new(wire), mqtt.keep_alive);
    (Link::V5(sender), wire)
}

pub fn translate(event: Event, wire: &mut EventLoop, keep_alive: Duration) -> Happening {
    match event {
        Event::Incoming(Packet::ConnAck(accepted)) => {
            // A broker that switches keep alive off (0) is pinged at our own pace all the same, to
            // notice a silent one. The client library would ping it without a pause.
            if wire.options.keep_alive().is_zero() {
                wire.options.set_keep_alive(keep_alive);
            }
            let limit = accepted.properties.and_then(|p| p.max_packet_size);
            let limit = limit.and_then(|bytes| usize::try_from(bytes).ok());
            Happening::Connected(Terms {
                max_packet_bytes: limit.unwrap_or(MAX_OUTGOING_BYTES),
                keep_alive: wire.options.keep_alive(),
            })
        }
        Event::Incoming(Packet::PubAck(ack)) => {
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
        Event::Incoming(Packet::SubAck(ack)) => {
            let refused = ack
                .return_codes
                .iter()
                .find(|code| !matches!(code, SubscribeReasonCode::Success(_)));
            match refused {
                Some(code) => Happening::SubscriptionRefused(format!("{code:?}")),
                None => Happening::Heard,
            }
        }
        Event::Incoming(Packet::Publish(message)) => Happening::Received {
            receipt: (wire.state.manual_acks && message.qos != QoS::AtMostOnce).then_some(
                Receipt {
                    id: message.pkid,
                    exactly_once: message.qos == QoS::ExactlyOnce,
                },
            ),
            topic: String::from_utf8_lossy(&message.topic).into_owned(),
            payload: message.payload.into(),
            retained: message.retain,
        },
        Event::Incoming(_) => Happening::Heard,
        Event::Outgoing(outgoing) => translate_outgoing(&outgoing),
    }
}

pub fn explain(error: &ConnectionError) -> LinkError {
    use rumqttc::v5::mqttbytes::Error;
    let oversized = matches!(
        error,
        ConnectionError::MqttState(
            StateError::Deserialization(Error::PayloadSizeLimitExceeded { .. })
                | StateError::IncomingPacketTooLarge { .. }
        )
    );
    let message = match error {
        ConnectionError::ConnectionRefused(code) => format!("the broker refused: {code:?}"),
        ConnectionError::Timeout(_) => "no answer in time".to_owned(),
        ConnectionError::MqttState(StateError::ServerDisconnect {
            reason_code: DisconnectReasonCode::SessionTakenOver,
            ..
        }) => "another client came with our mqtt.client_id, which has to be unique".to_owned(),
        other => plain(&other.to_string()),
    };
    LinkError { message, oversized }
}
