//! One connection, from the first packet to the last: what is sent when, and what answers mean.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use super::compose;
use super::link::{
    Happening, Link, LinkError, MAX_INCOMING_BYTES, MAX_UNACKNOWLEDGED, Receipt, Terms, Wire,
};
use super::session::{Session, TICK};

mod hearing;
mod speaking;

/// Events (and as many pictures) that may wait for their acknowledgement.
const EVENT_WINDOW: usize = 8;
/// Everything else that may.
const OTHER_WINDOW: usize = MAX_UNACKNOWLEDGED - 2 * EVENT_WINDOW;
/// After a refusal (quota, rights) events rest for this long.
const REST: Duration = Duration::from_secs(60);
/// Kept for the farewell out of the time that a shutdown has.
const FAREWELL: Duration = Duration::from_millis(500);
/// Silence beyond two pings that ends a connection: a full send buffer never times out by itself.
const SILENCE: Duration = Duration::from_secs(5);

/// Announcements over this are not listened to.
const MAX_ECHO_BYTES: usize = MAX_INCOMING_BYTES as usize / 2;

/// What a message that waits for its acknowledgement was.
enum Token {
    Event(u64),
    /// Of this event.
    Picture(u64),
    Retained(String),
    Other,
    Offline,
}

/// How a connection ended.
pub(super) struct Ended {
    /// How long the broker had accepted it; `None` when it never did.
    pub lived: Option<Duration>,
    /// `None` when we ended it.
    pub error: Option<LinkError>,
    /// Whether `offline` was acknowledged.
    pub farewell: bool,
    /// The first event whose picture was sent and not answered.
    pub picture: Option<u64>,
}

/// Saying goodbye, step by step.
#[derive(PartialEq, Eq)]
enum Phase {
    Talking,
    /// `offline` is on its way.
    Leaving,
    /// DISCONNECT is on its way.
    Left,
}

/// State of one connection.
pub(super) struct Conversation {
    link: Link,
    terms: Option<Terms>,
    since: Option<Instant>,
    heard: Instant,
    /// Handed to the client, packet identifier not known yet, in order.
    handed: VecDeque<Token>,
    /// Waiting for their acknowledgement, by packet identifier.
    waiting: HashMap<u16, Token>,
    /// Events among both.
    busy: BTreeSet<u64>,
    /// Messages among both that are neither events nor pictures.
    others: usize,
    /// Receipts kept back, in order.
    owed: VecDeque<Receipt>,
    /// Receipts handed to the client and not yet written.
    receipts: usize,
    /// Events from before this connection are delayed ones.
    first_fresh: u64,
    rest_until: Option<Instant>,
    phase: Phase,
    farewell: bool,
}

/// One step of the wire, which comes back with the result. The future must not be dropped half way:
/// a packet could be lost between the client's books and the socket.
async fn step(mut wire: Wire) -> (Wire, Result<Happening, LinkError>) {
    let result = wire.poll().await;
    (wire, result)
}

impl Conversation {
    pub fn new(link: Link) -> Self {
        Self {
            link,
            terms: None,
            since: None,
            heard: Instant::now(),
            handed: VecDeque::new(),
            waiting: HashMap::new(),
            busy: BTreeSet::new(),
            others: 0,
            owed: VecDeque::new(),
            receipts: 0,
            first_fresh: 0,
            rest_until: None,
            phase: Phase::Talking,
            farewell: false,
        }
    }

    /// Holds the connection until it breaks or we have left.
    pub async fn hold(mut self, session: &mut Session, wire: Wire) -> Ended {
        let error = self.talk(session, wire).await.err();
        Ended {
            lived: self.since.map(|since| since.elapsed()),
            error,
            farewell: self.farewell,
            picture: self.first_picture(),
        }
    }

    fn first_picture(&self) -> Option<u64> {
        let pictures = self.handed.iter().chain(self.waiting.values());
        pictures
            .filter_map(|token| match token {
                Token::Picture(sequence) => Some(*sequence),
                _ => None,
            })
            .min()
    }

    async fn talk(&mut self, session: &mut Session, wire: Wire) -> Result<(), LinkError> {
        let mut next = Box::pin(step(wire));
        let mut tick = tokio::time::interval(TICK);
        let mut deadline = None;
        loop {
            crate::faults::hang_if_told("mqtt");
            session.shared.progress.fetch_add(1, Ordering::Relaxed);
            deadline = deadline.or_else(|| session.shared.deadline());
            if deadline.is_some_and(|at| Instant::now() >= at) {
                return Ok(());
            }
            self.speak(session, deadline);
            let leave_in = match deadline {
                Some(at) if self.phase == Phase::Talking => at.checked_sub(FAREWELL).unwrap_or(at),
                Some(at) => at,
                None => Instant::now() + 2 * TICK,
            };
            // Later than the moment itself, or the check after it would be too early.
            let leave_in = tokio::time::Instant::from_std(leave_in + Duration::from_millis(2));
            tokio::select! {
                (mut wire, result) = &mut next => {
                    if self.listen(session, result?) {
                        return Ok(());
                    }
                    wire.keep_receipts(self.keeps_requests_back(session));
                    next = Box::pin(step(wire));
                }
                () = session.shared.wake.notified() => {}
                () = tokio::time::sleep_until(leave_in) => {}
                _ = tick.tick() => {
                    session.outbox.tend();
                    self.check_silence()?;
                    self.subscribe(session);
                }
            }
        }
    }

    fn check_silence(&self) -> Result<(), LinkError> {
        let Some(terms) = self.terms else {
            return Ok(());
        };
        if self.heard.elapsed() < 2 * terms.keep_alive + SILENCE {
            return Ok(());
        }
        Err(LinkError {
            message: "the broker went silent".to_owned(),
            oversized: false,
        })
    }

    fn greet(&mut self, session: &mut Session, terms: Terms) {
        self.terms = Some(terms);
        self.since = Some(Instant::now());
        self.first_fresh = session.outbox.next_sequence();
        session.note_connected();
        self.subscribe(session);
        let online = compose::retained(session.topics.status(), "online");
        self.hand_over(session, online, Token::Other);
        let announced = session.discovery.as_ref().map(|d| d.topic.clone());
        let first: Vec<String> = [Some(session.topics.info()), announced]
            .into_iter()
            .flatten()
            .collect();
        session.shared.mailbox().make_all_due(&first);
    }

    /// Subscribes, once per connection, unless listening rests.
    fn subscribe(&self, session: &mut Session) {
        let now = Instant::now();
        if self.terms.is_none() || self.phase != Phase::Talking || !session.listening.is_due(now) {
            return;
        }
        if session.listening.begin(now) {
            log::info!("listening to commands again");
        }
        let mut filters = session.topics.request_filters().to_vec();
        if let Some(discovery) = &session.discovery {
            filters.push(discovery.birth_topic.clone());
            let length = session
                .shared
                .mailbox()
                .payload(&discovery.topic)
                .map(<[u8]>::len);
            // The broker sends it back to us; it must not be over our own limit.
            if length.is_some_and(|length| length < MAX_ECHO_BYTES) {
                filters.push(discovery.topic.clone());
            }
        }
        if !self.link.try_subscribe(&filters) {
            session.shared.mailbox().count_dropped();
        }
    }
}

impl Token {
    fn is_other(&self) -> bool {
        matches!(self, Self::Retained(_) | Self::Other | Self::Offline)
    }
}
