//! A patch embedding on the GPU.

use std::sync::{Mutex, PoisonError};

use cudarc::driver::{CudaSlice, DriverError};

use super::gpu::{Gpu, caught, said};
use super::layers::{Codes, Matrix, Sink};
use crate::encoder::int8::kernels::Activation;
use crate::encoder::int8::op::{PatchDevice, Patches};
use crate::encoder::int8::patches::Geometry;

/// Values of all pictures of one call: sixteen of 1024 pixels a side, in four channels.
const MAX_VALUES: usize = 1 << 26;

/// A patch embedding in the GPU's memory.
pub(super) struct PatchRows {
    gpu: Gpu,
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
        Ok(Self {
            gpu: gpu.clone(),
            matrix: Matrix::upload(gpu, embedding.linear())?,
            geometry: embedding.geometry(),
            buffers: Mutex::default(),
        })
    }

    fn allocate(&self, count: usize) -> Result<Buffers, DriverError> {
        let (stream, rows) = (&self.gpu.stream, count * self.geometry.patches());
        Ok(Buffers {
            count,
            pictures: stream.alloc_zeros(count * self.geometry.picture_len())?,
            codes: Codes::new(&self.gpu, rows, self.matrix.k)?,
            out: stream.alloc_zeros(rows * self.matrix.n)?,
        })
    }

    fn run_on(
        &self,
        buffers: &mut Option<Buffers>,
        pictures: &[&[f32]],
    ) -> Result<Vec<f32>, DriverError> {
        let count = pictures.len();
        if buffers.as_ref().is_none_or(|held| held.count < count) {
            *buffers = None;
            *buffers = Some(self.allocate(count)?);
        }
        let buffers = buffers.as_mut().expect("made above");
        let (gpu, len) = (&self.gpu, self.geometry.picture_len());
        for (i, picture) in pictures.iter().enumerate() {
            let place = &mut buffers.pictures.slice_mut(i * len..(i + 1) * len);
            gpu.stream.memcpy_htod(*picture, place)?;
        }
        let (rows, sink) = (count * self.geometry.patches(), Sink::Store(Activation::None));
        gpu.quantize_patches(&buffers.pictures, count, self.geometry, &mut buffers.codes)?;
        gpu.product(&buffers.codes, rows, &self.matrix, sink, &mut buffers.out)?;
        let mut out = vec![0.0; rows * self.matrix.n];
        let result = buffers.out.slice(..out.len());
        gpu.stream.memcpy_dtoh(&result, &mut out)?;
        gpu.stream.synchronize()?;
        Ok(out)
    }
}

impl PatchDevice for PatchRows {
    fn run(&self, pictures: &[&[f32]]) -> Result<Vec<f32>, String> {
        let len = self.geometry.picture_len();
        let fits = pictures.iter().all(|picture| picture.len() == len);
        if !fits || pictures.is_empty() || pictures.len() * len > MAX_VALUES {
            return Err(format!("{} pictures of {len} values", pictures.len()));
        }
        let mut buffers = self.buffers.lock().unwrap_or_else(PoisonError::into_inner);
        caught(|| {
            self.run_on(&mut buffers, pictures)
                .map_err(|e| said("patches on the GPU", e))
        })
    }
}
