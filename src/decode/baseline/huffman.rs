//! Huffman tables of a baseline JPEG (ITU-T T.81, B.2.4.2, C.2 and F.2.2), made for two purposes: to
//! read coefficients, and to pass over them as fast as may be.

use std::sync::{Arc, LazyLock};

use super::scan::Bits;
use crate::decode::huffman::STANDARD_SEGMENT;

/// Codes of up to so many bits are looked up at once, with the bits behind them when these are among
/// them, too.
const FAST_BITS: u32 = 10;
const FAST: usize = 1 << FAST_BITS;
/// AC coefficients that end within so many bits are read two at once.
const PAIR_BITS: u32 = 11;
const PAIRS: usize = 1 << PAIR_BITS;
/// AC coefficients whose codes end within so many bits are passed over together.
const PASS_BITS: u32 = 12;
const PASSES: usize = 1 << PASS_BITS;
/// Longest code.
const MAX_BITS: usize = 16;
/// Coefficients of a block.
const BLOCK: u32 = 64;
/// Bits of a DC difference in pictures of 8 bits (F.1.2.1).
const MAX_DC_SIZE: u32 = 11;
/// What an end of block advances by: over everything else.
const END: u32 = 128;

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

/// One table.
pub struct Table {
    /// By the next [`FAST_BITS`] bits: length of the code and its value; length 0 is a longer code.
    fast: Box<[(u8, u8); FAST]>,
    /// By the next [`FAST_BITS`] bits, for DC coefficients.
    differences: Box<[Difference; FAST]>,
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
        match STANDARD.iter().find(|(standard, _)| standard == codes) {
            Some((_, table)) => Some(Arc::clone(table)),
            None => Self::new(codes).map(Arc::new),
        }
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
                if code >> length != 0 {
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
        let codes = fast.iter().enumerate();
        let differences: Vec<_> = codes.map(|(ahead, code)| Difference::of(ahead, *code)).collect();
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
        let length = (11..=MAX_BITS).find(|length| ahead < self.limits[*length])?;
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
        let known = self.differences[bits.peek(FAST_BITS)];
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

    /// Passes over the AC coefficients of a block (F.2.2.2).
    #[inline(always)]
    pub fn pass(&self, bits: &mut Bits<'_>) -> Option<()> {
        let mut index = 1;
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

    /// Reads the AC coefficients of a block before number `until`, in zigzag order; the block was passed
    /// over before, and found to end. `put(n, value)` gets each that is not zero; also zeros, and numbers
    /// of up to 255 with them.
    #[inline(always)]
    pub fn read(&self, mut bits: Bits<'_>, until: u32, mut put: impl FnMut(u8, i16)) -> Option<()> {
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
                    return Some(());
                }
                index = behind;
            }
        }
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

/// A coefficient from its `size` bits (F.2.2.1, EXTEND).
#[inline]
fn extend(bits: usize, size: u32) -> i32 {
    let value = i32::try_from(bits).unwrap_or(0);
    let is_negative = size > 0 && value < 1 << (size - 1);
    if is_negative { value - (1 << size) + 1 } else { value }
}

/// How many bits follow the code of an AC value, and how many coefficients it advances by. `None` for
/// a value that baseline pictures do not have.
fn advance(value: u8) -> Option<(u8, u8)> {
    let (run, size) = (value >> 4, value & 15);
    match (run, size) {
        (0, 0) => Some((0, u8::try_from(END).ok()?)),
        (15, 0) => Some((0, 16)),
        (_, 0) => None,
        _ => Some((size, run + 1)),
    }
}

/// The value of the `size` bits behind a code of `length` bits, with which the `count` bits `ahead`
/// begin.
fn value(ahead: usize, count: u32, length: u8, size: u8) -> Option<i16> {
    let left = count.checked_sub(u32::from(length) + u32::from(size))?;
    let bits = (ahead >> left) & ((1 << size) - 1);
    i16::try_from(extend(bits, u32::from(size))).ok()
}

/// A DC difference whose code and bits are among those ahead: the value, and how many bits there are of
/// both, none when they are not.
#[derive(Clone, Copy, Default)]
struct Difference {
    value: i16,
    bits: u8,
}

impl Difference {
    /// What the [`FAST_BITS`] bits `ahead` begin with; their code has this length and value.
    fn of(ahead: usize, (length, size): (u8, u8)) -> Self {
        let is_legal = length > 0 && u32::from(size) <= MAX_DC_SIZE;
        let value = value(ahead, FAST_BITS, length, size).filter(|_| is_legal);
        value.map_or(Self::default(), |value| Self {
            value,
            bits: length + size,
        })
    }
}

/// One or two AC coefficients whose codes and bits are among those ahead. From the lowest byte on: how
/// many bits there are of all, none when there are no such; by how many coefficients the first one
/// advances; by how many both do, the same where there is but one; nothing; the value of the first, two
/// bytes; the value of the second, two bytes. Values are 0 where a code ends the block or is a run of
/// zeros.
#[derive(Clone, Copy, Default)]
struct Pair(u64);

impl Pair {
    /// What the [`PAIR_BITS`] bits `ahead` begin with.
    fn of(ahead: usize, fast: &[(u8, u8); FAST]) -> Self {
        let at = |from: u8| {
            let left = (ahead << from) % PAIRS;
            let (length, code) = fast[left >> (PAIR_BITS - FAST_BITS)];
            let (size, advance) = advance(code).filter(|_| length > 0)?;
            let is_whole = u32::from(from + length + size) <= PAIR_BITS;
            let value = value(left, PAIR_BITS, length, size).filter(|_| is_whole);
            Some((length + size, advance, value?))
        };
        let Some((bits, advance, value)) = at(0) else {
            return Self::default();
        };
        let [low, high] = value.to_le_bytes();
        let second = at(bits).filter(|_| u32::from(advance) < END);
        let Some((more_bits, more, value)) = second else {
            return Self(u64::from_le_bytes([bits, advance, advance, 0, low, high, 0, 0]));
        };
        let [second_low, second_high] = value.to_le_bytes();
        let (bits, both) = (bits + more_bits, advance + more);
        let bytes = [bits, advance, both, 0, low, high, second_low, second_high];
        Self(u64::from_le_bytes(bytes))
    }

