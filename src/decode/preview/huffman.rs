//! Huffman tables of a baseline JPEG, made for one purpose: to read DC coefficients and to pass over
//! AC coefficients as fast as may be.

use super::bits::Bits;

/// Codes of up to so many bits are looked up at once.
const FAST_BITS: u32 = 10;
const FAST: usize = 1 << FAST_BITS;
/// Codes of AC coefficients that end within so many bits are passed over together.
const PASS_BITS: u32 = 11;
const PASSES: usize = 1 << PASS_BITS;
/// Longest code.
const MAX_BITS: usize = 16;

/// A table as a DHT segment gives it (ITU-T T.81, B.2.4.2 and C.2).
#[derive(Clone)]
pub struct Table {
    /// By the next [`FAST_BITS`] bits: length of the code and its value; length 0 is a longer code.
    fast: Box<[(u8, u8); FAST]>,
    /// By the next [`PASS_BITS`] bits: AC coefficients that can be passed over; none is a longer code.
    passes: Box<[Pass; PASSES]>,
    /// Per length: the first code that is not of this length, as [`MAX_BITS`] bits.
    limits: [u32; MAX_BITS + 1],
    /// Per length: what is added to a code for its place in `values`.
    offsets: [i32; MAX_BITS + 1],
    values: Vec<u8>,
}

impl Table {
    /// `None` for counts and values that make no prefix code.
    pub fn new(counts: &[u8; MAX_BITS], values: &[u8]) -> Option<Self> {
        let mut table = Self {
            fast: Box::new([(0, 0); FAST]),
            passes: Box::new([Pass::default(); PASSES]),
            limits: [0; MAX_BITS + 1],
            offsets: [0; MAX_BITS + 1],
            values: values.to_vec(),
        };
        let (mut code, mut place) = (0_u32, 0_usize);
        for (length, count) in (1_u32..).zip(*counts) {
            let first = place;
            table.offsets[length as usize] =
                i32::try_from(first).ok()? - i32::try_from(code).ok()?;
            for _ in 0..count {
                let value = *values.get(place)?;
                if code >> length != 0 {
                    return None;
                }
                if length <= FAST_BITS {
                    let from = (code as usize) << (FAST_BITS - length);
                    let many = 1 << (FAST_BITS - length);
                    let length = u8::try_from(length).ok()?;
                    table.fast[from..from + many].fill((length, value));
                }
                code += 1;
                place += 1;
            }
            let left = u32::try_from(MAX_BITS).ok()? - length;
            table.limits[length as usize] = code << left;
            code <<= 1;
        }
        if place != values.len() {
            return None;
        }
        for (ahead, passed) in (0..).zip(table.passes.iter_mut()) {
            *passed = Pass::of(ahead, &table.fast);
        }
        Some(table)
    }

    /// The next value; 32 bits have to be there. `None` for bits that are no code.
    #[inline]
    pub fn next(&self, bits: &mut Bits<'_>) -> Option<u8> {
        let (length, value) = self.fast[bits.peek(FAST_BITS)];
        if length != 0 {
            bits.skip(u32::from(length));
            return Some(value);
        }
        self.next_long(bits)
    }

    #[cold]
    fn next_long(&self, bits: &mut Bits<'_>) -> Option<u8> {
        let ahead = u32::try_from(bits.peek(16)).ok()?;
        let length = (11..=MAX_BITS).find(|length| ahead < self.limits[*length])?;
        let bits_of_code = u32::try_from(length).ok()?;
        let code = i32::try_from(ahead >> (16 - bits_of_code)).ok()?;
        bits.skip(bits_of_code);
        let place = usize::try_from(code + self.offsets[length]).ok()?;
        self.values.get(place).copied()
    }

    /// The difference of a DC coefficient (F.2.2.1).
    #[inline]
    pub fn difference(&self, bits: &mut Bits<'_>) -> Option<i32> {
        bits.refill();
        let size = u32::from(self.next(bits)?);
        if size > 11 {
            return None;
        }
        let value = i32::try_from(bits.take(size)).ok()?;
        let is_negative = size > 0 && value < 1 << (size - 1);
        Some(if is_negative {
            value - (1 << size) + 1
        } else {
            value
        })
    }

    /// Passes over the AC coefficients of a block (F.2.2.2).
    #[inline]
    pub fn pass_block(&self, bits: &mut Bits<'_>) -> Option<()> {
        let mut index = 1;
        while index < 64 {
            bits.refill();
            let pass = self.passes[bits.peek(PASS_BITS)];
            if pass.bits > 0 && index + u32::from(pass.before) < 64 {
                bits.skip(u32::from(pass.bits));
                index += u32::from(pass.coefficients);
            } else {
                let (size, coefficients) = coefficients(self.next(bits)?)?;
                bits.skip(u32::from(size));
                index += u32::from(coefficients);
            }
        }
        // Anything between is a run over the end of the block.
        (index == 64 || index > END).then_some(())
    }
}

/// What an end of block advances by: over everything else.
const END: u32 = 128;

