//! A folder of photos as a camera: for demos, tests and tuning prompts on recorded pictures.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::{Duration, Instant};

use super::{CaptureError, Description, DropReason, FrameSource, Next, SourceCounters};
use crate::decode::{MAX_EDGE_PX, MAX_PIXELS};
use crate::frame::{Colorimetry, Frame, PixelFormat};

/// Larger files are dropped and counted.
pub const MAX_FILE_BYTES: u64 = 32 * 1024 * 1024;

/// More files than this are not listed; a folder this full is a mistake.
const MAX_FILES: usize = 1_000_000;

/// The JPEG and PNG files of one folder in name order, at a fixed rate.
///
/// The n-th picture is due `n / rate` seconds after the first: delays do not add up. Pictures whose
/// time has passed are skipped, as with a camera. The folder is listed once, when it is opened.
#[derive(Debug)]
pub struct ReplaySource {
    description: Description,
    files: Vec<PathBuf>,
    repeat: bool,
    period: Duration,
    /// When picture 0 was, or would have been, due.
    start: Option<Instant>,
    /// Number of the next picture; not reduced by repeating.
    next: u64,
    wanted_from: Option<Instant>,
    counters: SourceCounters,
}

impl ReplaySource {
    /// Lists `folder`.
    ///
    /// # Errors
    /// The folder cannot be read or holds no picture. Both may change, so neither is for ever, but
    /// an empty folder is for somebody to fill.
    pub fn open(folder: &Path, rate_fps: f32, repeat: bool) -> Result<Self, CaptureError> {
        let unreadable = |error: std::io::Error| {
            CaptureError::gone(format!(
                "cannot read the folder {}: {error}",
                folder.display()
            ))
        };
        let mut files = Vec::new();
        for entry in std::fs::read_dir(folder)
            .map_err(unreadable)?
            .take(MAX_FILES)
        {
            let path = entry.map_err(unreadable)?.path();
            if kind(&path).is_some() {
                files.push(path);
            }
        }
        if files.is_empty() {
            return Err(CaptureError::fatal(format!(
                "the folder {} holds no .jpg, .jpeg or .png file",
                folder.display()
            )));
        }
        files.sort();
        let rate = if rate_fps.is_finite() {
            rate_fps.clamp(0.001, 1000.0)
        } else {
            1.0
        };
        Ok(Self {
            description: Description {
                driver: "replay".into(),
                card: folder.display().to_string(),
                format: kind(&files[0]).map_or(PixelFormat::Mjpeg, Kind::format),
                size_px: None,
                rate_fps: Some(rate),
                note: Some(format!(
                    "{} pictures, {}",
                    files.len(),
                    if repeat { "over and over" } else { "once" }
                )),
            },
            files,
            repeat,
            period: Duration::from_secs_f32(1.0 / rate),
            start: None,
            next: 0,
            wanted_from: None,
            counters: SourceCounters::default(),
        })
    }

    /// The file of picture `number`; `None` past the end of a folder played once.
    fn file(&self, number: u64) -> Option<&Path> {
        let count = self.files.len() as u64;
        let index = if self.repeat { number % count } else { number };
        let index = usize::try_from(index).ok()?;
        self.files.get(index).map(PathBuf::as_path)
    }

    fn due(&self, start: Instant, number: u64) -> Instant {
        start + Duration::from_secs_f64(self.period.as_secs_f64() * as_f64(number))
    }

    /// Passes over pictures whose successor is due as well; the last one is always shown.
    fn catch_up(&mut self, start: Instant, now: Instant) {
        let behind = now.saturating_duration_since(self.due(start, self.next));
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a time since start over a period of at least 1 ms fits"
        )]
        let mut late = (behind.as_secs_f64() / self.period.as_secs_f64()) as u64;
        if !self.repeat {
            late = late.min((self.files.len() as u64).saturating_sub(self.next + 1));
        }
        self.next += late;
        self.counters.skipped += late;
    }
}

#[expect(
    clippy::cast_precision_loss,
    reason = "exact up to 2^53 pictures, 285 000 years at 1000 fps"
)]
fn as_f64(number: u64) -> f64 {
    number as f64
}

impl FrameSource for ReplaySource {
    fn description(&self) -> &Description {
        &self.description
    }

