//! One capture thread per camera.

use std::sync::Arc;

use super::{JOIN, SILENCE, Supervisor};
use crate::capture::{CaptureShared, CaptureThread};
use crate::config::Camera;
use crate::daemon::ServeError;
use crate::daemon::inference::Feed;
use crate::slot::LatestSlot;

/// A camera and what captures it.
pub(super) struct Camcorder {
    pub camera: Camera,
    pub thread: CaptureThread,
    pub feed: Feed,
}

impl Supervisor<'_> {
    /// Starts the capture threads that are missing, stops those that are no longer wanted, and
    /// keeps those whose configuration is the same.
    pub(super) fn start_cameras(&mut self) -> Result<(), ServeError> {
        let mut before = std::mem::take(&mut self.cameras);
        for camera in self.config.cameras.clone() {
            let same = |old: &Camcorder| captures_the_same(&old.camera, &camera);
            if let Some(n) = before.iter().position(same) {
                let mut kept = before.swap_remove(n);
                kept.camera = camera.clone();
                kept.feed.camera = camera;
                self.cameras.push(kept);
            } else if let Some(n) = before.iter().position(|old| old.camera.id == camera.id) {
                // A device can be opened once: the old thread has to let go of it first.
                self.relays.remove(&stage_name(&camera));
                before.swap_remove(n).thread.stop(JOIN);
                self.start_camera(camera)?;
            } else {
                self.start_camera(camera)?;
            }
        }
        for gone in before {
            self.relays.remove(&stage_name(&gone.camera));
            gone.thread.stop(JOIN);
        }
        Ok(())
    }

    pub(super) fn start_camera(&mut self, camera: Camera) -> Result<(), ServeError> {
        let slot = Arc::new(LatestSlot::with_bell(Arc::clone(&self.bell)));
        let shared = Arc::new(CaptureShared::default());
        shared.slow_down(self.thermostat.level());
        let thread = CaptureThread::spawn(&camera, Arc::clone(&slot), Arc::clone(&shared))?;
        let now = self.clock.uptime();
        self.relays.add(
            &mut self.watchdog,
            &stage_name(&camera),
            shared.progress(),
            SILENCE,
            now,
        );
        let feed = Feed {
            camera: camera.clone(),
            slot,
            shared,
        };
        self.cameras.push(Camcorder {
            camera,
            thread,
            feed,
        });
        Ok(())
    }
}

fn stage_name(camera: &Camera) -> String {
    format!("capture-{}", camera.id)
}

/// Zones and the gate belong to the inference side.
fn captures_the_same(a: &Camera, b: &Camera) -> bool {
    a.id == b.id
        && a.source == b.source
        && a.rate_fps == b.rate_fps
        && a.stall_after == b.stall_after
}
