//! The bits of a JPEG's picture data (ITU-T T.81, F.2.2.5): most significant first, a zero stuffed
//! behind every 0xff, restart markers between.

/// Picture data without stuffed zeros and markers, so that a position in it is a number of bits.
pub struct Scan {
    bytes: Vec<u8>,
    /// Where the parts between restart markers end, bytes; the last one is the end of the data.
    ends: Vec<usize>,
}

impl Scan {
    /// Takes `data` up to the first marker that is no restart, RST0 to RST7.
    pub fn of(data: &[u8]) -> Self {
        let mut scan = Self {
            bytes: Vec::with_capacity(data.len()),
            ends: Vec::new(),
        };
        let mut rest = data;
        while let Some(at) = memchr::memchr(0xff, rest) {
            scan.bytes.extend_from_slice(&rest[..at]);
            let behind = &rest[at + 1..];
            // Any number of 0xff may precede a marker (B.1.1.2).
            let fill = behind.iter().take_while(|byte| **byte == 0xff).count();
            rest = &behind[fill.min(behind.len())..];
            match rest.split_first() {
                Some((0, after)) if fill == 0 => {
                    scan.bytes.push(0xff);
                    rest = after;
                }
                Some((0xd0..=0xd7, after)) => {
                    scan.ends.push(scan.bytes.len());
                    rest = after;
                }
                _ => {
                    rest = &[];
                    break;
                }
            }
        }
        scan.bytes.extend_from_slice(rest);
        scan.ends.push(scan.bytes.len());
        scan
    }

    /// All of it.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Reads from bit number `position` on.
    #[inline]
    pub fn bits(&self, position: usize) -> Bits<'_> {
        let mut bits = Bits {
            bytes: &self.bytes,
            at: position / 8,
            buffer: 0,
            count: 0,
        };
        bits.refill();
        bits.skip(u32::from(position.to_le_bytes()[0] % 8));
        bits
    }

    /// Length of all parts, bits.
    pub fn length(&self) -> usize {
        self.bytes.len() * 8
    }

    /// The parts between restart markers, from the first one on.
    pub fn parts(&self) -> Parts<'_> {
        let (first, rest) = self.ends.split_first().unwrap_or((&0, &[]));
        Parts { end: *first, rest }
    }
}

/// Which part is being read.
pub struct Parts<'a> {
    /// Where it ends, bytes.
    end: usize,
    /// Where the others end.
    rest: &'a [usize],
}

impl Parts<'_> {
    /// Whether bits were used that are not there.
    #[inline]
    pub fn is_over(&self, bits: &Bits<'_>) -> bool {
        bits.position() > self.end * 8
    }

    /// The first bit of the next part, when all of this one is used but for bits that fill its last
    /// byte, and a restart marker was there.
    pub fn next(&mut self, bits: &Bits<'_>) -> Option<usize> {
        let (next, rest) = self.rest.split_first()?;
        let begin = self.end;
        (self.end, self.rest) = (*next, rest);
        (bits.position().div_ceil(8) == begin).then_some(begin * 8)
    }
}

/// A place in a [`Scan`].
#[derive(Clone, Copy)]
pub struct Bits<'a> {
    bytes: &'a [u8],
    /// The next byte that is not counted in `buffer`.
    at: usize,
    /// The next bits, from the top. Those behind `count` are the right ones or zeros.
    buffer: u64,
    /// How many are counted.
    count: u32,
}

impl Bits<'_> {
    /// Makes sure of 56 bits; behind the end they are zeros.
    #[inline(always)]
    pub fn refill(&mut self) {
        let word = match self.bytes.get(self.at..) {
            Some([a, b, c, d, e, f, g, h, ..]) => {
                u64::from_be_bytes([*a, *b, *c, *d, *e, *f, *g, *h])
            }
            rest => last(rest.unwrap_or_default()),
        };
        self.buffer |= word >> self.count;
        self.at += ((63 - self.count) / 8) as usize;
        self.count |= 56;
    }

    /// The next `count` bits, 1 to 16, which stay.
    #[inline(always)]
    #[expect(clippy::cast_possible_truncation, reason = "16 bits are left")]
    pub fn peek(&self, count: u32) -> usize {
        (self.buffer >> (64 - count)) as usize
    }

    /// Passes over at most as many bits as [`Bits::refill`] made sure of.
    #[inline(always)]
    pub fn skip(&mut self, count: u32) {
        self.buffer <<= count;
        self.count -= count;
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

    /// Number of the next bit.
    #[inline]
    pub fn position(&self) -> usize {
        self.at * 8 - self.count as usize
    }
}

/// Fewer than eight bytes, zeros behind.
#[cold]
fn last(rest: &[u8]) -> u64 {
    let mut word = [0; 8];
    word[..rest.len()].copy_from_slice(rest);
    u64::from_be_bytes(word)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stuffed_zeros_are_left_out_and_restart_markers_part_the_bits() {
        let scan = Scan::of(&[
            0xab, 0xff, 0x00, 0x0f, 0xff, 0xff, 0xd3, 0xc0, 0xff, 0xd9, 0x77,
        ]);
        let (mut bits, mut parts) = (scan.bits(0), scan.parts());
        assert_eq!(
            (bits.take(8), bits.take(4), bits.take(12)),
            (0xab, 0xf, 0xf0f)
        );
        assert!(!parts.is_over(&bits));
        let next = parts.next(&bits).unwrap();
        assert_eq!((next, bits.position()), (24, 24));
        let mut bits = scan.bits(next);
        assert_eq!(bits.take(2), 3);
        bits.skip(6);
        assert!(!parts.is_over(&bits));
        bits.skip(1);
        assert!(parts.is_over(&bits));
        assert!(parts.next(&bits).is_none());
    }

    #[test]
    fn a_restart_that_comes_too_early_or_not_at_all_is_told() {
        let scan = Scan::of(&[0x12, 0x34, 0xff, 0xd0]);
        assert_eq!(
            scan.parts().next(&scan.bits(8)),
            None,
            "a byte was not used"
        );
        assert_eq!(scan.parts().next(&scan.bits(16)), Some(16));
        let scan = Scan::of(&[0x12, 0x34]);
        assert_eq!(scan.parts().next(&scan.bits(16)), None);
    }

    #[test]
    fn behind_the_end_there_are_zeros_and_a_position() {
        let scan = Scan::of(&[0xab]);
        let mut bits = scan.bits(4);
        assert_eq!(bits.take(16), 0xb000);
        for _ in 0..100 {
            bits.refill();
            assert_eq!(bits.take(16), 0);
        }
        assert_eq!(bits.position(), 4 + 101 * 16);
    }
}
