//! Frames of a V4L2 device, by memory-mapped streaming.
//!
//! The crate's stream cannot be used again after any error, a timeout included, so waiting is done
//! by polling the device, and the stream is only asked when a buffer is ready. Everything else that
//! goes wrong ends the source: its owner drops it and opens the device again.

use std::io;
use std::mem::ManuallyDrop;
use std::path::Path;
use std::time::{Duration, Instant};

use v4l::buffer::{Flags, Type};
use v4l::capability::Flags as Capability;
use v4l::format::FourCC;
use v4l::frameinterval::FrameIntervalEnum;
use v4l::framesize::FrameSizeEnum;
use v4l::io::mmap::Stream;
use v4l::io::traits::{CaptureStream, Stream as _};
use v4l::video::Capture;
use v4l::video::capture::Parameters;
use v4l::{Device, Format, Fraction};

use super::fourcc::FourCc;
use super::select::{self, Choice, Interval, Offer, OfferedRate, OfferedSize, Steps, Wanted};
pub use super::v4l2_list::{ListedCamera, ListedFormat, list};
use super::{
    CaptureError, Description, DropReason, FrameSource, Next, SourceCounters, colorimetry,
};
use crate::decode;
use crate::frame::{Colorimetry, Frame, PixelFormat};

/// Buffers asked for: one being read, one being filled, two against jitter.
const BUFFERS: u32 = 4;
/// Choices tried before giving up; a driver may refuse what it offers.
const ATTEMPTS: usize = 4;
/// `POLLIN` of poll(2).
const POLLIN: i16 = 1;
/// `ENODEV` of errno(3): unplugged.
const ENODEV: i32 = 19;

/// An open, streaming device.
pub struct V4l2Source {
    stream: ManuallyDrop<Stream<'static>>,
    device: Device,
    description: Description,
    format: PixelFormat,
    size_px: (u32, u32),
    stride_bytes: u32,
    colorimetry: Colorimetry,
    /// The stream puts the buffer it gave last back before it gives the next one; the first buffer
    /// is therefore taken out by hand and its frame, usually a bad one, is not used.
    primed: bool,
    wanted_from: Option<Instant>,
    last_sequence: Option<u32>,
    delivered: u64,
    counters: SourceCounters,
}

impl V4l2Source {
    /// Opens `path` with the best of what it offers, and starts streaming.
    ///
    /// # Errors
    /// The device is not there, is busy, or has nothing that can be decoded; the message says which.
    pub fn open(path: &Path, wanted: &Wanted) -> Result<Self, CaptureError> {
        let device = Device::with_path(path).map_err(|error| cannot_open(path, &error))?;
        let caps = device
            .query_caps()
            .map_err(|error| failed(path, "VIDIOC_QUERYCAP", &error))?;
        if !caps.capabilities.contains(Capability::VIDEO_CAPTURE) {
            let hint = if caps.capabilities.contains(Capability::VIDEO_CAPTURE_MPLANE) {
                "it is a multi-planar device, which is not supported; bridge it with v4l2loopback"
            } else {
                "it does not capture video; `vedetta cameras` lists those that do"
            };
            return Err(CaptureError::fatal(format!("{}: {hint}", path.display())));
        }
        let offers = offers(&device).map_err(|error| failed(path, "VIDIOC_ENUM_FMT", &error))?;
        let ranked = select::rank(&offers, wanted);
        if ranked.is_empty() {
            let codes: Vec<String> = offers
                .iter()
                .map(|offer| offer.fourcc.to_string())
                .collect();
            let asked = wanted
                .format
                .map_or("nothing that can be decoded".to_owned(), |format| {
                    format!("no {format}, which the configuration asks for")
                });
            return Err(CaptureError::fatal(format!(
                "{}: it offers {asked}; it offers {}",
                path.display(),
                if codes.is_empty() {
                    "nothing".to_owned()
                } else {
                    codes.join(", ")
                }
            )));
        }
        let mut refusal = None;
        for choice in ranked.iter().take(ATTEMPTS) {
            match set_format(&device, choice) {
                Ok(Some(format)) => {
                    return Self::start(path, device, format, choice, caps.driver, caps.card);
                }
                Ok(None) => {}
                Err(error) => refusal = Some(error),
            }
        }
        Err(refusal.map_or_else(
            || {
                CaptureError::fatal(format!(
                    "{}: the driver substitutes formats that cannot be decoded",
                    path.display()
                ))
            },
            |error| failed(path, "VIDIOC_S_FMT", &error),
        ))
    }

