//! Sublayers in the GPU's memory, and the kernels that run them.

use cudarc::driver::{CudaSlice, DriverError, LaunchConfig, PushKernelArg};

use super::gpu::{Queue, said};
use crate::encoder::int8::kernels::Activation;
use crate::encoder::int8::patches::Geometry;
use crate::encoder::int8::sublayer::{self, Linear, Placement, Sublayer};

/// Largest row that [`quantize_rows`](Queue::quantize_rows) holds in shared memory.
const MAX_K: usize = 8192;
/// `TILE_ROWS`, `TILE_COLUMNS`, `TILE_K` and the threads of the kernels.
const TILE_ROWS: usize = 64;
const TILE_COLUMNS: usize = 32;
const TILE_K: usize = 64;
const THREADS: u32 = 128;
/// `QUERIES` of the kernel `attention`.
const QUERIES: usize = 16;

/// A linear layer.
pub(super) struct Matrix {
    /// As [`PackedMatrix::packed`](crate::encoder::int8::kernels::PackedMatrix::packed).
    weights: CudaSlice<u8>,
    /// `[n]` each.
    scales: CudaSlice<f32>,
    column_sums: CudaSlice<i32>,
    bias: CudaSlice<f32>,
    pub(super) n: usize,
    pub(super) k: usize,
}

/// What stands beside the residual.
pub(super) enum Body {
    Attention(Attention),
    FeedForward(FeedForward),
}

/// As [`sublayer::Attention`], without a mask.
pub(super) struct Attention {
    pub(super) qkv: Matrix,
    pub(super) out: Matrix,
    pub(super) heads: usize,
    pub(super) dim: usize,
    pub(super) scale: f32,
}

/// As [`sublayer::FeedForward`].
pub(super) struct FeedForward {
    pub(super) up: Matrix,
    pub(super) activation: Activation,
    pub(super) down: Matrix,
}

/// A sublayer that normalises its input.
pub(super) struct Layer {
    pub(super) gamma: CudaSlice<f32>,
    pub(super) beta: CudaSlice<f32>,
    pub(super) epsilon: f32,
    pub(super) body: Body,
}

/// `[rows, k]` codes, a scale and a zero point for each row.
pub(super) struct Codes {
    /// Rows in whole tiles, each [`stride`] bytes.
    pub(super) codes: CudaSlice<u8>,
    pub(super) scales: CudaSlice<f32>,
    pub(super) zeros: CudaSlice<i32>,
}

/// What becomes of a product.
#[derive(Clone, Copy)]
pub(super) enum Sink {
    /// `out = activation(y)`.
    Store(Activation),
    /// `out = out + y`.
    Add,
}

impl Sink {
    /// The number that the kernel knows it by.
    fn number(self) -> i32 {
        match self {
            Self::Add => -1,
            Self::Store(Activation::None) => 0,
            Self::Store(Activation::Gelu) => 1,
            Self::Store(Activation::QuickGelu) => 2,
            Self::Store(Activation::GeluTanh) => 3,
            Self::Store(Activation::Relu) => 4,
            Self::Store(Activation::Tanh) => 5,
        }
    }
}

/// Which queries attention is computed for.
#[derive(Clone, Copy)]
pub(super) struct Queries {
    pub(super) batch: usize,
    pub(super) tokens: usize,
    /// Of each sequence.
    pub(super) first: usize,
    pub(super) count: usize,
}

/// Bytes of a row of `k` codes.
fn stride(k: usize) -> usize {
    k.next_multiple_of(TILE_K)
}

/// Rows in whole tiles.
fn padded(rows: usize) -> usize {
    rows.next_multiple_of(TILE_ROWS)
}

/// Sizes are far below 2³¹: [`Layer::upload`] and the tower's limit of rows see to it.
fn int(size: usize) -> i32 {
    i32::try_from(size).expect("a size below 2³¹")
}

/// So many blocks of [`THREADS`], each with so much dynamic shared memory.
fn blocks(count: [usize; 3], bytes: usize) -> LaunchConfig {
    let size = |size: usize| u32::try_from(size).expect("a size below 2³²");
    LaunchConfig {
        grid_dim: count.map(size).into(),
        block_dim: (THREADS, 1, 1),
        shared_mem_bytes: size(bytes),
    }
}

impl Matrix {
    /// Copies a linear layer to the GPU.
    ///
    /// # Errors
    /// One that is too large for the kernels, or what the driver said.
    pub(super) fn upload(queue: &Queue, linear: &Linear) -> Result<Self, String> {
        let (n, k) = (linear.weights.n(), linear.weights.k());
        if n.max(k) > MAX_K {
            return Err(format!("a matrix of {n}×{k}; at most {MAX_K} either way"));
        }
        let (weights, stream) = (&linear.weights, &queue.stream);
        let upload = || {
            Ok(Self {
                weights: stream.clone_htod(weights.packed())?,
                scales: stream.clone_htod(weights.scales())?,
                column_sums: stream.clone_htod(weights.column_sums())?,
                bias: stream.clone_htod(&linear.bias)?,
                n,
                k,
            })
        };
        upload().map_err(not_copied)
    }
}

