//! Packed towers, `image.int8` and `text.int8`: quantized on the host, mapped on the device.
//!
//! ```text
//! 0   magic        8 bytes   "vdt-int8"
//! 8   version      u32 LE    2
//! 12  header size  u32 LE
//! 16  header       JSON, see [`header`]; spaces fill it up to a multiple of 64 bytes
//!     parts        each starts at a multiple of 64 bytes; numbers are little-endian
//! ```
//!
//! The header lists the fused sublayers, patch embeddings and embedding tables with the place of each
//! part. Weights lie in the layout that every kernel reads (`n64k4`, see
//! [`PackedMatrix`](super::kernels::PackedMatrix)) and are used where they are mapped, as tables
//! are, until [`Relocation`] has them in huge pages.
//! One part, `graph`, is the rest of the tower as an NNEF archive of tract, in which
//! `vedetta_int8_sublayers(x, mask, first, count)`, `vedetta_int8_patches(x, index)` and
//! `vedetta_int8_lookup(ids, index)` stand for what the header lists.
//!
//! A file is hostile input: every size, offset and shape is checked before it is used.

mod graph;
pub mod header;
mod huge;
mod read;
mod write;

pub use huge::Relocation;
pub use read::{check, read};
pub use write::write;

/// First bytes of a packed tower.
pub const MAGIC: [u8; 8] = *b"vdt-int8";

/// Version of the format.
pub const VERSION: u32 = 2;

/// Every part starts at a multiple of this, bytes: a cache line, and what kernels like best.
const ALIGNMENT: usize = 64;

/// Longest header, bytes. A tower of 48 layers has 60 KB.
const MAX_HEADER_BYTES: usize = 4 << 20;

/// Bytes before the header.
const PREFIX: usize = 16;

#[cfg(test)]
mod tests;
