//! Memory-mapped streaming: buffers go to the driver empty and come back filled.

use std::ptr::NonNull;
use std::slice;
use std::sync::Arc;
use std::time::Duration;

use v4l::v4l_sys::{
    V4L2_BUF_FLAG_ERROR, v4l2_buffer, v4l2_memory_V4L2_MEMORY_MMAP, v4l2_requestbuffers,
};

use super::calls::{
    VIDIOC_DQBUF, VIDIOC_QBUF, VIDIOC_QUERYBUF, VIDIOC_REQBUFS, VIDIOC_STREAMOFF, VIDIOC_STREAMON,
    zeroed,
};
use super::failure::Failure;
use super::node::{Node, VIDEO_CAPTURE};

const MMAP: u32 = v4l2_memory_V4L2_MEMORY_MMAP;
/// `PROT_READ` and `MAP_SHARED` of mmap(2).
const PROT_READ: i32 = 1;
const MAP_SHARED: i32 = 1;

/// A running stream. Dropping it stops the device and gives its memory back; what fails then is
/// logged: the file is closed right after, which ends everything anyway.
pub(super) struct Stream {
    buffers: Vec<Mapping>,
    node: Arc<Node>,
}

/// A buffer the driver has filled. It has to be given back, or the driver runs out of them.
#[derive(Debug)]
pub(super) struct Filled {
    index: u32,
    bytes_used: usize,
    /// The driver's frame number.
    pub sequence: u32,
    /// The driver says that its contents are damaged.
    pub is_damaged: bool,
}

impl Stream {
    /// Maps `count` buffers, or as many as the driver grants, hands them over and starts.
    pub fn start(node: &Arc<Node>, count: u32) -> Result<Self, Failure> {
        let granted = request_buffers(node, count)?;
        // From here on dropping the stream undoes what was done.
        let mut stream = Self {
            buffers: Vec::new(),
            node: Arc::clone(node),
        };
        for index in 0..granted {
            stream.buffers.push(Mapping::of(node, index)?);
        }
        for index in 0..granted {
            stream.queue(index)?;
        }
        node.call(&VIDIOC_STREAMON, &mut { VIDEO_CAPTURE })?;
        Ok(stream)
    }

    /// How many buffers there are.
    pub fn len(&self) -> usize {
        self.buffers.len()
    }

    /// Waits for a filled buffer; see [`Node::wait`].
    pub fn wait(&self, timeout: Duration) -> Result<bool, Failure> {
        self.node.wait(timeout)
    }

    /// Takes the oldest filled buffer; `None` when there is none yet.
    pub fn dequeue(&mut self) -> Result<Option<Filled>, Failure> {
        let mut buffer = v4l2_buffer {
            type_: VIDEO_CAPTURE,
            memory: MMAP,
            ..zeroed()
        };
        match self.node.call(&VIDIOC_DQBUF, &mut buffer) {
            Ok(()) => Ok(Some(Filled {
                index: buffer.index,
                bytes_used: buffer.bytesused as usize,
                sequence: buffer.sequence,
                is_damaged: buffer.flags & V4L2_BUF_FLAG_ERROR != 0,
            })),
            Err(failure) if failure.is_not_ready() => Ok(None),
            Err(failure) => Err(failure),
        }
    }

    /// The bytes the driver says it used.
    pub fn bytes(&self, filled: &Filled) -> &[u8] {
        let Some(mapping) = self.buffers.get(filled.index as usize) else {
            return &[];
        };
        // SAFETY: the mapping lives as long as `self`, is `length` bytes long and readable. The
        // driver does not write to a buffer between its dequeueing, which made `filled`, and its
        // queueing, which takes `filled` and `self` mutably.
        let bytes = unsafe { slice::from_raw_parts(mapping.start.as_ptr(), mapping.length) };
        &bytes[..filled.bytes_used.min(mapping.length)]
    }

    /// Gives a buffer back to be filled again.
    pub fn give_back(&mut self, filled: Filled) -> Result<(), Failure> {
        self.queue(filled.index)
    }

    fn queue(&mut self, index: u32) -> Result<(), Failure> {
        let mut buffer = v4l2_buffer {
            index,
            type_: VIDEO_CAPTURE,
            memory: MMAP,
            ..zeroed()
        };
        self.node.call(&VIDIOC_QBUF, &mut buffer)
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        let stopped = self.node.call(&VIDIOC_STREAMOFF, &mut { VIDEO_CAPTURE });
        // The driver refuses to free buffers that are still mapped.
        self.buffers.clear();
        let freed = request_buffers(&self.node, 0);
        for failure in [stopped.err(), freed.err()].into_iter().flatten() {
            if !failure.is_no_device() {
                log::warn!("while stopping a camera: {failure}");
            }
        }
    }
}

/// Asks for `count` buffers and returns how many there are; 0 frees them.
fn request_buffers(node: &Node, count: u32) -> Result<u32, Failure> {
    let mut request = v4l2_requestbuffers {
        count,
        type_: VIDEO_CAPTURE,
        memory: MMAP,
        ..zeroed()
    };
    node.call(&VIDIOC_REQBUFS, &mut request)?;
    Ok(request.count)
}

/// One buffer of the driver in our memory, read-only.
struct Mapping {
    start: NonNull<u8>,
    length: usize,
}

// SAFETY: the memory belongs to the process, not to a thread, and is only read through `Stream`.
unsafe impl Send for Mapping {}

impl Mapping {
    fn of(node: &Node, index: u32) -> Result<Self, Failure> {
        let mut buffer = v4l2_buffer {
            index,
            type_: VIDEO_CAPTURE,
            memory: MMAP,
            ..zeroed()
        };
        node.call(&VIDIOC_QUERYBUF, &mut buffer)?;
        let failed = |error| Failure {
            call: "mmap",
            error,
        };
        let length = buffer.length as usize;
        // SAFETY: for a memory-mapped buffer `offset` is the member of the union that is set. The
        // kernel chooses the address, so nothing that is in use gets mapped over.
        let start = unsafe {
            let offset = buffer.m.offset.into();
            v4l::v4l2::mmap(
                std::ptr::null_mut(),
                length,
                PROT_READ,
                MAP_SHARED,
                node.fd(),
                offset,
            )
        };
        let start = start.map_err(failed)?;
        let start = NonNull::new(start.cast())
            .ok_or_else(|| failed(std::io::Error::other("mapped to address 0")))?;
        Ok(Self { start, length })
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: `start` and `length` are those of one whole mapping that only this value knows.
        if let Err(error) = unsafe { v4l::v4l2::munmap(self.start.as_ptr().cast(), self.length) } {
            log::warn!("a camera buffer stays mapped: {error}");
        }
    }
}
