//! A GPU and the kernels on it.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use cudarc::driver::sys::{self, CUdevice_attribute, CUfunction_attribute};
use cudarc::driver::{CudaContext, CudaFunction, CudaModule, CudaStream, DriverError};
use cudarc::nvrtc::Ptx;

use super::patches::PatchRows;
use super::tower::Tower;
use crate::encoder::Unavailable;
use crate::encoder::int8::op::{Accelerator, Device, PatchDevice, Patches, Sublayers};

/// Kernels with dot products of bytes, for compute capability 6.1 and later.
const DOT_PRODUCTS: &str = include_str!("kernels.sm_61.ptx");
/// Kernels on matrix units, for compute capability 8.0 and later.
const MATRIX_UNITS: &str = include_str!("kernels.sm_80.ptx");

/// A GPU with the kernels loaded.
#[derive(Clone)]
pub struct Gpu {
    context: Arc<CudaContext>,
    kernels: Arc<Kernels>,
    name: Arc<str>,
}

/// Work for a GPU, done in the order in which it is given. Each belongs to one object that locks it: while
/// one thread records a graph, what others gave to the same queue would be recorded, too, instead of done.
pub(super) struct Queue {
    pub(super) stream: Arc<CudaStream>,
    pub(super) kernels: Arc<Kernels>,
}

/// The functions of `kernels.cu`.
pub(super) struct Kernels {
    pub(super) quantize_rows: CudaFunction,
    pub(super) quantize_patches: CudaFunction,
    pub(super) keep_token: CudaFunction,
    pub(super) product: CudaFunction,
    pub(super) attention: CudaFunction,
    /// Dynamic shared memory that a block of attention may have, bytes.
    pub(super) attention_bytes: usize,
}

/// Shared memory of a block that every GPU has.
const SHARED_BYTES: usize = 48 << 10;
/// `keys` in the kernel `attention`.
const ATTENTION_STATIC_BYTES: usize = 32 * 33 * 4;

impl Gpu {
    /// The first GPU that the driver shows (`CUDA_VISIBLE_DEVICES` chooses).
    ///
    /// # Errors
    /// That there is no driver, no GPU, one that is too old, or what the driver said.
    pub fn open() -> Result<Self, Unavailable> {
        // SAFETY: loads the driver's library, whose initialisers run.
        if !unsafe { sys::is_culib_present() } {
            let reason = "no NVIDIA driver (libcuda.so.1 cannot be loaded)";
            return Err(Unavailable::Absent(reason.to_owned()));
        }
        match caught(Self::count).map_err(Unavailable::Unusable)? {
            0 => Err(Unavailable::Absent(
                "the NVIDIA driver shows no GPU".to_owned(),
            )),
            _ => caught(|| Self::open_with(None)).map_err(Unavailable::Unusable),
        }
    }

    /// How many GPUs the driver shows.
    fn count() -> Result<i32, String> {
        match cudarc::driver::result::init() {
            Err(DriverError(sys::CUresult::CUDA_ERROR_NO_DEVICE)) => return Ok(0),
            started => started.map_err(|e| said("starting CUDA", e))?,
        }
        cudarc::driver::result::device::get_count().map_err(|e| said("counting GPUs", e))
    }

    /// As [`Self::open`], with kernels for older GPUs than it is: for tests.
    #[cfg(test)]
    pub(super) fn open_as_older() -> Result<Self, Unavailable> {
        Self::open()?;
        caught(|| Self::open_with(Some(DOT_PRODUCTS))).map_err(Unavailable::Unusable)
    }

    /// A queue of its own.
    pub(super) fn queue(&self) -> Result<Queue, String> {
        Ok(Queue {
            stream: self
                .context
                .new_stream()
                .map_err(|e| said("opening a stream", e))?,
            kernels: Arc::clone(&self.kernels),
        })
    }

