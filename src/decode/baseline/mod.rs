//! A baseline JPEG, decoded no further than somebody wants to see it.
//!
//! Every frame of a camera is surveyed: its codes are passed over once, which finds what is damaged,
//! where each block begins, and the DC coefficients, an eighth of the picture. Of most
//! frames nothing more is wanted. Where a zone is to be scored, the units under it are decoded, at the
//! size that the zone needs, and no others. What will probably be wanted ([`Expected`]) is decoded in
//! the survey's pass, which saves a second one over its codes.
//!
//! Damage is what ITU-T T.81 does not allow, though other decoders may let it pass: restart markers that
//! no DRI segment announces, bytes between the codes and a marker, codes that end early.

mod eighth;
mod expected;
mod headers;
mod huffman;
mod inverse;
mod painter;
mod planes;
mod scan;
mod survey;

use std::fmt;
use std::sync::Mutex;

use image::RgbImage;

use super::DecodeError;
use expected::Ready;
use headers::Headers;
use scan::Scan;
use survey::Survey;

pub use expected::Expected;
pub use inverse::Scale;
pub use planes::Plane;

/// A JPEG whose codes have all been looked at.
pub struct Baseline {
    headers: Headers,
    scan: Scan,
    survey: Survey,
    /// What was expected, until it is asked for.
    ready: Mutex<Option<Ready>>,
}

impl Baseline {
    /// Surveys a JPEG of checked size, and decodes what is expected of it; `None` for kinds that are left to the decoder of whole pictures:
    /// progressive, not interleaved, RGB, CMYK, more than 8 bits.
    ///
    /// # Errors
    /// A damaged picture.
    pub fn read(
        bytes: &[u8],
        has_huffman_tables: bool,
        expected: Option<&Expected>,
    ) -> Result<Option<Self>, DecodeError> {
        let Some((headers, data)) = headers::read(bytes, has_huffman_tables)? else {
            return Ok(None);
        };
        let scan = Scan::of(data);
        let (survey, ready) = expected::survey(&headers, &scan, expected)?;
        Ok(Some(Self {
            headers,
            scan,
            survey,
            ready: Mutex::new(ready),
        }))
    }

    /// The codes without stuffing and markers: equal pictures have equal ones, whatever else a camera
    /// writes into its frames.
    pub fn codes(&self) -> &[u8] {
        self.scan.bytes()
    }

    /// Width and height in pixels.
    pub fn size(&self) -> (u32, u32) {
        (self.headers.width_px, self.headers.height_px)
    }

    /// An eighth of it in each direction, rounded up.
    pub fn eighth(&self) -> RgbImage {
        eighth::assemble(&self.headers, &self.survey)
    }
}

impl fmt::Debug for Baseline {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Baseline")
            .field("size", &self.size())
            .finish_non_exhaustive()
    }
}

/// A damaged picture.
fn corrupt(what: &str) -> DecodeError {
    DecodeError::Jpeg(what.to_owned())
}

#[cfg(test)]
mod tests;
