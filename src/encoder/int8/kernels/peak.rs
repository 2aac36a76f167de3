//! The product instructions of each instruction set, in registers and on their own: what the kernels
//! could reach if nothing else had to be done.

use std::hint::black_box;

use super::Isa;

/// Independent sums: at least latency × throughput of today's cores, and few enough for 16 registers.
const CHAINS: u8 = 10;

/// Multiplies and accumulates in registers only, `rounds` times, on the calling thread. Returns how
/// many multiply–accumulates that were.
///
/// # Panics
/// When this CPU does not have `isa`.
pub fn multiply(isa: Isa, rounds: u32) -> u64 {
    assert!(isa.is_supported(), "{isa} is not supported here");
    let per_instruction: u64 = match isa {
        Isa::Amx => 16 * 16 * 64,
        Isa::Avx512Vnni => 64,
        Isa::AvxVnni | Isa::NeonI8mm => 32,
        Isa::Avx2 | Isa::NeonDot | Isa::Neon => 16,
        Isa::Scalar => 1,
    };
    // SAFETY: the CPU has the instruction set.
    #[cfg(target_arch = "x86_64")]
    unsafe {
        match isa {
            Isa::Amx => {
                amx(rounds);
                return per_instruction * u64::from(rounds) * 4;
            }
            Isa::Avx512Vnni => avx512(rounds),
            Isa::AvxVnni => avx_vnni(rounds),
            Isa::Avx2 => avx2(rounds),
            _ => scalar(rounds),
        }
    }
    // SAFETY: the CPU has the instruction set.
    #[cfg(target_arch = "aarch64")]
    unsafe {
        match isa {
            Isa::NeonI8mm => i8mm(rounds),
            Isa::NeonDot => dotprod(rounds),
            Isa::Neon => neon(rounds),
            _ => scalar(rounds),
        }
    }
    #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
    scalar(rounds);
    per_instruction * u64::from(rounds) * u64::from(CHAINS)
}

/// `sums[i] ← step(sums[i], a, b)` for every chain, `rounds` times.
macro_rules! chains {
    ($rounds:ident, $zero:expr, $value:expr, |$sum:ident, $a:ident, $b:ident| $step:expr) => {{
        let ($a, $b) = (black_box($value), black_box($value));
        let mut sums = [$zero; CHAINS as usize];
        for _ in 0..$rounds {
            for $sum in &mut sums {
                *$sum = $step;
            }
        }
        black_box(sums);
    }};
}