fn not_copied(error: DriverError) -> String {
    said("copying weights to the GPU", error)
}

impl Codes {
    /// Whether `[rows, k]` codes in whole tiles are within the buffers.
    fn has_room(&self, rows: usize, k: usize) -> bool {
        padded(rows) * stride(k) <= self.codes.len()
            && rows <= self.scales.len().min(self.zeros.len())
    }

    /// Room for so many rows of `k`.
    pub(super) fn new(queue: &Queue, rows: usize, k: usize) -> Result<Self, DriverError> {
        let rows = padded(rows);
        Ok(Self {
            codes: queue.stream.alloc_zeros(rows * stride(k))?,
            scales: queue.stream.alloc_zeros(rows)?,
            zeros: queue.stream.alloc_zeros(rows)?,
        })
    }
}

impl Layer {
    /// Copies a sublayer to the GPU, for sequences of `tokens`.
    ///
    /// # Errors
    /// One that the kernels do not serve, or what the driver said.
    pub(super) fn upload(
        queue: &Queue,
        sublayer: &Sublayer,
        tokens: usize,
    ) -> Result<Self, String> {
        if sublayer.placement() != Placement::Pre {
            return Err("a normalisation behind the sum".to_owned());
        }
        let matrix = |linear: &Linear| Matrix::upload(queue, linear);
        let body = match sublayer.body() {
            sublayer::Body::Attention(body) => {
                if body.masked || body.causal {
                    return Err("attention with a mask".to_owned());
                }
                let bytes = attention_bytes(body.dim, tokens);
                if bytes > queue.kernels.attention_bytes {
                    return Err(format!(
                        "attention over {tokens} tokens: {bytes} bytes of shared memory, this GPU has {}",
                        queue.kernels.attention_bytes
                    ));
                }
                Body::Attention(Attention {
                    qkv: matrix(&body.qkv)?,
                    out: matrix(&body.out)?,
                    heads: body.heads,
                    dim: body.dim,
                    scale: body.scale,
                })
            }
            sublayer::Body::FeedForward(body) => Body::FeedForward(FeedForward {
                up: matrix(&body.up)?,
                activation: body.activation,
                down: matrix(&body.down)?,
            }),
        };
        let norm = sublayer.norm();
        Ok(Self {
            gamma: queue.stream.clone_htod(&norm.gamma).map_err(not_copied)?,
            beta: queue.stream.clone_htod(&norm.beta).map_err(not_copied)?,
            epsilon: norm.epsilon,
            body,
        })
    }
}

/// Shared memory for sixteen queries and their scores.
fn attention_bytes(dim: usize, tokens: usize) -> usize {
    QUERIES * (dim + tokens) * size_of::<f32>()
}

impl Queue {
    /// Waits for copies to arrive, of which `all` were given to the driver or some.
    ///
    /// # Errors
    /// One of them did not.
    pub(super) fn arrive(&self, all: bool) -> Result<(), String> {
        let arrived = self.stream.synchronize().map_err(not_copied);
        if !all || arrived.is_err() {
            self.settle();
        }
        arrived
    }

    /// Quantizes `[rows, k]` from the start of `x`, normalised first where a layer is given.
    pub(super) fn quantize_rows(
        &self,
        x: &CudaSlice<f32>,
        rows: usize,
        k: usize,
        norm: Option<&Layer>,
        out: &mut Codes,
    ) -> Result<(), DriverError> {
        assert!(rows * k <= x.len() && k <= MAX_K, "rows to quantize");
        assert!(out.has_room(rows, k), "codes of [{rows}, {k}]");
        let (k_int, stride) = (int(k), int(stride(k)));
        let mut launch = self.stream.launch_builder(&self.kernels.quantize_rows);
        launch.arg(x).arg(&k_int).arg(&stride);
        if let Some(norm) = norm {
            assert_eq!((norm.gamma.len(), norm.beta.len()), (k, k), "a LayerNorm");
            launch.arg(&norm.gamma).arg(&norm.beta).arg(&norm.epsilon);
        } else {
            launch.arg(&0_u64).arg(&0_u64).arg(&0_f32);
        }
        launch.arg(&mut out.codes);
        launch.arg(&mut out.scales).arg(&mut out.zeros);
        let config = blocks([rows, 1, 1], k * size_of::<f32>());
        // SAFETY: the arguments are the kernel's; it reads `rows · k` values and parameters for `k`, and
        // writes `rows` rows of `stride` codes, scales and zero points, all of which are there.
        unsafe { launch.launch(config) }.map(drop)
    }

