//! An open device node, each question to it behind a safe function.
//!
//! The crate `v4l` supplies the kernel's structs, its call numbers, the open device and poll(2). Its
//! higher layers are not used: a stream there is unusable after any error, a timeout included;
//! dropping it panics on most errors, twice if it comes to that, which aborts; the format loses
//! `ycbcr_enc`; unknown colour codes and names that are not UTF-8 panic; and enumerations end only
//! when the driver ends them. Here every failure is a value, and every enumeration has an end.

use std::io;
use std::path::Path;
use std::time::Duration;

use v4l::Device;
use v4l::v4l_sys::{
    V4L2_CAP_DEVICE_CAPS, V4L2_CAP_TIMEPERFRAME, V4L2_CAP_VIDEO_CAPTURE,
    V4L2_CAP_VIDEO_CAPTURE_MPLANE, V4L2_PIX_FMT_PRIV_MAGIC,
    v4l2_buf_type_V4L2_BUF_TYPE_VIDEO_CAPTURE, v4l2_capability, v4l2_fmtdesc, v4l2_format,
    v4l2_fract, v4l2_frmivalenum, v4l2_frmivaltypes_V4L2_FRMIVAL_TYPE_DISCRETE, v4l2_frmsizeenum,
    v4l2_frmsizetypes_V4L2_FRMSIZE_TYPE_DISCRETE, v4l2_streamparm,
};

use super::calls::{
    Call, KernelStruct, VIDIOC_ENUM_FMT, VIDIOC_ENUM_FRAMEINTERVALS, VIDIOC_ENUM_FRAMESIZES,
    VIDIOC_G_PARM, VIDIOC_QUERYCAP, VIDIOC_S_FMT, VIDIOC_S_PARM, zeroed,
};
use super::failure::Failure;
use crate::capture::fourcc::FourCc;
use crate::capture::select::{Choice, Interval, Offer, OfferedRate, OfferedSize, Steps};

/// The only buffer type there is here.
pub(super) const VIDEO_CAPTURE: u32 = v4l2_buf_type_V4L2_BUF_TYPE_VIDEO_CAPTURE;

const MAX_FORMATS: u32 = 64;
const MAX_SIZES: u32 = 128;
const MAX_RATES: u32 = 64;

/// `POLLIN` of poll(2).
const POLLIN: i16 = 1;
/// Who a device says it is.
#[derive(Clone, Debug)]
pub(super) struct Identity {
    pub driver: String,
    pub card: String,
    pub bus: String,
    /// It captures frames of one plane.
    pub captures: bool,
    /// It captures frames of several planes.
    pub captures_planes: bool,
}

/// The format a driver settled on.
#[derive(Clone, Copy, Debug)]
pub(super) struct Settled {
    pub fourcc: FourCc,
    pub size_px: (u32, u32),
    pub stride_bytes: u32,
    pub colorspace: u32,
    pub ycbcr_enc: u32,
    pub quantization: u32,
}

/// An open device node.
pub(super) struct Node {
    device: Device,
}