/// What some bits pass over: all codes that are whole among them, up to an end of block, and the bits
/// behind the last of these codes.
#[derive(Clone, Copy, Default)]
struct Pass {
    bits: u8,
    /// Coefficients but for those of the last code: the block must not end with them.
    before: u8,
    coefficients: u8,
}

impl Pass {
    /// What the [`PASS_BITS`] bits `ahead` pass over.
    fn of(ahead: usize, fast: &[(u8, u8); FAST]) -> Self {
        let mut pass = Self::default();
        while u32::from(pass.bits) < PASS_BITS && u32::from(pass.coefficients) < END {
            let left = (ahead << pass.bits) % PASSES;
            let (length, value) = fast[left >> (PASS_BITS - FAST_BITS)];
            let is_whole = length > 0 && u32::from(pass.bits + length) <= PASS_BITS;
            let Some((size, coefficients)) = coefficients(value).filter(|_| is_whole) else {
                break;
            };
            pass.before = pass.coefficients;
            pass.coefficients += coefficients;
            pass.bits += length + size;
        }
        pass
    }
}

/// How many bits follow the code of an AC value, and how many coefficients it passes over. `None` for
/// a value that baseline pictures do not have.
fn coefficients(value: u8) -> Option<(u8, u8)> {
    let (run, size) = (value >> 4, value & 15);
    match (run, size) {
        (0, 0) => Some((0, u8::try_from(END).ok()?)),
        (15, 0) => Some((0, 16)),
        (_, 0) => None,
        _ => Some((size, run + 1)),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::decode::huffman::STANDARD_SEGMENT;

    #[test]
    fn codes_of_every_length_are_read() {
        // One code of each length, all ones but for the last bit: 0, 10, 110, …
        let table = Table::new(&[1; 16], &(0..16).collect::<Vec<u8>>()).unwrap();
        for length in 1..=16_u32 {
            let code = (0xffff_u32 << (17 - length)) & 0xffff;
            let [_, _, high, low] = code.to_be_bytes();
            let stuffed: Vec<u8> = [high, low]
                .into_iter()
                .flat_map(|byte| {
                    if byte == 0xff {
                        vec![0xff, 0]
                    } else {
                        vec![byte]
                    }
                })
                .collect();
            let mut bits = Bits::new(&stuffed);
            bits.refill();
            let value = u32::from(table.next(&mut bits).unwrap());
            assert_eq!(value, length - 1);
        }
        let mut bits = Bits::new(&[0xff, 0, 0xff, 0]);
        bits.refill();
        assert_eq!(table.next(&mut bits), None, "all ones are no code");
    }

    /// Passes over a block one code after the other.
    fn pass_slowly(table: &Table, bits: &mut Bits<'_>) -> Option<()> {
        let mut index = 1;
        while index < 64 {
            bits.refill();
            let (size, coefficients) = coefficients(table.next(bits)?)?;
            bits.skip(u32::from(size));
            index += u32::from(coefficients);
        }
        (index == 64 || index > END).then_some(())
    }

    /// The AC table that begins here in the standard segment.
    fn standard(at: usize) -> Table {
        let (counts, values) = STANDARD_SEGMENT[at + 1..].split_first_chunk().unwrap();
        Table::new(counts, &values[..162]).unwrap()
    }

    #[test]
    fn a_block_that_is_full_takes_nothing_of_the_next() {
        // 1100 0: a zero and a coefficient. 61 times 00 0: a coefficient. What follows reads like one.
        let mut bytes = [0; 32];
        bytes[0] = 0b1100_0000;
        bytes[23] = 0b0000_0001;
        let mut bits = Bits::new(&bytes);
        assert_eq!(standard(33).pass_block(&mut bits), Some(()));
        bits.refill();
        assert_eq!(bits.peek(5), 0b00010);
    }

    proptest! {
        #[test]
        fn codes_passed_over_together_are_the_same_as_one_by_one(
            bytes in proptest::collection::vec(0..=254_u8, 64..512),
            is_chroma: bool,
        ) {
            let table = standard(if is_chroma { 241 } else { 33 });
            let (mut together, mut slowly) = (Bits::new(&bytes), Bits::new(&bytes));
            while !together.is_over() {
                let passed = table.pass_block(&mut together);
                prop_assert_eq!(passed, pass_slowly(&table, &mut slowly));
                if passed.is_none() {
                    break;
                }
                together.refill();
                slowly.refill();
                prop_assert_eq!(together.peek(16), slowly.peek(16));
                prop_assert_eq!(together.is_over(), slowly.is_over());
            }
        }
    }

    #[test]
    fn what_is_no_prefix_code_is_refused() {
        let mut three_of_one_bit = [0; 16];
        three_of_one_bit[0] = 3;
        assert!(Table::new(&three_of_one_bit, &[1, 2, 3]).is_none());
        assert!(Table::new(&[1; 16], &[1, 2]).is_none(), "too few values");
        assert!(Table::new(&[0; 16], &[1]).is_none(), "too many values");
    }
}