    fn next_frame(&mut self, timeout: Duration) -> Result<Next, CaptureError> {
        if self.file(self.next).is_none() {
            return Ok(Next::Ended);
        }
        let now = Instant::now();
        let start = *self.start.get_or_insert(now);
        self.catch_up(start, now);
        let wait = self.due(start, self.next).saturating_duration_since(now);
        if wait > timeout {
            sleep(timeout);
            return Ok(Next::NotReady);
        }
        sleep(wait);
        let sequence = self.next;
        self.next += 1;
        let captured_at = Instant::now();
        if self.wanted_from.is_some_and(|from| captured_at < from) {
            self.counters.skipped += 1;
            return Ok(Next::Skipped);
        }
        let Some(path) = self.file(sequence) else {
            return Ok(Next::Ended);
        };
        Ok(match load(path) {
            Ok(picture) => Next::Frame(Frame {
                sequence,
                captured_at,
                format: picture.format,
                width_px: picture.width_px,
                height_px: picture.height_px,
                stride_bytes: 0,
                colorimetry: Colorimetry::default(),
                data: picture.data,
            }),
            Err(why) => Next::Dropped(DropReason::Unreadable(format!("{}: {why}", path.display()))),
        })
    }

    fn skip_before(&mut self, earliest: Instant) {
        self.wanted_from = Some(earliest);
    }

    fn counters(&self) -> SourceCounters {
        self.counters
    }
}

#[derive(Clone, Copy)]
enum Kind {
    Jpeg,
    Png,
}

impl Kind {
    fn format(self) -> PixelFormat {
        match self {
            Self::Jpeg => PixelFormat::Mjpeg,
            Self::Png => PixelFormat::Rgb24,
        }
    }
}

fn kind(path: &Path) -> Option<Kind> {
    let extension = path.extension()?.to_str()?.to_ascii_lowercase();
    match extension.as_str() {
        "jpg" | "jpeg" => Some(Kind::Jpeg),
        "png" => Some(Kind::Png),
        _ => None,
    }
}

struct Picture {
    format: PixelFormat,
    /// 0 for a JPEG: its header says.
    width_px: u32,
    height_px: u32,
    data: Vec<u8>,
}

/// Reads one file; a JPEG stays as it is, a PNG is decoded.
fn load(path: &Path) -> Result<Picture, String> {
    let file = File::open(path).map_err(|e| e.to_string())?;
    let length = file.metadata().map_or(0, |m| m.len()).min(MAX_FILE_BYTES);
    // One byte more, or the end is only found after growing.
    let mut data = Vec::with_capacity(usize::try_from(length).unwrap_or(0) + 1);
    let read = file.take(MAX_FILE_BYTES + 1).read_to_end(&mut data);
    read.map_err(|e| e.to_string())?;
    if data.len() as u64 > MAX_FILE_BYTES {
        return Err(format!("larger than {MAX_FILE_BYTES} bytes"));
    }
    if data.starts_with(b"\x89PNG") {
        return png(&data);
    }
    if !data.starts_with(&[0xff, 0xd8]) {
        return Err("neither a JPEG nor a PNG".into());
    }
    Ok(Picture {
        format: PixelFormat::Mjpeg,
        width_px: 0,
        height_px: 0,
        data,
    })
}

