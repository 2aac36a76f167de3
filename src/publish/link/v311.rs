//! MQTT 3.1.1: no properties, no reasons; the broker takes everything or hangs up.

use rumqttc::{
    AsyncClient, ConnectionError, Event, EventLoop, LastWill, MqttOptions, Packet, Publish, QoS,
    StateError, SubscribeFilter, SubscribeReasonCode,
};

use super::{
    CONNECT_TIMEOUT_S, Happening, Link, LinkError, MAX_INCOMING_BYTES, MAX_OUTGOING_BYTES, Message,
    Options, PACKET_IDS, REQUESTS, Receipt, Terms, Wire, plain, translate_outgoing,
};

pub fn try_publish(client: &AsyncClient, message: Message) -> bool {
    let qos = match message.acknowledged {
        true => QoS::AtLeastOnce,
        false => QoS::AtMostOnce,
    };
    client
        .try_publish(message.topic, qos, message.retain, message.payload)
        .is_ok()
}

pub fn try_subscribe(client: &AsyncClient, filters: &[String]) -> bool {
    let filter = |path: &String| SubscribeFilter::new(path.clone(), QoS::AtLeastOnce);
    client
        .try_subscribe_many(filters.iter().map(filter))
        .is_ok()
}

pub fn try_acknowledge(client: &AsyncClient, receipt: Receipt) -> bool {
    let qos = match receipt.exactly_once {
        true => QoS::ExactlyOnce,
        false => QoS::AtLeastOnce,
    };
    let mut received = Publish::new("", qos, Vec::new());
    received.pkid = receipt.id;
    client.try_ack(&received).is_ok()
}

pub fn prepare(options: &Options) -> (Link, Wire) {
    let mqtt = &options.mqtt;
    let mut settings = MqttOptions::new(&mqtt.client_id, &mqtt.host, mqtt.port);
    let will = LastWill::new(&options.status_topic, "offline", QoS::AtLeastOnce, true);
    settings
        .set_keep_alive(mqtt.keep_alive)
        .set_clean_session(true)
        .set_transport(options.transport())
        .set_max_packet_size(MAX_INCOMING_BYTES as usize, MAX_OUTGOING_BYTES)
        .set_inflight(PACKET_IDS)
        .set_last_will(will);
    if let Some(login) = &mqtt.credentials {
        settings.set_credentials(&login.username, &login.password);
    }
    let (client, mut wire) = AsyncClient::new(settings, REQUESTS);
    wire.network_options.set_tcp_nodelay(true);
    wire.network_options
        .set_connection_timeout(CONNECT_TIMEOUT_S);
    (Link::V311(client), Wire::V311(Box::new(wire)))
}

pub fn translate(event: Event, wire: &EventLoop) -> Happening {
    match event {
        Event::Incoming(Packet::ConnAck(_)) => Happening::Connected(Terms {
            max_packet_bytes: MAX_OUTGOING_BYTES,
            keep_alive: wire.mqtt_options.keep_alive(),
        }),
        Event::Incoming(Packet::PubAck(ack)) => Happening::Acknowledged(ack.pkid, Ok(())),
        Event::Incoming(Packet::SubAck(ack)) => {
            match ack.return_codes.contains(&SubscribeReasonCode::Failure) {
                true => Happening::SubscriptionRefused("Failure".to_owned()),
                false => Happening::Heard,
            }
        }
        Event::Incoming(Packet::Publish(message)) => Happening::Received {
            receipt: (wire.state.manual_acks && message.qos != QoS::AtMostOnce).then_some(
                Receipt {
                    id: message.pkid,
                    exactly_once: message.qos == QoS::ExactlyOnce,
                },
            ),
            topic: message.topic,
            payload: message.payload.into(),
            retained: message.retain,
        },
        Event::Incoming(_) => Happening::Heard,
        Event::Outgoing(outgoing) => translate_outgoing(&outgoing),
    }
}

pub fn explain(error: &ConnectionError) -> LinkError {
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
