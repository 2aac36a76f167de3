//! A call that failed, and what that says.

use std::io;

use thiserror::Error;

/// `ENXIO` and `ENODEV` of errno(3): there is no device behind the node, or no longer.
const NO_DEVICE: [i32; 2] = [6, 19];
/// `ENOSPC`: the bus has no bandwidth left.
const NO_BANDWIDTH: i32 = 28;
/// `ENOMEM`: the buffers do not fit the memory devices can reach.
const NO_MEMORY: i32 = 12;

/// A call that failed.
#[derive(Debug, Error)]
#[error("{call}: {error}")]
pub(super) struct Failure {
    /// Name of the call.
    pub call: &'static str,
    /// What the kernel said.
    pub error: io::Error,
}

impl Failure {
    /// The device is not there, or no longer.
    pub fn is_no_device(&self) -> bool {
        self.error
            .raw_os_error()
            .is_some_and(|code| NO_DEVICE.contains(&code))
    }

    /// The bus has no bandwidth left for this format, size and rate.
    pub fn is_no_bandwidth(&self) -> bool {
        self.error.raw_os_error() == Some(NO_BANDWIDTH)
    }

    /// The format, size or rate asks for more than the bus or the memory gives.
    pub fn is_too_much(&self) -> bool {
        self.is_no_bandwidth() || self.error.raw_os_error() == Some(NO_MEMORY)
    }

    /// Another format may do better: the driver refused this one, or cannot run it. Other failures
    /// say nothing about the format.
    pub fn is_about_format(&self) -> bool {
        let is_late_refusal = matches!(self.call, "VIDIOC_S_FMT" | "VIDIOC_STREAMON")
            && self.error.kind() != io::ErrorKind::ResourceBusy;
        !self.is_no_device() && (self.is_too_much() || is_late_refusal)
    }

    /// There is nothing to be had just now.
    pub fn is_not_ready(&self) -> bool {
        self.error.kind() == io::ErrorKind::WouldBlock
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_refused_format_makes_way_for_another() {
        let is_about_format = |call, code| {
            let error = io::Error::from_raw_os_error(code);
            Failure { call, error }.is_about_format()
        };
        let (eio, enomem, ebusy, enodev, einval, enospc) = (5, 12, 16, 19, 22, 28);
        assert!(is_about_format("VIDIOC_S_FMT", einval));
        assert!(is_about_format("VIDIOC_STREAMON", enospc));
        assert!(is_about_format("VIDIOC_REQBUFS", enomem));
        assert!(!is_about_format("VIDIOC_S_FMT", ebusy));
        assert!(!is_about_format("VIDIOC_S_FMT", enodev));
        assert!(!is_about_format("VIDIOC_REQBUFS", eio));
    }
}