fn png(data: &[u8]) -> Result<Picture, String> {
    let mut limits = image::Limits::default();
    limits.max_image_width = Some(MAX_EDGE_PX);
    limits.max_image_height = Some(MAX_EDGE_PX);
    // 16-bit RGBA is the widest PNG there is.
    limits.max_alloc = Some(MAX_PIXELS * 8);
    let mut reader = image::ImageReader::new(std::io::Cursor::new(data));
    reader.set_format(image::ImageFormat::Png);
    reader.limits(limits);
    let image = reader.decode().map_err(|e| e.to_string())?.into_rgb8();
    Ok(Picture {
        format: PixelFormat::Rgb24,
        width_px: image.width(),
        height_px: image.height(),
        data: image.into_raw(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::capture::Severity;
    use crate::decode::decode;

    const LONG: Duration = Duration::from_secs(20);

    fn picture(red: u8) -> image::RgbImage {
        image::RgbImage::from_pixel(8, 8, image::Rgb([red, 0, 0]))
    }

    /// A folder of 8×8 pictures `a.png`, `b.jpg`, `c.png`…, of growing red.
    fn folder() -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        for (n, name) in ["c.png", "a.png", "b.jpg"].into_iter().enumerate() {
            let red = [200, 0, 100][n];
            picture(red).save(folder.path().join(name)).unwrap();
        }
        std::fs::write(folder.path().join("notes.txt"), "not a picture").unwrap();
        folder
    }

    fn next_red(source: &mut ReplaySource) -> Option<u8> {
        match source.next_frame(LONG).unwrap() {
            Next::Frame(frame) => Some(decode(&frame).unwrap().get_pixel(0, 0).0[0]),
            Next::Ended => None,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_folder_played_once_comes_in_name_order_and_ends() {
        let folder = folder();
        let mut source = ReplaySource::open(folder.path(), 50.0, false).unwrap();
        let reds: Vec<u8> = std::iter::from_fn(|| next_red(&mut source)).collect();
        let want = [0, 100, 200];
        // A slow machine may skip one, as a camera would, but never the last.
        assert_eq!(reds.last().map(|r| r.abs_diff(200) < 5), Some(true));
        assert!(reds.len() as u64 + source.counters().skipped == 3);
        assert!(
            reds.iter().all(|r| want.iter().any(|w| r.abs_diff(*w) < 5)),
            "{reds:?}"
        );
        assert!(matches!(source.next_frame(LONG), Ok(Next::Ended)));
    }

    #[test]
    fn a_repeated_folder_starts_again_and_keeps_counting() {
        let folder = folder();
        let mut source = ReplaySource::open(folder.path(), 200.0, true).unwrap();
        let mut last = 0;
        for _ in 0..10 {
            let Next::Frame(frame) = source.next_frame(LONG).unwrap() else {
                panic!("a frame was due");
            };
            assert!(frame.sequence == 0 || frame.sequence > last);
            last = frame.sequence;
        }
        assert!(last >= 9);
    }

    #[test]
    fn a_picture_that_is_not_due_within_the_timeout_is_not_ready() {
        let folder = folder();
        let mut source = ReplaySource::open(folder.path(), 0.01, true).unwrap();
        assert!(matches!(
            source.next_frame(Duration::ZERO),
            Ok(Next::Frame(_))
        ));
        let before = Instant::now();
        assert!(matches!(
            source.next_frame(Duration::from_millis(5)),
            Ok(Next::NotReady)
        ));
        assert!(before.elapsed() >= Duration::from_millis(5));
    }

    #[test]
    fn the_time_a_consumer_takes_does_not_shift_the_pictures() {
        let folder = folder();
        let mut source = ReplaySource::open(folder.path(), 100.0, true).unwrap();
        source.next_frame(LONG).unwrap();
        let start = source.start.unwrap();
        sleep(Duration::from_millis(55));
        source.next_frame(LONG).unwrap();
        assert!(source.counters().skipped >= 4);
        let due = source.due(start, source.next);
        assert_eq!(
            due - start,
            Duration::from_millis(10) * u32::try_from(source.next).unwrap()
        );
    }

    #[test]
    fn damaged_and_oversized_files_are_dropped_and_the_rest_goes_on() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("a.jpg"), "no picture").unwrap();
        std::fs::write(folder.path().join("b.png"), b"\x89PNG\r\n\x1a\nbroken").unwrap();
        let huge = File::create(folder.path().join("c.jpg")).unwrap();
        huge.set_len(MAX_FILE_BYTES + 1).unwrap();
        std::fs::create_dir(folder.path().join("d.png")).unwrap();
        picture(7).save(folder.path().join("e.png")).unwrap();
        let mut source = ReplaySource::open(folder.path(), 2.0, false).unwrap();
        source.period = Duration::from_secs(1);
        for n in 0..4_u32 {
            // As if a second had passed between calls.
            source.start = Some(Instant::now() - source.period * n);
            match source.next_frame(LONG).unwrap() {
                Next::Dropped(DropReason::Unreadable(why)) => assert!(why.contains(": "), "{why}"),
                other => panic!("{n}: {other:?}"),
            }
        }
        source.start = Some(Instant::now() - source.period * 4);
        assert!(matches!(source.next_frame(LONG), Ok(Next::Frame(_))));
    }

    #[test]
    fn an_empty_or_missing_folder_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let error = ReplaySource::open(folder.path(), 1.0, true).unwrap_err();
        assert_eq!(error.severity, Severity::Fatal);
        assert!(
            error.message.contains(folder.path().to_str().unwrap()),
            "{error}"
        );
        let error = ReplaySource::open(&folder.path().join("x"), 1.0, true).unwrap_err();
        assert_eq!(error.severity, Severity::Gone);
    }

    #[test]
    fn unwanted_pictures_are_not_even_read() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("a.jpg"), "no picture").unwrap();
        let mut source = ReplaySource::open(folder.path(), 1.0, false).unwrap();
        source.skip_before(Instant::now() + LONG);
        assert!(matches!(source.next_frame(LONG), Ok(Next::Skipped)));
        assert_eq!(source.counters().skipped, 1);
    }
}
