//! Huffman tables of a baseline JPEG, made for one purpose: to read DC coefficients and to pass over
//! AC coefficients as fast as may be.

use super::bits::Bits;

/// Codes of up to so many bits are looked up at once.
const FAST_BITS: u32 = 10;
const FAST: usize = 1 << FAST_BITS;
/// Longest code.
const MAX_BITS: usize = 16;

/// A table as a DHT segment gives it (ITU-T T.81, B.2.4.2 and C.2).
#[derive(Clone)]
pub struct Table {
    /// By the next [`FAST_BITS`] bits: length of the code and its value; length 0 is a longer code.
    fast: Box<[(u8, u8); FAST]>,
    /// The same for AC coefficients, as [`pass`] says; 0 is a longer code, or none.
    passes: Box<[u16; FAST]>,
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
            passes: Box::new([0; FAST]),
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
                    table.passes[from..from + many].fill(pass(length, value).unwrap_or(0));
                }
                code += 1;
                place += 1;
            }
            let left = u32::try_from(MAX_BITS).ok()? - length;
            table.limits[length as usize] = code << left;
            code <<= 1;
        }
        (place == values.len()).then_some(table)
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
            let mut entry = self.passes[bits.peek(FAST_BITS)];
            if entry == 0 {
                let value = self.next(bits)?;
                entry = pass(0, value)?;
            }
            bits.skip(u32::from(entry & 31));
            index += u32::from(entry >> 8);
        }
        // Anything between is a run over the end of the block.
        (index == 64 || index > END).then_some(())
    }
}

/// What an end of block advances by: over everything else.
const END: u32 = 128;

/// What a code of this length and value passes over: bits in the low byte, coefficients in the high one.
/// `None` for a value that baseline pictures do not have.
fn pass(length: u8, value: u8) -> Option<u16> {
    let (run, size) = (value >> 4, value & 15);
    let coefficients = match (run, size) {
        (0, 0) => u8::try_from(END).ok()?,
        (15, 0) => 16,
        (_, 0) => return None,
        _ => run + 1,
    };
    Some(u16::from_le_bytes([length + size, coefficients]))
}

#[cfg(test)]
mod tests {
    use super::*;

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

    #[test]
    fn what_is_no_prefix_code_is_refused() {
        let mut three_of_one_bit = [0; 16];
        three_of_one_bit[0] = 3;
        assert!(Table::new(&three_of_one_bit, &[1, 2, 3]).is_none());
        assert!(Table::new(&[1; 16], &[1, 2]).is_none(), "too few values");
        assert!(Table::new(&[0; 16], &[1]).is_none(), "too many values");
    }
}
