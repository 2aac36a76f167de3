//! Every default that does not depend on the machine. The example configuration repeats them; a
//! test compares the two.

/// Frames looked at per second. Shelves change slowly, and two a second leave a small board idle.
pub const RATE_FPS: f64 = 2.0;
/// Seconds without a frame until a camera counts as stalled.
pub const STALL_AFTER_S: f64 = 5.0;
/// Seconds of bit-identical frames until the picture of a device counts as frozen: no sensor is
/// without noise for so long.
pub const FROZEN_AFTER_S: f64 = 60.0;
/// Standard deviations over the usual score: by chance once in some 30 000 frames.
pub const BASELINE_DEVIATIONS: f64 = 4.0;
/// Seconds after which a usual score is two thirds forgotten: the light of a day moves about as fast.
pub const BASELINE_FORGET_AFTER_S: f64 = 3600.0;
/// Luma change of a cell, 0–1: about twice the noise of a webcam in a lit room.
pub const GATE_THRESHOLD: f64 = 0.03;
/// Seconds after which an unchanged zone is encoded all the same.
pub const FORCE_EVERY_S: f64 = 5.0;
/// Mean luma, 0–1, under which the picture counts as dark.
pub const DARK_BELOW: f64 = 0.05;
/// Probability that turns a label ON.
pub const ENTER: f64 = 0.7;
/// How far under `enter` a label turns OFF, where nothing else is said.
pub const HYSTERESIS: f64 = 0.2;
/// Seconds that a change has to last.
pub const DWELL_S: f64 = 3.0;
/// Encoded frames in the median window.
pub const WINDOW: u64 = 5;
/// Broker host.
pub const HOST: &str = "localhost";
/// MQTT port without TLS, as registered with IANA.
pub const PORT: u16 = 1883;
/// MQTT port with TLS, as registered with IANA.
pub const TLS_PORT: u16 = 8883;
/// First level of every topic.
pub const TOPIC_PREFIX: &str = "vedetta";
/// Seconds between keep-alive packets.
pub const KEEP_ALIVE_S: u64 = 30;
/// Home Assistant's own default.
pub const DISCOVERY_PREFIX: &str = "homeassistant";
/// Seconds between two health messages; their expiry is 90 s.
pub const HEALTH_EVERY_S: f64 = 30.0;
/// Certificate authorities of the system, where Debian and its children keep them.
pub const CA_FILE: &str = "/etc/ssl/certs/ca-certificates.crt";
/// Seconds that a new bundle has to work: two health messages.
pub const TRIAL_S: f64 = 60.0;
/// Events kept at most while the broker is away.
pub const OUTBOX_MAX_EVENTS: u64 = 10_000;
/// Bytes kept at most, 16 MiB.
pub const OUTBOX_MAX_BYTES: u64 = 16_777_216;
/// Seconds after which an event is too old to be sent, a day.
pub const EXPIRE_AFTER_S: f64 = 86_400.0;

/// Degrees between two halvings of the rate: three fit under where the kernel throttles.
pub const HEAT_STEP_C: f64 = 3.0;
/// Degrees that a step of the rate takes to cool down: more than one halving gives.
pub const HEAT_HYSTERESIS_C: f64 = 5.0;

/// The leave threshold that goes with an enter threshold where none is given: 0.2 under it, but
/// never under half of it, so that a low threshold can still be left.
pub fn leave_for(enter: f64) -> f64 {
    let leave = (enter - HYSTERESIS).max(enter / 2.0);
    (leave * 1e4).round() / 1e4
}
