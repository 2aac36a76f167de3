//! The bits of a JPEG's picture data (ITU-T T.81, F.2.2.5): most significant first, a zero stuffed
//! behind every 0xff, markers between.

/// Reads up to 32 bits at once.
pub struct Bits<'a> {
    data: &'a [u8],
    at: usize,
    /// The next bits, from the top.
    buffer: u64,
    /// How many of them are there.
    count: u32,
    /// How many of those were made up, behind a marker or the end.
    made_up: u32,
}

impl<'a> Bits<'a> {
    pub fn new(data: &'a [u8]) -> Self {
        Self {
            data,
            at: 0,
            buffer: 0,
            count: 0,
            made_up: 0,
        }
    }

    /// Makes sure of 32 bits; behind the end they are zeros, which [`Bits::is_over`] tells.
    #[inline]
    pub fn refill(&mut self) {
        if self.count >= 32 {
            return;
        }
        if let Some(four) = self.data.get(self.at..self.at + 4)
            && let &[a, b, c, d] = four
            && a != 0xff
            && b != 0xff
            && c != 0xff
            && d != 0xff
        {
            let word = u64::from(u32::from_be_bytes([a, b, c, d]));
            self.buffer |= word << (32 - self.count);
            self.count += 32;
            self.at += 4;
            return;
        }
        self.refill_slowly();
    }

    #[cold]
    fn refill_slowly(&mut self) {
        while self.count <= 56 {
            let byte = match self.data.get(self.at..) {
                Some([0xff, 0x00, ..]) => {
                    self.at += 2;
                    0xff
                }
                Some([byte, ..]) if *byte != 0xff => {
                    self.at += 1;
                    *byte
                }
                // A marker, or the end.
                _ => {
                    self.made_up += 8;
                    0
                }
            };
            self.buffer |= u64::from(byte) << (56 - self.count);
            self.count += 8;
        }
    }

    /// The next `count` bits, 1 to 16, which stay.
    #[inline]
    #[expect(clippy::cast_possible_truncation, reason = "16 bits are left")]
    pub fn peek(&self, count: u32) -> usize {
        (self.buffer >> (64 - count)) as usize
    }

    /// Passes over bits that [`Bits::refill`] made sure of.
    #[inline]
    pub fn skip(&mut self, count: u32) {
        self.buffer <<= count;
        self.count = self.count.saturating_sub(count);
    }

    /// Takes the next 0 to 16 bits.
    #[inline]
    pub fn take(&mut self, count: u32) -> usize {
        if count == 0 {
            return 0;
        }
        let bits = self.peek(count);
        self.skip(count);
        bits
    }

    /// Whether bits were used that are not there.
    pub fn is_over(&self) -> bool {
        self.made_up > self.count
    }

    /// Goes on behind the restart marker that is due, RST0 to RST7; `false` when it is not there.
    pub fn restart(&mut self) -> bool {
        // Bytes that were read ahead end at the marker, which is never passed over.
        let rest = self.data.get(self.at..).unwrap_or_default();
        let whole = (self.count - self.made_up.min(self.count)) / 8;
        let Some(marker) = rest
            .iter()
            .position(|byte| *byte != 0xff)
            .filter(|n| *n > 0)
        else {
            return false;
        };
        let is_restart = (0xd0..=0xd7).contains(&rest[marker]);
        self.at += marker + 1;
        (self.buffer, self.count, self.made_up) = (0, 0, 0);
        is_restart && whole == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stuffed_zeros_are_left_out_and_markers_end_the_bits() {
        let mut bits = Bits::new(&[0xab, 0xff, 0x00, 0x0f, 0xff, 0xd3, 0xc0]);
        bits.refill();
        assert_eq!(
            (bits.take(8), bits.take(4), bits.take(12)),
            (0xab, 0xf, 0xf0f)
        );
        assert!(!bits.is_over());
        assert!(bits.restart());
        bits.refill();
        assert_eq!(bits.take(2), 3);
        bits.refill();
        bits.skip(6);
        assert!(!bits.is_over());
        bits.skip(1);
        assert!(bits.is_over());
    }

    #[test]
    fn a_restart_that_comes_too_early_or_not_at_all_is_told() {
        let mut bits = Bits::new(&[0x12, 0x34, 0xff, 0xd0]);
        bits.refill();
        bits.skip(8);
        assert!(!bits.restart(), "a byte was not used");
        let mut bits = Bits::new(&[0x12, 0x34]);
        bits.refill();
        bits.skip(16);
        assert!(!bits.restart());
    }
}
