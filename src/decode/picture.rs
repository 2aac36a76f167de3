//! A frame that is decoded as far as somebody wants to see it.

use std::sync::{Arc, OnceLock};

use image::RgbImage;

use super::{DecodeError, decode, jpeg};
use crate::frame::{Frame, PixelFormat};

/// A frame's small picture, and the whole one when it is asked for.
///
/// Most frames of a camera are only compared with the one before. A JPEG gives an eighth of its size
/// for a sixth of the time; other formats are decoded as a whole, which takes no longer.
#[derive(Debug)]
pub struct Picture {
    /// Nothing when the whole picture was there first.
    frame: Option<Frame>,
    small: Option<RgbImage>,
    whole: OnceLock<Result<Arc<RgbImage>, DecodeError>>,
}

impl Picture {
    /// Decodes as much of `frame` as it takes to look at it.
    ///
    /// # Errors
    /// A frame that is damaged as far as that shows; [`Picture::whole`] may find more.
    pub fn of(frame: Frame) -> Result<Self, DecodeError> {
        if frame.format != PixelFormat::Mjpeg {
            return decode(&frame).map(Self::from);
        }
        match jpeg::eighth(&frame.data)? {
            None => decode(&frame).map(Self::from),
            small => Ok(Self {
                frame: Some(frame),
                small,
                whole: OnceLock::new(),
            }),
        }
    }

    /// Whether `frame` would give the same picture, byte by byte.
    pub fn is_of(&self, frame: &Frame) -> bool {
        let same = |own: &Frame| own.format == frame.format && own.data == frame.data;
        self.frame.as_ref().is_some_and(same)
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
        let decoded = self.whole.get_or_init(|| match &self.frame {
            Some(frame) => decode(frame).map(Arc::new),
            None => unreachable!("a picture without a frame is whole"),
        });
        decoded.clone()
    }

    /// A number that is the same for equal frames, and hardly for others; `None` where the pixels have
    /// to be compared.
    pub fn fingerprint(&self) -> Option<u64> {
        let frame = self.frame.as_ref()?;
        let (words, rest) = frame.data.as_chunks::<8>();
        let hash = words.iter().fold(frame.data.len() as u64, |hash, word| {
            mix(hash, u64::from_le_bytes(*word))
        });
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
            frame: None,
            small: None,
            whole: OnceLock::from(Ok(Arc::new(rgb))),
        }
    }
}

/// One step of `FxHash`: fast, and nobody attacks it with pictures.
fn mix(hash: u64, word: u64) -> u64 {
    (hash.rotate_left(5) ^ word).wrapping_mul(0x51_7c_c1_b7_27_22_0a_95)
}
