//! What happens to one frame: seen or not, changed or not, encoded, scored, decided.
//!
//! No thread, no clock and no broker: the caller hands in a [`Picture`] and a [`Moment`] and publishes
//! the [`Outgoing`] it gets back. A frame in which nothing changed is not even decoded as a whole.

use std::sync::Arc;
use std::time::Instant;

use image::RgbImage;

use crate::bundle::manifest::Scoring;
use crate::config::{Camera, Id, Shape};
use crate::decide::{Board, Effect, EventIds, Look, Observation, OpenEvent, Unseen, ZonePlan};
use crate::decode::{DecodeError, Expected, Picture};
use crate::encoder::{Embedding, EncodeError, ImageEncoder};
use crate::event::EndReason;
use crate::gate::{Gate, Scene, SceneRules, Verdict, Visibility};
use crate::matcher::{self, LabelBank};
use crate::moment::Moment;
use crate::preprocess::{LiveError, Preprocessor};
use crate::publish::Outgoing;
use crate::telemetry::Latency;

mod messages;

/// One zone and the bank its crops are compared with.
pub struct WatchedZone {
    /// What the board decides about it.
    pub plan: ZonePlan,
    /// Embeddings of its labels, in the plan's order, and the negatives.
    pub bank: LabelBank,
}

/// One camera and its zones.
pub struct WatchedCamera {
    /// The camera's configuration.
    pub camera: Camera,
    /// Its zones, in configuration order.
    pub zones: Vec<WatchedZone>,
}

/// The model half of a [`Lookout`].
pub struct Model {
    /// The image tower.
    pub encoder: Box<dyn ImageEncoder>,
    /// Crops and resizes as the bundle says.
    pub preprocessor: Preprocessor,
    /// From cosines to probabilities.
    pub scoring: Scoring,
}

/// What became of the frames of one camera.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FrameCounts {
    /// Looked at, found unchanged in every zone, not encoded.
    pub unchanged: u64,
    /// At least one zone was encoded.
    pub encoded: u64,
    /// Dark, covered or frozen: not scored.
    pub unseen: u64,
    /// The encoder failed.
    pub failed: u64,
}

struct ZoneEye {
    id: Id,
    shape: Shape,
    bank: LabelBank,
    gate: Gate,
}

struct CameraEye {
    id: Id,
    scene: Scene,
    zones: Vec<ZoneEye>,
    counts: FrameCounts,
    blind: Option<Unseen>,
    last: Option<Arc<Picture>>,
    /// What was decoded of the last frame, when that was scored.
    expected: Option<Expected>,
}

/// Everything between a decoded frame and the messages about it.
pub struct Lookout<I> {
    model: Model,
    cameras: Vec<CameraEye>,
    board: Board<I>,
    evidence: bool,
    encode_times: Latency,
    paused: bool,
}

impl<I: EventIds> Lookout<I> {
    /// A lookout over nothing; [`Lookout::configure`] gives it cameras.
    pub fn new(model: Model, board: Board<I>, evidence: bool) -> Self {
        Self {
            model,
            cameras: Vec::new(),
            board,
            evidence,
            encode_times: Latency::default(),
            paused: false,
        }
    }

    /// Ends what an earlier run left open. Call it once, before anything else.
    pub fn end_left_open(&mut self, left: Vec<OpenEvent>, now: &Moment) -> Vec<Outgoing> {
        let effects = self.board.end_left_open(left, now);
        self.publish(None, effects)
    }

    /// Watches `cameras`. Zones and labels that stay what they were keep their state.
    pub fn configure(&mut self, cameras: Vec<WatchedCamera>, now: &Moment) -> Vec<Outgoing> {
        let mut plans = Vec::new();
        let mut eyes = Vec::new();
        for watched in cameras {
            let camera = watched.camera;
            let scene = Scene::new(SceneRules {
                dark_below: camera.gate.dark_below,
                frozen_after: camera.frozen_after,
            });
            let mut zones = Vec::new();
            for zone in watched.zones {
                zones.push(ZoneEye {
                    id: zone.plan.zone.clone(),
                    shape: zone.plan.shape.clone(),
                    bank: zone.bank,
                    gate: Gate::new(camera.gate),
                });
                plans.push(zone.plan);
            }
            let before = self.cameras.iter_mut().find(|eye| eye.id == camera.id);
            let (counts, blind, last) = before
                .map(|eye| (eye.counts, eye.blind, eye.last.take()))
                .unwrap_or_default();
            eyes.push(CameraEye {
                id: camera.id,
                scene,
                zones,
                counts,
                blind,
                last,
                expected: None,
            });
        }
        self.cameras = eyes;
        let effects = self.board.configure(plans, now);
        self.publish(None, effects)
    }

