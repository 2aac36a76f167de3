//! Which instruction set the kernels run on.

use std::fmt;
use std::sync::OnceLock;

/// An instruction set that a kernel is written for.
///
/// All of them compute the same bits (see the [module](super)); they differ in speed only.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Isa {
    /// x86-64 with AMX-INT8 tiles; AVX-512 for everything around them.
    Amx,
    /// x86-64 with AVX-512 VNNI.
    Avx512Vnni,
    /// x86-64 with AVX2 and the 256-bit AVX-VNNI.
    AvxVnni,
    /// x86-64 with AVX2 and FMA.
    Avx2,
    /// aarch64 with the int8 matrix multiply extension.
    NeonI8mm,
    /// aarch64 with the dot product extension.
    NeonDot,
    /// Any aarch64.
    Neon,
    /// Portable code: the specification of all others.
    Scalar,
}

impl Isa {
    /// Every instruction set, fastest first within an architecture.
    pub const ALL: [Self; 8] = [
        Self::Amx,
        Self::Avx512Vnni,
        Self::AvxVnni,
        Self::Avx2,
        Self::NeonI8mm,
        Self::NeonDot,
        Self::Neon,
        Self::Scalar,
    ];

    /// The fastest instruction set of this CPU, or the one that the environment variable
    /// `VEDETTA_KERNEL` names, for comparing them; a name that is not supported here is ignored.
    pub fn detect() -> Self {
        let wanted = std::env::var("VEDETTA_KERNEL").ok();
        let named = wanted.and_then(|name| Self::supported().find(|isa| isa.name() == name));
        named
            .or_else(|| Self::supported().next())
            .unwrap_or(Self::Scalar)
    }

    /// What this CPU (and its operating system) supports, fastest first; ends with [`Isa::Scalar`].
    pub fn supported() -> impl Iterator<Item = Self> {
        Self::ALL.into_iter().filter(|isa| isa.is_supported())
    }

    /// Whether this CPU and its operating system can run it. The first question about
    /// [`Isa::Amx`] asks the kernel for the tile registers, for the whole process.
    pub fn is_supported(self) -> bool {
        static SUPPORTED: OnceLock<[bool; Isa::ALL.len()]> = OnceLock::new();
        SUPPORTED.get_or_init(|| Self::ALL.map(probe))[self as usize]
    }

    /// A short name for logs and reports.
    pub fn name(self) -> &'static str {
        match self {
            Self::Amx => "amx-int8",
            Self::Avx512Vnni => "avx512-vnni",
            Self::AvxVnni => "avx-vnni",
            Self::Avx2 => "avx2",
            Self::NeonI8mm => "neon-i8mm",
            Self::NeonDot => "neon-dotprod",
            Self::Neon => "neon",
            Self::Scalar => "scalar",
        }
    }

    /// What its kernels want subtracted from the codes of activations.
    pub(super) fn centre(self) -> u8 {
        match self {
            Self::NeonI8mm | Self::NeonDot | Self::Neon => 128,
            Self::Amx | Self::Avx512Vnni | Self::AvxVnni | Self::Avx2 | Self::Scalar => 0,
        }
    }

    /// Multiply–accumulates per cycle and core that the instructions of the product allow, on the
    /// widest common core: two vector units of full width (one tile unit for AMX).
    pub fn peak_macs_per_cycle(self) -> u32 {
        match self {
            Self::Amx => 1024,
            Self::Avx512Vnni => 128,
            Self::AvxVnni | Self::NeonI8mm => 64,
            Self::Avx2 | Self::NeonDot => 32,
            Self::Neon => 11,
            Self::Scalar => 1,
        }
    }
}

impl fmt::Display for Isa {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(target_arch = "x86_64")]
fn probe(isa: Isa) -> bool {
    use std::arch::is_x86_feature_detected as has;
    let avx2 = has!("avx2") && has!("fma");
    let avx512 = avx2
        && has!("avx512f")
        && has!("avx512bw")
        && has!("avx512vl")
        && has!("avx512dq")
        && has!("avx512vnni");
    match isa {
        Isa::Amx => avx512 && super::amx_permission::granted(),
        Isa::Avx512Vnni => avx512,
        Isa::AvxVnni => avx2 && has!("avxvnni"),
        Isa::Avx2 => avx2,
        Isa::Scalar => true,
        Isa::NeonI8mm | Isa::NeonDot | Isa::Neon => false,
    }
}

#[cfg(target_arch = "aarch64")]
fn probe(isa: Isa) -> bool {
    use std::arch::is_aarch64_feature_detected as has;
    match isa {
        Isa::NeonI8mm => has!("i8mm") && has!("dotprod"),
        Isa::NeonDot => has!("dotprod"),
        Isa::Neon => has!("neon"),
        Isa::Scalar => true,
        Isa::Amx | Isa::Avx512Vnni | Isa::AvxVnni | Isa::Avx2 => false,
    }
}

#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
fn probe(isa: Isa) -> bool {
    isa == Isa::Scalar
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_scalar_specification_runs_everywhere_and_comes_last() {
        assert_eq!(Isa::supported().last(), Some(Isa::Scalar));
        assert!(Isa::detect().is_supported());
    }

    #[test]
    fn the_table_is_indexed_by_declaration_order() {
        for (index, isa) in Isa::ALL.into_iter().enumerate() {
            assert_eq!(isa as usize, index);
        }
    }
}
