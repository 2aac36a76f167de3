//! One instance of the kernels per instruction set.

use super::{DepthwiseRow, Kernels, RowKernel, Tile, TileKernel};

/// The rows of a table: pixels 1, 2, … for `$m` registers.
macro_rules! tiles {
    ($step:literal, $m:literal, [$($r:literal)*]) => {
        &[$(tile::<$step, $r, $m> as TileKernel),*]
    };
}

/// A module with the instances for `$register`. `[$m: $r…]` names, per panel width, its registers
/// and its tile heights: as many accumulators as the register file holds beside the operands.
macro_rules! instances {
    ($module:ident, $register:ty, $name:literal, $(#[$feature:meta])?,
     depthwise $pixels:literal, dense $([$m:literal: $($r:literal)*])*) => {
        mod $module {
            use super::*;
            use crate::encoder::conv::kernels::{Register, dense, depthwise};

            /// # Safety
            /// As [`dense::tile`].
            $(#[$feature])?
            unsafe fn tile<const STEP: usize, const R: usize, const M: usize>(job: &Tile<'_>) {
                // SAFETY: the caller's promise is the callee's.
                unsafe { dense::tile::<$register, STEP, R, M>(job) }
            }

            /// # Safety
            /// As [`depthwise::row`].
            $(#[$feature])?
            unsafe fn row<const K: usize, const S: usize>(job: &DepthwiseRow) {
                // SAFETY: the caller's promise is the callee's.
                unsafe { depthwise::row::<$register, K, S, $pixels>(job) }
            }

            pub static KERNELS: Kernels = Kernels {
                name: $name,
                fused: <$register as Register>::FUSED,
                dense: [
                    &[$(tiles!(1, $m, [$($r)*])),*],
                    &[$(tiles!(2, $m, [$($r)*])),*],
                    &[$(tiles!(16, $m, [$($r)*])),*],
                    &[$(tiles!(32, $m, [$($r)*])),*],
                ],
                depthwise: [
                    [row::<3, 1> as RowKernel, row::<3, 2>],
                    [row::<5, 1>, row::<5, 2>],
                ],
            };
        }
    };
}

#[cfg(target_arch = "x86_64")]
instances!(avx512, crate::encoder::conv::kernels::x86::Avx512, "avx512",
    #[target_feature(enable = "avx512f")], depthwise 7,
    dense [1: 1 2 3 4 5 6 7 8 9 10 11 12 13 14]
          [2: 1 2 3 4 5 6 7 8 9 10 11 12 13 14]
          [3: 1 2 3 4 5 6 7 8]);

#[cfg(target_arch = "x86_64")]
instances!(avx2, crate::encoder::conv::kernels::x86::Avx2, "avx2",
    #[target_feature(enable = "avx2,fma")], depthwise 7,
    dense [2: 1 2 3 4 5 6]);

#[cfg(target_arch = "x86_64")]
instances!(sse2, crate::encoder::conv::kernels::x86::Sse2, "sse2",, depthwise 7,
    dense [4: 1 2 3]);

#[cfg(target_arch = "aarch64")]
instances!(neon, crate::encoder::conv::kernels::aarch64::Neon, "neon",, depthwise 7,
    dense [4: 1 2 3 4 5 6]);

instances!(portable, crate::encoder::conv::kernels::register::Portable, "portable",, depthwise 7,
    dense [1: 1 2 3 4]);

/// What this CPU runs, fastest first; the last is the specification.
pub fn available() -> Vec<&'static Kernels> {
    let mut found: Vec<&'static Kernels> = Vec::new();
    #[cfg(target_arch = "x86_64")]
    {
        if is_x86_feature_detected!("avx512f") {
            found.push(&avx512::KERNELS);
        }
        if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") {
            found.push(&avx2::KERNELS);
        }
        found.push(&sse2::KERNELS);
    }
    #[cfg(target_arch = "aarch64")]
    found.push(&neon::KERNELS);
    found.push(&portable::KERNELS);
    found
}
