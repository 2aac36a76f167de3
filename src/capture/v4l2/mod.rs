//! Frames of a V4L2 device, by memory-mapped streaming.
//!
//! A timeout is not an error, and a damaged frame is not one either. Everything else that goes wrong
//! ends the source: its owner drops it and opens the device again.

mod calls;
mod explain;
mod failure;
mod list;
mod node;
mod numbering;
mod stream;

use std::path::Path;
use std::sync::Arc;
use std::thread::sleep;
use std::time::{Duration, Instant};

use self::explain::{cannot_open, failed, lost, no_capture, nothing_usable};
use self::failure::Failure;
use self::node::{Node, Settled};
use self::numbering::Numbering;
use self::stream::{Filled, Stream};
use super::select::{self, Choice, Interval, Wanted};
use super::{
    CaptureError, Description, DropReason, FrameSource, Next, SourceCounters, colorimetry,
};
use crate::decode::{self, Layout};
use crate::frame::{Colorimetry, Frame, PixelFormat};

pub use list::{ListedCamera, ListedFormat, list};

/// Buffers asked for: one being read, one being filled, two against jitter.
const BUFFERS: u32 = 4;
/// Choices tried before giving up; a driver may refuse what it offers.
const ATTEMPTS: usize = 4;
/// The pause when poll(2) says that a buffer is ready and the driver has none.
const SPURIOUS_PAUSE: Duration = Duration::from_millis(5);

/// An open, streaming device.
pub struct V4l2Source {
    stream: Stream,
    description: Description,
    format: PixelFormat,
    size_px: (u32, u32),
    stride_bytes: u32,
    /// `None` for JPEG.
    layout: Option<Layout>,
    colorimetry: Colorimetry,
    wanted_from: Option<Instant>,
    numbering: Numbering,
    skipped: u64,
}

impl V4l2Source {
    /// Opens `path` with the best of what it offers, and starts streaming.
    ///
    /// A choice that is too much for the bus or the memory gives way to a lighter one.
    ///
    /// # Errors
    /// The device is not there, is busy, or has nothing that can be decoded; the message says which
    /// and what to do.
    pub fn open(path: &Path, wanted: &Wanted) -> Result<Self, CaptureError> {
        let node = Node::open(path).map_err(|error| cannot_open(path, &error))?;
        let identity = node.identity().map_err(|failure| failed(path, &failure))?;
        if !identity.captures {
            return Err(no_capture(path, identity.captures_planes));
        }
        let node = Arc::new(node);
        let offers = node.offers();
        let ranked = select::rank(&offers, wanted);
        if ranked.is_empty() {
            return Err(nothing_usable(path, &offers, wanted));
        }
        let mut refusal = None;
        let mut too_heavy: Option<Choice> = None;
        let mut attempts = 0;
        for choice in &ranked {
            if too_heavy.is_some_and(|heavy| !is_lighter(choice, &heavy)) {
                continue;
            }
            if attempts == ATTEMPTS {
                break;
            }
            attempts += 1;
            let started = node.set_format(choice).and_then(|settled| {
                let interval = node.set_interval(choice.interval);
                Stream::start(&node, BUFFERS).map(|stream| (settled, interval, stream))
            });
            match started {
                Ok((settled, interval, stream)) => {
                    let Some(format) = settled.fourcc.format() else {
                        refusal = Some(CaptureError::fatal(format!(
                            "{}: asked for {}, the driver gives {}, which cannot be decoded",
                            path.display(),
                            choice.fourcc,
                            settled.fourcc
                        )));
                        continue;
                    };
                    let description = Description {
                        driver: identity.driver,
                        card: identity.card,
                        format,
                        size_px: Some(settled.size_px),
                        rate_fps: interval.and_then(Interval::fps),
                        note: note(choice, wanted, &settled, too_heavy.as_ref()),
                    };
                    return Self::new(path, stream, &settled, format, description);
                }
                Err(failure) => {
                    let error = failed(path, &failure);
                    if !failure.is_about_format() {
                        return Err(error);
                    }
                    if failure.is_too_much() {
                        too_heavy = Some(*choice);
                    }
                    refusal = Some(error);
                }
            }
        }
        Err(refusal.unwrap_or_else(|| nothing_usable(path, &offers, wanted)))
    }

    fn new(
        path: &Path,
        stream: Stream,
        settled: &Settled,
        format: PixelFormat,
        description: Description,
    ) -> Result<Self, CaptureError> {
        let (width_px, height_px) = settled.size_px;
        let is_compressed = format == PixelFormat::Mjpeg;
        let stride_bytes = if is_compressed {
            0
        } else {
            settled.stride_bytes
        };
        let layout = (!is_compressed)
            .then(|| Layout::of(format, width_px, height_px, stride_bytes))
            .transpose()
            .map_err(|error| CaptureError::fatal(format!("{}: {error}", path.display())))?;
        Ok(Self {
            stream,
            description,
            format,
            size_px: settled.size_px,
            stride_bytes,
            layout,
            colorimetry: colorimetry::from_v4l2(
                settled.colorspace,
                settled.ycbcr_enc,
                settled.quantization,
            ),
            wanted_from: None,
            numbering: Numbering::default(),
            skipped: 0,
        })
    }

