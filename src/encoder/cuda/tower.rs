//! A tower's sublayers on the GPU.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use cudarc::driver::sys::{CUgraphInstantiate_flags, CUstreamCaptureMode};
use cudarc::driver::{CudaGraph, CudaSlice, DriverError};

use super::gpu::{Gpu, caught, said};
use super::layers::{Body, Codes, Layer, Queries, Sink};
use crate::encoder::int8::kernels::Activation;
use crate::encoder::int8::op::{Device, Sublayers};
use crate::encoder::int8::sublayer::{Batch, Sublayer};

/// Rows of one call: 16 pictures of 1024 tokens.
const MAX_ROWS: usize = 1 << 14;

/// Sublayers one after another, in the GPU's memory.
pub(super) struct Tower {
    gpu: Gpu,
    /// Those that all tokens go through.
    whole: Vec<Layer>,
    /// Those from the last attention on, where one token is wanted, and the token.
    rest: Vec<Layer>,
    token: usize,
    width: usize,
    state: Mutex<State>,
}

/// What is kept from call to call.
#[derive(Default)]
struct State {
    buffers: Option<Buffers>,
    /// By batch and tokens; they hold the addresses of the buffers.
    graphs: HashMap<(usize, usize), Recorded>,
    /// The driver does not record: kernel by kernel takes longer, and nothing else.
    cannot_record: bool,
}

struct Recorded(CudaGraph);

// SAFETY: a graph is a pair of the driver's handles, which belong to no thread; it is used by one thread
// at a time, that which has locked the state.
unsafe impl Send for Recorded {}

/// Memory for so many rows and sequences.
struct Buffers {
    rows: usize,
    batch: usize,
    /// `[rows, width]`.
    x: CudaSlice<f32>,
    /// `[batch, width]`: of each sequence the token that is wanted.
    kept: CudaSlice<f32>,
    codes: Codes,
    /// `[rows, n]` for the widest of the products between.
    hidden: CudaSlice<f32>,
    /// `[rows, heads · dim]`.
    context: CudaSlice<f32>,
}

impl Tower {
    /// Copies sublayers to the GPU.
    ///
    /// # Errors
    /// Sublayers that the kernels do not serve, by what does not fit, or what the driver said.
    pub(super) fn upload(gpu: &Gpu, sublayers: &Sublayers, tokens: usize) -> Result<Self, String> {
        if tokens == 0 || tokens > MAX_ROWS {
            return Err(format!("sequences of {tokens} tokens"));
        }
        let upload = |sublayers: &[Arc<Sublayer>]| {
            let layers = sublayers.iter();
            layers
                .map(|sublayer| Layer::upload(gpu, sublayer, tokens))
                .collect::<Result<Vec<_>, _>>()
        };
        let (whole, rest) = sublayers.split();
        Ok(Self {
            gpu: gpu.clone(),
            whole: upload(whole)?,
            rest: upload(rest)?,
            token: sublayers.wanted().map_or(0, |wanted| wanted.token),
            width: sublayers.width(),
            state: Mutex::default(),
        })
    }

    /// Buffers for so many rows, larger ones than before where they do not suffice.
    fn buffers<'a>(&self, state: &'a mut State, batch: Batch) -> Result<&'a mut Buffers, DriverError> {
        let rows = batch.batch * batch.tokens;
        let fits = |held: &Buffers| held.rows >= rows && held.batch >= batch.batch;
        if !state.buffers.as_ref().is_some_and(fits) {
            state.graphs.clear();
            state.buffers = None;
            state.buffers = Some(self.allocate(rows, batch.batch)?);
        }
        Ok(state.buffers.as_mut().expect("made above"))
    }

    fn allocate(&self, rows: usize, batch: usize) -> Result<Buffers, DriverError> {
        let (mut hidden, mut inner, mut k) = (0, 0, self.width);
        for layer in self.whole.iter().chain(&self.rest) {
            match &layer.body {
                Body::Attention { qkv, out, .. } => {
                    hidden = hidden.max(qkv.n);
                    inner = inner.max(out.k);
                    k = k.max(out.k);
                }
                Body::FeedForward { up, .. } => {
                    hidden = hidden.max(up.n);
                    k = k.max(up.n);
                }
            }
        }
        let stream = &self.gpu.stream;
        Ok(Buffers {
            rows,
            batch,
            x: stream.alloc_zeros(rows * self.width)?,
            kept: stream.alloc_zeros(batch * self.width)?,
            codes: Codes::new(&self.gpu, rows, k)?,
            hidden: stream.alloc_zeros((rows * hidden).max(1))?,
            context: stream.alloc_zeros((rows * inner).max(1))?,
        })
    }

    /// Gives the GPU everything to do between the tokens and the result.
    fn enqueue(&self, buffers: &mut Buffers, batch: Batch) -> Result<(), DriverError> {
        let Batch { batch, tokens } = batch;
        let Buffers {
            x,
            kept,
            codes,
            hidden,
            context,
            ..
        } = buffers;
        let gpu = &self.gpu;
        let all = Queries {
            batch,
            tokens,
            first: 0,
            count: tokens,
        };
        for layer in &self.whole {
            match &layer.body {
                Body::Attention { .. } => {
                    self.mix(layer, x, all, codes, hidden, context)?;
                    project(gpu, layer, batch * tokens, codes, context, x)?;
                }
                Body::FeedForward { .. } => {
                    feed_forward(gpu, layer, batch * tokens, codes, hidden, x)?;
                }
            }
        }
        let Some((first, rest)) = self.rest.split_first() else {
            return Ok(());
        };
        let one = Queries {
            first: self.token,
            count: 1,
            ..all
        };
        let attends = matches!(first.body, Body::Attention { .. });
        if attends {
            self.mix(first, x, one, codes, hidden, context)?;
        }
        gpu.keep_token(x, batch, tokens, self.token, self.width, kept)?;
        if attends {
            project(gpu, first, batch, codes, context, kept)?;
        } else {
            feed_forward(gpu, first, batch, codes, hidden, kept)?;
        }
        for layer in rest {
            feed_forward(gpu, layer, batch, codes, hidden, kept)?;
        }
        Ok(())
    }

    /// From tokens to mixed values. Nothing but attention.
    fn mix(
        &self,
        layer: &Layer,
        x: &CudaSlice<f32>,
        queries: Queries,
        codes: &mut Codes,
        hidden: &mut CudaSlice<f32>,
        context: &mut CudaSlice<f32>,
    ) -> Result<(), DriverError> {
        let Body::Attention {
            qkv,
            heads,
            dim,
            scale,
            ..
        } = &layer.body
        else {
            return Ok(());
        };
        let rows = queries.batch * queries.tokens;
        let gpu = &self.gpu;
        gpu.quantize_rows(x, rows, self.width, Some(layer), codes)?;
        gpu.product(codes, rows, qkv, Sink::Store(Activation::None), hidden)?;
        gpu.attention(hidden, queries, *heads, *dim, *scale, context)
    }
}

