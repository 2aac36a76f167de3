//! Writing a bundle as `.tar.zst`. Nothing is held in memory: a bundle may have gigabytes.

use std::io::{self, Cursor, Read, Write};

use ruzstd::encoding::{CompressionLevel, FrameCompressor};
use tar::{EntryType, Header};

use super::{Bundle, MANIFEST};

/// A tar file is made of these.
const BLOCK_BYTES: u64 = 512;

/// Packs a verified bundle, `bundle.toml` first. Every byte depends on the bundle alone, so packing
/// twice gives the same file.
///
/// # Errors
/// A file that can no longer be read or changed meanwhile, or a failure of `target`.
pub fn pack(bundle: &Bundle, target: impl Write) -> io::Result<()> {
    let mut source = Fallible::new(tape(bundle)?);
    let mut drain = Fallible::new(target);
    let mut compressor = FrameCompressor::new(CompressionLevel::Fastest);
    compressor.set_source(&mut source);
    compressor.set_drain(&mut drain);
    compressor.compress();
    drop(compressor);
    source.outcome()?;
    drain.flush()?;
    drain.outcome()
}

/// The tar file, made while it is read.
fn tape(bundle: &Bundle) -> io::Result<Box<dyn Read + '_>> {
    let manifest = &bundle.source[..];
    let mut tape = entry(MANIFEST, manifest.len() as u64, manifest)?;
    for (name, file) in &bundle.manifest.files {
        let reader = bundle.reader(name).map_err(io::Error::other)?;
        tape = Box::new(tape.chain(entry(name, file.bytes, reader)?));
    }
    Ok(Box::new(tape.chain(io::repeat(0).take(2 * BLOCK_BYTES))))
}

fn entry<'a>(name: &str, bytes: u64, reader: impl Read + 'a) -> io::Result<Box<dyn Read + 'a>> {
    let mut header = Header::new_ustar();
    header.set_path(name)?;
    header.set_size(bytes);
    header.set_mode(0o644);
    header.set_mtime(0);
    header.set_entry_type(EntryType::Regular);
    header.set_cksum();
    let padding = bytes.next_multiple_of(BLOCK_BYTES) - bytes;
    let head = Cursor::new(header.as_bytes().to_vec());
    Ok(Box::new(
        head.chain(reader).chain(io::repeat(0).take(padding)),
    ))
}

/// Keeps the first failure for later: the compressor panics on one.
struct Fallible<T> {
    inner: T,
    failure: Option<io::Error>,
}

impl<T> Fallible<T> {
    fn new(inner: T) -> Self {
        Self {
            inner,
            failure: None,
        }
    }

    fn outcome(self) -> io::Result<()> {
        self.failure.map_or(Ok(()), Err)
    }
}

impl<R: Read> Read for Fallible<R> {
    /// The end of the file after a failure.
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.failure.is_none() {
            match self.inner.read(buffer) {
                Ok(count) => return Ok(count),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => self.failure = Some(error),
            }
        }
        Ok(0)
    }
}

impl<W: Write> Write for Fallible<W> {
    /// Nothing is written any more after a failure.
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.failure.is_none()
            && let Err(error) = self.inner.write_all(bytes)
        {
            self.failure = Some(error);
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.failure.is_none() {
            self.inner.flush()?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_of_either_side_is_an_error_and_no_panic() {
        struct Full;
        impl Write for Full {
            fn write(&mut self, _: &[u8]) -> io::Result<usize> {
                Err(io::Error::from(io::ErrorKind::StorageFull))
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let mut full = Fallible::new(Full);
        full.write_all(b"one").unwrap();
        full.write_all(b"two").unwrap();
        let error = full.outcome().unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::StorageFull);

        struct Torn;
        impl Read for Torn {
            fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
                Err(io::Error::from(io::ErrorKind::InvalidData))
            }
        }
        let mut torn = Fallible::new(Torn);
        assert_eq!(torn.read(&mut [0; 4]).unwrap(), 0);
        let error = torn.outcome().unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidData);
    }
}
