//! The other side: a client that hears everything and can speak.

use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

use rumqttc::v5::mqttbytes::QoS;
use rumqttc::v5::mqttbytes::v5::{Packet, PublishProperties};
use rumqttc::v5::{Client, Event, MqttOptions};
use serde_json::Value;

/// How long anything may take before a test gives up.
const PATIENCE: Duration = Duration::from_secs(120);

/// A message as it arrived.
#[derive(Clone, Debug)]
pub struct Heard {
    pub topic: String,
    pub payload: Vec<u8>,
    pub retained: bool,
    pub qos: u8,
    pub properties: PublishProperties,
}

impl Heard {
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.payload).unwrap()
    }

    pub fn user_property(&self, key: &str) -> Option<&str> {
        let pairs = &self.properties.user_properties;
        pairs
            .iter()
            .find(|(k, _)| k == key)
            .map(|(_, value)| value.as_str())
    }
}

#[derive(Default)]
struct Ears {
    heard: Mutex<(bool, Vec<Heard>)>,
    bell: Condvar,
}

/// Subscribed to everything.
pub struct Listener {
    client: Client,
    ears: Arc<Ears>,
}

impl Listener {
    /// Returns once the subscription stands.
    pub fn on(port: u16) -> Self {
        static COUNT: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);
        let n = COUNT.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let mut options = MqttOptions::new(format!("listener-{n}"), "127.0.0.1", port);
        options.set_max_packet_size(Some(16 << 20));
        let (client, mut connection) = Client::new(options, 100);
        client.subscribe("#", QoS::AtLeastOnce).unwrap();
        let ears = Arc::new(Ears::default());
        let mine = Arc::clone(&ears);
        std::thread::spawn(move || {
            for event in connection.iter() {
                let Ok(event) = event else { return };
                let mut heard = mine.heard.lock().unwrap();
                match event {
                    Event::Incoming(Packet::SubAck(_)) => heard.0 = true,
                    Event::Incoming(Packet::Publish(message)) => heard.1.push(Heard {
                        topic: String::from_utf8(message.topic.to_vec()).unwrap(),
                        payload: message.payload.to_vec(),
                        retained: message.retain,
                        qos: message.qos as u8,
                        properties: message.properties.unwrap_or_default(),
                    }),
                    _ => continue,
                }
                mine.bell.notify_all();
            }
        });
        let listener = Self { client, ears };
        listener.until("the subscription", |(subscribed, _)| {
            subscribed.then_some(())
        });
        listener
    }

    fn until<T>(&self, what: &str, found: impl Fn(&(bool, Vec<Heard>)) -> Option<T>) -> T {
        let end = Instant::now() + PATIENCE;
        let mut heard = self.ears.heard.lock().unwrap();
        loop {
            if let Some(found) = found(&heard) {
                return found;
            }
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                let topics: Vec<_> = heard
                    .1
                    .iter()
                    .map(|h| (&h.topic, h.payload.len()))
                    .collect();
                panic!("{what} did not come; heard {topics:?}");
            }
            heard = self.ears.bell.wait_timeout(heard, left).unwrap().0;
        }
    }

    /// All topics and payloads so far, one after the other.
    pub fn everything(&self) -> Vec<u8> {
        let heard = self.ears.heard.lock().unwrap();
        let of = |h: &Heard| [h.topic.as_bytes(), b"\n", &h.payload, b"\n"].concat();
        heard.1.iter().flat_map(of).collect()
    }

    /// The first message on `topic` that `fits`.
    pub fn wait(&self, topic: &str, fits: impl Fn(&Heard) -> bool) -> Heard {
        self.until(topic, |(_, heard)| {
            heard.iter().find(|h| h.topic == topic && fits(h)).cloned()
        })
    }

    /// The first message on `topic` with this text.
    pub fn wait_text(&self, topic: &str, text: &str) -> Heard {
        self.wait(topic, |heard| heard.payload == text.as_bytes())
    }

    /// Everything heard on `topic`, once there are `n`.
    pub fn wait_count(&self, topic: &str, n: usize) -> Vec<Heard> {
        self.until(topic, |(_, heard)| {
            let on: Vec<Heard> = heard.iter().filter(|h| h.topic == topic).cloned().collect();
            (on.len() >= n).then_some(on)
        })
    }

    /// Waits until every sequence number of `wanted` came on `topic`; those of the first arrivals,
    /// in order, and all messages.
    pub fn wait_sequences(
        &self,
        topic: &str,
        wanted: std::ops::RangeInclusive<u64>,
    ) -> (Vec<u64>, Vec<Heard>) {
        self.until(topic, |(_, heard)| {
            let on: Vec<Heard> = heard.iter().filter(|h| h.topic == topic).cloned().collect();
            let mut first = Vec::new();
            for sequence in on.iter().filter_map(|h| h.json()["sequence"].as_u64()) {
                if !first.contains(&sequence) {
                    first.push(sequence);
                }
            }
            wanted
                .clone()
                .all(|n| first.contains(&n))
                .then_some((first, on))
        })
    }

    /// How many messages came on `topic`.
    pub fn count(&self, topic: &str) -> usize {
        let heard = self.ears.heard.lock().unwrap();
        heard.1.iter().filter(|h| h.topic == topic).count()
    }

    pub fn all(&self) -> Vec<Heard> {
        self.ears.heard.lock().unwrap().1.clone()
    }

    pub fn say(&self, topic: &str, payload: impl Into<Vec<u8>>) {
        self.client
            .publish(topic, QoS::AtLeastOnce, false, payload.into())
            .unwrap();
    }

    pub fn say_retained(&self, topic: &str, payload: impl Into<Vec<u8>>) {
        self.client
            .publish(topic, QoS::AtLeastOnce, true, payload.into())
            .unwrap();
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        let _ = self.client.disconnect();
    }
}
