//! What waits for the mqtt thread besides events: the newest payload of every retained topic, and two
//! bounded queues, of answers and of what passes by (health, announcements). Nobody ever waits for
//! room in it: while it is crowded, the broker keeps requests back.

use std::collections::{BTreeMap, VecDeque};

use super::link::Message;

/// Messages that pass by and may wait; of more the oldest is dropped and counted.
const MAX_PASSING: usize = 64;
/// Packet bytes of answers from which on requests are kept back: ten thousand plain ones fit.
const ANSWERS_BYTES: usize = 4 << 20;
/// For the answers to what was on its way by then; what does not fit is dropped and counted.
const ANSWERS_ROOM_BYTES: usize = 256 << 10;
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
    passing: VecDeque<Message>,
    answers: VecDeque<Message>,
    answers_bytes: usize,
    dropped: u64,
}

impl Mailbox {
    /// Puts `message` in. A retained one replaces the one that waits on its topic; an empty one
    /// clears the topic.
    pub fn put(&mut self, message: Message) {
        if !message.retain {
            if self.passing.len() == MAX_PASSING {
                self.passing.pop_front();
                self.dropped += 1;
            }
            self.passing.push_back(message);
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

    /// Puts the answer to a request in. None is dropped as long as no requests are taken while
    /// [`Mailbox::is_crowded`].
    pub fn put_answer(&mut self, answer: Message) {
        let bytes = self.answers_bytes + answer.packet_bytes();
        if bytes > ANSWERS_BYTES + ANSWERS_ROOM_BYTES {
            self.dropped += 1;
            return;
        }
        self.answers_bytes = bytes;
        self.answers.push_back(answer);
    }

    /// Whether so many answers wait that no more requests should be taken.
    pub fn is_crowded(&self) -> bool {
        self.answers_bytes >= ANSWERS_BYTES
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
        self.passing.clear();
        self.answers.clear();
        self.answers_bytes = 0;
    }

    /// The next message to send. Answers come last: thousands of them must not hold up a state.
    pub fn next(&mut self) -> Option<Message> {
        if let Some(message) = self.passing.pop_front() {
            return Some(message);
        }
        while let Some(topic) = self.due.pop_front() {
            if let Some(kept) = self.retained.get_mut(&topic) {
                kept.due = false;
                return Some(kept.message.clone());
            }
        }
        let answer = self.answers.pop_front()?;
        self.answers_bytes -= answer.packet_bytes();
        Some(answer)
    }

    /// The broker took the retained payload of `topic`: a cleared topic can be forgotten.
    pub fn delivered(&mut self, topic: &str) {
        let done = |kept: &Kept| !kept.due && kept.message.payload.is_empty();
        if self.retained.get(topic).is_some_and(done) {
            self.retained.remove(topic);
        }
    }

    pub fn is_empty(&self) -> bool {
        self.passing.is_empty() && self.due.is_empty() && self.answers.is_empty()
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
    fn too_much_that_passes_by_drops_the_oldest_and_counts_it() {
        let mut mailbox = Mailbox::default();
        for n in 0..MAX_PASSING + 3 {
            mailbox.put(message("health", &n.to_string(), false));
        }
        assert_eq!(mailbox.dropped(), 3);
        assert_eq!(drain(&mut mailbox)[0], "health=3");
    }

    #[test]
    fn answers_wait_for_everything_else() {
        let mut mailbox = Mailbox::default();
        mailbox.put_answer(message("reply", "1", false));
        mailbox.put(message("state", "ON", true));
        mailbox.put(message("health", "{}", false));
        assert_eq!(drain(&mut mailbox), ["health={}", "state=ON", "reply=1"]);
    }

    #[test]
    fn a_crowd_of_answers_is_seen_before_any_is_dropped_and_goes_as_they_leave() {
        let mut mailbox = Mailbox::default();
        let mut put = 0;
        while !mailbox.is_crowded() {
            mailbox.put_answer(message("reply", "{}", false));
            put += 1;
        }
        assert!(put > 10_000, "{put}");
        mailbox.put_answer(message("reply", "{}", false));
        assert_eq!(mailbox.dropped(), 0);
        for _ in 0..2 * put {
            mailbox.put_answer(message("reply", "{}", false));
        }
        assert!(mailbox.dropped() > 0);
        let kept = drain(&mut mailbox).len() as u64;
        assert_eq!(kept + mailbox.dropped(), 3 * put + 1);
        assert!(!mailbox.is_crowded());
        assert_eq!(mailbox.answers_bytes, 0);
    }
}
