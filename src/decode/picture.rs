//! A frame that is decoded as far as somebody wants to see it.

use std::sync::{Arc, OnceLock};

use image::RgbImage;

use super::baseline::{Baseline, Expected, Plane, Scale};
use super::{DecodeError, decode, jpeg};
use crate::frame::{Frame, PixelFormat};
use crate::preprocess::Region;

/// A frame's small picture, parts of it at the size that is asked for, and the whole one.
///
/// Most frames of a camera are only compared with the one before. Of a JPEG an eighth of its size does
/// for that, and a zone that is scored needs no more than what lies under it, see [`Scale`]. Other
/// formats are decoded as a whole, which takes no longer.
#[derive(Debug)]
pub struct Picture {
    /// Nothing when the whole picture was there first.
    coded: Option<Coded>,
    small: Option<RgbImage>,
    whole: OnceLock<Result<Arc<RgbImage>, DecodeError>>,
}

/// A JPEG that is decoded in parts.
#[derive(Debug)]
struct Coded {
    frame: Frame,
    baseline: Baseline,
}

impl Picture {
    /// Decodes as much of `frame` as it takes to look at it.
    ///
    /// # Errors
    /// A frame that is damaged as far as that shows; [`Picture::whole`] may find more.
    pub fn of(frame: Frame) -> Result<Self, DecodeError> {
        Self::expecting(frame, None)
    }

    /// As [`Picture::of`], and decodes what will probably be asked for while it looks: that takes less
    /// time than both apart, and in vain where it is not.
    ///
    /// # Errors
    /// As [`Picture::of`].
    pub fn expecting(frame: Frame, expected: Option<&Expected>) -> Result<Self, DecodeError> {
        if frame.format != PixelFormat::Mjpeg {
            return decode(&frame).map(Self::from);
        }
        match jpeg::survey(&frame.data, expected)? {
            None => decode(&frame).map(Self::from),
            Some(baseline) => Ok(Self {
                small: Some(baseline.eighth()),
                coded: Some(Coded { frame, baseline }),
                whole: OnceLock::new(),
            }),
        }
    }

    /// Whether `frame` would give the same picture, byte by byte.
    pub fn is_of(&self, frame: &Frame) -> bool {
        let same = |own: &Frame| own.format == frame.format && own.data == frame.data;
        (self.coded.as_ref()).is_some_and(|coded| same(&coded.frame))
    }

    /// Width and height in pixels, when [`Picture::planes`] are to be had.
    pub fn size_in_parts(&self) -> Option<(u32, u32)> {
        Some(self.coded.as_ref()?.baseline.size())
    }

    /// Luma of what lies under `regions`, with Cb and Cr unless it is grey, each at the resolution at
    /// which it is coded times `scale`; empty without [`Picture::size_in_parts`].
    ///
    /// # Errors
    /// A frame that turns out to be damaged.
    pub fn planes(&self, regions: &[Region], scale: Scale) -> Result<Vec<Plane>, DecodeError> {
        match &self.coded {
            Some(coded) => coded.baseline.planes(regions, scale),
            None => Ok(Vec::new()),
        }
    }

    /// What stands for the picture when it is compared: an eighth of it in each direction, or all.
    ///
    /// # Panics
    /// Never: one of both is there from the beginning.
    pub fn small(&self) -> &RgbImage {
        match (&self.small, self.whole.get()) {
            (Some(small), _) => small,
            (None, Some(Ok(whole))) => whole,
            (None, _) => unreachable!("a picture without pixels"),
        }
    }

    /// All of it, decoded once.
    ///
    /// # Errors
    /// A frame that turns out to be damaged.
    pub fn whole(&self) -> Result<Arc<RgbImage>, DecodeError> {
        let decoded = self.whole.get_or_init(|| match &self.coded {
            Some(coded) => decode(&coded.frame).map(Arc::new),
            None => unreachable!("a picture without a frame is whole"),
        });
        decoded.clone()
    }

    /// A number that is the same for equal pictures, whatever number or time a camera writes beside them,
    /// and hardly for others; `None` where the pixels have to be compared.
    pub fn fingerprint(&self) -> Option<u64> {
        let codes = self.coded.as_ref()?.baseline.codes();
        // Four at once: one product waits for the one before.
        let (blocks, rest) = codes.as_chunks::<32>();
        let mut hashes = [codes.len() as u64; 4];
        for block in blocks {
            let (words, _) = block.as_chunks::<8>();
            for (hash, word) in hashes.iter_mut().zip(words) {
                *hash = mix(*hash, u64::from_le_bytes(*word));
            }
        }
        let hash = hashes.into_iter().fold(0, mix);
        Some(
            rest.iter()
                .fold(hash, |hash, byte| mix(hash, u64::from(*byte))),
        )
    }
}

impl From<RgbImage> for Picture {
    /// Pixels that are there already.
    fn from(rgb: RgbImage) -> Self {
        Self {
            coded: None,
            small: None,
            whole: OnceLock::from(Ok(Arc::new(rgb))),
        }
    }
}

/// One step of `FxHash`: fast, and nobody attacks it with pictures.
fn mix(hash: u64, word: u64) -> u64 {
    (hash.rotate_left(5) ^ word).wrapping_mul(0x51_7c_c1_b7_27_22_0a_95)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A photo with a comment before everything else, as a camera that numbers its frames has it.
    fn numbered(name: &str, number: u8) -> Picture {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/photos");
        let mut data = std::fs::read(format!("{folder}/{name}.jpg")).unwrap();
        data.splice(2..2, [0xff, 0xfe, 0, 3, number]);
        Picture::of(Frame::mjpeg(0, 0, data)).unwrap()
    }

    #[test]
    fn the_same_picture_with_another_number_has_the_same_fingerprint() {
        let of = |name, number| numbered(name, number).fingerprint().unwrap();
        assert_eq!(of("arance", 1), of("arance", 2));
        assert_ne!(of("arance", 1), of("banane", 1));
    }
}
