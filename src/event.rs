//! Payloads of the MQTT contract, schema 1. Nothing else in the crate knows their JSON.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::moment::Clock;

/// Version of the payloads and topics in this module and [`crate::topics`].
pub const SCHEMA: u32 = 1;

/// Where an event stands in its life: one `id` runs through all three.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum EventType {
    /// The label has been there for its dwell time.
    Confirmed,
    /// It is still there and its probability changed noticeably.
    Updated,
    /// It left, its zone became UNKNOWN, or the daemon restarted.
    Ended,
}

impl EventType {
    /// As the payload says it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Confirmed => "confirmed",
            Self::Updated => "updated",
            Self::Ended => "ended",
        }
    }
}

/// `B/event`. Consumers deduplicate on `id` + `type` + `sequence`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Event {
    /// [`SCHEMA`].
    pub schema: u32,
    /// Stage of the event's life.
    #[serde(rename = "type")]
    pub kind: EventType,
    /// ULID, the same from `confirmed` to `ended`.
    pub id: String,
    /// Grows by one per published event, also across restarts.
    pub sequence: u64,
    /// Identifies this run of the daemon.
    pub boot: String,
    /// When this stage was decided.
    pub time: Timestamp,
    /// Whether `time` can be trusted.
    pub clock: Clock,
    /// Camera id.
    pub camera: String,
    /// Zone id.
    pub zone: String,
    /// Label slug.
    pub label: String,
    /// The Italian prompt people read.
    pub prompt: String,
    /// Probability over the label's group and the negatives, 0–1.
    pub probability: f32,
    /// Probability minus the best competitor's.
    pub margin: f32,
    /// The enter threshold that was in force.
    pub threshold: f32,
    /// How many of the last frames were over the threshold: `[over, window]`. A frame that the change
    /// gate skipped counts as the encoded one it repeats.
    pub frames: [u32; 2],
    /// When the label was first seen.
    pub since: Timestamp,
    /// Bundle name and hash, `name@sha256:…`.
    pub bundle: String,
    /// The event id under `B/evidence/`, when a picture was published.
    pub evidence: Option<String>,
    /// Set when the event comes out of the outbox after an outage or restart.
    pub delayed: bool,
    /// Why an `ended` event ended; absent for the other types.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<EndReason>,
}

/// Why an event ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum EndReason {
    /// The probability stayed under the leave threshold.
    Left,
    /// The zone can no longer be seen.
    Unknown,
    /// The daemon restarted while the event was open.
    Restart,
    /// The label was removed or the configuration reloaded.
    Reconfigured,
}

/// `B/zone/<zone>/<label>/state`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum ZoneState {
    /// Seen, for at least the dwell time.
    On,
    /// Visible and not there.
    Off,
    /// The camera is lost, stalled, dark or covered: nothing can be said.
    Unknown,
}

impl ZoneState {
    /// The retained payload.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::On => "ON",
            Self::Off => "OFF",
            Self::Unknown => "UNKNOWN",
        }
    }
}

/// `B/camera/<cam>/status`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum CameraStatus {
    /// Frames arrive and show something.
    Online,
    /// The device is open but no frame arrives, or the picture is frozen.
    Stalled,
    /// The device is gone or cannot be opened.
    Lost,
    /// Frames arrive but are dark or covered.
    Covered,
}

impl CameraStatus {
    /// The retained payload.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Online => "online",
            Self::Stalled => "stalled",
            Self::Lost => "lost",
            Self::Covered => "covered",
        }
    }
}

/// `B/zone/<zone>/<label>/attributes`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Attributes {
    /// Median probability over the window, 0–1.
    pub probability: f32,
    /// Probability minus the best competitor's.
    pub margin: f32,
    /// When the state last changed.
    pub since: Timestamp,
}

/// `B/info`, retained.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Info {
    /// [`SCHEMA`].
    pub schema: u32,
    /// vedetta's version.
    pub version: String,
    /// Bundle `name@sha256:…`.
    pub bundle: String,
    /// Bundle language, `it`.
    pub language: String,
    /// Identifies this run.
    pub boot: String,
    /// Engine and precision chosen, for example `tract-cpu f32, 1 thread`.
    pub backend: String,
    /// Machine name and processor features, for people.
    pub machine: String,
    /// Where the bundle comes from and which others may come.
    #[serde(default)]
    pub update: UpdateInfo,
}

