//! The handle other threads hold, and the start of the mqtt thread.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::SyncSender;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use thiserror::Error;
use tokio::sync::Notify;

use super::counters::Counters;
use super::link::Options;
use super::mailbox::Mailbox;
use super::outbox::NewEvent;
use super::session::{Announced, Session};
use super::{Command, MAX_PICTURE_BYTES, Outbox, Outgoing, compose, discovery, tls};
use crate::config::{Config, Id, Mqtt};
use crate::event::QueueHealth;
use crate::topics::{self, Topics};

/// Why the mqtt thread could not be started.
#[derive(Debug, Error)]
pub enum PublishError {
    /// A TLS file cannot be used.
    #[error("mqtt.tls: {}: {message}", .path.display())]
    Tls {
        /// Which.
        path: std::path::PathBuf,
        /// Why.
        message: String,
    },
    /// The system refused a thread or a runtime.
    #[error("cannot start the mqtt thread: {0}")]
    Thread(#[from] std::io::Error),
}

/// What the mqtt thread and the handles share.
#[derive(Debug, Default)]
pub(super) struct Shared {
    pub mailbox: Mutex<Mailbox>,
    pub wake: Notify,
    pub progress: Arc<AtomicU64>,
    pub connected: AtomicBool,
    pub counters: Counters,
    last_error: Mutex<Option<String>>,
    /// When the thread has to be done; `None` while nobody asked.
    stop: Mutex<Option<Instant>>,
    /// Whether `offline` was acknowledged; `None` while the thread runs.
    finished: Mutex<Option<bool>>,
    finish: Condvar,
}

impl Shared {
    pub fn mailbox(&self) -> MutexGuard<'_, Mailbox> {
        lock(&self.mailbox)
    }

    pub fn set_error(&self, error: Option<String>) {
        *lock(&self.last_error) = error;
    }

    /// When the thread has to be done, once somebody asked.
    pub fn deadline(&self) -> Option<Instant> {
        *lock(&self.stop)
    }

    pub fn ask_to_stop(&self, deadline: Instant) {
        lock(&self.stop).get_or_insert(deadline);
        self.wake.notify_one();
    }

    fn finish(&self, farewell: bool) {
        lock(&self.finished).get_or_insert(farewell);
        self.finish.notify_all();
    }
}

/// Nothing behind these locks is left half changed by a panic.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Handle to the mqtt thread; clones share it. When the last one is dropped the thread stops
/// without a farewell: the broker publishes the last will.
#[derive(Clone, Debug)]
pub struct Publisher {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    shared: Arc<Shared>,
    outbox: Outbox,
    topics: Topics,
    device: Id,
    mqtt: Mqtt,
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.shared.ask_to_stop(Instant::now());
    }
}

/// Tells the handles that the thread is gone, also when it panicked.
struct Finish(Arc<Shared>, bool);

impl Drop for Finish {
    fn drop(&mut self) {
        self.0.connected.store(false, Ordering::Relaxed);
        self.0.finish(self.1);
    }
}

/// Whether [`spawn`] would take this configuration: its TLS files can be used.
///
/// # Errors
/// [`PublishError::Tls`].
pub fn check(mqtt: &Mqtt) -> Result<(), PublishError> {
    mqtt.tls
        .as_ref()
        .map_or(Ok(()), |tls| tls::configure(tls).map(|_| ()))
}

/// Starts the mqtt thread. It connects by itself, for as long as it takes.
///
/// A client id can be in use once: shut an older publisher of the same device down first (use
/// [`check`] before), or the broker throws one of the two out over and over.
///
/// # Errors
/// TLS files that cannot be read, or no thread to be had. An unreachable broker is no error.
pub fn spawn(
    config: &Config,
    boot: &str,
    outbox: Outbox,
    commands: SyncSender<Command>,
) -> Result<Publisher, PublishError> {
    let topics = Topics::new(&config.mqtt.topic_prefix, &config.device);
    let options = Options {
        mqtt: config.mqtt.clone(),
        tls: config.mqtt.tls.as_ref().map(tls::configure).transpose()?,
        status_topic: topics.status(),
        boot: boot.to_owned(),
    };
    let shared = Arc::new(Shared::default());
    let discovery = config
        .mqtt
        .discovery_prefix
        .as_ref()
        .map(|prefix| Announced {
            birth_topic: topics::home_assistant_status(prefix),
            topic: discovery_topic(config, prefix),
        });
    announce(config, &topics, &mut shared.mailbox());
    let session = Session::new(
        options,
        topics.clone(),
        discovery,
        Arc::clone(&shared),
        outbox.clone(),
        commands,
    );
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let mut finish = Finish(Arc::clone(&shared), false);
    std::thread::Builder::new()
        .name("mqtt".to_owned())
        .spawn(move || {
            finish.1 = runtime.block_on(session.run());
            // A name lookup that hangs must not keep the thread.
            runtime.shutdown_background();
            drop(finish);
        })?;
    Ok(Publisher {
        inner: Arc::new(Inner {
            shared,
            outbox,
            topics,
            device: config.device.clone(),
            mqtt: config.mqtt.clone(),
        }),
    })
}

fn discovery_topic(config: &Config, prefix: &str) -> String {
    let node = topics::discovery_node(&config.mqtt.topic_prefix, &config.device);
    topics::discovery(prefix, &node)
}

