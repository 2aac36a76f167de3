//! The capture thread: owns a source, decides when it has failed, and opens it again.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::pacer::Pacer;
use super::reopen::ReopenSchedule;
use super::{CaptureError, FrameSource, Next, Severity};
use crate::config::{Camera, Source};
use crate::frame::Frame;
use crate::slot::LatestSlot;

/// The longest wait for a frame: how fast a stop is noticed.
const WAIT: Duration = Duration::from_millis(100);
/// Useless frames in a row after which the device is opened again.
const CORRUPT_IN_A_ROW: u32 = 10;

/// What udev needs to give a new device its rights, after which it is opened.
const SETTLE: Duration = Duration::from_millis(300);

/// What a camera is doing, as far as the capture side can tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CameraState {
    /// Frames arrive, or the source was just opened.
    Online,
    /// The source is open but no frame came for the configured time, or none that is of use.
    Stalled,
    /// The source cannot be opened, was unplugged, or has ended.
    Lost,
}

/// Counters since the daemon started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CaptureStats {
    /// Frames put into the slot.
    pub captured: u64,
    /// Frames passed over: faster than the wanted rate, or lost in the driver.
    pub skipped: u64,
    /// Frames that were of no use.
    pub corrupt: u64,
    /// Times the source was opened again.
    pub reopened: u64,
    /// Age of the newest frame; `None` before the first.
    pub frame_age: Option<Duration>,
}

/// What the capture thread shares with the rest.
#[derive(Debug)]
pub struct CaptureShared {
    state: AtomicU32,
    captured: AtomicU64,
    skipped: AtomicU64,
    corrupt: AtomicU64,
    reopened: AtomicU64,
    /// Milliseconds after `start`, plus one; 0 before the first frame.
    last_frame_ms: AtomicU64,
    corrupt_in_a_row: AtomicU32,
    /// Halvings of the rate.
    slowed: AtomicU8,
    progress: Arc<AtomicU64>,
    start: Instant,
}

impl Default for CaptureShared {
    fn default() -> Self {
        Self {
            state: AtomicU32::new(0),
            captured: AtomicU64::new(0),
            skipped: AtomicU64::new(0),
            corrupt: AtomicU64::new(0),
            reopened: AtomicU64::new(0),
            last_frame_ms: AtomicU64::new(0),
            corrupt_in_a_row: AtomicU32::new(0),
            slowed: AtomicU8::new(0),
            progress: Arc::default(),
            start: Instant::now(),
        }
    }
}

impl CaptureShared {
    /// What the camera is doing.
    pub fn state(&self) -> CameraState {
        match self.state.load(Ordering::Relaxed) {
            0 => CameraState::Online,
            1 => CameraState::Stalled,
            _ => CameraState::Lost,
        }
    }

    /// Counters since the start.
    pub fn stats(&self) -> CaptureStats {
        let last = self.last_frame_ms.load(Ordering::Relaxed);
        let age = |ms| {
            self.start
                .elapsed()
                .saturating_sub(Duration::from_millis(ms))
        };
        CaptureStats {
            captured: self.captured.load(Ordering::Relaxed),
            skipped: self.skipped.load(Ordering::Relaxed),
            corrupt: self.corrupt.load(Ordering::Relaxed),
            reopened: self.reopened.load(Ordering::Relaxed),
            frame_age: last.checked_sub(1).map(age),
        }
    }

    /// Grows while the thread is alive, whatever the camera does.
    pub fn progress(&self) -> Arc<AtomicU64> {
        Arc::clone(&self.progress)
    }

    /// From now on the rate is halved so many times; what is more than that is skipped and counted.
    pub fn slow_down(&self, halvings: u8) {
        self.slowed.store(halvings, Ordering::Relaxed);
    }

    /// Whoever decodes found a frame to be of no use.
    pub fn report_corrupt(&self) {
        self.corrupt.fetch_add(1, Ordering::Relaxed);
        self.corrupt_in_a_row.fetch_add(1, Ordering::Relaxed);
    }

    /// Whoever decodes found a frame to be good.
    pub fn report_decoded(&self) {
        self.corrupt_in_a_row.store(0, Ordering::Relaxed);
    }

    fn set(&self, state: CameraState) {
        let code = match state {
            CameraState::Online => 0,
            CameraState::Stalled => 1,
            CameraState::Lost => 2,
        };
        self.state.store(code, Ordering::Relaxed);
    }

    fn advance(&self) {
        crate::faults::hang_if_told("capture");
        self.progress.fetch_add(1, Ordering::Relaxed);
    }
}

