//! What the broker says, and what follows from it.

use std::time::Instant;

use super::{Conversation, Phase, REST, Token};
use crate::publish::compose;
use crate::publish::discovery::removals;
use crate::publish::link::{Happening, Refusal};
use crate::publish::session::Session;

impl Conversation {
    /// True when the conversation is over.
    pub(super) fn listen(&mut self, session: &mut Session, happening: Happening) -> bool {
        if !matches!(
            happening,
            Happening::Sent(_)
                | Happening::ReceiptGiven
                | Happening::Nothing
                | Happening::Disconnected
        ) {
            self.heard = Instant::now();
        }
        match happening {
            Happening::Connected(terms) => self.greet(session, terms),
            Happening::Sent(id) => {
                if let Some(token) = self.handed.pop_front() {
                    match id {
                        0 => self.done(session, token),
                        id => drop(self.waiting.insert(id, token)),
                    }
                }
            }
            Happening::Acknowledged(id, outcome) => {
                if let Some(token) = self.waiting.remove(&id) {
                    match outcome {
                        Ok(()) => self.done(session, token),
                        Err(refusal) => self.refused(session, token, &refusal),
                    }
                }
            }
            Happening::SubscriptionRefused(reason) => {
                log::warn!("the broker refused a subscription ({reason}); commands may not arrive");
            }
            Happening::Received {
                topic,
                payload,
                retained,
                receipt,
            } => {
                if self.owed.len() < usize::from(u16::MAX) {
                    self.owed.extend(receipt);
                }
                self.receive(session, &topic, &payload, retained);
            }
            Happening::ReceiptGiven => self.receipts = self.receipts.saturating_sub(1),
            Happening::Disconnected => return true,
            Happening::Heard | Happening::Nothing => {}
        }
        false
    }

    fn done(&mut self, session: &mut Session, token: Token) {
        self.others -= usize::from(token.is_other());
        match token {
            Token::Event(sequence) => {
                self.busy.remove(&sequence);
                session.outbox.acknowledge(sequence);
            }
            Token::Retained(topic) => session.shared.mailbox().delivered(&topic),
            Token::Offline => {
                self.farewell = true;
                self.phase = Phase::Left;
                self.link.try_disconnect();
            }
            Token::Picture(_) | Token::Other => {}
        }
    }

    /// The broker did not take a message. An event stays in the outbox; the rest is lost.
    fn refused(&mut self, session: &mut Session, token: Token, refusal: &Refusal) {
        let what = match &token {
            Token::Event(_) => "an event",
            Token::Picture(_) => "a picture",
            Token::Retained(topic) => topic.as_str(),
            Token::Other | Token::Offline => "a message",
        };
        let reason = &refusal.reason;
        let line = format!("the broker does not take {what}: {reason}");
        if let Some(line) = session.refusals.about(&line) {
            log::warn!("{line}");
        }
        session.shared.set_error(Some(line));
        match token {
            Token::Event(sequence) => {
                self.busy.remove(&sequence);
                if refusal.hopeless {
                    session.outbox.reject(sequence);
                } else {
                    self.rest_until = Some(Instant::now() + REST);
                }
            }
            Token::Offline => {
                self.others -= 1;
                self.phase = Phase::Left;
                self.link.try_disconnect();
            }
            Token::Picture(sequence) => session.outbox.drop_picture(sequence),
            Token::Retained(_) | Token::Other => {
                self.others -= 1;
                session.shared.mailbox().count_dropped();
            }
        }
    }

    fn receive(&mut self, session: &mut Session, topic: &str, payload: &[u8], retained: bool) {
        if let Some(discovery) = &session.discovery {
            if topic == discovery.birth_topic {
                // A retained birth is from before this connection, and we were announced since.
                if !retained && payload == b"online" {
                    log::info!("Home Assistant came online; the device is announced again");
                    session.shared.mailbox().make_due(&discovery.topic);
                }
                return;
            }
            if topic == discovery.topic {
                if retained {
                    forget_gone_entities(session, payload);
                }
                return;
            }
        }
        let counters = &session.shared.counters;
        // What is kept back may come again after a lost connection: it is only refused, not done.
        let busy = !self.owed.is_empty() || session.shared.mailbox().is_crowded();
        let answer = (session.inbox).receive(counters, topic, payload, retained, busy);
        if let Some(answer) = answer {
            session.shared.mailbox().put_answer(answer);
        }
    }
}

/// `old` is what the run before announced: what is gone since has to be removed by name.
fn forget_gone_entities(session: &Session, old: &[u8]) {
    let Some(discovery) = &session.discovery else {
        return;
    };
    let mut mailbox = session.shared.mailbox();
    let gone = mailbox
        .payload(&discovery.topic)
        .and_then(|new| removals(old, new));
    if let Some(gone) = gone {
        mailbox.put(compose::passing(&discovery.topic, &gone));
        mailbox.make_due(&discovery.topic);
    }
}