    /// Quantizes the patches of `count` pictures, `[channels, height, width]` each, one after another.
    pub(super) fn quantize_patches(
        &self,
        pictures: &CudaSlice<f32>,
        count: usize,
        geometry: Geometry,
        out: &mut Codes,
    ) -> Result<(), DriverError> {
        let [height, width] = geometry.picture;
        let (k, rows) = (geometry.patch_len(), count * geometry.patches());
        assert!(count * geometry.picture_len() <= pictures.len() && k <= MAX_K);
        assert!(out.has_room(rows, k), "codes of [{rows}, {k}]");
        let numbers = [
            geometry.channels,
            height,
            width,
            geometry.patch[0],
            geometry.patch[1],
            stride(k),
        ]
        .map(int);
        let mut launch = self.stream.launch_builder(&self.kernels.quantize_patches);
        launch.arg(pictures);
        for number in &numbers {
            launch.arg(number);
        }
        launch.arg(&mut out.codes);
        launch.arg(&mut out.scales).arg(&mut out.zeros);
        let config = blocks([rows, 1, 1], k * size_of::<f32>());
        // SAFETY: the arguments are the kernel's; patches cover the pictures, which are there, and `rows`
        // rows of codes, scales and zero points are.
        unsafe { launch.launch(config) }.map(drop)
    }

    /// `[rows, n]` at the start of `out` becomes, or is added, codes · weightsᵀ + bias.
    pub(super) fn product(
        &self,
        x: &Codes,
        rows: usize,
        matrix: &Matrix,
        sink: Sink,
        out: &mut CudaSlice<f32>,
    ) -> Result<(), DriverError> {
        let Matrix { n, k, .. } = *matrix;
        assert!(x.has_room(rows, k), "codes of [{rows}, {k}]");
        assert!(rows * n <= out.len(), "a product of [{rows}, {n}]");
        let (rows_int, stride, n_int) = (int(rows), int(stride(k)), int(n));
        let sink = sink.number();
        let mut launch = self.stream.launch_builder(&self.kernels.product);
        launch.arg(&x.codes).arg(&x.scales).arg(&x.zeros);
        launch.arg(&rows_int).arg(&stride);
        launch.arg(&matrix.weights).arg(&n_int);
        launch.arg(&matrix.scales).arg(&matrix.column_sums);
        launch.arg(&matrix.bias).arg(&sink).arg(out);
        let tiles = [n.div_ceil(TILE_COLUMNS), rows.div_ceil(TILE_ROWS), 1];
        let config = blocks(tiles, 0);
        // SAFETY: the arguments are the kernel's; it reads whole tiles of codes, whole panels of
        // weights, of which a packed matrix consists, and `n` scales, sums and biases; it writes
        // `rows · n` values.
        unsafe { launch.launch(config) }.map(drop)
    }

    /// Mixes values: `qkv` is `[batch · tokens, 3 · heads · dim]`, `out` `[batch · count, heads · dim]`.
    pub(super) fn attention(
        &self,
        qkv: &CudaSlice<f32>,
        queries: Queries,
        heads: usize,
        dim: usize,
        scale: f32,
        out: &mut CudaSlice<f32>,
    ) -> Result<(), DriverError> {
        let Queries {
            batch,
            tokens,
            first,
            count,
        } = queries;
        assert!(first + count <= tokens, "queries of {tokens} tokens");
        assert!(batch * tokens * 3 * heads * dim <= qkv.len(), "q, k and v");
        assert!(batch * count * heads * dim <= out.len(), "mixed values");
        let bytes = attention_bytes(dim, tokens);
        assert!(bytes <= self.kernels.attention_bytes, "shared memory");
        let (tokens, dim, first) = (int(tokens), int(dim), int(first));
        let count_int = int(count);
        let mut launch = self.stream.launch_builder(&self.kernels.attention);
        launch.arg(qkv).arg(&tokens).arg(&dim).arg(&scale);
        launch.arg(&first).arg(&count_int).arg(out);
        let config = blocks([count.div_ceil(QUERIES), heads, batch], bytes);
        // SAFETY: the arguments are the kernel's; what it reads and writes was looked at above.
        unsafe { launch.launch(config) }.map(drop)
    }

    /// `out[b] = x[b · tokens + token]`, rows of `width`.
    pub(super) fn keep_token(
        &self,
        x: &CudaSlice<f32>,
        batch: usize,
        tokens: usize,
        token: usize,
        width: usize,
        out: &mut CudaSlice<f32>,
    ) -> Result<(), DriverError> {
        assert!(token < tokens && batch * tokens * width <= x.len());
        assert!(batch * width <= out.len(), "kept tokens");
        let (tokens, token, width) = (int(tokens), int(token), int(width));
        let mut launch = self.stream.launch_builder(&self.kernels.keep_token);
        launch.arg(x).arg(&tokens).arg(&token).arg(&width).arg(out);
        let config = blocks([batch, 1, 1], 0);
        // SAFETY: the arguments are the kernel's; what it reads and writes was looked at above.
        unsafe { launch.launch(config) }.map(drop)
    }
}
