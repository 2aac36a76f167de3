//! The inference thread: waits for frames of any camera, decodes, and lets the [`Lookout`] decide.

use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, TryRecvError};
use std::time::Duration;

use image::RgbImage;

use super::clock::Clock;
use super::trial::Record;
use crate::capture::{CameraState, CaptureShared};
use crate::config::{Camera, Id, Label};
use crate::decide::{RandomUlids, Unseen};
use crate::decode::{DecodeError, Picture};
use crate::event::{CameraStatus, EndReason};
use crate::frame::Frame;
use crate::health::{CameraCounts, HealthMeter};
use crate::heat::Board;
use crate::lookout::{Lookout, Model, WatchedCamera};
use crate::publish::{Outgoing, Publisher};
use crate::slot::{Bell, LatestSlot, Take};
use crate::telemetry::Probes;
use crate::watchdog::Pulse;

/// How long the thread sleeps at most: requests and camera states are looked at this often.
const TICK: Duration = Duration::from_millis(250);

/// One camera's end of the capture side.
#[derive(Clone)]
pub struct Feed {
    /// The camera's configuration.
    pub camera: Camera,
    /// Where its frames arrive.
    pub slot: Arc<LatestSlot<Frame>>,
    /// State and counters of its capture thread.
    pub shared: Arc<CaptureShared>,
}

/// What the supervisor asks of the inference thread.
#[expect(
    clippy::large_enum_variant,
    reason = "a handful a day, through a queue of 64"
)]
pub enum Request {
    /// Watch these cameras from now on, through this publisher.
    Configure {
        /// Capture ends, in configuration order.
        feeds: Vec<Feed>,
        /// The same cameras with their zones and banks.
        cameras: Vec<WatchedCamera>,
        /// Another model and the bundle's id, when it changed.
        model: Option<(Model, String)>,
        /// Where messages go.
        publisher: Publisher,
        /// How often health is published.
        health_every: Duration,
    },
    /// New rules of labels that otherwise stay what they are.
    Rules(Vec<Label>),
    /// Publish a picture; the answer is whether there was one.
    Snapshot(Id, std::sync::mpsc::SyncSender<bool>),
    /// Hand over the last frame of every camera, in configuration order.
    LastFrames(std::sync::mpsc::SyncSender<Vec<Option<Arc<RgbImage>>>>),
    /// The share of the frames that heat leaves, for health.
    FrameShare(f32),
    /// Stop deciding until this uptime; `None` resumes.
    Pause(Option<Duration>),
    /// End what is open and return.
    Stop,
}

struct CameraFeed {
    feed: Feed,
    /// Undecodable frames.
    undecodable: u64,
    published: Option<CameraStatus>,
    blind: Option<Unseen>,
    seen_frame: bool,
}

/// State of the inference thread.
pub struct Inference {
    lookout: Lookout<RandomUlids>,
    feeds: Vec<CameraFeed>,
    publisher: Publisher,
    clock: Clock,
    bell: Arc<Bell>,
    requests: Receiver<Request>,
    pulse: Pulse,
    health: HealthMeter,
    frame_share: f32,
    health_every: Duration,
    health_at: Duration,
    paused_until: Option<Duration>,
    failing: bool,
    record: Arc<Record>,
}

impl Inference {
    /// A thread state that watches nothing until [`Request::Configure`] arrives.
    pub fn new(
        lookout: Lookout<RandomUlids>,
        publisher: Publisher,
        clock: Clock,
        bell: Arc<Bell>,
        requests: Receiver<Request>,
        pulse: Pulse,
        record: Arc<Record>,
    ) -> Self {
        Self {
            lookout,
            feeds: Vec::new(),
            publisher,
            clock,
            bell,
            requests,
            pulse,
            health: HealthMeter::new(Probes::default(), Board::of_machine()),
            frame_share: 1.0,
            health_every: Duration::from_secs(30),
            health_at: Duration::ZERO,
            paused_until: None,
            failing: false,
            record,
        }
    }