    /// Replaces the model: what was seen with the old one no longer counts.
    pub fn change_model(&mut self, model: Model, bundle: &str, now: &Moment) -> Vec<Outgoing> {
        self.model = model;
        let effects = self.board.change_bundle(bundle, now);
        self.publish(None, effects)
    }

    /// One frame of camera number `index`. When the encoder fails its zones are UNKNOWN.
    pub fn frame(&mut self, index: usize, picture: Arc<Picture>, now: &Moment) -> Seen {
        let eye = &mut self.cameras[index];
        let before = eye.last.replace(Arc::clone(&picture));
        let sight = eye
            .scene
            .look(now.uptime, picture.small(), picture.fingerprint());
        let cause = match sight.visibility {
            _ if self.paused => Some(Unseen::Paused),
            Visibility::Clear => None,
            Visibility::Dark => Some(Unseen::Dark),
            Visibility::Covered => Some(Unseen::Covered),
            Visibility::Frozen => Some(Unseen::Stalled),
        };
        if let Some(cause) = cause {
            eye.counts.unseen += 1;
            let messages = self.unseen(index, cause, now);
            return Seen {
                blind: Some(cause),
                messages,
                ..Seen::default()
            };
        }
        if sight.in_doubt {
            eye.counts.unseen += 1;
            return Seen {
                blind: eye.blind,
                ..Seen::default()
            };
        }
        match self.score(index, &picture, now) {
            Ok(effects) => {
                self.cameras[index].blind = None;
                let messages = self.publish(Some((index, &*picture)), effects);
                Seen {
                    messages,
                    ..Seen::default()
                }
            }
            Err(NotScored::Damaged(error)) => {
                let eye = &mut self.cameras[index];
                eye.last = before;
                Seen {
                    blind: eye.blind,
                    damage: Some(error),
                    ..Seen::default()
                }
            }
            Err(NotScored::Failed(error)) => {
                self.cameras[index].blind = None;
                self.cameras[index].counts.failed += 1;
                let messages = self.unseen(index, Unseen::Failed, now);
                Seen {
                    blind: Some(Unseen::Failed),
                    messages,
                    failure: Some(error),
                    ..Seen::default()
                }
            }
        }
    }

    fn score(
        &mut self,
        index: usize,
        picture: &Picture,
        now: &Moment,
    ) -> Result<Vec<Effect>, NotScored> {
        let eye = &mut self.cameras[index];
        eye.expected = None;
        let mut wanted = Vec::new();
        for (n, zone) in eye.zones.iter_mut().enumerate() {
            if self.board.needs_scores(&zone.id) {
                zone.gate.reset();
            }
            if let Verdict::Encode(_) = zone.gate.look(now.uptime, picture.small(), &zone.shape) {
                wanted.push(n);
            }
        }
        let started = Instant::now();
        let shapes = wanted.iter().map(|&n| &eye.zones[n].shape);
        let embeddings = match encode(&mut self.model, picture, shapes) {
            Ok(embeddings) => embeddings,
            Err(error) => {
                eye.zones.iter_mut().for_each(|zone| zone.gate.reset());
                return Err(error);
            }
        };
        if wanted.is_empty() {
            eye.counts.unchanged += 1;
        } else {
            eye.counts.encoded += 1;
            let shapes = wanted.iter().map(|&n| &eye.zones[n].shape);
            let size = picture.size_in_parts();
            eye.expected = size.and_then(|size| self.model.preprocessor.expected(size, shapes));
            self.encode_times.record(started.elapsed());
        }
        let mut effects = Vec::new();
        let mut scored = wanted.iter().zip(&embeddings).peekable();
        for (n, zone) in eye.zones.iter().enumerate() {
            let observations: Vec<Observation>;
            let look = match scored.next_if(|(wanted, _)| **wanted == n) {
                Some((_, embedding)) => {
                    let scale = self.model.scoring.logit_scale;
                    observations = matcher::score(embedding, &zone.bank, scale)
                        .into_iter()
                        .map(|s| Observation {
                            probability: s.probability,
                            margin: s.margin,
                        })
                        .collect();
                    Look::Scores(&observations)
                }
                None => Look::Unchanged,
            };
            effects.extend(self.board.look(&zone.id, look, now));
        }
        Ok(effects)
    }

