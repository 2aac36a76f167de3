//! What waits for the mqtt thread besides events: the newest payload of every retained topic, and a
//! bounded queue of replies and health. Nobody ever waits for room in it.

use std::collections::{BTreeMap, VecDeque};

use super::link::Message;

/// Replies and health messages that may wait; what does not fit is dropped and counted.
const MAX_FLEETING: usize = 64;
/// Retained topics that may exist: more than any configuration makes.
const MAX_TOPICS: usize = 65_536;

#[derive(Debug)]
struct Kept {
    message: Message,
    /// In `due`.
    due: bool,
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Mailbox {
    retained: BTreeMap<String, Kept>,
    /// Topics whose newest payload has to be sent, in order.
    due: VecDeque<String>,
    fleeting: VecDeque<Message>,
    dropped: u64,
}

impl Mailbox {
    /// Puts `message` in. A retained one replaces the one that waits on its topic; an empty one
    /// clears the topic.
    pub fn put(&mut self, message: Message) {
        if !message.retain {
            if self.fleeting.len() == MAX_FLEETING {
                self.fleeting.pop_front();
                self.dropped += 1;
            }
            self.fleeting.push_back(message);
            return;
        }
        let topic = message.topic.clone();
        if let Some(kept) = self.retained.get_mut(&topic) {
            // Its place in the queue is kept: a fast topic cannot be overtaken for ever.
            kept.message = message;
            self.make_due(&topic);
        } else if self.retained.len() == MAX_TOPICS {
            self.dropped += 1;
        } else {
            self.retained
                .insert(topic.clone(), Kept { message, due: true });
            self.due.push_back(topic);
        }
    }

    /// Has the payload of `topic`, when there is one, sent again.
    pub fn make_due(&mut self, topic: &str) {
        if let Some(kept) = self.retained.get_mut(topic).filter(|kept| !kept.due) {
            kept.due = true;
            self.due.push_back(topic.to_owned());
        }
    }

    /// The newest payload of a retained topic.
    pub fn payload(&self, topic: &str) -> Option<&[u8]> {
        Some(&self.retained.get(topic)?.message.payload)
    }

    /// Retained topics that start with `prefix`.
    pub fn topics(&self, prefix: &str) -> Vec<String> {
        let from = self.retained.range(prefix.to_owned()..);
        from.map(|(topic, _)| topic.clone())
            .take_while(|topic| topic.starts_with(prefix))
            .collect()
    }

    /// A new connection: everything retained has to be sent, `first` before the rest.
    pub fn make_all_due(&mut self, first: &[String]) {
        self.due.clear();
        self.retained.values_mut().for_each(|kept| kept.due = false);
        let topics: Vec<String> = self.retained.keys().cloned().collect();
        for topic in first.iter().chain(&topics) {
            self.make_due(topic);
        }
    }

    /// No connection: answers and health are for nobody, they are forgotten.
    pub fn forget_fleeting(&mut self) {
        self.fleeting.clear();
    }

    pub fn next(&mut self) -> Option<Message> {
        if let Some(message) = self.fleeting.pop_front() {
            return Some(message);
        }
        loop {
            let topic = self.due.pop_front()?;
            if let Some(kept) = self.retained.get_mut(&topic) {
                kept.due = false;
                return Some(kept.message.clone());
            }
        }
    }

    /// The broker took the retained payload of `topic`: a cleared topic can be forgotten.
    pub fn delivered(&mut self, topic: &str) {
        let done = |kept: &Kept| !kept.due && kept.message.payload.is_empty();
        if self.retained.get(topic).is_some_and(done) {
            self.retained.remove(topic);
        }
    }

    pub fn is_empty(&self) -> bool {
        self.fleeting.is_empty() && self.due.is_empty()
    }

    /// Counts a message that could not be handed on.
    pub fn count_dropped(&mut self) {
        self.dropped += 1;
    }

    pub fn dropped(&self) -> u64 {
        self.dropped
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(topic: &str, payload: &str, retain: bool) -> Message {
        Message {
            topic: topic.to_owned(),
            payload: payload.as_bytes().to_vec(),
            acknowledged: true,
            retain,
            expiry_s: None,
            content_type: None,
        }
    }

    fn drain(mailbox: &mut Mailbox) -> Vec<String> {
        std::iter::from_fn(|| mailbox.next())
            .map(|m| format!("{}={}", m.topic, String::from_utf8_lossy(&m.payload)))
            .collect()
    }

    #[test]
    fn only_the_newest_payload_of_a_retained_topic_is_sent() {
        let mut mailbox = Mailbox::default();
        for (topic, payload) in [("a", "1"), ("b", "1"), ("a", "2")] {
            mailbox.put(message(topic, payload, true));
        }
        assert_eq!(drain(&mut mailbox), ["a=2", "b=1"]);
        assert!(mailbox.is_empty());
    }

    #[test]
    fn a_new_connection_gets_everything_retained_again_the_named_first() {
        let mut mailbox = Mailbox::default();
        for topic in ["a", "b", "info"] {
            mailbox.put(message(topic, "x", true));
        }
        drain(&mut mailbox);
        mailbox.make_all_due(&["info".to_owned(), "unknown".to_owned()]);
        assert_eq!(drain(&mut mailbox), ["info=x", "a=x", "b=x"]);
    }

    #[test]
    fn a_cleared_topic_is_sent_until_it_was_delivered_and_then_forgotten() {
        let mut mailbox = Mailbox::default();
        mailbox.put(message("a", "ON", true));
        mailbox.put(message("a", "", true));
        assert_eq!(drain(&mut mailbox), ["a="]);
        mailbox.make_all_due(&[]);
        assert_eq!(
            drain(&mut mailbox),
            ["a="],
            "the connection was lost before the answer"
        );
        mailbox.delivered("a");
        mailbox.make_all_due(&[]);
        assert!(mailbox.is_empty());
    }

    #[test]
    fn too_many_replies_drop_the_oldest_and_count_it() {
        let mut mailbox = Mailbox::default();
        for n in 0..MAX_FLEETING + 3 {
            mailbox.put(message("reply", &n.to_string(), false));
        }
        assert_eq!(mailbox.dropped(), 3);
        assert_eq!(drain(&mut mailbox)[0], "reply=3");
    }
}
