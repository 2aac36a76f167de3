//! Residual transformer sublayers on int8 kernels.
//!
//! ```text
//! pre-norm   x + f(norm(x))        ViT, CLIP
//! post-norm  norm(x + f(x))        BERT
//! f          out(attention(qkv(·)))   or   down(activation(up(·)))
//! ```

use super::kernels::{
    Activation, Context, Order, PackedMatrix, QuantizedRows, Token, attention, attention_int8,
    layer_norm, linear, linear_add, linear_of_token, linear_ordered,
};

/// Queries from which the products of attention are int8 ones: with fewer, packing keys and values
/// costs what the products save. A causal mask saves the f32 products half their work. It depends on
/// the operator and the shape alone, so that all processors agree.
const INT8_ATTENTION_FROM: usize = 96;

/// Layer normalisation over the last axis.
#[derive(Clone, Debug, PartialEq)]
pub struct LayerNorm {
    /// γ, `[width]`.
    pub gamma: Vec<f32>,
    /// β, `[width]`.
    pub beta: Vec<f32>,
    /// ε, added to the variance.
    pub epsilon: f32,
}

/// Where a sublayer is normalised.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Placement {
    /// Its input is, the residual is not.
    Pre,
    /// The sum is.
    Post,
}

/// `y = x · Wᵀ + b`.
#[derive(Clone, Debug)]
pub struct Linear {
    /// `[n, k]`.
    pub weights: PackedMatrix,
    /// `[n]`.
    pub bias: Vec<f32>,
}

/// Multi-head self attention with its projections.
#[derive(Clone, Debug)]
pub struct Attention {
    /// `[3 · heads · dim, width]`: query, key, value, each head by head.
    pub qkv: Linear,
    /// `[width, heads · dim]`.
    pub out: Linear,
    /// Number of heads.
    pub heads: usize,
    /// Channels of a head.
    pub dim: usize,
    /// Factor of the products of query and key.
    pub scale: f32,
    /// Whether a query sees no later key.
    pub causal: bool,
    /// Whether a value is added to the scores of each key.
    pub masked: bool,
}

/// Two linear layers with an activation between them.
#[derive(Clone, Debug)]
pub struct FeedForward {
    /// `[hidden, width]`.
    pub up: Linear,
    /// Between them.
    pub activation: Activation,
    /// `[width, hidden]`.
    pub down: Linear,
}

/// What stands beside the residual.
#[derive(Clone, Debug)]
pub enum Body {
    /// Tokens look at each other.
    Attention(Attention),
    /// Each token on its own.
    FeedForward(FeedForward),
}

/// A residual sublayer. Its parts fit each other.
#[derive(Clone, Debug)]
pub struct Sublayer {
    norm: LayerNorm,
    placement: Placement,
    body: Body,
}

/// Buffers that are kept from call to call.
#[derive(Default)]
pub struct Scratch {
    rows: QuantizedRows,
    hidden: Vec<f32>,
    context: Vec<f32>,
}

/// Shape of a batch: `[batch · tokens, width]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Batch {
    /// Sequences.
    pub batch: usize,
    /// Tokens of each.
    pub tokens: usize,
}

impl Sublayer {
    /// Checks that the parts fit.
    ///
    /// # Errors
    /// Which part does not.
    pub fn new(norm: LayerNorm, placement: Placement, body: Body) -> Result<Self, String> {
        let width = norm.gamma.len();
        let fits = |linear: &Linear, n: usize, k: usize| {
            linear.weights.n() == n && linear.weights.k() == k && linear.bias.len() == n
        };
        let finite = |values: &[f32]| values.iter().all(|v| v.is_finite());
        if width == 0 || norm.beta.len() != width || !finite(&norm.gamma) || !finite(&norm.beta) {
            return Err(format!(
                "a layer normalisation of width {width} does not fit itself"
            ));
        }
        if !(norm.epsilon.is_finite() && norm.epsilon >= 0.0) {
            return Err(format!("{} cannot be added to a variance", norm.epsilon));
        }
        let (fit, biases) = match &body {
            Body::Attention(a) => {
                let inner = a.heads.checked_mul(a.dim).filter(|inner| *inner > 0);
                let inner = inner.ok_or("an attention without heads")?;
                let both = fits(&a.qkv, 3 * inner, width) && fits(&a.out, width, inner);
                (both && a.scale.is_finite(), [&a.qkv.bias, &a.out.bias])
            }
            Body::FeedForward(f) => {
                let hidden = f.up.weights.n();
                let both = fits(&f.up, hidden, width) && fits(&f.down, width, hidden);
                (both, [&f.up.bias, &f.down.bias])
            }
        };
        if !fit || !biases.into_iter().all(|bias| finite(bias)) {
            return Err(format!(
                "the matrices of a sublayer of width {width} do not fit"
            ));
        }
        Ok(Self {
            norm,
            placement,
            body,
        })
    }