    fn start(
        path: &Path,
        device: Device,
        got: Format,
        choice: &Choice,
        driver: String,
        card: String,
    ) -> Result<Self, CaptureError> {
        let fourcc = FourCc(got.fourcc.repr);
        let format = fourcc.format().unwrap_or(choice.format);
        if let Some(interval) = choice.interval {
            let fraction = Fraction::new(interval.numerator, interval.denominator);
            // Not every driver lets the rate be set; then it stays what it is.
            if let Err(error) = device.set_params(&Parameters::new(fraction)) {
                log::debug!("{}: VIDIOC_S_PARM: {error}", path.display());
            }
        }
        let rate_fps = device.params().ok().and_then(|params| {
            let (n, d) = (params.interval.numerator, params.interval.denominator);
            Interval {
                numerator: n,
                denominator: d,
            }
            .fps()
        });
        let substituted = fourcc != choice.fourcc || (got.width, got.height) != choice.size_px;
        let note = substituted.then(|| {
            let (width, height) = choice.size_px;
            format!(
                "asked for {} {width}x{height}, the driver gave this",
                choice.fourcc
            )
        });
        let mut stream = Stream::with_buffers(&device, Type::VideoCapture, BUFFERS)
            .map_err(|error| failed(path, "VIDIOC_REQBUFS", &error))?;
        let queued = (0..BUFFERS as usize).try_for_each(|index| {
            // The driver may have granted fewer buffers; what it granted is queued.
            match CaptureStream::queue(&mut stream, index) {
                Err(error) if index > 0 && error.kind() == io::ErrorKind::InvalidInput => Ok(()),
                outcome => outcome,
            }
        });
        let started = queued.and_then(|()| stream.start());
        let source = Self {
            stream: ManuallyDrop::new(stream),
            device,
            description: Description {
                driver,
                card,
                format,
                size_px: Some((got.width, got.height)),
                rate_fps,
                note,
            },
            format,
            size_px: (got.width, got.height),
            stride_bytes: got.stride,
            colorimetry: colorimetry::from_v4l2(got.colorspace as u32, 0, got.quantization as u32),
            primed: false,
            wanted_from: None,
            last_sequence: None,
            delivered: 0,
            counters: SourceCounters::default(),
        };
        started.map_err(|error| failed(path, "VIDIOC_STREAMON", &error))?;
        Ok(source)
    }

    fn is_ready(&self, timeout: Duration) -> Result<bool, CaptureError> {
        let timeout_ms = i32::try_from(timeout.as_millis()).unwrap_or(i32::MAX);
        match self.device.handle().poll(POLLIN, timeout_ms) {
            Ok(ready) => Ok(ready > 0),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(false),
            Err(error) => Err(lost(&error)),
        }
    }

    /// Takes the next buffer, which has to be ready.
    fn take(&mut self) -> Result<Next, CaptureError> {
        if !self.primed {
            CaptureStream::dequeue(&mut *self.stream).map_err(|error| lost(&error))?;
            self.primed = true;
            self.counters.skipped += 1;
            return Ok(Next::Skipped);
        }
        let (mapping, meta) =
            CaptureStream::next(&mut *self.stream).map_err(|error| lost(&error))?;
        let captured_at = Instant::now();
        if let Some(last) = self.last_sequence.replace(meta.sequence) {
            self.counters.lost +=
                u64::from(meta.sequence.wrapping_sub(last).saturating_sub(1).min(1000));
        }
        if meta.flags.contains(Flags::ERROR) {
            return Ok(Next::Dropped(DropReason::ErrorFlag));
        }
        if self.wanted_from.is_some_and(|from| captured_at < from) {
            self.counters.skipped += 1;
            return Ok(Next::Skipped);
        }
        let used = (meta.bytesused as usize).min(mapping.len());
        let data = &mapping[..used];
        if self.format == PixelFormat::Mjpeg && !decode::is_complete_jpeg(data) {
            return Ok(Next::Dropped(DropReason::Incomplete(used)));
        }
        if used == 0 {
            return Ok(Next::Dropped(DropReason::Short {
                got_bytes: 0,
                needed_bytes: 1,
            }));
        }
        let sequence = self.delivered;
        self.delivered += 1;
        Ok(Next::Frame(Frame {
            sequence,
            captured_at,
            format: self.format,
            width_px: self.size_px.0,
            height_px: self.size_px.1,
            stride_bytes: if self.format == PixelFormat::Mjpeg {
                0
            } else {
                self.stride_bytes
            },
            colorimetry: self.colorimetry,
            data: data.to_vec(),
        }))
    }
}

impl FrameSource for V4l2Source {
    fn description(&self) -> &Description {
        &self.description
    }