/// Has the device announced to Home Assistant as `config` describes it; what was announced before
/// and is gone is removed there.
fn announce(config: &Config, topics: &Topics, mailbox: &mut Mailbox) {
    let Some(prefix) = &config.mqtt.discovery_prefix else {
        return;
    };
    let node = topics::discovery_node(&config.mqtt.topic_prefix, &config.device);
    let topic = discovery_topic(config, prefix);
    let body = discovery::device(config, topics, &node).to_string();
    let gone = mailbox
        .payload(&topic)
        .and_then(|old| discovery::removals(old, body.as_bytes()));
    if let Some(gone) = gone {
        mailbox.put(compose::passing(&topic, &gone));
    }
    mailbox.put(compose::retained(topic, body));
}

/// Clears what is retained of cameras and labels that `config` no longer has.
fn clear_gone(config: &Config, topics: &Topics, mailbox: &mut Mailbox) {
    let cameras = config.cameras.iter().map(|c| topics.camera_prefix(&c.id));
    let labels = config.labels.iter().map(|l| topics.setting_prefix(&l.id));
    let kept: Vec<String> = cameras.chain(labels).collect();
    for prefix in topics.shared_prefixes() {
        for topic in mailbox.topics(&prefix) {
            if !kept.iter().any(|kept| topic.starts_with(kept)) {
                mailbox.put(compose::retained(topic, Vec::new()));
            }
        }
    }
}

/// Stores `events`, and says so in the debug log, one line each: what a subscriber heard can be compared
/// with it.
fn store(outbox: &Outbox, events: Vec<NewEvent>) {
    let names: Vec<_> = events
        .iter()
        .map(|new| (new.event.kind, new.event.id.clone()))
        .collect();
    let sequences = outbox.append(events);
    for (sequence, (kind, id)) in sequences.into_iter().zip(names) {
        log::debug!("event {sequence} {} {id} is stored", kind.as_str());
    }
}

impl Publisher {
    /// Hands one message over. Events block until they are in the outbox (one disk transaction);
    /// everything else returns at once.
    pub fn send(&self, message: Outgoing) {
        self.send_all([message]);
    }

    /// Hands messages over that belong together: their events are stored in one transaction.
    ///
    /// Of a retained topic only the newest payload waits; replies and health wait in bounded
    /// queues and are forgotten when the connection is lost. What does not fit is counted in
    /// `dropped_messages`.
    pub fn send_all(&self, messages: impl IntoIterator<Item = Outgoing>) {
        let Inner {
            shared,
            outbox,
            topics,
            ..
        } = &*self.inner;
        let mut events = Vec::new();
        let mut others = Vec::new();
        for message in messages {
            match message {
                Outgoing::Event {
                    event,
                    evidence,
                    open,
                } => {
                    events.push(NewEvent {
                        event,
                        evidence,
                        open,
                    });
                }
                other => others.push(other),
            }
        }
        if !events.is_empty() {
            store(outbox, events);
        }
        for mut message in others {
            if let Outgoing::Health(health) = &mut message {
                health.queue = outbox.health();
                health.dropped_messages += shared.mailbox().dropped();
                health.mqtt = shared.counters.read();
            }
            let is_large = matches!(&message, Outgoing::Snapshot { jpeg, .. }
                if jpeg.len() > MAX_PICTURE_BYTES);
            let mut mailbox = shared.mailbox();
            if is_large {
                mailbox.count_dropped();
            }
            let is_answer = matches!(&message, Outgoing::Reply { .. });
            for message in compose::messages(topics, &message) {
                match is_answer {
                    true => mailbox.put_answer(message),
                    false => mailbox.put(message),
                }
            }
        }
        shared.wake.notify_one();
    }

    /// Takes over another configuration of the same device and broker: Home Assistant is told of
    /// new, changed and gone entities, and what is retained of cameras and labels that are gone is
    /// cleared. False, and nothing done, when `device` or `[mqtt]` differ:
    /// that takes a [`Publisher::shutdown`] and a new [`spawn`].
    pub fn announce(&self, config: &Config) -> bool {
        let inner = &*self.inner;
        if config.device != inner.device || config.mqtt != inner.mqtt {
            return false;
        }
        let mut mailbox = inner.shared.mailbox();
        clear_gone(config, &inner.topics, &mut mailbox);
        announce(config, &inner.topics, &mut mailbox);
        drop(mailbox);
        inner.shared.wake.notify_one();
        true
    }

    /// Outbox length, bytes and drops.
    pub fn queue_health(&self) -> QueueHealth {
        self.inner.outbox.health()
    }

    /// Grows at least once per second while the thread is alive, connected or not.
    pub fn progress(&self) -> Arc<AtomicU64> {
        Arc::clone(&self.inner.shared.progress)
    }

    /// Whether a broker accepted the connection and it still stands.
    pub fn is_connected(&self) -> bool {
        self.inner.shared.connected.load(Ordering::Relaxed)
    }

    /// What the last connection attempt or the broker complained about; `None` when all is well.
    pub fn last_error(&self) -> Option<String> {
        lock(&self.inner.shared.last_error).clone()
    }

    /// Publishes what is left, `offline`, and disconnects, within `deadline` even when the broker
    /// is gone. True when `offline` was acknowledged.
    pub fn shutdown(&self, deadline: Duration) -> bool {
        let shared = &self.inner.shared;
        let until = Instant::now() + deadline;
        shared.ask_to_stop(until);
        let mut finished = lock(&shared.finished);
        while finished.is_none() {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            (finished, _) = shared
                .finish
                .wait_timeout(finished, left)
                .unwrap_or_else(PoisonError::into_inner);
        }
        finished.unwrap_or(false)
    }
}
