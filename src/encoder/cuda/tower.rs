//! A tower's sublayers on the GPU.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use cudarc::driver::sys::{CUgraphInstantiate_flags, CUstreamCaptureMode};
use cudarc::driver::{CudaGraph, CudaSlice, DriverError};

use super::gpu::{Gpu, Queue, caught, said};
use super::layers::{Attention, Body, Codes, FeedForward, Layer, Queries, Sink};
use crate::encoder::int8::kernels::Activation;
use crate::encoder::int8::op::{Device, Sublayers};
use crate::encoder::int8::sublayer::{Batch, Sublayer};

/// Rows of one call: 16 pictures of 1024 tokens.
const MAX_ROWS: usize = 1 << 14;

/// Sublayers one after another, in the GPU's memory.
pub(super) struct Tower {
    queue: Queue,
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
        let queue = gpu.queue()?;
        let upload = |sublayers: &[Arc<Sublayer>]| {
            let layers = sublayers.iter();
            layers
                .map(|sublayer| Layer::upload(&queue, sublayer, tokens))
                .collect::<Result<Vec<_>, _>>()
        };
        let (whole, rest) = sublayers.split();
        let uploaded = upload(whole).and_then(|whole| Ok((whole, upload(rest)?)));
        queue.arrive(uploaded.is_ok())?;
        let (whole, rest) = uploaded?;
        Ok(Self {
            whole,
            rest,
            queue,
            token: sublayers.wanted().map_or(0, |wanted| wanted.token),
            width: sublayers.width(),
            state: Mutex::default(),
        })
    }

    /// Buffers for so many rows, larger ones than before where they do not suffice.
    fn buffers<'a>(
        &self,
        state: &'a mut State,
        batch: Batch,
    ) -> Result<&'a mut Buffers, DriverError> {
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
                Body::Attention(Attention { qkv, out, .. }) => {
                    hidden = hidden.max(qkv.n);
                    inner = inner.max(out.k);
                    k = k.max(out.k);
                }
                Body::FeedForward(FeedForward { up, .. }) => {
                    hidden = hidden.max(up.n);
                    k = k.max(up.n);
                }
            }
        }
        let stream = &self.queue.stream;
        Ok(Buffers {
            rows,
            batch,
            x: stream.alloc_zeros(rows * self.width)?,
            kept: stream.alloc_zeros(batch * self.width)?,
            codes: Codes::new(&self.queue, rows, k)?,
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
        let queue = &self.queue;
        let rows = batch * tokens;
        let all = Queries {
            batch,
            tokens,
            first: 0,
            count: tokens,
        };
        for layer in &self.whole {
            match &layer.body {
                Body::Attention(body) => {
                    mix(queue, layer, body, x, all, codes, hidden, context)?;
                    project(queue, body, rows, codes, context, x)?;
                }
                Body::FeedForward(body) => {
                    feed_forward(queue, layer, body, rows, codes, hidden, x)?;
                }
            }
        }
        let token = self.token;
        for (i, layer) in self.rest.iter().enumerate() {
            // The last attention is the first of them, where there is one.
            let body = match &layer.body {
                Body::Attention(body) => {
                    let one = Queries {
                        first: token,
                        count: 1,
                        ..all
                    };
                    mix(queue, layer, body, x, one, codes, hidden, context)?;
                    queue.keep_token(x, batch, tokens, token, self.width, kept)?;
                    project(queue, body, batch, codes, context, kept)?;
                    continue;
                }
                Body::FeedForward(body) => body,
            };
            if i == 0 {
                queue.keep_token(x, batch, tokens, token, self.width, kept)?;
            }
            feed_forward(queue, layer, body, batch, codes, hidden, kept)?;
        }
        Ok(())
    }
}

/// From the tokens `x` to mixed values.
#[expect(clippy::too_many_arguments, reason = "one sublayer and the buffers")]
fn mix(
    queue: &Queue,
    layer: &Layer,
    body: &Attention,
    x: &CudaSlice<f32>,
    queries: Queries,
    codes: &mut Codes,
    hidden: &mut CudaSlice<f32>,
    context: &mut CudaSlice<f32>,
) -> Result<(), DriverError> {
    let Attention {
        qkv, heads, dim, ..
    } = body;
    let rows = queries.batch * queries.tokens;
    queue.quantize_rows(x, rows, qkv.k, Some(layer), codes)?;
    queue.product(codes, rows, qkv, Sink::Store(Activation::None), hidden)?;
    queue.attention(hidden, queries, *heads, *dim, body.scale, context)
}