impl Node {
    /// Opens `path` without blocking; nothing is asked of the device yet.
    pub fn open(path: &Path) -> io::Result<Self> {
        if path.as_os_str().as_encoded_bytes().contains(&0) {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                "the path contains a zero byte",
            ));
        }
        Ok(Self {
            device: Device::with_path(path)?,
        })
    }

    /// The open file.
    pub fn fd(&self) -> i32 {
        self.device.handle().fd()
    }

    /// Makes one call; it is repeated when a signal interrupts it.
    pub fn call<T: KernelStruct>(&self, call: &Call<T>, argument: &mut T) -> Result<(), Failure> {
        loop {
            let pointer = std::ptr::from_mut(argument).cast();
            // SAFETY: a `Call<T>` pairs a request with the struct the kernel reads and writes for
            // it, and `argument` is an exclusive reference to one. None of the calls declared here
            // follows a pointer in it: buffers are of the single-plane, memory-mapped kind.
            let outcome = unsafe { v4l::v4l2::ioctl(self.fd(), call.request(), pointer) };
            match outcome {
                Ok(()) => return Ok(()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => {
                    return Err(Failure {
                        call: call.name(),
                        error,
                    });
                }
            }
        }
    }

    /// Waits until a buffer is ready or the device has failed; false when neither came in time, or
    /// when a signal came instead.
    pub fn wait(&self, timeout: Duration) -> Result<bool, Failure> {
        // Rounded up, or the last millisecond would be spent spinning.
        let timeout_ms = i32::try_from(timeout.as_nanos().div_ceil(1_000_000)).unwrap_or(i32::MAX);
        match self.device.handle().poll(POLLIN, timeout_ms) {
            Ok(ready) => Ok(ready > 0),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(false),
            Err(error) => Err(Failure {
                call: "poll",
                error,
            }),
        }
    }

    /// Asks the device who it is.
    pub fn identity(&self) -> Result<Identity, Failure> {
        let mut answer: v4l2_capability = zeroed();
        self.call(&VIDIOC_QUERYCAP, &mut answer)?;
        // `capabilities` speaks for all nodes of the device, `device_caps` for this one.
        let capabilities = if answer.capabilities & V4L2_CAP_DEVICE_CAPS == 0 {
            answer.capabilities
        } else {
            answer.device_caps
        };
        Ok(Identity {
            driver: text(&answer.driver),
            card: text(&answer.card),
            bus: text(&answer.bus_info),
            captures: capabilities & V4L2_CAP_VIDEO_CAPTURE != 0,
            captures_planes: capabilities & V4L2_CAP_VIDEO_CAPTURE_MPLANE != 0,
        })
    }

    /// Everything the device says it can deliver. What it does not tell is left empty.
    pub fn offers(&self) -> Vec<Offer> {
        let codes = (0..MAX_FORMATS).map_while(|index| {
            let mut answer = v4l2_fmtdesc {
                index,
                type_: VIDEO_CAPTURE,
                ..zeroed()
            };
            self.call(&VIDIOC_ENUM_FMT, &mut answer).ok()?;
            Some(FourCc::from_code(answer.pixelformat))
        });
        codes
            .map(|fourcc| Offer {
                fourcc,
                sizes: self.sizes(fourcc),
            })
            .collect()
    }

    fn sizes(&self, fourcc: FourCc) -> Vec<OfferedSize> {
        let sizes = (0..MAX_SIZES).map_while(|index| {
            let mut answer = v4l2_frmsizeenum {
                index,
                pixel_format: fourcc.code(),
                ..zeroed()
            };
            self.call(&VIDIOC_ENUM_FRAMESIZES, &mut answer).ok()?;
            Some(answer)
        });
        sizes
            .map(|answer| {
                let (width_px, height_px) = steps(&answer);
                OfferedSize {
                    width_px,
                    height_px,
                    rates: self.rates(fourcc, (width_px.max, height_px.max)),
                }
            })
            .collect()
    }

    fn rates(&self, fourcc: FourCc, (width, height): (u32, u32)) -> Vec<OfferedRate> {
        let rates = (0..MAX_RATES).map_while(|index| {
            let mut answer = v4l2_frmivalenum {
                index,
                pixel_format: fourcc.code(),
                width,
                height,
                ..zeroed()
            };
            self.call(&VIDIOC_ENUM_FRAMEINTERVALS, &mut answer).ok()?;
            Some(rate(&answer))
        });
        rates.collect()
    }

    /// Asks for the format of `choice` and returns the one the driver settled on.
    pub fn set_format(&self, choice: &Choice) -> Result<Settled, Failure> {
        let mut format: v4l2_format = zeroed();
        format.type_ = VIDEO_CAPTURE;
        // SAFETY: of the union, `pix` is the member of this type; all of it is integers.
        let pix = unsafe { &mut format.fmt.pix };
        (pix.width, pix.height) = choice.size_px;
        pix.pixelformat = choice.fourcc.code();
        pix.priv_ = V4L2_PIX_FMT_PRIV_MAGIC;
        self.call(&VIDIOC_S_FMT, &mut format)?;
        // SAFETY: as above; the kernel answers in the same member.
        let pix = unsafe { format.fmt.pix };
        Ok(Settled {
            fourcc: FourCc::from_code(pix.pixelformat),
            size_px: (pix.width, pix.height),
            stride_bytes: pix.bytesperline,
            colorspace: pix.colorspace,
            // SAFETY: both members of this union are the same integer.
            ycbcr_enc: unsafe { pix.__bindgen_anon_1.ycbcr_enc },
            quantization: pix.quantization,
        })
    }

    /// Asks for a frame interval where one is given, and returns the one in force; `None` where the
    /// driver has no say in it.
    pub fn set_interval(&self, interval: Option<Interval>) -> Option<Interval> {
        let mut parameters: v4l2_streamparm = zeroed();
        parameters.type_ = VIDEO_CAPTURE;
        self.call(&VIDIOC_G_PARM, &mut parameters).ok()?;
        // SAFETY: of the union, `capture` is the member of this type; all of it is integers.
        let can_be_set = unsafe { parameters.parm.capture.capability } & V4L2_CAP_TIMEPERFRAME != 0;
        if let (true, Some(interval)) = (can_be_set, interval) {
            let mut wanted: v4l2_streamparm = zeroed();
            wanted.type_ = VIDEO_CAPTURE;
            wanted.parm.capture.timeperframe = v4l2_fract {
                numerator: interval.numerator,
                denominator: interval.denominator,
            };
            if self.call(&VIDIOC_S_PARM, &mut wanted).is_ok() {
                parameters = wanted;
            }
        }
        // SAFETY: as above.
        let now = unsafe { parameters.parm.capture.timeperframe };
        Some(interval_of(now))
    }
}

