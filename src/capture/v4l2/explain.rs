//! What went wrong, in words that say what to do, and whether it may pass.

use std::io;
use std::path::Path;

use super::failure::Failure;
use super::list;
use crate::capture::CaptureError;
use crate::capture::select::{Offer, Wanted};

pub(super) fn no_capture(path: &Path, is_multi_planar: bool) -> CaptureError {
    let device = path.display();
    if is_multi_planar {
        CaptureError::fatal(format!(
            "{device} delivers its frames in several planes, which is not supported; bridge it with \
             v4l2loopback"
        ))
    } else {
        // A loopback device starts to capture when somebody feeds it.
        CaptureError::reopen(format!(
            "{device} does not capture video; `vedetta cameras` lists the devices that do"
        ))
    }
}

pub(super) fn nothing_usable(path: &Path, offers: &[Offer], wanted: &Wanted) -> CaptureError {
    let mut codes: Vec<String> = offers
        .iter()
        .map(|offer| offer.fourcc.to_string())
        .collect();
    codes.dedup();
    let offered = if codes.is_empty() {
        "nothing".to_owned()
    } else {
        codes.join(", ")
    };
    let device = path.display();
    CaptureError::fatal(match wanted.format {
        Some(format) => format!(
            "{device} does not offer {format}, which the configuration asks for; it offers {offered}"
        ),
        None => format!("{device} offers nothing that can be decoded; it offers {offered}"),
    })
}

pub(super) fn cannot_open(path: &Path, error: &io::Error) -> CaptureError {
    let device = path.display();
    match error.kind() {
        io::ErrorKind::NotFound => CaptureError::gone(format!(
            "{device} is not there; is the camera plugged in? `vedetta cameras` lists those that are"
        )),
        io::ErrorKind::PermissionDenied => CaptureError::gone(format!(
            "{device}: permission denied; {}",
            list::PERMISSION_HINT
        )),
        io::ErrorKind::ResourceBusy => CaptureError::reopen(in_use(path)),
        _ => CaptureError::gone(format!("{device} cannot be opened: {error}")),
    }
}

fn in_use(path: &Path) -> String {
    format!("{} is in use by another program", path.display())
}

pub(super) fn failed(path: &Path, failure: &Failure) -> CaptureError {
    let device = path.display();
    if failure.is_no_device() {
        return CaptureError::gone(format!("{device} was unplugged: {failure}"));
    }
    if failure.is_no_bandwidth() {
        return CaptureError::reopen(format!(
            "{device}: the bus has no bandwidth left; use another port, a smaller size or the format \
             mjpeg ({failure})"
        ));
    }
    match failure.error.kind() {
        io::ErrorKind::ResourceBusy => CaptureError::reopen(in_use(path)),
        // ENOTTY and EINVAL of the first call: whatever this is, it is no video device.
        _ if failure.call == "VIDIOC_QUERYCAP" => {
            CaptureError::fatal(format!("{device} is not a video device: {failure}"))
        }
        _ => CaptureError::reopen(format!("{device}: {failure}")),
    }
}

pub(super) fn lost(failure: &Failure) -> CaptureError {
    if failure.is_no_device() {
        CaptureError::gone("the device was unplugged")
    } else {
        CaptureError::reopen(format!("the driver failed: {failure}"))
    }
}
