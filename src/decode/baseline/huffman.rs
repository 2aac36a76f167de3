//! Huffman tables of a baseline JPEG (ITU-T T.81, B.2.4.2, C.2 and F.2.2), made for two purposes: to
//! read coefficients, and to pass over them as fast as may be.

mod lookup;

use std::sync::{Arc, LazyLock, Mutex, PoisonError};

use super::scan::Bits;
use crate::decode::huffman::STANDARD_SEGMENT;
use lookup::{
    DC_BITS, DCS, Difference, END, FAST, FAST_BITS, MAX_DC_SIZE, PAIR_BITS, PAIRS, PASS_BITS,
    PASSES, Pair, Pass, advance, extend,
};

/// Longest code.
const MAX_BITS: usize = 16;
/// Coefficients of a block.
const BLOCK: u32 = 64;
/// Codes as a DHT segment gives them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Codes {
    /// Per length, from 1 on.
    counts: [u8; MAX_BITS],
    /// In the order of the codes.
    values: Vec<u8>,
}

/// A DHT segment's tables with their class and destination; `None` when it is damaged.
pub fn segment(mut body: &[u8]) -> Option<Vec<(u8, Codes)>> {
    let mut tables = Vec::new();
    while let Some((kind, rest)) = body.split_first() {
        let (counts, rest) = rest.split_first_chunk::<MAX_BITS>()?;
        let length = counts.iter().map(|count| usize::from(*count)).sum();
        let (values, rest) = rest.split_at_checked(length)?;
        let codes = Codes {
            counts: *counts,
            values: values.to_vec(),
        };
        tables.push((*kind, codes));
        body = rest;
    }
    Some(tables)
}

/// The tables that most cameras use, made once.
static STANDARD: LazyLock<Vec<(Codes, Arc<Table>)>> = LazyLock::new(|| {
    let codes = segment(&STANDARD_SEGMENT[4..]).unwrap_or_default();
    let table = |(_, codes): (u8, Codes)| Table::new(&codes).map(|table| (codes, Arc::new(table)));
    codes.into_iter().filter_map(table).collect()
});

/// Others that were asked for last, the last one first: cameras with tables of their own send the same
/// with every frame.
static RECENT: Mutex<Vec<(Codes, Arc<Table>)>> = Mutex::new(Vec::new());

/// Tables in [`RECENT`]: two cameras with two for luma and two for chroma.
const MAX_RECENT: usize = 8;

/// One table.
pub struct Table {
    /// By the next [`FAST_BITS`] bits: length of the code and its value; length 0 is a longer code.
    fast: Box<[(u8, u8); FAST]>,
    /// By the next [`DC_BITS`] bits, for DC coefficients.
    differences: Box<[Difference; DCS]>,
    /// By the next [`PAIR_BITS`] bits, for AC coefficients.
    pairs: Box<[Pair; PAIRS]>,
    /// By the next [`PASS_BITS`] bits, for AC coefficients.
    passes: Box<[Pass; PASSES]>,
    /// Per length: the first code that is not of this length, as [`MAX_BITS`] bits.
    limits: [u32; MAX_BITS + 1],
    /// Per length: what is added to a code for its place in `values`.
    offsets: [i32; MAX_BITS + 1],
    values: Vec<u8>,
}

impl Table {
    /// `None` for counts and values that make no prefix code.
    pub fn of(codes: &Codes) -> Option<Arc<Self>> {
        if let Some((_, table)) = STANDARD.iter().find(|(standard, _)| standard == codes) {
            return Some(Arc::clone(table));
        }
        let mut recent = RECENT.lock().unwrap_or_else(PoisonError::into_inner);
        let known = match recent.iter().position(|(known, _)| known == codes) {
            Some(at) => recent.remove(at),
            None => (codes.clone(), Arc::new(Self::new(codes)?)),
        };
        let table = Arc::clone(&known.1);
        recent.insert(0, known);
        recent.truncate(MAX_RECENT);
        Some(table)
    }

    fn new(codes: &Codes) -> Option<Self> {
        let values = &codes.values;
        let mut fast = Box::new([(0, 0); FAST]);
        let (mut limits, mut offsets) = ([0; MAX_BITS + 1], [0; MAX_BITS + 1]);
        let (mut code, mut place) = (0_u32, 0_usize);
        for (length, count) in (1_u32..).zip(codes.counts) {
            offsets[length as usize] = i32::try_from(place).ok()? - i32::try_from(code).ok()?;
            for _ in 0..count {
                let value = *values.get(place)?;
                // No code is all ones (C.2).
                if (code + 1) >> length != 0 {
                    return None;
                }
                if length <= FAST_BITS {
                    let from = (code as usize) << (FAST_BITS - length);
                    let many = 1 << (FAST_BITS - length);
                    let length = u8::try_from(length).ok()?;
                    fast[from..from + many].fill((length, value));
                }
                code += 1;
                place += 1;
            }
            let left = u32::try_from(MAX_BITS).ok()? - length;
            limits[length as usize] = code << left;
            code <<= 1;
        }
        if place != values.len() {
            return None;
        }
        let differences: Vec<_> = (0..DCS).map(|ahead| Difference::of(ahead, &fast)).collect();
        let pairs: Vec<_> = (0..PAIRS).map(|ahead| Pair::of(ahead, &fast)).collect();
        let passes: Vec<_> = (0..PASSES).map(|ahead| Pass::of(ahead, &fast)).collect();
        Some(Self {
            differences: differences.into_boxed_slice().try_into().ok()?,
            pairs: pairs.into_boxed_slice().try_into().ok()?,
            passes: passes.into_boxed_slice().try_into().ok()?,
            fast,
            limits,
            offsets,
            values: values.clone(),
        })
    }