/// Adds the projection of `rows` rows of mixed values to `x`.
fn project(
    queue: &Queue,
    body: &Attention,
    rows: usize,
    codes: &mut Codes,
    context: &CudaSlice<f32>,
    x: &mut CudaSlice<f32>,
) -> Result<(), DriverError> {
    queue.quantize_rows(context, rows, body.out.k, None, codes)?;
    queue.product(codes, rows, &body.out, Sink::Add, x)
}

/// Adds what the two linear layers make of `rows` rows to `x`.
fn feed_forward(
    queue: &Queue,
    layer: &Layer,
    body: &FeedForward,
    rows: usize,
    codes: &mut Codes,
    hidden: &mut CudaSlice<f32>,
    x: &mut CudaSlice<f32>,
) -> Result<(), DriverError> {
    let FeedForward { up, down, .. } = body;
    queue.quantize_rows(x, rows, up.k, Some(layer), codes)?;
    queue.product(codes, rows, up, Sink::Store(body.activation), hidden)?;
    queue.quantize_rows(hidden, rows, down.k, None, codes)?;
    queue.product(codes, rows, down, Sink::Add, x)
}

impl Device for Tower {
    fn run(&self, x: &mut Vec<f32>, batch: Batch) -> Result<(), String> {
        let rows = batch.batch * batch.tokens;
        if rows == 0 || rows > MAX_ROWS || x.len() != rows * self.width {
            return Err(format!("{batch:?} of {} values", x.len()));
        }
        let state = &mut *self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let mut out = Vec::new();
        let done = caught(|| {
            self.run_on(state, x, &mut out, batch)
                .map_err(|e| said("encoding on the GPU", e))
        });
        if done.is_err() {
            // Before what copies read or write goes.
            self.queue.settle();
        }
        done?;
        *x = out;
        Ok(())
    }

    fn most_rows(&self) -> usize {
        MAX_ROWS
    }
}

impl Tower {
    /// The first time that a batch has its size it runs kernel by kernel and is recorded; from then on one
    /// call of the driver starts all of it. What `out` holds afterwards is the result, if there is no error.
    fn run_on(
        &self,
        state: &mut State,
        x: &[f32],
        out: &mut Vec<f32>,
        batch: Batch,
    ) -> Result<(), DriverError> {
        let stream = &self.queue.stream;
        let key = (batch.batch, batch.tokens);
        let buffers = self.buffers(state, batch)?;
        stream.memcpy_htod(x, &mut buffers.x)?;
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
        out.resize(len, 0.0);
        stream.memcpy_dtoh(&result.slice(..len), out)?;
        stream.synchronize()?;
        if !state.graphs.contains_key(&key) && !state.cannot_record {
            match caught(|| self.record(state, batch)) {
                Ok(graph) => {
                    state.graphs.insert(key, Recorded(graph));
                }
                Err(problem) => {
                    log::warn!("{problem}; the GPU is told of each kernel by itself");
                    state.cannot_record = true;
                }
            }
        }
        Ok(())
    }

    /// Takes down what [`Self::enqueue`] gives to the GPU.
    fn record(&self, state: &mut State, batch: Batch) -> Result<CudaGraph, String> {
        let stream = &self.queue.stream;
        let failed = |e| said("recording a CUDA graph", e);
        let buffers = state.buffers.as_mut().expect("made before");
        let mode = CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_THREAD_LOCAL;
        stream.begin_capture(mode).map_err(failed)?;
        let enqueued = caught(|| self.enqueue(buffers, batch).map_err(failed));
        let graph = stream
            .end_capture(CUgraphInstantiate_flags(0))
            .map_err(failed);
        enqueued?;
        graph?.ok_or_else(|| "recording a CUDA graph: nothing was recorded".to_owned())
    }

    /// How many graphs have been recorded.
    #[cfg(test)]
    pub(super) fn recorded(&self) -> usize {
        self.state.lock().unwrap().graphs.len()
    }
}
