//! How fast this processor multiplies and adds when nothing else holds it up: the arithmetic limit
//! that an encoder's time is compared with.

use std::hint::black_box;
use std::time::{Duration, Instant};

use crate::encoder::int8::kernels::{self, Isa};

/// Independent sums: at least latency × throughput of today's cores (4 cycles × 2 a cycle), and few
/// enough for 16 registers.
const CHAINS: u16 = 10;
/// Each measurement lasts about this long.
const SLICE: Duration = Duration::from_millis(8);
/// The best slice counts: what disturbs only ever slows down.
const SLICES: usize = 6;

/// Most multiply-accumulates that some instructions get done.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Peak {
    /// Instructions that were measured.
    pub instructions: &'static str,
    /// Multiply-accumulates per second of one thread.
    pub macs_per_second: f64,
}

/// The widest f32 multiply-add of this processor; takes about 50 ms.
pub fn float_peak() -> Peak {
    let (instructions, lanes, work) = widest();
    measure(instructions, |rounds| {
        work(rounds);
        u64::from(rounds) * u64::from(CHAINS * lanes)
    })
}

/// The products that the int8 engine runs on here; takes about 50 ms.
pub fn int8_peak() -> Peak {
    let isa = Isa::detect();
    measure(isa.name(), |rounds| kernels::multiply(isa, rounds))
}

fn measure(instructions: &'static str, work: impl Fn(u32) -> u64) -> Peak {
    let mut rounds = 1_000_u32;
    let mut best = 0.0_f64;
    let mut slices = 0;
    while slices < SLICES {
        let started = Instant::now();
        let macs = work(rounds);
        let took = started.elapsed();
        if took < SLICE / 2 {
            rounds = rounds.saturating_mul(2);
            continue;
        }
        #[expect(clippy::cast_precision_loss, reason = "far below 2⁵³")]
        let rate = macs as f64 / took.as_secs_f64();
        best = best.max(rate);
        slices += 1;
    }
    Peak {
        instructions,
        macs_per_second: best,
    }
}

/// Name, lanes of a register, and a loop of the widest multiply-add here.
#[cfg(target_arch = "x86_64")]
fn widest() -> (&'static str, u16, fn(u32)) {
    if is_x86_feature_detected!("avx512f") {
        // SAFETY: the feature was just detected.
        return ("avx512", 16, |rounds| unsafe { avx512(rounds) });
    }
    if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") {
        // SAFETY: both features were just detected.
        return ("avx2+fma", 8, |rounds| unsafe { avx2(rounds) });
    }
    // SAFETY: SSE2 is part of the target's baseline.
    ("sse2", 4, |rounds| unsafe { sse2(rounds) })
}

/// Name, lanes of a register, and a loop of the widest multiply-add here.
#[cfg(not(target_arch = "x86_64"))]
fn widest() -> (&'static str, u16, fn(u32)) {
    #[cfg(target_arch = "aarch64")]
    // SAFETY: NEON is part of the target's baseline.
    return ("neon", 4, |rounds| unsafe { neon(rounds) });
    #[cfg(not(target_arch = "aarch64"))]
    ("scalar", 1, scalar)
}

/// `sum ← x · y + sum`, `rounds` times in [`CHAINS`] registers. The sums stay finite.
macro_rules! chains {
    ($rounds:ident, $splat:expr, $fma:expr) => {{
        let (x, y) = ($splat(black_box(0.5)), $splat(black_box(1e-9)));
        let mut sums = [$splat(1.0); CHAINS as usize];
        for _ in 0..$rounds {
            for sum in &mut sums {
                *sum = $fma(x, y, *sum);
            }
        }
        black_box(sums);
    }};
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f")]
fn avx512(rounds: u32) {
    use std::arch::x86_64::{_mm512_fmadd_ps, _mm512_set1_ps};
    chains!(rounds, _mm512_set1_ps, _mm512_fmadd_ps);
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma")]
fn avx2(rounds: u32) {
    use std::arch::x86_64::{_mm256_fmadd_ps, _mm256_set1_ps};
    chains!(rounds, _mm256_set1_ps, _mm256_fmadd_ps);
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "sse2")]
fn sse2(rounds: u32) {
    use std::arch::x86_64::{_mm_add_ps, _mm_mul_ps, _mm_set1_ps};
    chains!(rounds, _mm_set1_ps, |x, y, sum| _mm_add_ps(
        _mm_mul_ps(x, y),
        sum
    ));
}

#[cfg(target_arch = "aarch64")]
#[target_feature(enable = "neon")]
fn neon(rounds: u32) {
    use std::arch::aarch64::{vdupq_n_f32, vfmaq_f32};
    chains!(rounds, vdupq_n_f32, |x, y, sum| vfmaq_f32(sum, x, y));
}

#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
fn scalar(rounds: u32) {
    chains!(rounds, |v: f32| v, |x: f32, y: f32, sum: f32| x * y + sum);
}
