//! Where event ids come from.

use crate::moment::Moment;

/// Makes the id of a new event. Tests pass a closure that counts.
pub trait EventIds {
    /// A new id, never given before.
    fn next_id(&mut self, now: &Moment) -> String;
}

impl<F: FnMut(&Moment) -> String> EventIds for F {
    fn next_id(&mut self, now: &Moment) -> String {
        self(now)
    }
}

/// [ULIDs](https://github.com/ulid/spec): 48 bits of wall-clock milliseconds, 80 bits from the
/// kernel's random source, so ids are unique even where the clock is wrong.
#[derive(Clone, Copy, Debug, Default)]
pub struct RandomUlids;

impl EventIds for RandomUlids {
    fn next_id(&mut self, now: &Moment) -> String {
        let milliseconds = u64::try_from(now.wall.as_millisecond()).unwrap_or(0);
        let mut bytes = [0; 16];
        if getrandom::fill(&mut bytes).is_err() {
            // No kernel source: uptime at least never repeats within one boot.
            bytes = now.uptime.as_nanos().to_le_bytes();
        }
        ulid::Ulid::from_parts(milliseconds, u128::from_le_bytes(bytes)).to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::moment::Clock;

    #[test]
    fn two_ids_of_one_moment_differ_and_start_with_the_same_time() {
        let now = Moment {
            uptime: std::time::Duration::ZERO,
            wall: "2026-10-02T09:14:05.120Z".parse().unwrap(),
            clock: Clock::Synced,
        };
        let (a, b) = (RandomUlids.next_id(&now), RandomUlids.next_id(&now));
        assert_ne!(a, b);
        assert_eq!(a.len(), 26);
        assert_eq!(a[..10], b[..10]);
    }
}