    /// Channels of a token.
    pub fn width(&self) -> usize {
        self.norm.gamma.len()
    }

    /// The normalisation.
    pub fn norm(&self) -> &LayerNorm {
        &self.norm
    }

    /// Where it stands.
    pub fn placement(&self) -> Placement {
        self.placement
    }

    /// What stands beside the residual.
    pub fn body(&self) -> &Body {
        &self.body
    }

    /// Whether [`Self::run`] needs a mask.
    pub fn is_masked(&self) -> bool {
        matches!(&self.body, Body::Attention(attention) if attention.masked)
    }

    /// Replaces `x`, `[batch · tokens, width]`, by the sublayer's result. `mask`, `[batch, tokens]`,
    /// is added to the scores of each key.
    ///
    /// # Panics
    /// When `x` or `mask` has another length, or a mask is missing.
    pub fn run(
        &self,
        cx: &Context,
        scratch: &mut Scratch,
        x: &mut Vec<f32>,
        shape: Batch,
        mask: Option<&[f32]>,
    ) {
        let rows = shape.batch * shape.tokens;
        self.begin(cx, scratch, x, rows);
        match &self.body {
            Body::Attention(body) => {
                body.mix(cx, scratch, shape, mask, None);
                body.project(cx, scratch, x, rows);
            }
            Body::FeedForward(body) => body.run(cx, scratch, x, rows),
        }
        self.finish(cx, scratch, x, rows);
    }

    /// As [`Self::run`], but of the result only one token of each sequence is computed: `x` is
    /// `[batch, width]` afterwards. Of the others attention needs keys and values, and nothing else
    /// anything.
    ///
    /// # Panics
    /// As [`Self::run`]; when `token` is not less than `shape.tokens`.
    pub fn run_for_token(
        &self,
        cx: &Context,
        scratch: &mut Scratch,
        x: &mut Vec<f32>,
        shape: Batch,
        mask: Option<&[f32]>,
        token: usize,
    ) {
        let Batch { batch, tokens } = shape;
        assert!(token < tokens, "token {token} of {tokens}");
        let Body::Attention(body) = &self.body else {
            self.keep_token(x, shape, token);
            return self.run(cx, scratch, x, Batch { batch, tokens: 1 }, None);
        };
        self.begin(cx, scratch, x, batch * tokens);
        body.mix(cx, scratch, shape, mask, Some(token));
        self.keep_token(x, shape, token);
        body.project(cx, scratch, x, batch);
        self.finish(cx, scratch, x, batch);
    }

    /// Leaves one token of each sequence in `x`.
    fn keep_token(&self, x: &mut Vec<f32>, shape: Batch, token: usize) {
        let width = self.width();
        for sequence in 0..shape.batch {
            let row = (sequence * shape.tokens + token) * width;
            x.copy_within(row..row + width, sequence * width);
        }
        x.truncate(shape.batch * width);
    }