    fn next_frame(&mut self, timeout: Duration) -> Result<Next, CaptureError> {
        if !self.is_ready(timeout)? {
            return Ok(Next::NotReady);
        }
        let mut newest = self.take()?;
        // Buffers that filled up meanwhile are older news than the last of them.
        for _ in 0..BUFFERS {
            if !self.is_ready(Duration::ZERO)? {
                break;
            }
            match self.take()? {
                Next::Skipped => {}
                next => {
                    if matches!(newest, Next::Frame(_)) {
                        self.counters.skipped += 1;
                    }
                    newest = next;
                }
            }
        }
        Ok(newest)
    }

    fn skip_before(&mut self, earliest: Instant) {
        self.wanted_from = Some(earliest);
    }

    fn counters(&self) -> SourceCounters {
        self.counters
    }
}

impl Drop for V4l2Source {
    /// The stream's own drop panics on any error but ENODEV, twice if it comes to that, which would
    /// abort the daemon. It is therefore stopped here, and leaked where it cannot be stopped.
    fn drop(&mut self) {
        match self.stream.stop() {
            Err(error) if error.raw_os_error() != Some(ENODEV) => {
                log::error!("a camera cannot be stopped and its buffers are leaked: {error}");
            }
            _ => {
                // SAFETY: the field is not touched again: this is the only place that drops it, and
                // `self` is gone after it.
                unsafe { ManuallyDrop::drop(&mut self.stream) }
            }
        }
    }
}

/// Everything the device says it can deliver. Sizes and rates it does not tell are left empty.
pub fn offers(device: &Device) -> io::Result<Vec<Offer>> {
    let formats = device.enum_formats()?;
    Ok(formats
        .into_iter()
        .map(|format| {
            let sizes = device.enum_framesizes(format.fourcc).unwrap_or_default();
            let sizes = sizes
                .into_iter()
                .map(|size| offered_size(device, format.fourcc, &size.size));
            Offer {
                fourcc: FourCc(format.fourcc.repr),
                sizes: sizes.collect(),
            }
        })
        .collect())
}

fn offered_size(device: &Device, fourcc: FourCC, size: &FrameSizeEnum) -> OfferedSize {
    let (width_px, height_px) = match size {
        FrameSizeEnum::Discrete(size) => (Steps::exactly(size.width), Steps::exactly(size.height)),
        FrameSizeEnum::Stepwise(size) => (
            Steps {
                min: size.min_width,
                max: size.max_width,
                step: size.step_width,
            },
            Steps {
                min: size.min_height,
                max: size.max_height,
                step: size.step_height,
            },
        ),
    };
    let intervals = device.enum_frameintervals(fourcc, width_px.max, height_px.max);
    let interval = |f: Fraction| Interval {
        numerator: f.numerator,
        denominator: f.denominator,
    };
    let rates = intervals
        .unwrap_or_default()
        .into_iter()
        .map(|rate| match rate.interval {
            FrameIntervalEnum::Discrete(fraction) => OfferedRate::Exactly(interval(fraction)),
            FrameIntervalEnum::Stepwise(steps) => OfferedRate::Between {
                shortest: interval(steps.min),
                longest: interval(steps.max),
            },
        });
    OfferedSize {
        width_px,
        height_px,
        rates: rates.collect(),
    }
}

/// `None` where the driver substitutes a format that cannot be decoded.
fn set_format(device: &Device, choice: &Choice) -> io::Result<Option<Format>> {
    let (width, height) = choice.size_px;
    let got = device.set_format(&Format::new(width, height, FourCC::new(&choice.fourcc.0)))?;
    Ok(FourCc(got.fourcc.repr).format().is_some().then_some(got))
}

fn cannot_open(path: &Path, error: &io::Error) -> CaptureError {
    let device = path.display();
    match error.kind() {
        io::ErrorKind::NotFound => CaptureError::gone(format!(
            "{device} is not there; is the camera plugged in? `vedetta cameras` lists them"
        )),
        io::ErrorKind::PermissionDenied => CaptureError::gone(format!(
            "{device}: permission denied; add the user to the group video: sudo usermod -aG video $USER"
        )),
        io::ErrorKind::ResourceBusy => {
            CaptureError::reopen(format!("{device} is in use by another program"))
        }
        _ => CaptureError::gone(format!("{device} cannot be opened: {error}")),
    }
}

fn failed(path: &Path, call: &str, error: &io::Error) -> CaptureError {
    let message = format!("{}: {call}: {error}", path.display());
    match error.raw_os_error() {
        Some(ENODEV) => CaptureError::gone(message),
        _ => CaptureError::reopen(message),
    }
}

fn lost(error: &io::Error) -> CaptureError {
    match error.raw_os_error() {
        Some(ENODEV) => CaptureError::gone("the device was unplugged"),
        _ => CaptureError::reopen(format!("the driver failed: {error}")),
    }
}
