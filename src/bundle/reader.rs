//! Reading a file while checking that it is the one the manifest lists.

use std::io::{self, Read};

use sha2::{Digest, Sha256};

use super::hex;
use super::manifest::File;

/// Passes bytes on and fails at the end of the file when its length or SHA-256 is not the listed
/// one. Never passes on more bytes than are listed.
pub struct VerifiedReader<R> {
    inner: R,
    hash: Sha256,
    left: u64,
    listed: File,
    done: bool,
}

impl<R: Read> VerifiedReader<R> {
    pub(super) fn new(inner: R, listed: &File) -> Self {
        Self {
            inner,
            hash: Sha256::new(),
            left: listed.bytes,
            listed: listed.clone(),
            done: false,
        }
    }

    fn finish(&mut self) -> io::Result<()> {
        if self.done {
            return Ok(());
        }
        let problem = |text: String| Err(io::Error::new(io::ErrorKind::InvalidData, text));
        if self.left > 0 {
            let (listed, found) = (self.listed.bytes, self.listed.bytes - self.left);
            return problem(format!(
                "has {found} bytes where {listed} are listed (truncated)"
            ));
        }
        if self.inner.read(&mut [0])? > 0 {
            return problem(format!(
                "is longer than the {} bytes listed",
                self.listed.bytes
            ));
        }
        let found = hex(&self.hash.finalize_reset());
        if found != self.listed.sha256 {
            let listed = &self.listed.sha256;
            return problem(format!("has SHA-256 {found} where {listed} is listed"));
        }
        self.done = true;
        Ok(())
    }
}

impl<R: Read> Read for VerifiedReader<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if buffer.is_empty() {
            return Ok(0);
        }
        // Never a read of nothing: a tar entry takes the 0 it returns for its end.
        let wanted = usize::try_from(self.left)
            .unwrap_or(usize::MAX)
            .min(buffer.len());
        let count = match wanted {
            0 => 0,
            wanted => self.inner.read(&mut buffer[..wanted])?,
        };
        if count == 0 {
            self.finish()?;
        }
        self.hash.update(&buffer[..count]);
        self.left -= count as u64;
        Ok(count)
    }
}