    /// Runs until [`Request::Stop`], or until the supervisor is gone.
    pub fn run(mut self) {
        let mut first = 0;
        loop {
            crate::faults::hang_if_told("inference");
            self.pulse.advance(self.clock.uptime());
            self.bell.wait(TICK);
            loop {
                match self.requests.try_recv() {
                    Ok(Request::Stop) | Err(TryRecvError::Disconnected) => return self.stop(),
                    Ok(request) => self.serve(request),
                    Err(TryRecvError::Empty) => break,
                }
            }
            self.resume_when_due();
            // No camera may starve the others: each turn starts with the next one.
            for n in 0..self.feeds.len() {
                self.pulse.advance(self.clock.uptime());
                self.look_at((first + n) % self.feeds.len());
            }
            first = first.wrapping_add(1);
            self.publish_health_when_due();
        }
    }

    fn stop(mut self) {
        let now = self.clock.now();
        let messages = self.lookout.end_all(EndReason::Restart, &now);
        self.publisher.send_all(messages);
        self.pulse.finish();
    }

    fn serve(&mut self, request: Request) {
        let now = self.clock.now();
        match request {
            Request::Configure {
                feeds,
                cameras,
                model,
                publisher,
                health_every,
            } => {
                self.publisher = publisher;
                self.health_every = health_every;
                self.health_at = now.uptime;
                let mut before: HashMap<Id, CameraFeed> = self
                    .feeds
                    .drain(..)
                    .map(|f| (f.feed.camera.id.clone(), f))
                    .collect();
                for feed in feeds {
                    let kept = before
                        .remove(&feed.camera.id)
                        .filter(|old| Arc::ptr_eq(&old.feed.shared, &feed.shared));
                    let fresh = |feed| CameraFeed {
                        feed,
                        undecodable: 0,
                        published: None,
                        blind: None,
                        seen_frame: false,
                    };
                    let kept = kept.map(|old| CameraFeed {
                        published: None,
                        ..old
                    });
                    self.feeds.push(kept.unwrap_or_else(|| fresh(feed)));
                }
                let mut messages = Vec::new();
                if let Some((model, bundle)) = model {
                    self.record.start_anew();
                    messages.extend(self.lookout.change_model(model, &bundle, &now));
                }
                messages.extend(self.lookout.configure(cameras, &now));
                messages.extend(self.lookout.announce(&now));
                self.publisher.send_all(messages);
            }
            Request::Rules(labels) => {
                for label in labels {
                    self.lookout.board_mut().set_rule(&label.id, label.rule);
                }
            }
            Request::Snapshot(camera, answer) => {
                let index = self.feeds.iter().position(|f| f.feed.camera.id == camera);
                let jpeg = index.and_then(|index| self.lookout.snapshot(index));
                let found = jpeg.is_some();
                if let Some(jpeg) = jpeg {
                    self.publisher.send(Outgoing::Snapshot { camera, jpeg });
                }
                // The supervisor may have given up waiting; then nobody reads the answer.
                let _ = answer.try_send(found);
            }
            Request::LastFrames(answer) => {
                let frames = (0..self.feeds.len()).map(|index| self.lookout.last_frame(index));
                // Whoever asked may have given up.
                let _ = answer.try_send(frames.collect());
            }
            Request::Pause(until) => {
                self.paused_until = until;
                let messages = self.lookout.pause(until.is_some(), &now);
                self.publisher.send_all(messages);
            }
            Request::FrameShare(share) => self.frame_share = share,
            Request::Stop => {}
        }
    }

    fn resume_when_due(&mut self) {
        if self
            .paused_until
            .is_some_and(|until| self.clock.uptime() >= until)
        {
            log::info!("the pause is over");
            self.serve(Request::Pause(None));
        }
    }

    fn look_at(&mut self, index: usize) {
        let state = self.feeds[index].feed.shared.state();
        let cause = match state {
            CameraState::Online => None,
            CameraState::Stalled => Some(Unseen::Stalled),
            CameraState::Lost => Some(Unseen::Lost),
        };
        if let Some(cause) = cause {
            let now = self.clock.now();
            let messages = self.lookout.unseen(index, cause, &now);
            self.publisher.send_all(messages);
            self.feeds[index].blind = Some(cause);
        }
        if let Take::Value(frame) = self.feeds[index].feed.slot.take(Duration::ZERO)
            && cause.is_none()
        {
            self.frame(index, frame);
        }
        self.publish_status(index, cause);
    }

