//! The mqtt thread: connections one after the other, with a pause between them that grows.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::SyncSender;
use std::time::{Duration, Instant};

use super::Command;
use super::backoff::Backoff;
use super::conversation::{Conversation, Ended};
use super::counters::{Complaint, count};
use super::inbox::Inbox;
use super::link::{self, Options};
use super::listening::{Listening, REST};
use super::outbox::Outbox;
use super::publisher::Shared;
use super::suspect::Suspect;
use crate::topics::Topics;

/// Progress is shown, the clock looked at and the outbox tended this often.
pub(super) const TICK: Duration = Duration::from_millis(500);

/// Topics shared with Home Assistant.
pub(super) struct Announced {
    /// Where it says that it came online.
    pub birth_topic: String,
    /// Where the device is announced.
    pub topic: String,
}

/// State that outlives a connection.
pub(super) struct Session {
    pub options: Options,
    pub topics: Topics,
    /// `None` when discovery is off.
    pub discovery: Option<Announced>,
    pub shared: Arc<Shared>,
    pub outbox: Outbox,
    pub inbox: Inbox,
    /// Refusals of the broker.
    pub refusals: Complaint,
    trouble: Complaint,
    backoff: Backoff,
    pub listening: Listening,
    suspect: Suspect,
}

impl Session {
    pub fn new(
        options: Options,
        topics: Topics,
        discovery: Option<Announced>,
        shared: Arc<Shared>,
        outbox: Outbox,
        commands: SyncSender<Command>,
    ) -> Self {
        let inbox = Inbox::new(topics.clone(), options.mqtt.commands.clone(), commands);
        Self {
            options,
            topics,
            discovery,
            shared,
            outbox,
            inbox,
            refusals: Complaint::default(),
            trouble: Complaint::default(),
            backoff: Backoff::default(),
            listening: Listening::default(),
            suspect: Suspect::default(),
        }
    }

    /// Runs until somebody asks to stop; true when `offline` was acknowledged.
    pub async fn run(mut self) -> bool {
        let mut resume = false;
        let farewell = loop {
            let (link, wire) = link::prepare(&self.options, resume);
            let ended = Conversation::new(link).hold(&mut self, wire).await;
            self.shared.connected.store(false, Ordering::Relaxed);
            self.shared.mailbox().forget_fleeting();
            resume |= ended.lived.is_some();
            match ended.error {
                None => break ended.farewell,
                Some(_) if self.shared.deadline().is_some() => break ended.farewell,
                Some(_) => self.note(&ended),
            }
            if !self.pause(ended.lived).await {
                break false;
            }
        };
        self.outbox.flush();
        farewell
    }

    pub fn note_connected(&mut self) {
        count(&self.shared.counters.connections);
        self.shared.connected.store(true, Ordering::Relaxed);
        self.shared.set_error(None);
        let (host, port) = (&self.options.mqtt.host, self.options.mqtt.port);
        log::info!("connected to {host}:{port}{}", self.trouble.settle());
    }

    fn note(&mut self, ended: &Ended) {
        let Some(error) = &ended.error else { return };
        let (host, port) = (&self.options.mqtt.host, self.options.mqtt.port);
        let lost = ended.lived.is_some();
        let what = if lost {
            "lost the connection to"
        } else {
            "cannot reach"
        };
        if let Some(line) = self
            .trouble
            .about(&format!("{what} {host}:{port}: {error}"))
        {
            log::warn!("{line}");
        }
        self.shared.set_error(Some(error.message.clone()));
        if error.oversized {
            count(&self.shared.counters.oversized);
        }
        if self.listening.end(error.oversized, Instant::now()) {
            count(&self.shared.counters.commands_off);
            log::error!(
                "a packet over {} KiB on our command topics ended the connection again; commands \
                 are off for {} minutes: clear the retained message",
                link::MAX_INCOMING_BYTES / 1024,
                REST.as_secs() / 60
            );
        }
        if self.suspect.lost_with(ended.picture) {
            self.give_up_picture(ended.picture);
        }
    }

    /// The broker hangs up on the picture of this event: the event goes without it.
    fn give_up_picture(&mut self, sequence: Option<u64>) {
        let Some(sequence) = sequence else { return };
        self.outbox.drop_picture(sequence);
        if let Some(line) = self.refusals.about(
            "the broker hangs up whenever a picture comes; its event is sent without: does the \
             broker limit the packet size?",
        ) {
            log::warn!("{line}");
        }
    }

    /// Waits before the next attempt. False when somebody asked to stop.
    async fn pause(&mut self, lived: Option<Duration>) -> bool {
        let until = Instant::now() + self.backoff.delay(lived, chance());
        loop {
            crate::faults::hang_if_told("mqtt");
            self.shared.progress.fetch_add(1, Ordering::Relaxed);
            if self.shared.deadline().is_some() {
                return false;
            }
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return true;
            }
            self.outbox.tend();
            tokio::select! {
                () = tokio::time::sleep(left.min(TICK)) => {}
                () = self.shared.wake.notified() => {}
            }
        }
    }
}

/// Uniform in 0–1; the middle where the system has no randomness to give.
fn chance() -> f64 {
    let mut bytes = [0_u8; 4];
    match getrandom::fill(&mut bytes) {
        Ok(()) => f64::from(u32::from_le_bytes(bytes)) / f64::from(u32::MAX),
        Err(_) => 0.5,
    }
}
