//! The calls of `videodev2.h` that capturing takes, with the struct each of them wants.

use std::marker::PhantomData;
use std::mem::MaybeUninit;

use v4l::v4l_sys::{
    v4l2_buffer, v4l2_capability, v4l2_fmtdesc, v4l2_format, v4l2_frmivalenum, v4l2_frmsizeenum,
    v4l2_requestbuffers, v4l2_streamparm,
};
use v4l::v4l2::vidioc;

/// An ioctl and the type of its argument.
pub(super) struct Call<T> {
    name: &'static str,
    request: vidioc::_IOC_TYPE,
    argument: PhantomData<T>,
}

impl<T> Call<T> {
    /// As error messages show it.
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// Its number for ioctl(2).
    pub fn request(&self) -> vidioc::_IOC_TYPE {
        self.request
    }
}

/// A struct of `videodev2.h`.
///
/// # Safety
/// All bytes zero is a value of it.
pub(super) unsafe trait KernelStruct: Copy {}

/// Declares each call once, with its number and the struct it takes in `videodev2.h`.
macro_rules! calls {
    ($($name:ident: $argument:ty),* $(,)?) => {$(
        pub(super) const $name: Call<$argument> = Call {
            name: stringify!($name),
            request: vidioc::$name,
            argument: PhantomData,
        };
    )*};
}

calls! {
    VIDIOC_QUERYCAP: v4l2_capability,
    VIDIOC_ENUM_FMT: v4l2_fmtdesc,
    VIDIOC_ENUM_FRAMESIZES: v4l2_frmsizeenum,
    VIDIOC_ENUM_FRAMEINTERVALS: v4l2_frmivalenum,
    VIDIOC_S_FMT: v4l2_format,
    VIDIOC_G_PARM: v4l2_streamparm,
    VIDIOC_S_PARM: v4l2_streamparm,
    VIDIOC_REQBUFS: v4l2_requestbuffers,
    VIDIOC_QUERYBUF: v4l2_buffer,
    VIDIOC_QBUF: v4l2_buffer,
    VIDIOC_DQBUF: v4l2_buffer,
    VIDIOC_STREAMON: u32,
    VIDIOC_STREAMOFF: u32,
}

macro_rules! kernel_structs {
    ($($name:ty),* $(,)?) => {$(
        // SAFETY: integers, arrays and unions of integers, and pointers that may be null.
        unsafe impl KernelStruct for $name {}
    )*};
}

kernel_structs!(
    u32,
    v4l2_capability,
    v4l2_fmtdesc,
    v4l2_frmsizeenum,
    v4l2_frmivalenum,
    v4l2_format,
    v4l2_streamparm,
    v4l2_requestbuffers,
    v4l2_buffer,
);

/// All bytes zero, as the kernel wants the fields nobody sets.
pub(super) fn zeroed<T: KernelStruct>() -> T {
    // SAFETY: that is what `KernelStruct` promises.
    unsafe { MaybeUninit::zeroed().assume_init() }
}
