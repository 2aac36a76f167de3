//! The capture devices of this machine, for people.

use std::io;
use std::path::{Path, PathBuf};

use super::node::Node;
use crate::capture::select::Offer;

/// What to do about a device that may not be opened.
pub(super) const PERMISSION_HINT: &str = "add the user to the group video \
    (sudo usermod -aG video \"$USER\") and log in again";

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
    /// Whether vedetta can decode it.
    pub usable: bool,
    /// Its code, sizes and rates.
    pub offer: Offer,
}

/// Every device that captures video, or cannot be asked, in order of its number.
pub fn list() -> Vec<ListedCamera> {
    let entries = std::fs::read_dir("/dev").into_iter().flatten().flatten();
    let mut nodes: Vec<(u32, PathBuf)> = entries
        .filter_map(|entry| {
            let name = entry.file_name();
            let number = name.to_str()?.strip_prefix("video")?.parse().ok()?;
            Some((number, entry.path()))
        })
        .collect();
    nodes.sort();
    nodes
        .iter()
        .filter_map(|(_, path)| describe(path))
        .collect()
}

/// `None` for nodes that are not for video: a camera's metadata, an encoder, an output.
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
    let node = match Node::open(path) {
        Ok(node) => node,
        Err(error) => {
            let hint = if error.kind() == io::ErrorKind::PermissionDenied {
                format!("; {PERMISSION_HINT}")
            } else {
                String::new()
            };
            camera.problem = Some(format!("cannot be opened: {error}{hint}"));
            return Some(camera);
        }
    };
    let identity = match node.identity() {
        Ok(identity) => identity,
        Err(failure) => {
            camera.problem = Some(format!("does not answer: {failure}"));
            return Some(camera);
        }
    };
    (camera.name, camera.driver, camera.bus) = (identity.card, identity.driver, identity.bus);
    if identity.captures {
        camera.formats = node.offers().into_iter().map(listed).collect();
        if camera.formats.is_empty() {
            camera.problem = Some("offers no format; a loopback device has to be fed first".into());
        }
    } else if identity.captures_planes {
        camera.problem =
            Some("delivers frames in several planes: bridge it with v4l2loopback".into());
    } else {
        return None;
    }
    Some(camera)
}

fn listed(offer: Offer) -> ListedFormat {
    ListedFormat {
        usable: offer.fourcc.format().is_some(),
        offer,
    }
}

fn stable_name(path: &Path) -> Option<PathBuf> {
    let target = path.canonicalize().ok()?;
    ["/dev/v4l/by-id", "/dev/v4l/by-path"]
        .iter()
        .find_map(|folder| {
            let mut links: Vec<PathBuf> = std::fs::read_dir(folder)
                .ok()?
                .flatten()
                .map(|entry| entry.path())
                .collect();
            links.sort();
            links
                .into_iter()
                .find(|link| link.canonicalize().ok().as_ref() == Some(&target))
        })
}