    /// The newest of the filled buffers; the older ones go back unseen.
    fn freshest(&mut self) -> Result<Option<Filled>, Failure> {
        let Some(mut newest) = self.stream.dequeue()? else {
            return Ok(None);
        };
        self.numbering.note(newest.sequence);
        for _ in 1..self.stream.len() {
            let Some(newer) = self.stream.dequeue()? else {
                break;
            };
            self.numbering.note(newer.sequence);
            // A damaged frame does not push out a good one.
            let older = if newer.is_damaged && !newest.is_damaged {
                newer
            } else {
                std::mem::replace(&mut newest, newer)
            };
            self.skipped += 1;
            self.stream.give_back(older)?;
        }
        Ok(Some(newest))
    }

    fn judge(&mut self, filled: &Filled) -> Next {
        let captured_at = Instant::now();
        if filled.is_damaged {
            return Next::Dropped(DropReason::ErrorFlag);
        }
        if self.wanted_from.is_some_and(|from| captured_at < from) {
            self.skipped += 1;
            return Next::Skipped;
        }
        let bytes = self.stream.bytes(filled);
        match self.layout {
            Some(layout) if layout.check(bytes.len()).is_err() => {
                return Next::Dropped(DropReason::Short {
                    got_bytes: bytes.len(),
                    needed_bytes: layout.needed_bytes,
                });
            }
            None if !decode::is_complete_jpeg(bytes) => {
                return Next::Dropped(DropReason::Incomplete(bytes.len()));
            }
            _ => {}
        }
        Next::Frame(Frame {
            sequence: self.numbering.sequence,
            captured_at,
            format: self.format,
            width_px: self.size_px.0,
            height_px: self.size_px.1,
            stride_bytes: self.stride_bytes,
            colorimetry: self.colorimetry,
            data: bytes.to_vec(),
        })
    }
}

impl FrameSource for V4l2Source {
    fn description(&self) -> &Description {
        &self.description
    }

    fn next_frame(&mut self, timeout: Duration) -> Result<Next, CaptureError> {
        let deadline = Instant::now() + timeout;
        let lost = |failure| lost(&failure);
        let mut was_said_to_be_ready = false;
        loop {
            if let Some(filled) = self.freshest().map_err(lost)? {
                let next = self.judge(&filled);
                self.stream.give_back(filled).map_err(lost)?;
                return Ok(next);
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(Next::NotReady);
            }
            if was_said_to_be_ready {
                sleep(SPURIOUS_PAUSE.min(left));
            }
            was_said_to_be_ready = self.stream.wait(left).map_err(lost)?;
        }
    }

    fn skip_before(&mut self, earliest: Instant) {
        self.wanted_from = Some(earliest);
    }

    fn counters(&self) -> SourceCounters {
        SourceCounters {
            skipped: self.skipped,
            lost: self.numbering.lost,
        }
    }
}

/// Whether `choice` takes less of the bus than `heavy`, which was too much for it.
fn is_lighter(choice: &Choice, heavy: &Choice) -> bool {
    let pixels = |size: (u32, u32)| u64::from(size.0) * u64::from(size.1);
    let is_compressed = |choice: &Choice| choice.format == PixelFormat::Mjpeg;
    if is_compressed(choice) == is_compressed(heavy) {
        pixels(choice.size_px) < pixels(heavy.size_px)
    } else {
        is_compressed(choice)
    }
}

/// What the log has to say about a device that is not as it was asked to be.
fn note(
    choice: &Choice,
    wanted: &Wanted,
    settled: &Settled,
    too_heavy: Option<&Choice>,
) -> Option<String> {
    let size = wanted.size_px.unwrap_or(choice.size_px);
    let mut notes = Vec::new();
    if settled.fourcc != choice.fourcc || settled.size_px != size {
        let (width, height) = size;
        notes.push(format!("asked for {} {width}x{height}", choice.fourcc));
    }
    if let Some(heavy) = too_heavy {
        let (width, height) = heavy.size_px;
        notes.push(format!(
            "{} {width}x{height} is too much for this machine",
            heavy.fourcc
        ));
    }
    (!notes.is_empty()).then(|| notes.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::capture::Severity;
    use crate::capture::fourcc::FourCc;

    const WANTED: Wanted = Wanted {
        format: None,
        size_px: None,
        rate_fps: 5.0,
    };

    #[test]
    fn a_device_that_is_not_there_is_gone_and_named() {
        let path = Path::new("/dev/no-such-camera");
        let error = V4l2Source::open(path, &WANTED).err().unwrap();
        assert_eq!(error.severity, Severity::Gone);
        assert!(error.message.contains("/dev/no-such-camera"), "{error}");
    }

    #[test]
    fn a_file_that_is_no_camera_is_a_mistake_in_the_configuration() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let error = V4l2Source::open(file.path(), &WANTED).err().unwrap();
        assert_eq!(error.severity, Severity::Fatal);
        assert!(error.message.contains("not a video device"), "{error}");
    }

    #[test]
    fn what_is_too_much_for_the_bus_gives_way_to_mjpeg_and_then_to_smaller_sizes() {
        let choice = |code: &[u8; 4], size_px| Choice {
            fourcc: FourCc(*code),
            format: FourCc(*code).format().unwrap(),
            size_px,
            interval: None,
        };
        let yuyv = choice(b"YUYV", (1280, 720));
        let mjpeg = choice(b"MJPG", (1280, 720));
        assert!(is_lighter(&mjpeg, &yuyv));
        assert!(is_lighter(&choice(b"UYVY", (640, 480)), &yuyv));
        assert!(!is_lighter(&choice(b"UYVY", (1280, 720)), &yuyv));
        assert!(!is_lighter(&choice(b"YUYV", (640, 480)), &mjpeg));
    }
}
