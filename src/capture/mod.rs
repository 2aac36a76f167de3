//! Where frames come from: V4L2 devices and replayed folders, behind one trait, on one thread each.
//!
//! A source is cheap to drop and to open again, and that is the only way it recovers: the thread in
//! [`thread`] owns it, decides when it has failed, and reopens it after the pauses of [`reopen`].

pub mod colorimetry;
pub mod fourcc;
pub mod pacer;
pub mod reopen;
pub mod replay;
pub mod select;
pub mod thread;
#[cfg(feature = "v4l2")]
pub mod v4l2;

use std::fmt;
use std::time::{Duration, Instant};

use thiserror::Error;

use crate::config::Source;
use crate::frame::{Frame, PixelFormat};

pub use thread::{CameraState, CaptureShared, CaptureStats, CaptureThread};

/// What came of waiting for a frame.
#[derive(Debug)]
pub enum Next {
    /// A frame. Its `sequence` counts from the opening of the source.
    Frame(Frame),
    /// A frame arrived and was passed over, as [`FrameSource::skip_before`] asked.
    Skipped,
    /// Nothing arrived in time.
    NotReady,
    /// A frame arrived and is of no use.
    Dropped(DropReason),
    /// There will be no more.
    Ended,
}

/// Why a frame was of no use.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum DropReason {
    /// The driver flagged the buffer as damaged.
    #[error("the driver flagged it as damaged")]
    ErrorFlag,
    /// The driver delivered less than a frame.
    #[error("it has {got_bytes} bytes instead of {needed_bytes}")]
    Short {
        /// Bytes that came.
        got_bytes: usize,
        /// Bytes a frame takes.
        needed_bytes: usize,
    },
    /// A JPEG without its beginning or end.
    #[error("it is {0} bytes of incomplete JPEG")]
    Incomplete(usize),
    /// A file that could not be read or decoded.
    #[error("{0}")]
    Unreadable(String),
}

/// What has to happen before a source can work again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Severity {
    /// Opening it again may help.
    Reopen,
    /// The device is not there; opening it helps once it is back.
    Gone,
    /// The configuration and the device do not fit; somebody has to change one of them.
    Fatal,
}

/// Why a source could not be opened or stopped working.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{message}")]
pub struct CaptureError {
    /// What may help.
    pub severity: Severity,
    /// What went wrong and what to do.
    pub message: String,
}

impl CaptureError {
    /// An error that opening again may cure.
    pub fn reopen(message: impl Into<String>) -> Self {
        Self::new(Severity::Reopen, message)
    }

    /// A device that is not there.
    pub fn gone(message: impl Into<String>) -> Self {
        Self::new(Severity::Gone, message)
    }

    /// A configuration that cannot work.
    pub fn fatal(message: impl Into<String>) -> Self {
        Self::new(Severity::Fatal, message)
    }

    fn new(severity: Severity, message: impl Into<String>) -> Self {
        Self {
            severity,
            message: message.into(),
        }
    }
}

/// What was opened, for one line in the log.
#[derive(Clone, Debug, PartialEq)]
pub struct Description {
    /// Kernel driver, or `replay`.
    pub driver: String,
    /// The device's own name, or the folder.
    pub card: String,
    /// Frame format.
    pub format: PixelFormat,
    /// Width and height in pixels, where all frames have the same.
    pub size_px: Option<(u32, u32)>,
    /// Frames per second the source delivers, where it says so.
    pub rate_fps: Option<f32>,
    /// What is not as the configuration asked.
    pub note: Option<String>,
}

impl fmt::Display for Description {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({}), {}", self.card, self.driver, self.format)?;
        if let Some((width, height)) = self.size_px {
            write!(f, " {width}x{height}")?;
        }
        if let Some(rate) = self.rate_fps {
            write!(f, " at {} fps", (rate * 100.0).round() / 100.0)?;
        }
        if let Some(note) = &self.note {
            write!(f, "; {note}")?;
        }
        Ok(())
    }
}

/// Frames a source saw and did not deliver, since it was opened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SourceCounters {
    /// Passed over because a fresher one was there or [`FrameSource::skip_before`] asked.
    pub skipped: u64,
    /// Missing in the driver's numbering.
    pub lost: u64,
}

/// Something that delivers frames until it fails. After an error it is dropped and opened again.
pub trait FrameSource: Send {
    /// What was opened.
    fn description(&self) -> &Description;

    /// Waits for the freshest frame, at most `timeout`.
    ///
    /// # Errors
    /// The source failed and has to be opened again.
    fn next_frame(&mut self, timeout: Duration) -> Result<Next, CaptureError>;

    /// Frames that arrive before `earliest` are not wanted and need not be copied.
    fn skip_before(&mut self, earliest: Instant);

    /// Counters since it was opened.
    fn counters(&self) -> SourceCounters;
}

/// Opens `source` and says what it chose. `rate_fps` is how many frames a second will be looked at:
/// a device is asked for the lowest rate that is enough.
///
/// # Errors
/// The device or folder cannot be used; the message says why and what to do.
pub fn open(source: &Source, rate_fps: f32) -> Result<Box<dyn FrameSource>, CaptureError> {
    match source {
        #[cfg(feature = "v4l2")]
        Source::V4l2 {
            device,
            format,
            size_px,
        } => {
            let wanted = select::Wanted {
                format: *format,
                size_px: *size_px,
                rate_fps,
            };
            Ok(Box::new(v4l2::V4l2Source::open(device, &wanted)?))
        }
        #[cfg(not(feature = "v4l2"))]
        Source::V4l2 { device, .. } => {
            let _ = rate_fps;
            Err(CaptureError::fatal(format!(
                "{}: this build has no V4L2 support; build with the feature v4l2",
                device.display()
            )))
        }
        Source::Replay {
            folder,
            rate_fps,
            repeat,
        } => Ok(Box::new(replay::ReplaySource::open(
            folder, *rate_fps, *repeat,
        )?)),
    }
}