    /// The next value; 32 bits have to be there. `None` for bits that are no code.
    #[inline]
    fn next(&self, bits: &mut Bits<'_>) -> Option<u8> {
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
        let length =
            (FAST_BITS as usize + 1..=MAX_BITS).find(|length| ahead < self.limits[*length])?;
        let bits_of_code = u32::try_from(length).ok()?;
        let code = i32::try_from(ahead >> (16 - bits_of_code)).ok()?;
        bits.skip(bits_of_code);
        let place = usize::try_from(code + self.offsets[length]).ok()?;
        self.values.get(place).copied()
    }

    /// The difference of a DC coefficient (F.2.2.1).
    #[inline(always)]
    pub fn difference(&self, bits: &mut Bits<'_>) -> Option<i32> {
        bits.refill();
        let known = self.differences[bits.peek(DC_BITS)];
        if known.bits > 0 {
            bits.skip(u32::from(known.bits));
            return Some(i32::from(known.value));
        }
        let (after, value) = self.long_difference(*bits)?;
        *bits = after;
        Some(value)
    }

    #[cold]
    fn long_difference<'a>(&self, mut bits: Bits<'a>) -> Option<(Bits<'a>, i32)> {
        let size = u32::from(self.next(&mut bits)?);
        let value = (size <= MAX_DC_SIZE).then(|| extend(bits.take(size), size))?;
        Some((bits, value))
    }

    /// Passes over the AC coefficients of a block (F.2.2.2) from number `index` on, 1 to 63.
    #[inline(always)]
    pub fn pass(&self, bits: &mut Bits<'_>, mut index: u32) -> Option<()> {
        loop {
            bits.refill();
            // A step looks at 12 bits and takes at most 27.
            for _ in 0..2 {
                let pass = self.passes[bits.peek(PASS_BITS)];
                let behind = index + pass.coefficients();
                if pass.is_known() && behind <= BLOCK {
                    bits.skip(pass.bits());
                    if pass.is_end() {
                        return Some(());
                    }
                    index = behind;
                } else {
                    let (after, advance, _) = self.coefficient(*bits)?;
                    *bits = after;
                    index += u32::from(advance);
                }
                if index >= BLOCK {
                    return is_end(index);
                }
            }
        }
    }

    /// Reads the AC coefficients of a block before number `until`, in zigzag order. `put(n, value)` gets
    /// each that is not zero; also zeros, and numbers of up to 255 with them. Whether the block ends as
    /// it should is for [`Table::pass`] or [`Table::pass_rest`] to say; the latter takes what this
    /// returns: where it stopped, and the number of the next coefficient, to which an end adds [`END`].
    #[inline(always)]
    pub fn read<'a>(
        &self,
        mut bits: Bits<'a>,
        until: u32,
        mut put: impl FnMut(u8, i16),
    ) -> Option<(Bits<'a>, u32)> {
        let mut index = 1;
        loop {
            bits.refill();
            // Four steps look at 11 bits each, and take no more.
            for _ in 0..4 {
                let pair = self.pairs[bits.peek(PAIR_BITS)];
                let behind = if pair.is_known() {
                    bits.skip(pair.bits());
                    let (first, second) = (index + pair.first(), index + pair.both());
                    // Where there is no second one, the first replaces it.
                    put((second - 1).to_le_bytes()[0], pair.second_value());
                    put((first - 1).to_le_bytes()[0], pair.first_value());
                    second
                } else {
                    let (after, advance, value) = self.coefficient(bits)?;
                    bits = after;
                    let behind = index + u32::from(advance);
                    put((behind - 1).to_le_bytes()[0], value);
                    behind
                };
                if behind >= until {
                    return Some((bits, behind));
                }
                index = behind;
            }
        }
    }

    /// Passes over what [`Table::read`] left of a block that begins at `start`.
    #[inline(always)]
    pub fn pass_rest<'a>(
        &self,
        start: Bits<'a>,
        (mut bits, next): (Bits<'a>, u32),
    ) -> Option<Bits<'a>> {
        if next < BLOCK {
            self.pass(&mut bits, next)?;
        } else if next != BLOCK && !(END + 1..END + BLOCK).contains(&next) {
            return self.pass_again(start);
        }
        Some(bits)
    }

    /// Passes over a block of which too much was read: it is full, and the second of two codes that were
    /// read at once is not its own, or it is damaged.
    #[cold]
    fn pass_again<'a>(&self, mut bits: Bits<'a>) -> Option<Bits<'a>> {
        self.pass(&mut bits, 1)?;
        Some(bits)
    }

    /// The next AC coefficient, whatever it is: by how many it advances, and the value of the last of
    /// these. Leaves 56 bits. It takes and gives where it is by value, which so stays in registers.
    #[cold]
    fn coefficient<'a>(&self, mut bits: Bits<'a>) -> Option<(Bits<'a>, u8, i16)> {
        bits.refill();
        let (size, coefficients) = advance(self.next(&mut bits)?)?;
        let size = u32::from(size);
        let value = i16::try_from(extend(bits.take(size), size)).ok()?;
        bits.refill();
        Some((bits, coefficients, value))
    }
}

/// Whether a block may end there; anything between is a run over its end.
fn is_end(index: u32) -> Option<()> {
    (index == BLOCK || index > END).then_some(())
}

#[cfg(test)]
mod tests;