    /// Quantizes what goes into the body.
    fn begin(&self, cx: &Context, scratch: &mut Scratch, x: &[f32], rows: usize) {
        let width = self.width();
        assert_eq!(x.len(), rows * width, "rows of a sublayer");
        let (norm, quantized) = (&self.norm, &mut scratch.rows);
        match self.placement {
            Placement::Pre => {
                let (gamma, beta) = (&norm.gamma, &norm.beta);
                quantized.layer_norm(cx, x, rows, width, gamma, beta, norm.epsilon);
            }
            Placement::Post => quantized.quantize(cx, x, rows, width),
        }
    }

    /// Normalises the sum where that comes last.
    fn finish(&self, cx: &Context, scratch: &mut Scratch, x: &mut Vec<f32>, rows: usize) {
        if self.placement == Placement::Pre {
            return;
        }
        let width = self.width();
        let (norm, out) = (&self.norm, &mut scratch.context);
        out.resize(rows * width, 0.0);
        let (gamma, beta) = (&norm.gamma, &norm.beta);
        layer_norm(cx, x, rows, width, gamma, beta, norm.epsilon, out);
        std::mem::swap(x, &mut scratch.context);
    }
}

impl Attention {
    /// Mixes the values of `scratch.rows` into `scratch.context`, `[batch · tokens, heads · dim]`, or for
    /// one query of each sequence into `[batch, heads · dim]`. Packing keys and values for one query does
    /// not pay: its products are f32 ones, however many the tokens are.
    fn mix(
        &self,
        cx: &Context,
        scratch: &mut Scratch,
        shape: Batch,
        mask: Option<&[f32]>,
        token: Option<usize>,
    ) {
        let Batch { batch, tokens } = shape;
        let inner = self.heads * self.dim;
        let mask = self
            .masked
            .then(|| mask.expect("a mask for a masked attention"));
        let queries = token.map_or(0..tokens, |token| token..token + 1);
        let Linear { weights, bias } = &self.qkv;
        let order = Order::of_heads(self.dim);
        let hidden = first(&mut scratch.hidden, order.len(batch * tokens, 3 * inner));
        let context = first(&mut scratch.context, batch * queries.len() * inner);
        let rows = &scratch.rows;
        match token {
            None => linear_ordered(cx, rows, weights, bias, order, hidden),
            Some(at) => {
                let token = Token { at, of: tokens };
                linear_of_token(cx, rows, weights, bias, inner, token, order, hidden);
            }
        }
        let (heads, dim, scale) = (self.heads, self.dim, self.scale);
        if self.causal || queries.len() < INT8_ATTENTION_FROM {
            let causal = self.causal;
            attention(
                cx, hidden, order, batch, tokens, heads, dim, scale, mask, causal, queries, context,
            );
        } else {
            attention_int8(
                cx, hidden, order, batch, tokens, heads, dim, scale, mask, context,
            );
        }
    }

    /// Adds the projection of `rows` rows of `scratch.context` to `x`.
    fn project(&self, cx: &Context, scratch: &mut Scratch, x: &mut [f32], rows: usize) {
        let inner = self.heads * self.dim;
        let context = &scratch.context[..rows * inner];
        scratch.rows.quantize(cx, context, rows, inner);
        linear_add(cx, &scratch.rows, &self.out.weights, &self.out.bias, x);
    }
}

/// The first `len` values of a buffer that grows where it has to: what is written first needs no
/// zeros.
fn first(buffer: &mut Vec<f32>, len: usize) -> &mut [f32] {
    if buffer.len() < len {
        buffer.resize(len, 0.0);
    }
    &mut buffer[..len]
}

impl FeedForward {
    /// Adds the result of the two layers over `scratch.rows` to `x`.
    fn run(&self, cx: &Context, scratch: &mut Scratch, x: &mut [f32], rows: usize) {
        let n = self.up.weights.n();
        let (up, down) = (&self.up, &self.down);
        let hidden = first(&mut scratch.hidden, rows * n);
        linear(
            cx,
            &scratch.rows,
            &up.weights,
            &up.bias,
            self.activation,
            hidden,
        );
        scratch.rows.quantize(cx, hidden, rows, n);
        linear_add(cx, &scratch.rows, &down.weights, &down.bias, x);
    }
}

#[cfg(test)]
pub(super) mod tests;
