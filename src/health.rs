//! Assembles [`Health`] from the numbers the other parts count.

use std::collections::HashMap;
use std::time::Duration;

use crate::config::Id;
use crate::event::{CameraHealth, Health, MqttHealth, QueueHealth};
use crate::heat::Board;
use crate::telemetry::{Latency, Probes, RateMeter};

/// What one camera's threads have counted since the daemon started.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CameraCounts {
    /// Camera id.
    pub camera: Id,
    /// Age of the newest frame; `None` before the first.
    pub frame_age: Option<Duration>,
    /// Frames the device delivered.
    pub captured: u64,
    /// Frames a fresher one replaced in the slot.
    pub skipped: u64,
    /// Frames looked at in which no zone was encoded.
    pub unchanged: u64,
    /// Frames in which at least one zone was encoded.
    pub encoded: u64,
    /// Frames dropped as undecodable, short or flagged by the driver.
    pub corrupt: u64,
    /// Times the device was reopened.
    pub reopened: u64,
}

/// Makes one [`Health`] per period.
#[derive(Debug)]
pub struct HealthMeter {
    probes: Probes,
    board: Board,
    rates: HashMap<Id, RateMeter>,
}

impl HealthMeter {
    /// Reads the process through `probes`.
    pub fn new(probes: Probes, board: Board) -> Self {
        Self {
            probes,
            board,
            rates: HashMap::new(),
        }
    }

    /// The state of things at `now` (uptime). Latencies and rates are those of the period since the
    /// last report: `encode` is started anew.
    pub fn report(
        &mut self,
        now: Duration,
        cameras: &[CameraCounts],
        encode: &mut Latency,
        queue: QueueHealth,
        dropped_messages: u64,
        frame_share: f32,
    ) -> Health {
        self.rates
            .retain(|camera, _| cameras.iter().any(|counts| counts.camera == *camera));
        let vitals = self.probes.read();
        let board = self.board.read();
        let health = Health {
            uptime_s: now.as_secs(),
            cameras: cameras.iter().map(|c| self.of_camera(now, c)).collect(),
            encode_p50_ms: encode.quantile_ms(0.5),
            encode_p95_ms: encode.quantile_ms(0.95),
            temperature_c: board.temperature_c,
            throttled: board.throttled,
            frame_share,
            power_w: board.power_w,
            power_mode: board.power_mode,
            queue,
            dropped_messages,
            mqtt: MqttHealth::default(),
            resident_bytes: vitals.resident_bytes,
            cpu_s: vitals.cpu_s,
        };
        encode.reset();
        health
    }

    fn of_camera(&mut self, now: Duration, counts: &CameraCounts) -> CameraHealth {
        let rate = self.rates.entry(counts.camera.clone()).or_default();
        CameraHealth {
            camera: counts.camera.as_str().to_owned(),
            frame_age_ms: counts
                .frame_age
                .map(|age| u64::try_from(age.as_millis()).unwrap_or(u64::MAX)),
            fps: rate.read(now, counts.captured),
            captured: counts.captured,
            skipped: counts.skipped,
            unchanged: counts.unchanged,
            encoded: counts.encoded,
            corrupt: counts.corrupt,
            reopened: counts.reopened,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts(captured: u64) -> CameraCounts {
        CameraCounts {
            camera: Id::new("corsia4").unwrap(),
            frame_age: Some(Duration::from_millis(1234)),
            captured,
            skipped: 1,
            unchanged: 2,
            encoded: 3,
            corrupt: 4,
            reopened: 5,
        }
    }

    #[test]
    fn rates_and_latencies_are_those_of_the_last_period() {
        let nowhere = std::path::Path::new("/nowhere");
        let mut meter = HealthMeter::new(Probes::default(), Board::at(nowhere));
        let mut encode = Latency::default();
        for milliseconds in [20, 20, 20, 100] {
            encode.record(Duration::from_millis(milliseconds));
        }
        let queue = QueueHealth {
            length: 7,
            ..QueueHealth::default()
        };
        let first = meter.report(
            Duration::from_secs(10),
            &[counts(50)],
            &mut encode,
            queue,
            9,
            0.5,
        );
        assert_eq!((first.uptime_s, first.queue.length), (10, 7));
        assert_eq!((first.dropped_messages, first.frame_share), (9, 0.5));
        assert!((first.cameras[0].fps - 5.0).abs() < 1e-6);
        assert_eq!(first.cameras[0].frame_age_ms, Some(1234));
        assert!((first.encode_p50_ms.unwrap() / 20.0 - 1.0).abs() < 0.05);
        assert!((first.encode_p95_ms.unwrap() / 100.0 - 1.0).abs() < 0.05);

        let second = meter.report(
            Duration::from_secs(20),
            &[counts(50)],
            &mut encode,
            QueueHealth::default(),
            9,
            1.0,
        );
        assert!(second.cameras[0].fps.abs() < 1e-6, "the camera stopped");
        let encode = (second.encode_p50_ms, second.encode_p95_ms);
        assert_eq!(encode, (None, None), "nothing was encoded");
        let json = serde_json::to_value(&second).unwrap();
        assert!(json["encode_p50_ms"].is_null());
    }
}
