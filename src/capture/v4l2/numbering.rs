//! The driver's frame numbers.

/// Larger gaps in the driver's numbering are a new numbering, not lost frames.
const MAX_GAP: u32 = 1000;

/// Frame numbers since the device was opened, from the driver's own 32-bit ones.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Numbering {
    last: Option<u32>,
    /// Number of the newest frame.
    pub sequence: u64,
    /// Frames the driver took and nobody got.
    pub lost: u64,
}

impl Numbering {
    /// Takes in the number of one more frame.
    pub fn note(&mut self, driver_sequence: u32) {
        let Some(last) = self.last.replace(driver_sequence) else {
            return;
        };
        let step = match driver_sequence.wrapping_sub(last) {
            step @ 1..=MAX_GAP => u64::from(step),
            _ => 1,
        };
        self.sequence += step;
        self.lost += step - 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gaps_in_the_numbering_are_lost_frames() {
        let mut numbering = Numbering::default();
        for sequence in [u32::MAX - 1, u32::MAX, 2] {
            numbering.note(sequence);
        }
        assert_eq!((numbering.sequence, numbering.lost), (4, 2));
    }

    #[test]
    fn a_numbering_that_starts_again_or_stands_still_loses_nothing() {
        let mut numbering = Numbering::default();
        for sequence in [500, 501, 0, 0, 0, 1_000_000] {
            numbering.note(sequence);
        }
        assert_eq!((numbering.sequence, numbering.lost), (5, 0));
    }
}
