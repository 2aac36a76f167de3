//! A one-place mailbox in which the freshest value wins.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Holds at most one value. A writer never waits; what it replaces is counted, not queued.
#[derive(Debug)]
pub struct LatestSlot<T> {
    state: Mutex<State<T>>,
    arrived: Condvar,
    bell: Option<Arc<Bell>>,
}

/// Wakes one reader that watches several slots, or a slot and a queue.
#[derive(Debug, Default)]
pub struct Bell {
    rung: Mutex<bool>,
    heard: Condvar,
}

impl Bell {
    /// Wakes the reader, now or when it next waits.
    pub fn ring(&self) {
        *self.rung.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.heard.notify_one();
    }

    /// Waits for a ring, at most `timeout`; true when it rang.
    pub fn wait(&self, timeout: Duration) -> bool {
        let rung = self.rung.lock().unwrap_or_else(PoisonError::into_inner);
        let (mut rung, _) = self
            .heard
            .wait_timeout_while(rung, timeout, |rung| !*rung)
            .unwrap_or_else(PoisonError::into_inner);
        std::mem::take(&mut *rung)
    }
}

#[derive(Debug)]
struct State<T> {
    value: Option<T>,
    replaced: u64,
    closed: bool,
}

/// What [`LatestSlot::take`] found.
#[derive(Debug, PartialEq, Eq)]
pub enum Take<T> {
    /// The freshest value.
    Value(T),
    /// Nothing arrived in time.
    Timeout,
    /// The slot is closed and empty.
    Closed,
}

impl<T> Default for LatestSlot<T> {
    fn default() -> Self {
        let state = State {
            value: None,
            replaced: 0,
            closed: false,
        };
        Self {
            state: Mutex::new(state),
            arrived: Condvar::new(),
            bell: None,
        }
    }
}

impl<T> LatestSlot<T> {
    /// A slot that also rings `bell` when something arrives or it closes.
    pub fn with_bell(bell: Arc<Bell>) -> Self {
        Self {
            bell: Some(bell),
            ..Self::default()
        }
    }

    /// Puts `value` in, replacing (and counting) one that nobody took.
    pub fn put(&self, value: T) {
        let mut state = self.lock();
        if state.value.replace(value).is_some() {
            state.replaced += 1;
        }
        drop(state);
        self.arrived.notify_one();
        self.bell.iter().for_each(|bell| bell.ring());
    }

    /// Takes the value, waiting for one at most `timeout`.
    pub fn take(&self, timeout: Duration) -> Take<T> {
        let deadline = Instant::now() + timeout;
        let mut state = self.lock();
        loop {
            if let Some(value) = state.value.take() {
                return Take::Value(value);
            }
            if state.closed {
                return Take::Closed;
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Take::Timeout;
            }
            state = self
                .arrived
                .wait_timeout(state, left)
                .unwrap_or_else(PoisonError::into_inner)
                .0;
        }
    }

    /// Values that were replaced before anyone took them.
    pub fn replaced(&self) -> u64 {
        self.lock().replaced
    }

    /// Wakes the reader for good; a value already in the slot can still be taken.
    pub fn close(&self) {
        self.lock().closed = true;
        self.arrived.notify_all();
        self.bell.iter().for_each(|bell| bell.ring());
    }

    fn lock(&self) -> MutexGuard<'_, State<T>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_freshest_value_wins_and_the_others_are_counted() {
        let slot = LatestSlot::default();
        (0..5).for_each(|n| slot.put(n));
        assert_eq!(slot.take(Duration::ZERO), Take::Value(4));
        assert_eq!(slot.replaced(), 4);
        assert_eq!(slot.take(Duration::ZERO), Take::Timeout);
    }

    #[test]
    fn one_bell_wakes_the_reader_of_several_slots() {
        let bell = Arc::new(Bell::default());
        let slots: Vec<_> = (0..3)
            .map(|_| LatestSlot::with_bell(Arc::clone(&bell)))
            .collect();
        assert!(!bell.wait(Duration::ZERO));
        slots[2].put('c');
        assert!(bell.wait(Duration::from_secs(60)));
        let found: Vec<_> = slots.iter().map(|slot| slot.take(Duration::ZERO)).collect();
        assert_eq!(found, [Take::Timeout, Take::Timeout, Take::Value('c')]);
    }

    #[test]
    fn closing_wakes_a_waiting_reader() {
        let slot = LatestSlot::<u8>::default();
        std::thread::scope(|scope| {
            let reader = scope.spawn(|| slot.take(Duration::from_secs(60)));
            slot.close();
            assert_eq!(reader.join().unwrap(), Take::Closed);
        });
    }
}