fn scalar(rounds: u32) {
    chains!(rounds, 0_i32, 3_i32, |sum, a, b| black_box(
        sum.wrapping_add(a.wrapping_mul(b))
    ));
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512vnni")]
fn avx512(rounds: u32) {
    use std::arch::x86_64::{_mm512_dpbusd_epi32, _mm512_set1_epi8, _mm512_setzero_si512};
    chains!(
        rounds,
        _mm512_setzero_si512(),
        _mm512_set1_epi8(3),
        |sum, a, b| _mm512_dpbusd_epi32(*sum, a, b)
    );
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,avxvnni")]
fn avx_vnni(rounds: u32) {
    use std::arch::x86_64::{_mm256_dpbusd_avx_epi32, _mm256_set1_epi8, _mm256_setzero_si256};
    chains!(
        rounds,
        _mm256_setzero_si256(),
        _mm256_set1_epi8(3),
        |sum, a, b| _mm256_dpbusd_avx_epi32(*sum, a, b)
    );
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
fn avx2(rounds: u32) {
    use std::arch::x86_64::{
        _mm256_add_epi32, _mm256_madd_epi16, _mm256_set1_epi16, _mm256_setzero_si256,
    };
    // Each chain multiplies by its own sum, so that the product cannot be computed once for all.
    chains!(
        rounds,
        _mm256_setzero_si256(),
        _mm256_set1_epi16(3),
        |sum, a, b| _mm256_add_epi32(_mm256_madd_epi16(*sum, a), b)
    );
}

/// Four tiles of sums, as the kernel has.
///
/// # Safety
/// The CPU has AMX-INT8 with the permission to use it.
#[cfg(target_arch = "x86_64")]
unsafe fn amx(rounds: u32) {
    #[repr(C, align(64))]
    struct Config([u8; 64]);
    let mut config = Config([0; 64]);
    config.0[0] = 1;
    for tile in 0..8 {
        config.0[16 + 2 * tile] = 64;
        config.0[48 + tile] = 16;
    }
    // SAFETY: a valid configuration of palette 1; every tile is zeroed before it is used.
    unsafe {
        std::arch::asm!(
            "ldtilecfg [{config}]",
            "tilezero tmm0", "tilezero tmm1", "tilezero tmm2", "tilezero tmm3",
            "tilezero tmm4", "tilezero tmm5",
            "2:",
            "tdpbusd tmm0, tmm4, tmm5",
            "tdpbusd tmm1, tmm4, tmm5",
            "tdpbusd tmm2, tmm4, tmm5",
            "tdpbusd tmm3, tmm4, tmm5",
            "dec {rounds:e}",
            "jnz 2b",
            "tilerelease",
            config = in(reg) &raw const config,
            rounds = inout(reg) rounds.max(1) => _,
            options(nostack, readonly),
        );
    }
}

#[cfg(target_arch = "aarch64")]
#[target_feature(enable = "neon,i8mm")]
fn i8mm(rounds: u32) {
    use std::arch::aarch64::{int8x16_t, int32x4_t, vdupq_n_s8, vdupq_n_s32};
    let step = |mut sum: int32x4_t, a: int8x16_t, b: int8x16_t| {
        // SAFETY: the extension is enabled here; the instruction touches its registers only.
        unsafe {
            std::arch::asm!("smmla {s:v}.4s, {a:v}.16b, {b:v}.16b", s = inout(vreg) sum,
                a = in(vreg) a, b = in(vreg) b, options(pure, nomem, nostack, preserves_flags));
        }
        sum
    };
    chains!(rounds, vdupq_n_s32(0), vdupq_n_s8(3), |sum, a, b| step(
        *sum, a, b
    ));
}

#[cfg(target_arch = "aarch64")]
#[target_feature(enable = "neon,dotprod")]
fn dotprod(rounds: u32) {
    use std::arch::aarch64::{int8x16_t, int32x4_t, vdupq_n_s8, vdupq_n_s32};
    let step = |mut sum: int32x4_t, a: int8x16_t, b: int8x16_t| {
        // SAFETY: the extension is enabled here; the instruction touches its registers only.
        unsafe {
            std::arch::asm!("sdot {s:v}.4s, {a:v}.16b, {b:v}.4b[0]", s = inout(vreg) sum,
                a = in(vreg) a, b = in(vreg) b, options(pure, nomem, nostack, preserves_flags));
        }
        sum
    };
    chains!(rounds, vdupq_n_s32(0), vdupq_n_s8(3), |sum, a, b| step(
        *sum, a, b
    ));
}

#[cfg(target_arch = "aarch64")]
#[target_feature(enable = "neon")]
fn neon(rounds: u32) {
    use std::arch::aarch64::{vdup_n_s8, vdupq_n_s32, vmlal_s8, vmull_s8, vpadalq_s16};
    // The multiplier depends on the round, so that the product cannot be computed once for all.
    chains!(rounds, vdupq_n_s32(0), vdup_n_s8(3), |sum, a, b| {
        let fresh = black_box(a);
        vpadalq_s16(*sum, vmlal_s8(vmull_s8(fresh, b), a, b))
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_instruction_set_counts_what_it_does() {
        for isa in Isa::supported() {
            let few = multiply(isa, 10);
            assert!(few >= 100, "{isa}: {few}");
            assert_eq!(multiply(isa, 20), 2 * few, "{isa}");
        }
    }
}