/// What [`Info`] says about installed bundles.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct UpdateInfo {
    /// Where the present bundle comes from.
    pub source: BundleSource,
    /// Whether it has yet to prove itself; it is given up when it does not.
    pub trial: bool,
    /// The bundle that `rollback-bundle` goes back to, `shipped` for the one vedetta comes with.
    pub previous: Option<String>,
    /// The last bundle that was given up, and why.
    pub failed: Option<FailedBundle>,
    /// Whether a bundle must be signed to be installed.
    pub signature: SignatureRule,
}

/// Where a bundle comes from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum BundleSource {
    /// vedetta comes with it.
    #[default]
    Shipped,
    /// It was installed.
    Installed,
    /// The configuration names it.
    Configured,
}

/// Which bundles may be installed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SignatureRule {
    /// None: a signature is required and no key is configured.
    #[default]
    NoKey,
    /// Signed ones.
    Required,
    /// Any: the configuration turned signatures off.
    Off,
}

/// A bundle that was given up.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FailedBundle {
    /// `name@sha256:…`.
    pub bundle: String,
    /// For people.
    pub reason: String,
}

/// `B/health`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Health {
    /// Seconds since the daemon started.
    pub uptime_s: u64,
    /// Per camera, in configuration order.
    pub cameras: Vec<CameraHealth>,
    /// Median encode time of a batch, ms; null in a period without one.
    pub encode_p50_ms: Option<f32>,
    /// 95th percentile of the same, ms.
    pub encode_p95_ms: Option<f32>,
    /// Hottest thermal zone, °C.
    pub temperature_c: Option<f32>,
    /// Whether the board says it is throttling.
    pub throttled: Option<bool>,
    /// Share of the frames that is looked at because of heat: 1, ½, ¼ or ⅛.
    #[serde(default = "all_frames")]
    pub frame_share: f32,
    /// What the board draws, watts, where it measures that.
    #[serde(default)]
    pub power_w: Option<f32>,
    /// Power mode that is set, where there are several (`nvpmodel` of a Jetson).
    #[serde(default)]
    pub power_mode: Option<u32>,
    /// The outbox.
    pub queue: QueueHealth,
    /// Messages that were dropped because the mqtt thread did not keep up.
    pub dropped_messages: u64,
    /// Connection and requests.
    #[serde(default)]
    pub mqtt: MqttHealth,
    /// Resident memory, bytes.
    pub resident_bytes: u64,
    /// Processor time used since the start, seconds.
    pub cpu_s: f64,
}

fn all_frames() -> f32 {
    1.0
}

/// One camera's share of [`Health`].
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct CameraHealth {
    /// Camera id.
    pub camera: String,
    /// Age of the newest frame, ms; absent before the first.
    pub frame_age_ms: Option<u64>,
    /// Frames delivered per second over the last period.
    pub fps: f32,
    /// Frames captured since the start.
    pub captured: u64,
    /// Frames that a fresher one replaced before they were looked at.
    pub skipped: u64,
    /// Frames looked at and found unchanged, not encoded.
    pub unchanged: u64,
    /// Frames encoded.
    pub encoded: u64,
    /// Frames dropped: undecodable, error flag, short.
    pub corrupt: u64,
    /// Times the device was reopened.
    pub reopened: u64,
}

/// The outbox's share of [`Health`].
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct QueueHealth {
    /// Events waiting for the broker.
    pub length: u64,
    /// Their size.
    pub bytes: u64,
    /// Events dropped because the outbox was full.
    pub dropped: u64,
    /// Events dropped because they were too old.
    pub expired: u64,
    /// False when the disk refused and events live in memory only.
    pub durable: bool,
    /// Evidence pictures dropped: too large, too old, no room, or not taken by the broker.
    #[serde(default)]
    pub pictures_dropped: u64,
    /// Damaged outbox files that were moved aside since the start.
    #[serde(default)]
    pub corrupt_files: u64,
}

/// The mqtt thread's share of [`Health`], counted since it started.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct MqttHealth {
    /// Times the broker was reached.
    pub connections: u64,
    /// Requests refused, and answered so.
    pub refused: u64,
    /// Requests refused because there were too many per second.
    pub rate_limited: u64,
    /// Retained requests, ignored.
    pub retained_ignored: u64,
    /// Connections lost to a packet over the limit.
    pub oversized: u64,
    /// Times that requests were not listened to for a while because of such packets.
    #[serde(default)]
    pub commands_off: u64,
}