    #[inline(always)]
    fn is_known(self) -> bool {
        self.0 != 0
    }

    #[inline(always)]
    fn bits(self) -> u32 {
        u32::from(self.0.to_le_bytes()[0])
    }

    #[inline(always)]
    fn first(self) -> u32 {
        u32::from(self.0.to_le_bytes()[1])
    }

    #[inline(always)]
    fn both(self) -> u32 {
        u32::from(self.0.to_le_bytes()[2])
    }

    #[inline(always)]
    fn first_value(self) -> i16 {
        let [_, _, _, _, low, high, _, _] = self.0.to_le_bytes();
        i16::from_le_bytes([low, high])
    }

    #[inline(always)]
    fn second_value(self) -> i16 {
        let [_, _, _, _, _, _, low, high] = self.0.to_le_bytes();
        i16::from_le_bytes([low, high])
    }
}

/// What some bits pass over: all codes that are whole among them, up to an end of block, and the bits
/// behind the last of these codes. In six bits how many bits that is, none when there is no such code;
/// then whether it is the end of the block; then how many coefficients, the end counted as one more:
/// a block that ends before it does not take it.
#[derive(Clone, Copy, Default)]
struct Pass(u16);

impl Pass {
    /// What the [`PASS_BITS`] bits `ahead` pass over.
    fn of(ahead: usize, fast: &[(u8, u8); FAST]) -> Self {
        let (mut bits, mut passed, mut is_over) = (0_u16, 0_u16, false);
        while u32::from(bits) < PASS_BITS && !is_over {
            let left = (ahead << bits) % PASSES;
            let (length, value) = fast[left >> (PASS_BITS - FAST_BITS)];
            let is_whole = length > 0 && u32::from(bits) + u32::from(length) <= PASS_BITS;
            let Some((size, by)) = advance(value).filter(|_| is_whole) else {
                break;
            };
            is_over = u32::from(by) == END;
            passed += if is_over { 1 } else { u16::from(by) };
            bits += u16::from(length + size);
        }
        Self(bits | u16::from(is_over) << 6 | passed << 8)
    }

    #[inline(always)]
    fn is_known(self) -> bool {
        self.0 != 0
    }

    #[inline(always)]
    fn bits(self) -> u32 {
        u32::from(self.0 & 63)
    }

    #[inline(always)]
    fn is_end(self) -> bool {
        self.0 & 64 != 0
    }

    #[inline(always)]
    fn coefficients(self) -> u32 {
        u32::from(self.0 >> 8)
    }
}

#[cfg(test)]
mod tests;