/// Adds the projection of `rows` rows of mixed values to `x`. Nothing but attention has one.
fn project(
    gpu: &Gpu,
    layer: &Layer,
    rows: usize,
    codes: &mut Codes,
    context: &CudaSlice<f32>,
    x: &mut CudaSlice<f32>,
) -> Result<(), DriverError> {
    let Body::Attention { out, .. } = &layer.body else {
        return Ok(());
    };
    gpu.quantize_rows(context, rows, out.k, None, codes)?;
    gpu.product(codes, rows, out, Sink::Add, x)
}

/// Adds what the two linear layers make of `rows` rows to `x`.
fn feed_forward(
    gpu: &Gpu,
    layer: &Layer,
    rows: usize,
    codes: &mut Codes,
    hidden: &mut CudaSlice<f32>,
    x: &mut CudaSlice<f32>,
) -> Result<(), DriverError> {
    let Body::FeedForward {
        up,
        activation,
        down,
    } = &layer.body
    else {
        return Ok(());
    };
    gpu.quantize_rows(x, rows, up.k, Some(layer), codes)?;
    gpu.product(codes, rows, up, Sink::Store(*activation), hidden)?;
    gpu.quantize_rows(hidden, rows, down.k, None, codes)?;
    gpu.product(codes, rows, down, Sink::Add, x)
}

impl Device for Tower {
    fn run(&self, x: &mut Vec<f32>, batch: Batch) -> Result<(), String> {
        let rows = batch.batch * batch.tokens;
        if rows > MAX_ROWS || x.len() != rows * self.width {
            return Err(format!("{batch:?} of {} values", x.len()));
        }
        let state = &mut *self.state.lock().unwrap_or_else(PoisonError::into_inner);
        caught(|| {
            self.run_on(state, x, batch)
                .map_err(|e| said("encoding on the GPU", e))
        })
    }

    fn most_rows(&self) -> usize {
        MAX_ROWS
    }
}

impl Tower {
    /// The first time that a batch has its size it runs kernel by kernel and is recorded; from then on one
    /// call of the driver starts all of it.
    fn run_on(&self, state: &mut State, x: &mut Vec<f32>, batch: Batch) -> Result<(), DriverError> {
        let stream = &self.gpu.stream;
        let buffers = self.buffers(state, batch)?;
        stream.memcpy_htod(x, &mut buffers.x)?;
        let key = (batch.batch, batch.tokens);
        if let Some(Recorded(graph)) = state.graphs.get(&key) {
            graph.launch()?;
        } else {
            let buffers = state.buffers.as_mut().expect("made above");
            self.enqueue(buffers, batch)?;
        }
        let buffers = state.buffers.as_ref().expect("made above");
        let (result, len) = if self.rest.is_empty() {
            (&buffers.x, x.len())
        } else {
            (&buffers.kept, batch.batch * self.width)
        };
        let mut out = vec![0.0; len];
        stream.memcpy_dtoh(&result.slice(..len), &mut out)?;
        stream.synchronize()?;
        *x = out;
        if !state.graphs.contains_key(&key) && !state.cannot_record {
            match self.record(state, batch) {
                Ok(Some(graph)) => {
                    state.graphs.insert(key, Recorded(graph));
                }
                Ok(None) => state.cannot_record = true,
                Err(error) => {
                    log::warn!("{}", said("recording a CUDA graph", error));
                    state.cannot_record = true;
                }
            }
        }
        Ok(())
    }

    fn record(&self, state: &mut State, batch: Batch) -> Result<Option<CudaGraph>, DriverError> {
        let stream = &self.gpu.stream;
        let buffers = state.buffers.as_mut().expect("made before");
        stream.begin_capture(CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_THREAD_LOCAL)?;
        let enqueued = self.enqueue(buffers, batch);
        let graph = stream.end_capture(CUgraphInstantiate_flags(0))?;
        enqueued?;
        Ok(graph)
    }
}
