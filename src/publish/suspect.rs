//! The picture that may be why connections end: a broker that cannot say no to a message (MQTT
//! 3.1.1) hangs up on it, every time it is sent. Pure.

/// A picture that was on its way when so many connections in a row ended is given up.
const ATTEMPTS: u32 = 3;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Suspect {
    sequence: u64,
    attempts: u32,
}

impl Suspect {
    /// A connection was lost; `oldest` is the event whose picture was the first without an answer.
    /// True when that picture should not be sent again.
    pub fn lost_with(&mut self, oldest: Option<u64>) -> bool {
        let Some(sequence) = oldest else { return false };
        if self.sequence != sequence {
            *self = Self {
                sequence,
                attempts: 0,
            };
        }
        self.attempts += 1;
        self.attempts >= ATTEMPTS
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_picture_is_given_up_after_three_connections_that_ended_with_it() {
        let mut suspect = Suspect::default();
        assert!(!suspect.lost_with(Some(7)));
        assert!(!suspect.lost_with(None), "the broker was away in between");
        assert!(!suspect.lost_with(Some(7)));
        assert!(suspect.lost_with(Some(7)));
    }

    #[test]
    fn another_picture_starts_anew() {
        let mut suspect = Suspect::default();
        for sequence in [7, 7, 8, 8, 7, 7] {
            assert!(!suspect.lost_with(Some(sequence)));
        }
    }
}
