//! What the next bits of a scan mean, by tables: single codes, and as many at once as there is room for.

/// Codes of up to so many bits are looked up at once.
pub const FAST_BITS: u32 = 12;
pub const FAST: usize = 1 << FAST_BITS;
/// DC differences that end within so many bits are read at once.
pub const DC_BITS: u32 = 10;
pub const DCS: usize = 1 << DC_BITS;
/// AC coefficients that end within so many bits are read two at once.
pub const PAIR_BITS: u32 = 11;
pub const PAIRS: usize = 1 << PAIR_BITS;
/// AC coefficients whose codes end within so many bits are passed over together.
pub const PASS_BITS: u32 = 12;
pub const PASSES: usize = 1 << PASS_BITS;
/// Bits of a DC difference in pictures of 8 bits (F.1.2.1).
pub const MAX_DC_SIZE: u32 = 11;
/// What an end of block advances by: over everything else.
pub const END: u32 = 128;

/// A coefficient from its `size` bits (F.2.2.1, EXTEND).
#[inline]
pub fn extend(bits: usize, size: u32) -> i32 {
    let value = i32::try_from(bits).unwrap_or(0);
    let is_negative = size > 0 && value < 1 << (size - 1);
    if is_negative {
        value - (1 << size) + 1
    } else {
        value
    }
}

/// How many bits follow the code of an AC value, and how many coefficients it advances by. `None` for
/// a value that has no meaning; sizes that only longer samples have are read.
pub fn advance(value: u8) -> Option<(u8, u8)> {
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

/// Length and value of the code with which the `count` bits `ahead` begin, zeros behind them; the code
/// may be longer than they are. Length 0 is a longer one than [`FAST_BITS`].
fn code(ahead: usize, count: u32, fast: &[(u8, u8); FAST]) -> (u8, u8) {
    fast[(ahead << FAST_BITS) >> count]
}

/// A DC difference whose code and bits are among those ahead: the value, and how many bits there are of
/// both, none when they are not.
#[derive(Clone, Copy, Default)]
pub struct Difference {
    pub value: i16,
    pub bits: u8,
}

impl Difference {
    /// What the [`DC_BITS`] bits `ahead` begin with.
    pub fn of(ahead: usize, fast: &[(u8, u8); FAST]) -> Self {
        let (length, size) = code(ahead, DC_BITS, fast);
        let is_legal = length > 0 && u32::from(size) <= MAX_DC_SIZE;
        let value = value(ahead, DC_BITS, length, size).filter(|_| is_legal);
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
pub struct Pair(u64);

impl Pair {
    /// What the [`PAIR_BITS`] bits `ahead` begin with.
    pub fn of(ahead: usize, fast: &[(u8, u8); FAST]) -> Self {
        let at = |from: u8| {
            let left = (ahead << from) % PAIRS;
            let (length, value_of) = code(left, PAIR_BITS, fast);
            let (size, advance) = advance(value_of).filter(|_| length > 0)?;
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
            return Self(u64::from_le_bytes([
                bits, advance, advance, 0, low, high, 0, 0,
            ]));
        };
        let [second_low, second_high] = value.to_le_bytes();
        let (bits, both) = (bits + more_bits, advance + more);
        let bytes = [bits, advance, both, 0, low, high, second_low, second_high];
        Self(u64::from_le_bytes(bytes))
    }

    #[inline(always)]
    pub fn is_known(self) -> bool {
        self.0 != 0
    }

    #[inline(always)]
    pub fn bits(self) -> u32 {
        u32::from(self.0.to_le_bytes()[0])
    }

    #[inline(always)]
    pub fn first(self) -> u32 {
        u32::from(self.0.to_le_bytes()[1])
    }

    #[inline(always)]
    pub fn both(self) -> u32 {
        u32::from(self.0.to_le_bytes()[2])
    }

    #[inline(always)]
    pub fn first_value(self) -> i16 {
        let [_, _, _, _, low, high, _, _] = self.0.to_le_bytes();
        i16::from_le_bytes([low, high])
    }

    #[inline(always)]
    pub fn second_value(self) -> i16 {
        let [_, _, _, _, _, _, low, high] = self.0.to_le_bytes();
        i16::from_le_bytes([low, high])
    }
}

/// What some bits pass over: all codes that are whole among them, up to an end of block, and the bits
/// behind the last of these codes. In six bits how many bits that is, none when there is no such code;
/// then whether it is the end of the block; then how many coefficients, the end counted as one more:
/// a block that ends before it does not take it.
#[derive(Clone, Copy, Default)]
pub struct Pass(u16);

impl Pass {
    /// What the [`PASS_BITS`] bits `ahead` pass over.
    pub fn of(ahead: usize, fast: &[(u8, u8); FAST]) -> Self {
        let (mut bits, mut passed, mut is_over) = (0_u16, 0_u16, false);
        while u32::from(bits) < PASS_BITS && !is_over {
            let left = (ahead << bits) % PASSES;
            let (length, value) = code(left, PASS_BITS, fast);
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
    pub fn is_known(self) -> bool {
        self.0 != 0
    }

    #[inline(always)]
    pub fn bits(self) -> u32 {
        u32::from(self.0 & 63)
    }

    #[inline(always)]
    pub fn is_end(self) -> bool {
        self.0 & 64 != 0
    }

    #[inline(always)]
    pub fn coefficients(self) -> u32 {
        u32::from(self.0 >> 8)
    }
}
