//! The specification: sixteen f32 in an array.

use super::{LANES, Lanes};

#[derive(Clone, Copy)]
pub(in super::super) struct Scalar([f32; LANES]);

impl Scalar {
    #[inline(always)]
    fn map2(self, other: Self, f: impl Fn(f32, f32) -> f32) -> Self {
        Self(std::array::from_fn(|i| f(self.0[i], other.0[i])))
    }
}

impl Lanes for Scalar {
    const TILE_COLUMNS: usize = 1;

    #[inline(always)]
    unsafe fn splat(x: f32) -> Self {
        Self([x; LANES])
    }

    #[inline(always)]
    unsafe fn load(p: *const f32) -> Self {
        // SAFETY: the caller gives 16 readable f32.
        Self(unsafe { p.cast::<[f32; LANES]>().read_unaligned() })
    }

    #[inline(always)]
    unsafe fn store(self, p: *mut f32) {
        // SAFETY: the caller gives 16 writable f32.
        unsafe { p.cast::<[f32; LANES]>().write_unaligned(self.0) };
    }

    #[inline(always)]
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "the caller promises 0..=255, and the cast saturates"
    )]
    unsafe fn store_codes(self, p: *mut u8) {
        let bytes = self.0.map(|x| x.round_ties_even() as u8);
        // SAFETY: the caller gives 16 writable bytes.
        unsafe { p.cast::<[u8; LANES]>().write_unaligned(bytes) };
    }

    #[inline(always)]
    #[expect(
        clippy::cast_possible_truncation,
        reason = "the caller promises −128..=127, and the cast saturates"
    )]
    unsafe fn store_signed(self, p: *mut i8) {
        let bytes = self.0.map(|x| x.round_ties_even() as i8);
        // SAFETY: the caller gives 16 writable bytes.
        unsafe { p.cast::<[i8; LANES]>().write_unaligned(bytes) };
    }

    #[inline(always)]
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "the caller promises 0..=65535, and the cast saturates"
    )]
    unsafe fn store_halves(self, high: *mut u8, low: *mut u8) {
        let halves = self.0.map(|x| (x.round_ties_even() as u16).to_be_bytes());
        // SAFETY: the caller gives 16 writable bytes in each.
        unsafe {
            high.cast::<[u8; LANES]>()
                .write_unaligned(halves.map(|h| h[0]));
            low.cast::<[u8; LANES]>()
                .write_unaligned(halves.map(|h| h[1]));
        }
    }

    #[inline(always)]
    #[expect(
        clippy::cast_possible_truncation,
        reason = "the caller promises −128..=127, and the cast saturates"
    )]
    unsafe fn store_groups(four: [Self; 4], p: *mut i8) {
        for lane in 0..LANES {
            let group = four.map(|v| v.0[lane].round_ties_even() as i8);
            // SAFETY: the caller gives 64 writable bytes.
            unsafe { p.cast::<[i8; 4]>().add(lane).write_unaligned(group) };
        }
    }

    #[inline(always)]
    unsafe fn dequantize(acc: *const i32, sums: *const i32, zero: i32) -> Self {
        // SAFETY: the caller gives 16 readable i32 in each.
        let (acc, sums) = unsafe {
            (
                acc.cast::<[i32; LANES]>().read_unaligned(),
                sums.cast::<[i32; LANES]>().read_unaligned(),
            )
        };
        Self(std::array::from_fn(|i| {
            acc[i].wrapping_sub(zero.wrapping_mul(sums[i])) as f32
        }))
    }

    #[inline(always)]
    fn add(self, other: Self) -> Self {
        self.map2(other, |a, b| a + b)
    }

    #[inline(always)]
    fn sub(self, other: Self) -> Self {
        self.map2(other, |a, b| a - b)
    }

    #[inline(always)]
    fn mul(self, other: Self) -> Self {
        self.map2(other, |a, b| a * b)
    }

    #[inline(always)]
    fn div(self, other: Self) -> Self {
        self.map2(other, |a, b| a / b)
    }

    #[inline(always)]
    fn mul_add(self, b: Self, c: Self) -> Self {
        Self(std::array::from_fn(|i| self.0[i].mul_add(b.0[i], c.0[i])))
    }

    #[inline(always)]
    fn max(self, other: Self) -> Self {
        self.map2(other, |a, b| if a > b { a } else { b })
    }

    #[inline(always)]
    fn min(self, other: Self) -> Self {
        self.map2(other, |a, b| if a < b { a } else { b })
    }

    #[inline(always)]
    fn abs(self) -> Self {
        Self(self.0.map(f32::abs))
    }

    #[inline(always)]
    fn round(self) -> Self {
        Self(self.0.map(f32::round_ties_even))
    }

    #[inline(always)]
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "an exponent in −127..=127; others are unspecified"
    )]
    fn exp2_of_integer(self) -> Self {
        Self(
            self.0
                .map(|n| f32::from_bits(((n as i32).wrapping_add(127) as u32) << 23)),
        )
    }

    #[inline(always)]
    fn zip(self, other: Self) -> (Self, Self) {
        let lane = |i: usize| {
            if i.is_multiple_of(2) {
                self.0[i / 2]
            } else {
                other.0[i / 2]
            }
        };
        (
            Self(std::array::from_fn(lane)),
            Self(std::array::from_fn(|i| lane(i + LANES))),
        )
    }
}
