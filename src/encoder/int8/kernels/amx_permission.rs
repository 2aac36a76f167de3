//! Asking Linux for the AMX tile registers.
//!
//! Their 8 KiB of state is not in a signal frame by default: a process asks once, before the first
//! tile instruction, and every thread has them from then on
//! (Documentation/arch/x86/xstate.rst, "Using dynamically enabled XSTATE features").

use std::arch::asm;
use std::arch::x86_64::{__cpuid, __cpuid_count, _xgetbv};

const ARCH_REQ_XCOMP_PERM: u64 = 0x1023;
const XFEATURE_XTILEDATA: u64 = 18;
const SYS_ARCH_PRCTL: u64 = 158;

const CPUID_1_ECX_OSXSAVE: u32 = 1 << 27;
const CPUID_7_EDX_AMX_TILE: u32 = 1 << 24;
const CPUID_7_EDX_AMX_INT8: u32 = 1 << 25;
const XCR0_TILE: u64 = 0b11 << 17;

/// Whether the CPU has AMX-INT8 and the kernel grants this process the tile registers.
///
/// Call it where AVX-512 was seen already: that implies the leaves it reads.
pub(super) fn granted() -> bool {
    cpu_has_amx_int8() && request()
}

fn cpu_has_amx_int8() -> bool {
    if __cpuid(0).eax < 7 || __cpuid(1).ecx & CPUID_1_ECX_OSXSAVE == 0 {
        return false;
    }
    let wanted = CPUID_7_EDX_AMX_TILE | CPUID_7_EDX_AMX_INT8;
    if __cpuid_count(7, 0).edx & wanted != wanted {
        return false;
    }
    // SAFETY: OSXSAVE is set, so the operating system enabled xgetbv.
    let enabled = unsafe { xcr0() };
    enabled & XCR0_TILE == XCR0_TILE
}

/// # Safety
/// CPUID.1:ECX.OSXSAVE is set.
#[target_feature(enable = "xsave")]
unsafe fn xcr0() -> u64 {
    // SAFETY: the caller saw OSXSAVE.
    unsafe { _xgetbv(0) }
}

#[cfg(target_os = "linux")]
fn request() -> bool {
    let result: i64;
    // SAFETY: a system call that reads no memory of ours; it clobbers rcx and r11 only.
    unsafe {
        asm!(
            "syscall",
            inlateout("rax") SYS_ARCH_PRCTL => result,
            in("rdi") ARCH_REQ_XCOMP_PERM,
            in("rsi") XFEATURE_XTILEDATA,
            lateout("rcx") _,
            lateout("r11") _,
            options(nostack)
        );
    }
    result == 0
}

#[cfg(not(target_os = "linux"))]
fn request() -> bool {
    false
}