/// A running capture thread.
#[derive(Debug)]
pub struct CaptureThread {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<()>,
}

impl CaptureThread {
    /// Starts `capture-<id>`, which fills `slot` until it is stopped.
    ///
    /// # Errors
    /// The system has no thread to give.
    pub fn spawn(
        camera: &Camera,
        slot: Arc<LatestSlot<Frame>>,
        shared: Arc<CaptureShared>,
    ) -> io::Result<Self> {
        let stop = Arc::new(AtomicBool::new(false));
        let camera = camera.clone();
        let worker = Worker {
            open: Box::new(move |camera: &Camera| super::open(&camera.source, camera.rate_fps)),
            pacer: Pacer::new(camera.rate_fps),
            slowed: 0,
            camera,
            slot,
            shared,
            stop: Arc::clone(&stop),
            complaint: None,
            first_sequence: 0,
            delivered: None,
        };
        let name = format!("capture-{}", worker.camera.id);
        let thread = std::thread::Builder::new()
            .name(name)
            .spawn(move || worker.run())?;
        Ok(Self { stop, thread })
    }

    /// Asks it to end, without waiting.
    pub fn request_stop(&self) {
        self.stop.store(true, Ordering::Relaxed);
    }

    /// Asks it to end and waits at most `timeout`; one that hangs in a driver is left behind.
    pub fn stop(self, timeout: Duration) {
        self.request_stop();
        let deadline = Instant::now() + timeout;
        while !self.thread.is_finished() {
            if Instant::now() >= deadline {
                let name = self.thread.thread().name().unwrap_or("capture").to_owned();
                log::warn!("{name} did not end in time and is left behind");
                return;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        // A panic was already written out by the hook; there is nobody left to tell.
        let _ = self.thread.join();
    }
}

type Open = dyn Fn(&Camera) -> Result<Box<dyn FrameSource>, CaptureError> + Send;

struct Worker {
    open: Box<Open>,
    camera: Camera,
    slot: Arc<LatestSlot<Frame>>,
    shared: Arc<CaptureShared>,
    stop: Arc<AtomicBool>,
    pacer: Pacer,
    /// Halvings of the rate that the pacer knows of.
    slowed: u8,
    /// What was complained about last; said once per change.
    complaint: Option<String>,
    /// Number of the next source's first frame: numbers go on when the source is opened again.
    first_sequence: u64,
    /// When the source at hand delivered its first and its newest frame.
    delivered: Option<(Instant, Instant)>,
}

/// Why a source is given up.
enum Outcome {
    Stopped,
    Ended,
    Stalled,
    Corrupt,
    Failed(CaptureError),
}

impl Worker {
    fn run(mut self) {
        let mut schedule = ReopenSchedule::default();
        let mut opened_before = false;
        while !self.stopping() {
            self.shared.advance();
            // A driver binding that panics counts as a driver that failed.
            let opened = catch_unwind(AssertUnwindSafe(|| (self.open)(&self.camera)))
                .unwrap_or_else(|_| Err(CaptureError::reopen("opening the device panicked")));
            let failure = match opened {
                Ok(source) => {
                    if opened_before {
                        self.shared.reopened.fetch_add(1, Ordering::Relaxed);
                    }
                    opened_before = true;
                    log::info!("camera {}: {}", self.camera.id, source.description());
                    self.delivered = None;
                    let outcome = catch_unwind(AssertUnwindSafe(|| self.deliver(source)))
                        .unwrap_or_else(|_| {
                            Outcome::Failed(CaptureError::reopen("the capture binding panicked"))
                        });
                    if let Some((first, newest)) = self.delivered {
                        schedule.delivered_for(newest.saturating_duration_since(first));
                    }
                    match outcome {
                        Outcome::Stopped => return,
                        Outcome::Ended => return self.rest(),
                        Outcome::Stalled => {
                            let seconds = self.camera.stall_after.as_secs_f32();
                            CaptureError::reopen(format!("no frame for {seconds} s"))
                        }
                        Outcome::Corrupt => {
                            // Whatever was seen before, nothing is seen now.
                            self.shared.set(CameraState::Stalled);
                            CaptureError::reopen(format!(
                                "{CORRUPT_IN_A_ROW} frames in a row were of no use"
                            ))
                        }
                        Outcome::Failed(error) => {
                            self.shared.set(CameraState::Lost);
                            error
                        }
                    }
                }
                Err(error) => {
                    self.shared.set(CameraState::Lost);
                    error
                }
            };
            if failure.severity == Severity::Fatal {
                schedule.expect_long();
            }
            self.complain(&failure.message);
            self.pause(schedule.pause());
        }
    }

    fn deliver(&mut self, mut source: Box<dyn FrameSource>) -> Outcome {
        let mut last_frame = Instant::now();
        let mut useless = 0;
        let mut counted = source.counters();
        let first_sequence = self.first_sequence;
        self.shared.corrupt_in_a_row.store(0, Ordering::Relaxed);
        let outcome = loop {
            self.shared.advance();
            if self.stopping() {
                break Outcome::Stopped;
            }
            self.pace();
            if let Some(earliest) = self.pacer.earliest() {
                source.skip_before(earliest);
            }
            match source.next_frame(WAIT) {
                Ok(Next::Frame(mut frame)) => {
                    last_frame = Instant::now();
                    useless = 0;
                    frame.sequence = first_sequence.saturating_add(frame.sequence);
                    self.first_sequence = frame.sequence.saturating_add(1);
                    let first = self.delivered.map_or(last_frame, |(first, _)| first);
                    self.delivered = Some((first, last_frame));
                    self.frame(frame);
                }
                Ok(Next::Skipped) => last_frame = Instant::now(),
                Ok(Next::NotReady) => {}
                Ok(Next::Dropped(reason)) => {
                    self.shared.corrupt.fetch_add(1, Ordering::Relaxed);
                    useless += 1;
                    if useless == 1 {
                        log::warn!("camera {}: a frame is dropped: {reason}", self.camera.id);
                    }
                }
                Ok(Next::Ended) => break Outcome::Ended,
                Err(error) => break Outcome::Failed(error),
            }
            let now = source.counters();
            let passed = now.skipped + now.lost - counted.skipped - counted.lost;
            self.shared.skipped.fetch_add(passed, Ordering::Relaxed);
            counted = now;
            let undecodable = self.shared.corrupt_in_a_row.load(Ordering::Relaxed);
            if useless >= CORRUPT_IN_A_ROW || undecodable >= CORRUPT_IN_A_ROW {
                break Outcome::Corrupt;
            }
            if last_frame.elapsed() >= self.camera.stall_after {
                self.shared.set(CameraState::Stalled);
                break Outcome::Stalled;
            }
        };
        // Dropping may take as long as the driver likes; a panic in it is caught by the caller.
        drop(source);
        outcome
    }

    fn pace(&mut self) {
        let slowed = self.shared.slowed.load(Ordering::Relaxed);
        if slowed != self.slowed {
            self.slowed = slowed;
            let share = 0.5_f32.powi(i32::from(slowed));
            self.pacer.set_rate(self.camera.rate_fps * share);
        }
    }

    fn frame(&mut self, frame: Frame) {
        if !self.pacer.admit(frame.captured_at) {
            self.shared.skipped.fetch_add(1, Ordering::Relaxed);
            return;
        }
        if self.complaint.take().is_some() {
            log::info!("camera {}: frames arrive again", self.camera.id);
        }
        let ms = self.shared.start.elapsed().as_millis();
        let ms = u64::try_from(ms).unwrap_or(u64::MAX - 1);
        self.shared.last_frame_ms.store(ms + 1, Ordering::Relaxed);
        self.shared.captured.fetch_add(1, Ordering::Relaxed);
        self.shared.set(CameraState::Online);
        self.slot.put(frame);
    }

    fn complain(&mut self, message: &str) {
        if self.complaint.as_deref() != Some(message) {
            log::warn!("camera {}: {message}; trying again", self.camera.id);
            self.complaint = Some(message.to_owned());
        }
    }

    /// A source that ended stays lost; the thread stays alive for the watchdog.
    fn rest(&self) {
        log::info!("camera {}: the recording is over", self.camera.id);
        self.shared.set(CameraState::Lost);
        while !self.stopping() {
            self.wait(WAIT);
        }
    }

    /// Waits before the next opening; a device that is plugged in meanwhile ends the wait.
    fn pause(&self, time: Duration) {
        let device = match &self.camera.source {
            Source::V4l2 { device, .. } if !device.exists() => Some(device),
            _ => None,
        };
        self.wait_until(time, || device.is_some_and(|device| device.exists()));
        if device.is_some_and(|device| device.exists()) {
            self.wait(SETTLE);
        }
    }

    fn wait(&self, time: Duration) {
        self.wait_until(time, || false);
    }

    fn wait_until(&self, time: Duration, is_over: impl Fn() -> bool) {
        let until = Instant::now() + time;
        loop {
            self.shared.advance();
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() || self.stopping() || is_over() {
                return;
            }
            std::thread::sleep(left.min(WAIT));
        }
    }

    fn stopping(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
#[path = "thread_tests.rs"]
mod tests;