    fn open_with(ptx: Option<&str>) -> Result<Self, String> {
        let device = cudarc::driver::result::device::get(0).map_err(|e| said("GPU 0", e))?;
        // A waiting thread sleeps instead of spinning: on a board the cores have other work. Fails where
        // somebody else has made the context already, which changes nothing but that.
        // SAFETY: sets a flag of a device that is there.
        let _ = unsafe {
            sys::cuDevicePrimaryCtxSetFlags_v2(
                device,
                sys::CUctx_flags::CU_CTX_SCHED_BLOCKING_SYNC as _,
            )
        };
        let context = CudaContext::new(0).map_err(|e| said("opening the GPU", e))?;
        // SAFETY: memory belongs to an object with a queue of its own, and is used on that alone.
        unsafe { context.disable_event_tracking() };
        let (major, minor) = context
            .compute_capability()
            .map_err(|e| said("asking the GPU", e))?;
        let name = context.name().map_err(|e| said("asking the GPU", e))?;
        let units = if (major, minor) >= (8, 0) {
            MATRIX_UNITS
        } else if (major, minor) >= (6, 1) {
            DOT_PRODUCTS
        } else {
            return Err(format!(
                "{name} has compute capability {major}.{minor}; 6.1 is needed, for dot products of bytes"
            ));
        };
        let ptx = ptx.unwrap_or(units);
        let module = context.load_module(Ptx::from_src(ptx));
        let module = module.map_err(|e| said("compiling the kernels", e))?;
        let kernels = Kernels::of(&context, &module).map_err(|e| said("loading the kernels", e))?;
        Ok(Self {
            context,
            kernels: Arc::new(kernels),
            name: format!("{name}, sm_{major}{minor}").into(),
        })
    }
}

impl Queue {
    /// Waits until nothing of what was given is running any more, whatever came of it. The first call of
    /// the driver may do nothing but tell of an earlier error.
    pub(super) fn settle(&self) {
        for _ in 0..2 {
            let _ = caught(|| Ok(self.stream.synchronize().is_ok()));
        }
    }
}

impl Kernels {
    fn of(context: &Arc<CudaContext>, module: &Arc<CudaModule>) -> Result<Self, DriverError> {
        let attention = module.load_function("attention")?;
        let most = context
            .attribute(CUdevice_attribute::CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN)?;
        let most = usize::try_from(most).unwrap_or(0).max(SHARED_BYTES);
        let dynamic = most - ATTENTION_STATIC_BYTES;
        attention.set_attribute(
            CUfunction_attribute::CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES,
            i32::try_from(dynamic).unwrap_or(i32::MAX),
        )?;
        Ok(Self {
            quantize_rows: module.load_function("quantize_rows")?,
            quantize_patches: module.load_function("quantize_patches")?,
            keep_token: module.load_function("keep_token")?,
            product: module.load_function("product")?,
            attention,
            attention_bytes: dynamic,
        })
    }
}

impl Accelerator for Gpu {
    fn place(&self, sublayers: &Sublayers, tokens: usize) -> Result<Arc<dyn Device>, String> {
        caught(|| Ok(Arc::new(Tower::upload(self, sublayers, tokens)?) as Arc<dyn Device>))
    }

    fn place_patches(&self, patches: &Patches) -> Result<Arc<dyn PatchDevice>, String> {
        caught(|| Ok(Arc::new(PatchRows::upload(self, patches)?) as Arc<dyn PatchDevice>))
    }

    fn describe(&self) -> String {
        format!("int8-cuda {}", self.name)
    }
}

/// What a step of the driver failed with.
pub(super) fn said(step: &str, error: DriverError) -> String {
    if error.0 == sys::CUresult::CUDA_ERROR_UNSUPPORTED_PTX_VERSION {
        return format!("{step}: the NVIDIA driver is older than CUDA 11.4 (JetPack 5); update it");
    }
    let text = error.error_string();
    let text = text.map_or_else(
        |_| format!("CUDA error {}", error.0 as u32),
        |text| text.to_string_lossy().into(),
    );
    format!("{step}: {text}")
}

/// cudarc panics where the driver lacks a function.
pub(super) fn caught<T>(work: impl FnOnce() -> Result<T, String>) -> Result<T, String> {
    catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().map(String::as_str);
        let text = text.or_else(|| panic.downcast_ref::<&str>().copied());
        Err(format!("the CUDA driver: {}", text.unwrap_or("panicked")))
    })
}
