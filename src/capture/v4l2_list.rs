//! The capture devices of this machine, for people.

use std::path::{Path, PathBuf};

use v4l::Device;
use v4l::capability::Flags as Capability;

use super::select::{Offer, OfferedRate, OfferedSize, Steps};
use super::v4l2::offers;

/// Sizes listed per format at most.
const MAX_SIZES: usize = 24;

/// One capture device.
#[derive(Clone, Debug)]
pub struct ListedCamera {
    /// `/dev/videoN`.
    pub device: PathBuf,
    /// A link to it that survives replugging, under `/dev/v4l/by-id` or `by-path`.
    pub stable: Option<PathBuf>,
    /// The device's own name.
    pub name: String,
    /// Kernel driver.
    pub driver: String,
    /// Where it is connected.
    pub bus: String,
    /// Why nothing more can be said, and what to do.
    pub problem: Option<String>,
    /// What it offers.
    pub formats: Vec<ListedFormat>,
}

/// One format of a device.
#[derive(Clone, Debug)]
pub struct ListedFormat {
    /// Four-character code.
    pub code: String,
    /// Whether vedetta can decode it.
    pub usable: bool,
    /// `1280x720 at 5, 10, 30 fps`.
    pub sizes: Vec<String>,
}

/// Every device that captures video, or cannot be asked, in order.
pub fn list() -> Vec<ListedCamera> {
    let mut nodes = v4l::context::enum_devices();
    nodes.sort_by_key(v4l::context::Node::index);
    nodes
        .iter()
        .filter_map(|node| describe(node.path()))
        .collect()
}

fn describe(path: &Path) -> Option<ListedCamera> {
    let mut camera = ListedCamera {
        device: path.to_owned(),
        stable: stable_name(path),
        name: "?".into(),
        driver: "?".into(),
        bus: "?".into(),
        problem: None,
        formats: Vec::new(),
    };
    let asked = Device::with_path(path).and_then(|device| Ok((device.query_caps()?, device)));
    let (caps, device) = match asked {
        Ok(answer) => answer,
        Err(error) => {
            camera.problem = Some(format!(
                "cannot be opened: {error}; is the user in the group video?"
            ));
            return Some(camera);
        }
    };
    (camera.name, camera.driver, camera.bus) = (caps.card, caps.driver, caps.bus);
    if caps.capabilities.contains(Capability::VIDEO_CAPTURE) {
        match offers(&device) {
            Ok(offers) => camera.formats = offers.iter().map(format).collect(),
            Err(error) => camera.problem = Some(format!("does not tell its formats: {error}")),
        }
    } else if caps.capabilities.contains(Capability::VIDEO_CAPTURE_MPLANE) {
        camera.problem = Some("multi-planar: bridge it with v4l2loopback".into());
    } else {
        return None;
    }
    Some(camera)
}

fn format(offer: &Offer) -> ListedFormat {
    let mut sizes: Vec<String> = offer.sizes.iter().take(MAX_SIZES).map(size).collect();
    if offer.sizes.len() > MAX_SIZES {
        sizes.push(format!("… and {} more", offer.sizes.len() - MAX_SIZES));
    }
    let usable = offer.fourcc.format().is_some();
    ListedFormat {
        code: offer.fourcc.to_string(),
        usable,
        sizes,
    }
}

fn size(size: &OfferedSize) -> String {
    let steps = |steps: Steps| {
        if steps.min == steps.max {
            steps.min.to_string()
        } else {
            format!("{}–{}", steps.min, steps.max)
        }
    };
    let fps =
        |fps: Option<f32>| fps.map_or("?".into(), |fps| ((fps * 10.0).round() / 10.0).to_string());
    let mut rates: Vec<String> = size
        .rates
        .iter()
        .map(|rate| match rate {
            OfferedRate::Exactly(interval) => fps(interval.fps()),
            OfferedRate::Between { shortest, longest } => {
                format!("{}–{}", fps(longest.fps()), fps(shortest.fps()))
            }
        })
        .collect();
    rates.dedup();
    let rates = if rates.is_empty() {
        String::new()
    } else {
        format!(" at {} fps", rates.join(", "))
    };
    format!("{}x{}{rates}", steps(size.width_px), steps(size.height_px))
}

fn stable_name(path: &Path) -> Option<PathBuf> {
    let target = path.canonicalize().ok()?;
    ["/dev/v4l/by-id", "/dev/v4l/by-path"]
        .iter()
        .find_map(|folder| {
            let links = std::fs::read_dir(folder).ok()?;
            links
                .flatten()
                .map(|entry| entry.path())
                .find(|link| link.canonicalize().ok().as_ref() == Some(&target))
        })
}
