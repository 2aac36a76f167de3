//! A patch embedding on the GPU.

use std::sync::{Mutex, PoisonError};

use cudarc::driver::{CudaSlice, DriverError};

use super::gpu::{Gpu, Queue, caught, said};
use super::layers::{Codes, Matrix, Sink};
use crate::encoder::int8::kernels::Activation;
use crate::encoder::int8::op::{PatchDevice, Patches};
use crate::encoder::int8::patches::Geometry;

/// Rows of one call: 16 pictures of 1024 patches.
const MAX_ROWS: usize = 1 << 14;

/// A patch embedding in the GPU's memory.
pub(super) struct PatchRows {
    queue: Queue,
    matrix: Matrix,
    geometry: Geometry,
    buffers: Mutex<Option<Buffers>>,
}

/// Memory for so many pictures.
struct Buffers {
    count: usize,
    /// `[count, channels, height, width]`.
    pictures: CudaSlice<f32>,
    codes: Codes,
    /// `[count · patches, n]`.
    out: CudaSlice<f32>,
}

impl PatchRows {
    /// Copies a patch embedding to the GPU.
    ///
    /// # Errors
    /// One that is too large for the kernels, or what the driver said.
    pub(super) fn upload(gpu: &Gpu, patches: &Patches) -> Result<Self, String> {
        let embedding = patches.embedding();
        let geometry = embedding.geometry();
        if geometry.patches() > MAX_ROWS {
            return Err(format!("{} patches of a picture", geometry.patches()));
        }
        let queue = gpu.queue()?;
        let matrix = Matrix::upload(&queue, embedding.linear());
        queue.arrive(matrix.is_ok())?;
        Ok(Self {
            matrix: matrix?,
            queue,
            geometry,
            buffers: Mutex::default(),
        })
    }

    fn allocate(&self, count: usize) -> Result<Buffers, DriverError> {
        let (stream, rows) = (&self.queue.stream, count * self.geometry.patches());
        Ok(Buffers {
            count,
            pictures: stream.alloc_zeros(count * self.geometry.picture_len())?,
            codes: Codes::new(&self.queue, rows, self.matrix.k)?,
            out: stream.alloc_zeros(rows * self.matrix.n)?,
        })
    }

    /// What `out` holds afterwards is the result, if there is no error.
    fn run_on(
        &self,
        buffers: &mut Option<Buffers>,
        pictures: &[&[f32]],
        out: &mut Vec<f32>,
    ) -> Result<(), DriverError> {
        let count = pictures.len();
        if buffers.as_ref().is_none_or(|held| held.count < count) {
            *buffers = None;
            *buffers = Some(self.allocate(count)?);
        }
        let buffers = buffers.as_mut().expect("made above");
        let (queue, len) = (&self.queue, self.geometry.picture_len());
        for (i, picture) in pictures.iter().enumerate() {
            let place = &mut buffers.pictures.slice_mut(i * len..(i + 1) * len);
            queue.stream.memcpy_htod(*picture, place)?;
        }
        let (rows, sink) = (
            count * self.geometry.patches(),
            Sink::Store(Activation::None),
        );
        queue.quantize_patches(&buffers.pictures, count, self.geometry, &mut buffers.codes)?;
        queue.product(&buffers.codes, rows, &self.matrix, sink, &mut buffers.out)?;
        out.resize(rows * self.matrix.n, 0.0);
        let result = buffers.out.slice(..out.len());
        queue.stream.memcpy_dtoh(&result, out)?;
        queue.stream.synchronize()
    }
}

impl PatchDevice for PatchRows {
    fn run(&self, pictures: &[&[f32]]) -> Result<Vec<f32>, String> {
        let len = self.geometry.picture_len();
        let fits = pictures.iter().all(|picture| picture.len() == len);
        let rows = pictures.len() * self.geometry.patches();
        if !fits || rows == 0 || rows > MAX_ROWS {
            return Err(format!("{} pictures of {len} values", pictures.len()));
        }
        let buffers = &mut *self.buffers.lock().unwrap_or_else(PoisonError::into_inner);
        let mut out = Vec::new();
        let done = caught(|| {
            self.run_on(buffers, pictures, &mut out)
                .map_err(|e| said("patches on the GPU", e))
        });
        if done.is_err() {
            // Before what copies read or write goes.
            self.queue.settle();
        }
        done.map(|()| out)
    }

    fn most_rows(&self) -> usize {
        MAX_ROWS
    }
}
