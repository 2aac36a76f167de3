//! Requests that arrive: counted, limited, answered when refused, handed on when not.

use std::sync::mpsc::{SyncSender, TrySendError};
use std::time::Instant;

use serde_json::Value;

use super::Command;
use super::compose;
use super::counters::{Counters, count};
use super::limiter::Limiter;
use super::link::Message;
use super::request::{self, Refused};
use crate::config::CommandName;
use crate::topics::Topics;

/// Requests per second in the long run.
const PER_SECOND: u32 = 10;
/// Requests at once.
const BURST: u32 = 20;

/// Code and message of a request that there is no room for.
const BUSY: (&str, &str) = ("busy", "too many requests are waiting");

/// See the module.
pub(super) struct Inbox {
    topics: Topics,
    allowed: Vec<CommandName>,
    commands: SyncSender<Command>,
    limiter: Limiter,
    start: Instant,
}

impl Inbox {
    pub fn new(topics: Topics, allowed: Vec<CommandName>, commands: SyncSender<Command>) -> Self {
        Self {
            topics,
            allowed,
            commands,
            limiter: Limiter::new(BURST, PER_SECOND),
            start: Instant::now(),
        }
    }

    /// Deals with one message; the answer, when it has to be given here. `busy` refuses everything.
    pub fn receive(
        &mut self,
        counters: &Counters,
        topic: &str,
        payload: &[u8],
        retained: bool,
        busy: bool,
    ) -> Option<Message> {
        let request = self.topics.parse_request(topic)?;
        if retained {
            // It may be years old.
            count(&counters.retained_ignored);
            log::warn!("ignored a retained request on {topic}; clear it at the broker");
            return None;
        }
        let refused = |id: Value, code, message: &str| Refused {
            topic: request::reply_topic(&self.topics, &request),
            id,
            code,
            message: message.to_owned(),
        };
        if !self.limiter.allows(self.start.elapsed()) {
            count(&counters.rate_limited);
            let message = format!("at most {PER_SECOND} requests per second");
            let refused = refused(request::id_of(payload), "rate-limited", &message);
            return Some(compose::reply(refused.topic.clone(), &refused.body()));
        }
        if busy {
            count(&counters.refused);
            let refused = refused(request::id_of(payload), BUSY.0, BUSY.1);
            return Some(compose::reply(refused.topic.clone(), &refused.body()));
        }
        let outcome = request::read(&self.topics, &self.allowed, topic, payload)?;
        let refused = match outcome {
            Ok(command) => match self.commands.try_send(command) {
                Ok(()) => return None,
                Err(TrySendError::Full(_)) => refused(request::id_of(payload), BUSY.0, BUSY.1),
                Err(TrySendError::Disconnected(_)) => refused(
                    request::id_of(payload),
                    "stopping",
                    "the daemon is stopping",
                ),
            },
            Err(refused) => refused,
        };
        count(&counters.refused);
        Some(compose::reply(refused.topic.clone(), &refused.body()))
    }
}