    /// Camera number `index` shows nothing: its zones turn UNKNOWN.
    pub fn unseen(&mut self, index: usize, cause: Unseen, now: &Moment) -> Vec<Outgoing> {
        let eye = &mut self.cameras[index];
        if eye.blind == Some(cause) {
            return Vec::new();
        }
        eye.blind = Some(cause);
        if matches!(cause, Unseen::Lost | Unseen::Stalled) {
            eye.scene.reset();
        }
        eye.zones.iter_mut().for_each(|zone| zone.gate.reset());
        let id = eye.id.clone();
        let effects = self.board.unseen(&id, cause, now);
        let last = self.cameras[index].last.clone();
        self.publish(last.as_deref().map(|picture| (index, picture)), effects)
    }

    /// Stops or resumes deciding; paused zones are UNKNOWN.
    pub fn pause(&mut self, paused: bool, now: &Moment) -> Vec<Outgoing> {
        self.paused = paused;
        if !paused {
            return Vec::new();
        }
        (0..self.cameras.len())
            .flat_map(|n| self.unseen(n, Unseen::Paused, now))
            .collect()
    }

    /// Ends every open event and turns everything UNKNOWN, as before a clean stop.
    pub fn end_all(&mut self, reason: EndReason, now: &Moment) -> Vec<Outgoing> {
        let effects = self.board.end_all(reason, now);
        self.publish(None, effects)
    }

    /// An annotated picture of camera number `index`; see [`Lookout::last_frame`].
    pub fn snapshot(&self, index: usize) -> Option<Vec<u8>> {
        let rgb = self.last_frame(index)?;
        Some(self.picture(index, &rgb))
    }

    /// The last frame of camera number `index`, seen or not, all of it; `None` before the first, and
    /// where it cannot be decoded as a whole.
    pub fn last_frame(&self, index: usize) -> Option<Arc<RgbImage>> {
        self.cameras[index].last.as_ref()?.whole().ok()
    }

    /// What will probably be asked of the next frame of camera number `index`: where zones changed they
    /// go on changing.
    pub fn expected(&self, index: usize) -> Option<&Expected> {
        self.cameras[index].expected.as_ref()
    }

    /// The same as it is, decoded or not.
    pub fn last_picture(&self, index: usize) -> Option<&Arc<Picture>> {
        self.cameras[index].last.as_ref()
    }

    /// Frame counts of camera number `index`.
    pub fn counts(&self, index: usize) -> FrameCounts {
        self.cameras[index].counts
    }

    /// Times of whole batches, preprocessing included.
    pub fn encode_times(&mut self) -> &mut Latency {
        &mut self.encode_times
    }

    /// The state of everything, to publish the retained topics anew.
    pub fn announce(&self, now: &Moment) -> Vec<Outgoing> {
        self.publish(None, self.board.announce(now))
    }

    /// The board, for tables and thresholds.
    pub fn board_mut(&mut self) -> &mut Board<I> {
        &mut self.board
    }

    /// Engine, precision and threads.
    pub fn describe_engine(&self) -> String {
        self.model.encoder.describe()
    }
}

/// The embeddings of these parts of a picture, which are decoded when there are any.
fn encode<'s>(
    model: &mut Model,
    picture: &Picture,
    shapes: impl ExactSizeIterator<Item = &'s Shape>,
) -> Result<Vec<Embedding>, NotScored> {
    if shapes.len() == 0 {
        return Ok(Vec::new());
    }
    let batch =
        (model.preprocessor.prepare_live(picture, shapes)).map_err(|error| match error {
            LiveError::Damaged(error) => NotScored::Damaged(error),
            LiveError::Empty(error) => NotScored::Failed(EncodeError::Input(error.to_string())),
        })?;
    model
        .encoder
        .encode_images(&batch)
        .map_err(NotScored::Failed)
}

/// Why there are no scores.
enum NotScored {
    /// The frame turned out to be damaged.
    Damaged(DecodeError),
    /// The encoder failed.
    Failed(EncodeError),
}

/// What [`Lookout::frame`] made of a frame.
#[derive(Default)]
pub struct Seen {
    /// Why nothing can be seen, when nothing can.
    pub blind: Option<Unseen>,
    /// To be published, in this order.
    pub messages: Vec<Outgoing>,
    /// The encoder failed on it.
    pub failure: Option<EncodeError>,
    /// It turned out to be damaged, and counts as if it had not come.
    pub damage: Option<DecodeError>,
}
