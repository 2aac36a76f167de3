//! A scripted source beside the real devices of `tests/vm`: what the thread does about failures.

use std::sync::Mutex;
use std::sync::mpsc;

use super::super::{Description, DropReason, SourceCounters};
use super::*;
use crate::config::{Gate, Id};
use crate::frame::{Colorimetry, PixelFormat};
use crate::slot::Take;

/// What a scripted source does, step by step; then it stays silent.
#[derive(Clone, Copy)]
enum Step {
    Frame,
    /// As if it had been captured so many milliseconds after the first opening.
    FrameAt(u32),
    Damaged,
    Unplugged,
    Panic,
    Ended,
}

struct Script {
    steps: std::vec::IntoIter<Step>,
    description: Description,
    start: Instant,
}

impl FrameSource for Script {
    fn description(&self) -> &Description {
        &self.description
    }

    fn next_frame(&mut self, timeout: Duration) -> Result<Next, CaptureError> {
        match self.steps.next() {
            Some(Step::Frame) => Ok(Next::Frame(grey(Instant::now()))),
            Some(Step::FrameAt(ms)) => {
                let after = Duration::from_millis(u64::from(ms));
                Ok(Next::Frame(grey(self.start + after)))
            }
            Some(Step::Damaged) => Ok(Next::Dropped(DropReason::ErrorFlag)),
            Some(Step::Unplugged) => Err(CaptureError::gone("unplugged")),
            Some(Step::Panic) => panic!("as the binding's drop does"),
            Some(Step::Ended) => Ok(Next::Ended),
            None => {
                std::thread::sleep(timeout.min(Duration::from_millis(10)));
                Ok(Next::NotReady)
            }
        }
    }

    fn skip_before(&mut self, _: Instant) {}

    fn counters(&self) -> SourceCounters {
        SourceCounters::default()
    }
}

fn grey(captured_at: Instant) -> Frame {
    Frame {
        sequence: 0,
        captured_at,
        format: PixelFormat::Grey,
        width_px: 1,
        height_px: 1,
        stride_bytes: 1,
        colorimetry: Colorimetry::default(),
        data: vec![0],
    }
}

fn camera() -> Camera {
    Camera {
        id: Id::new("prova").unwrap(),
        name: "prova".into(),
        source: Source::Replay {
            folder: "nowhere".into(),
            rate_fps: 1.0,
            repeat: false,
        },
        rate_fps: 1000.0,
        zones: Vec::new(),
        gate: Gate {
            enabled: false,
            threshold: 0.0,
            force_every: Duration::from_secs(1),
            dark_below: 0.0,
        },
        stall_after: Duration::from_millis(80),
        baseline: None,
        frozen_after: None,
    }
}

/// Runs a worker whose n-th opening gives the n-th script; further openings fail. Returns its
/// shared state, slot and the states seen at every opening.
struct Run {
    shared: Arc<CaptureShared>,
    slot: Arc<LatestSlot<Frame>>,
    thread: CaptureThread,
    openings: mpsc::Receiver<CameraState>,
}

fn run(scripts: &[&[Step]]) -> Run {
    run_slowed(scripts, 0)
}

/// [`run`] with a rate that was halved so many times.
fn run_slowed(scripts: &[&[Step]], halvings: u8) -> Run {
    let (slot, shared) = (
        Arc::new(LatestSlot::default()),
        Arc::new(CaptureShared::default()),
    );
    shared.slow_down(halvings);
    let start = Instant::now();
    let stop = Arc::new(AtomicBool::new(false));
    let (opened, openings) = mpsc::channel();
    let scripts: Vec<Vec<Step>> = scripts.iter().map(|script| script.to_vec()).collect();
    let scripts = Mutex::new(scripts.into_iter());
    let seen = Arc::clone(&shared);
    let worker = Worker {
        open: Box::new(move |_| {
            let _ = opened.send(seen.state());
            let steps = scripts.lock().unwrap().next();
            let steps = steps
                .ok_or_else(|| CaptureError::gone("not there"))?
                .into_iter();
            let description = Description {
                driver: "script".into(),
                card: "script".into(),
                format: PixelFormat::Grey,
                size_px: None,
                rate_fps: None,
                note: None,
            };
            Ok(Box::new(Script {
                steps,
                description,
                start,
            }) as Box<dyn FrameSource>)
        }),
        pacer: Pacer::new(1000.0),
        slowed: 0,
        camera: camera(),
        slot: Arc::clone(&slot),
        shared: Arc::clone(&shared),
        stop: Arc::clone(&stop),
        complaint: None,
        first_sequence: 0,
        delivered: None,
    };
    let thread = std::thread::spawn(move || worker.run());
    Run {
        shared,
        slot,
        thread: CaptureThread { stop, thread },
        openings,
    }
}

const PATIENCE: Duration = Duration::from_secs(20);

impl Run {
    fn next_opening(&self) -> CameraState {
        self.openings
            .recv_timeout(PATIENCE)
            .expect("another opening")
    }

    fn frame(&self) -> Frame {
        match self.slot.take(PATIENCE) {
            Take::Value(frame) => frame,
            other => panic!("{other:?} instead of a frame"),
        }
    }
}