/// A fixed-size name, up to its first zero byte.
fn text(bytes: &[u8]) -> String {
    let end = bytes.iter().position(|&b| b == 0).unwrap_or(bytes.len());
    let text = String::from_utf8_lossy(&bytes[..end]);
    text.chars().filter(|c| !c.is_control()).collect()
}

fn interval_of(fraction: v4l2_fract) -> Interval {
    Interval {
        numerator: fraction.numerator,
        denominator: fraction.denominator,
    }
}

fn steps(answer: &v4l2_frmsizeenum) -> (Steps, Steps) {
    if answer.type_ == v4l2_frmsizetypes_V4L2_FRMSIZE_TYPE_DISCRETE {
        // SAFETY: all members are integers, and this is the one of a discrete size.
        let size = unsafe { answer.__bindgen_anon_1.discrete };
        return (Steps::exactly(size.width), Steps::exactly(size.height));
    }
    // SAFETY: all members are integers, and this is the one of the other kinds.
    let size = unsafe { answer.__bindgen_anon_1.stepwise };
    let width = Steps {
        min: size.min_width,
        max: size.max_width,
        step: size.step_width,
    };
    let height = Steps {
        min: size.min_height,
        max: size.max_height,
        step: size.step_height,
    };
    (width, height)
}

fn rate(answer: &v4l2_frmivalenum) -> OfferedRate {
    if answer.type_ == v4l2_frmivaltypes_V4L2_FRMIVAL_TYPE_DISCRETE {
        // SAFETY: all members are integers, and this is the one of a discrete interval.
        return OfferedRate::Exactly(interval_of(unsafe { answer.__bindgen_anon_1.discrete }));
    }
    // SAFETY: all members are integers, and this is the one of the other kinds.
    let range = unsafe { answer.__bindgen_anon_1.stepwise };
    OfferedRate::Between {
        shortest: interval_of(range.min),
        longest: interval_of(range.max),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_any_bytes_become_text() {
        assert_eq!(text(b"HD Webcam\0garbage"), "HD Webcam");
        assert_eq!(text(b"\xff\x1b[2Jcam"), "\u{fffd}[2Jcam");
        assert_eq!(text(&[0; 16]), "");
    }

    #[test]
    fn a_file_that_is_no_device_is_refused_by_its_first_call() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let failure = Node::open(file.path()).unwrap().identity().unwrap_err();
        assert_eq!(failure.call, "VIDIOC_QUERYCAP");
        assert!(Node::open(Path::new("/dev/\0video")).is_err());
    }
}