    fn frame(&mut self, index: usize, frame: Frame) {
        let last = self.lookout.last_picture(index);
        let picture = match last.filter(|last| last.is_of(&frame)) {
            Some(same) => Arc::clone(same),
            None => match Picture::expecting(frame, self.lookout.expected(index)) {
                Ok(picture) => Arc::new(picture),
                Err(error) => return self.drop_corrupt(index, &error),
            },
        };
        let now = self.clock.now();
        let encoded = self.lookout.counts(index).encoded;
        let lookout = &mut self.lookout;
        // An engine that panics on one frame must not take the daemon down with it.
        let seen = catch_unwind(AssertUnwindSafe(|| lookout.frame(index, picture, &now)));
        let Ok(seen) = seen else {
            log::error!("scoring a frame panicked; its zones are UNKNOWN");
            self.accept(index);
            self.record.failed();
            let messages = self.lookout.unseen(index, Unseen::Failed, &now);
            self.publisher.send_all(messages);
            self.feeds[index].blind = Some(Unseen::Failed);
            return;
        };
        if let Some(error) = &seen.damage {
            return self.drop_corrupt(index, error);
        }
        self.accept(index);
        if seen.failure.is_some() {
            self.record.failed();
        } else if self.lookout.counts(index).encoded > encoded {
            self.record.scored();
        }
        match (&seen.failure, self.failing) {
            (Some(error), false) => log::error!("{error}; its zones are UNKNOWN"),
            (None, true) if seen.blind.is_none() => log::info!("frames are scored again"),
            _ => {}
        }
        if seen.blind.is_none() || seen.failure.is_some() {
            self.failing = seen.failure.is_some();
        }
        self.feeds[index].blind = seen.blind;
        self.publisher.send_all(seen.messages);
    }

    fn accept(&mut self, index: usize) {
        let feed = &mut self.feeds[index];
        feed.feed.shared.report_decoded();
        feed.seen_frame = true;
    }

    fn drop_corrupt(&mut self, index: usize, error: &DecodeError) {
        let feed = &mut self.feeds[index];
        feed.undecodable += 1;
        feed.feed.shared.report_corrupt();
        if feed.undecodable.is_power_of_two() {
            let (id, count) = (&feed.feed.camera.id, feed.undecodable);
            log::warn!("camera {id}: {count} corrupt frame(s) so far: {error}");
        }
    }

    /// One message and one log line per change.
    fn publish_status(&mut self, index: usize, cause: Option<Unseen>) {
        let feed = &mut self.feeds[index];
        if cause.is_none() && !feed.seen_frame {
            return;
        }
        let status = cause.or(feed.blind).and_then(Unseen::camera_status);
        let status = status.unwrap_or(CameraStatus::Online);
        if feed.published == Some(status) {
            return;
        }
        let camera = feed.feed.camera.id.clone();
        match status {
            CameraStatus::Online => log::info!("camera {camera}: online"),
            other => log::warn!("camera {camera}: {}; its zones are UNKNOWN", other.as_str()),
        }
        feed.published = Some(status);
        self.publisher.send(Outgoing::Camera { camera, status });
    }

    fn publish_health_when_due(&mut self) {
        let now = self.clock.uptime();
        if now < self.health_at {
            return;
        }
        self.health_at = now + self.health_every;
        let counts: Vec<CameraCounts> = self
            .feeds
            .iter()
            .enumerate()
            .map(|(index, camera)| {
                let stats = camera.feed.shared.stats();
                let counts = self.lookout.counts(index);
                CameraCounts {
                    camera: camera.feed.camera.id.clone(),
                    frame_age: stats.frame_age,
                    captured: stats.captured,
                    skipped: stats.skipped + camera.feed.slot.replaced(),
                    unchanged: counts.unchanged,
                    encoded: counts.encoded,
                    corrupt: stats.corrupt,
                    reopened: stats.reopened,
                }
            })
            .collect();
        let queue = self.publisher.queue_health();
        let encode = self.lookout.encode_times();
        let health = self
            .health
            .report(now, &counts, encode, queue, 0, self.frame_share);
        self.publisher.send(Outgoing::Health(Box::new(health)));
    }
}
