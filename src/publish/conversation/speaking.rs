//! What is handed to the client, as far as the windows allow.

use std::time::Instant;

use super::{Conversation, EVENT_WINDOW, FAREWELL, OTHER_WINDOW, Phase, Token};
use crate::publish::compose;
use crate::publish::link::{MAX_RECEIPTS, Message};
use crate::publish::outbox::Ready;
use crate::publish::session::Session;

impl Conversation {
    /// Hands over what there is, as far as the windows allow.
    pub(super) fn speak(&mut self, session: &mut Session, deadline: Option<Instant>) {
        if self.terms.is_none() || self.phase != Phase::Talking {
            return;
        }
        self.give_receipts(session);
        while self.others < OTHER_WINDOW {
            let Some(message) = session.shared.mailbox().next() else {
                break;
            };
            let token = match message.retain {
                true => Token::Retained(message.topic.clone()),
                false => Token::Other,
            };
            self.hand_over(session, message, token);
        }
        let rests = self.rest_until.is_some_and(|until| Instant::now() < until);
        while !rests && self.busy.len() < EVENT_WINDOW {
            let Some(ready) = session.outbox.next_ready(&self.busy) else {
                break;
            };
            self.hand_over_event(session, ready);
        }
        let Some(deadline) = deadline else { return };
        let is_done = self.handed.is_empty()
            && self.waiting.is_empty()
            && session.shared.mailbox().is_empty();
        if is_done || Instant::now() + FAREWELL >= deadline {
            let offline = compose::retained(session.topics.status(), "offline");
            self.phase = Phase::Leaving;
            self.hand_over(session, offline, Token::Offline);
        }
    }

    /// Whether the broker gets no receipts for now: more answers wait than there is room for, or older
    /// receipts have to go first.
    pub(super) fn keeps_requests_back(&self, session: &Session) -> bool {
        !self.owed.is_empty() || self.receipts > 0 || session.shared.mailbox().is_crowded()
    }

    /// Lets the broker go on as far as there is room for answers.
    fn give_receipts(&mut self, session: &Session) {
        while self.receipts < MAX_RECEIPTS && !session.shared.mailbox().is_crowded() {
            let Some(receipt) = self.owed.front() else {
                return;
            };
            if !self.link.try_acknowledge(*receipt) {
                return;
            }
            self.receipts += 1;
            self.owed.pop_front();
        }
    }

    fn hand_over_event(&mut self, session: &mut Session, mut ready: Ready) {
        let sequence = ready.sequence;
        ready.event.delayed = sequence < self.first_fresh;
        let (picture, event) = compose::event(&session.topics, &ready);
        let limit = self
            .terms
            .map_or(usize::MAX, |terms| terms.max_packet_bytes);
        if let Some(picture) = picture {
            if picture.packet_bytes() <= limit {
                self.hand_over(session, picture, Token::Picture(sequence));
            } else {
                session.outbox.drop_picture(sequence);
                ready.event.evidence = None;
                ready.evidence = None;
                return self.hand_over_event(session, ready);
            }
        }
        if event.packet_bytes() > limit {
            session.outbox.reject(sequence);
            return;
        }
        self.busy.insert(sequence);
        self.hand_over(session, event, Token::Event(sequence));
    }

    pub(super) fn hand_over(&mut self, session: &mut Session, message: Message, token: Token) {
        let limit = self
            .terms
            .map_or(usize::MAX, |terms| terms.max_packet_bytes);
        if message.packet_bytes() > limit {
            // Sending it would end the connection.
            if let Some(line) = session.refusals.about(&format!(
                "{} is larger than the broker takes ({limit} bytes) and is not sent",
                message.topic
            )) {
                log::warn!("{line}");
            }
            session.shared.mailbox().count_dropped();
            return;
        }
        if !self.link.try_publish(message) {
            session.shared.mailbox().count_dropped();
            return;
        }
        self.others += usize::from(token.is_other());
        self.handed.push_back(token);
    }
}
