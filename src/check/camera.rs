//! Does a camera give a picture?

use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;
use std::time::{Duration, Instant};

use super::Finding;
use crate::capture::{self, FrameSource, Next};
use crate::config::{Camera, Source};
use crate::decode;

/// A camera may take this long to give its first frame: some warm up for seconds.
const FIRST_FRAME: Duration = Duration::from_secs(5);

/// Opens the camera, reads one frame and decodes it.
pub fn check(camera: &Camera) -> Vec<Finding> {
    let subject = format!("camera {}", camera.id);
    let mut findings = Vec::new();
    match &camera.source {
        Source::V4l2 { device, .. } => {
            if let Some(finding) = device_node(&subject, device) {
                return vec![finding];
            }
            findings.extend(unstable_name(&subject, device));
        }
        Source::Replay { folder, .. } if !folder.is_dir() => {
            let found = format!("{} is not a folder", folder.display());
            return vec![Finding::fail(subject, found, "correct camera.replay")];
        }
        Source::Replay { .. } => {}
    }
    findings.insert(0, picture(&subject, camera));
    findings
}

/// What keeps a device from being opened; `None` when nothing is seen.
fn device_node(subject: &str, device: &Path) -> Option<Finding> {
    if cfg!(not(feature = "v4l2")) {
        return Some(Finding::fail(
            subject,
            "this build has no V4L2 support",
            "build with the feature v4l2, or use replay",
        ));
    }
    let metadata = match fs::metadata(device) {
        Ok(metadata) => metadata,
        Err(error) => {
            return Some(Finding::fail(
                subject,
                format!("{}: {error}", device.display()),
                "plug the camera in; `vedetta cameras` lists what is there",
            ));
        }
    };
    if !metadata.file_type().is_char_device() {
        return Some(Finding::fail(
            subject,
            format!("{} is not a device", device.display()),
            "correct camera.device; for a folder of photos use replay",
        ));
    }
    let access = rustix::fs::Access::READ_OK | rustix::fs::Access::WRITE_OK;
    rustix::fs::access(device, access).err().map(|error| {
        let advice = permission_advice(metadata.gid());
        Finding::fail(subject, format!("{}: {error}", device.display()), advice)
    })
}

/// The device belongs to a group, on all distributions `video`.
fn permission_advice(gid: u32) -> String {
    let groups = fs::read_to_string("/etc/group").unwrap_or_default();
    let user = std::env::var("USER").unwrap_or_default();
    match group(&groups, gid) {
        Some((name, members)) if members.contains(&user.as_str()) => {
            format!("{user} joined the group {name} after logging in: log out and in again")
        }
        Some((name, _)) => {
            format!("join its group and log in again: sudo usermod -aG {name} \"$USER\"")
        }
        None => "let the user of vedetta read and write it".to_owned(),
    }
}

/// Name and members of a group in the format of `/etc/group`.
fn group(groups: &str, gid: u32) -> Option<(&str, Vec<&str>)> {
    groups.lines().find_map(|line| {
        let mut fields = line.split(':');
        let (name, _, id) = (fields.next()?, fields.next()?, fields.next()?);
        let members = fields.next().unwrap_or_default().split(',').collect();
        (id.parse() == Ok(gid)).then_some((name, members))
    })
}

fn unstable_name(subject: &str, device: &Path) -> Option<Finding> {
    let name = device.strip_prefix("/dev").ok()?.to_str()?;
    let number = name.strip_prefix("video")?;
    let several = || {
        let others = fs::read_dir("/dev/v4l/by-id").into_iter().flatten();
        others.count() > 1
    };
    (number.parse::<u32>().is_ok() && several()).then(|| {
        Finding::warn(
            subject,
            format!("{} may be another camera after a reboot", device.display()),
            "use the name that `vedetta cameras` shows, /dev/v4l/by-id/…",
        )
    })
}

fn picture(subject: &str, camera: &Camera) -> Finding {
    let mut source = match capture::open(&camera.source, camera.rate_fps) {
        Ok(source) => source,
        Err(error) => {
            let message = error.to_string();
            // A device that another program holds is most often ours, at work.
            return match message.contains("in use") {
                true => Finding::warn(
                    subject,
                    message,
                    "if that is the running daemon, all is well; stop it to test the picture",
                ),
                false => Finding::fail(subject, message, ""),
            };
        }
    };
    let description = source.description().to_string();
    match first_frame(source.as_mut()) {
        Ok((width, height)) => {
            let found = format!("{description}; read a picture of {width}x{height}");
            Finding::ok(subject, found)
        }
        Err((why, advice)) => Finding::fail(subject, format!("{description}: {why}"), advice),
    }
}

fn first_frame(source: &mut dyn FrameSource) -> Result<(u32, u32), (String, &'static str)> {
    let deadline = Instant::now() + FIRST_FRAME;
    let mut dropped = None;
    while Instant::now() < deadline {
        match source.next_frame(Duration::from_millis(200)) {
            Ok(Next::Frame(frame)) => match decode::decode(&frame) {
                Ok(rgb) => return Ok((rgb.width(), rgb.height())),
                Err(error) => dropped = Some(error.to_string()),
            },
            Ok(Next::Dropped(reason)) => dropped = Some(reason.to_string()),
            Ok(Next::Ended) => {
                let why = dropped.unwrap_or_else(|| "it holds no picture".to_owned());
                return Err((why, "put JPEG or PNG images into the folder"));
            }
            Ok(Next::Skipped | Next::NotReady) => {}
            Err(error) => return Err((error.to_string(), "")),
        }
    }
    let seconds = FIRST_FRAME.as_secs();
    Err(match dropped {
        Some(reason) => (
            format!("no good picture within {seconds} s; the last one: {reason}"),
            "try another camera.format or a smaller size, and another cable or port",
        ),
        None => (
            format!("no picture within {seconds} s"),
            "does another program hold it? Unplug it and plug it in again",
        ),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_group_of_a_device_and_its_members_are_found() {
        let groups = "root:x:0:\nvideo:x:44:anna,bruno\nbroken\n";
        assert_eq!(group(groups, 44), Some(("video", vec!["anna", "bruno"])));
        assert_eq!(group(groups, 45), None);
    }
}