#[test]
fn frame_numbers_go_on_when_the_device_is_opened_again() {
    let run = run(&[&[Step::Frame, Step::Unplugged], &[Step::Frame]]);
    assert_eq!(run.frame().sequence, 0);
    // The scripted source starts at 0 each time.
    assert_eq!(run.frame().sequence, 1);
    run.thread.stop(PATIENCE);
}

#[test]
fn a_device_that_is_plugged_in_is_opened_before_the_pause_is_over() {
    let folder = tempfile::tempdir().unwrap();
    let device = folder.path().join("video0");
    let mut camera = camera();
    camera.source = Source::V4l2 {
        device: device.clone(),
        format: None,
        size_px: None,
    };
    let shared = Arc::new(CaptureShared::default());
    let progress = shared.progress();
    let worker = Worker {
        open: Box::new(|_| Err(CaptureError::gone("not used"))),
        pacer: Pacer::new(1.0),
        slowed: 0,
        camera,
        slot: Arc::default(),
        shared,
        stop: Arc::default(),
        complaint: None,
        first_sequence: 0,
        delivered: None,
    };
    std::thread::scope(|scope| {
        let (waits, over) = mpsc::channel();
        scope.spawn(move || {
            worker.pause(PATIENCE * 1000);
            waits.send(()).unwrap();
        });
        while progress.load(Ordering::Relaxed) == 0 {
            std::thread::yield_now();
        }
        std::fs::write(&device, "").unwrap();
        over.recv_timeout(PATIENCE).expect("the wait to end");
    });
}

#[test]
fn a_silent_camera_is_stalled_and_opened_again() {
    let run = run(&[&[Step::Frame], &[Step::Frame]]);
    run.next_opening();
    run.frame();
    assert_eq!(run.next_opening(), CameraState::Stalled);
    run.frame();
    assert_eq!(run.shared.state(), CameraState::Online);
    assert_eq!(run.shared.stats().reopened, 1);
    run.thread.stop(PATIENCE);
}

#[test]
fn an_unplugged_camera_is_lost_until_it_is_back() {
    let run = run(&[&[Step::Frame, Step::Unplugged], &[Step::Frame]]);
    run.next_opening();
    assert_eq!(run.next_opening(), CameraState::Lost);
    while run.shared.stats().captured < 2 {
        std::thread::yield_now();
    }
    assert_eq!(run.shared.state(), CameraState::Online);
    run.thread.stop(PATIENCE);
}

#[test]
fn ten_damaged_frames_in_a_row_are_a_stall_and_reopen_the_device_and_nine_do_not() {
    let mut nine = vec![Step::Damaged; 9];
    nine.push(Step::Frame);
    nine.extend([Step::Damaged; 10]);
    let run = run(&[&nine, &[]]);
    run.next_opening();
    run.frame();
    assert_eq!(run.next_opening(), CameraState::Stalled);
    assert_eq!(run.shared.stats().corrupt, 19);
    run.thread.stop(PATIENCE);
}

#[test]
fn frames_that_cannot_be_decoded_are_a_stall_too() {
    let run = run(&[&[Step::Frame], &[Step::Frame]]);
    run.next_opening();
    run.frame();
    (0..CORRUPT_IN_A_ROW).for_each(|_| run.shared.report_corrupt());
    assert_eq!(run.next_opening(), CameraState::Stalled);
    run.frame();
    run.thread.stop(PATIENCE);
}

#[test]
fn a_panic_in_the_binding_is_a_failed_device_and_not_the_end() {
    let run = run(&[&[Step::Panic], &[Step::Frame]]);
    run.next_opening();
    assert_eq!(run.next_opening(), CameraState::Lost);
    run.frame();
    run.thread.stop(PATIENCE);
}

#[test]
fn a_recording_that_is_over_is_lost_and_its_thread_stays_alive() {
    let run = run(&[&[Step::Frame, Step::Ended]]);
    run.frame();
    while run.shared.state() != CameraState::Lost {
        std::thread::yield_now();
    }
    let before = run.shared.progress().load(Ordering::Relaxed);
    while run.shared.progress().load(Ordering::Relaxed) == before {
        std::thread::yield_now();
    }
    run.thread.stop(PATIENCE);
}

#[test]
fn a_camera_that_is_slowed_down_three_times_has_an_eighth_of_its_frames_looked_at() {
    // 1000 frames per second are wanted and come.
    let mut second: Vec<Step> = (0..1000).map(Step::FrameAt).collect();
    second.push(Step::Ended);
    for (halvings, looked_at) in [(0, 1000_u64), (1, 500), (3, 125)] {
        let run = run_slowed(&[&second], halvings);
        run.frame();
        while run.shared.state() != CameraState::Lost {
            std::thread::yield_now();
        }
        let stats = run.shared.stats();
        // One more for the jitter that a pacer allows.
        assert!(stats.captured.abs_diff(looked_at) <= 1, "{stats:?}");
        assert_eq!(stats.captured + stats.skipped, 1000);
        run.thread.stop(PATIENCE);
    }
}
