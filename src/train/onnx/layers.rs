//! The parts transformers are made of, as ONNX nodes.

use tract_onnx::pb::tensor_proto::DataType;

use super::graph::{Graph, float, int, ints, signed};

/// Added to the score of a token that is padding or lies ahead: after the softmax its weight is 0.
pub const MASKED_SCORE: f32 = -1e4;

/// A matrix that stands right in a product, and what is added to each row.
pub struct Linear {
    /// `[inputs, outputs]`, row-major.
    pub weight: Vec<f32>,
    /// Width of a row that goes in.
    pub inputs: usize,
    /// Width of a row that comes out.
    pub outputs: usize,
    /// `[outputs]`.
    pub bias: Option<Vec<f32>>,
}

/// Scale, shift and ε of a layer normalisation over the last axis.
pub struct Norm {
    /// `[width]`.
    pub weight: Vec<f32>,
    /// `[width]`.
    pub bias: Vec<f32>,
    /// Added to the variance.
    pub epsilon: f32,
}

/// A pointwise function.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Activation {
    /// `max(x, 0)`.
    Relu,
    /// `x · Φ(x) = x/2 · (1 + erf(x/√2))` (Hendrycks and Gimpel, 2016).
    Gelu,
    /// GELU's tanh form: `x/2 · (1 + tanh(√(2/π) · (x + 0.044715 x³)))`.
    GeluTanh,
    /// `x · σ(1.702 x)`, as OpenAI's CLIP has it.
    QuickGelu,
    /// `tanh(x)`.
    Tanh,
}

/// How a row is split for multi-head attention.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Heads {
    /// How many.
    pub count: usize,
    /// Width of one.
    pub width: usize,
}

impl Heads {
    /// `1/√width`, which the scores are multiplied by.
    #[expect(clippy::cast_precision_loss, reason = "tens of values a head")]
    pub fn scale(self) -> f32 {
        1.0 / (self.width as f32).sqrt()
    }
}

impl Graph {
    /// A scalar constant, made once per value; returns its name.
    pub fn scalar(&mut self, value: f32) -> String {
        let name = format!("scalar.{value}");
        if self.has(&name) {
            return name;
        }
        self.float(&name, &[], &[value])
    }

    /// A constant list, made once per value; returns its name.
    pub fn list(&mut self, values: &[i64]) -> String {
        let name = values
            .iter()
            .fold("list".to_owned(), |name, v| format!("{name}.{v}"));
        if self.has(&name) {
            return name;
        }
        self.integers(&name, values)
    }

    /// A constant i64 without axes, made once per value; returns its name.
    pub fn index(&mut self, value: i64) -> String {
        let name = format!("index.{value}");
        if self.has(&name) {
            return name;
        }
        let raw = value.to_le_bytes().to_vec();
        self.weight(&name, &[], DataType::Int64, raw)
    }

    /// `x · weight + bias`; nodes `name.product` and `name`.
    pub fn linear(&mut self, x: &str, name: &str, linear: &Linear) -> String {
        let dims = [linear.inputs, linear.outputs];
        let weight = self.matrix(&format!("{name}.weight"), &dims, &linear.weight);
        let Some(bias) = &linear.bias else {
            return self.node("MatMul", &[x, &weight], name, vec![]);
        };
        let bias = self.float(&format!("{name}.bias"), &[linear.outputs], bias);
        let product = self.node("MatMul", &[x, &weight], &format!("{name}.product"), vec![]);
        self.node("Add", &[&product, &bias], name, vec![])
    }

    /// Layer normalisation of the last axis.
    pub fn layer_norm(&mut self, x: &str, name: &str, norm: &Norm) -> String {
        let dims = [norm.weight.len()];
        let weight = self.float(&format!("{name}.weight"), &dims, &norm.weight);
        let bias = self.float(&format!("{name}.bias"), &dims, &norm.bias);
        let attributes = vec![int("axis", -1), float("epsilon", norm.epsilon)];
        self.node("LayerNormalization", &[x, &weight, &bias], name, attributes)
    }

    /// `activation(x)`; its last node is `name`.
    pub fn activation(&mut self, x: &str, name: &str, activation: Activation) -> String {
        let at = |part: &str| format!("{name}.{part}");
        match activation {
            Activation::Relu => self.node("Relu", &[x], name, vec![]),
            Activation::Tanh => self.node("Tanh", &[x], name, vec![]),
            Activation::QuickGelu => {
                let slope = self.scalar(1.702);
                let steep = self.node("Mul", &[x, &slope], &at("steep"), vec![]);
                let gate = self.node("Sigmoid", &[&steep], &at("gate"), vec![]);
                self.node("Mul", &[x, &gate], name, vec![])
            }
            Activation::Gelu => {
                let root = self.scalar(std::f32::consts::SQRT_2);
                let scaled = self.node("Div", &[x, &root], &at("scaled"), vec![]);
                let erf = self.node("Erf", &[&scaled], &at("erf"), vec![]);
                self.half_of_one_plus(x, &erf, name)
            }
            Activation::GeluTanh => {
                let three = self.scalar(3.0);
                let cubic = self.scalar(0.044_715);
                let slope = self.scalar((2.0 / std::f32::consts::PI).sqrt());
                let cube = self.node("Pow", &[x, &three], &at("cube"), vec![]);
                let cube = self.node("Mul", &[&cube, &cubic], &at("cubic"), vec![]);
                let sum = self.node("Add", &[x, &cube], &at("sum"), vec![]);
                let sum = self.node("Mul", &[&sum, &slope], &at("scaled"), vec![]);
                let tanh = self.node("Tanh", &[&sum], &at("tanh"), vec![]);
                self.half_of_one_plus(x, &tanh, name)
            }
        }
    }

    /// `x · (1 + y) / 2`.
    fn half_of_one_plus(&mut self, x: &str, y: &str, name: &str) -> String {
        let one = self.scalar(1.0);
        let half = self.scalar(0.5);
        let gate = self.node("Add", &[y, &one], &format!("{name}.gate"), vec![]);
        let product = self.node("Mul", &[x, &gate], &format!("{name}.gated"), vec![]);
        self.node("Mul", &[&product, &half], name, vec![])
    }

    /// Multi-head attention of `query`, `key` and `value [n, T, width]` → `at.context`. `scale`
    /// multiplies the scores unless the query carries it already; `bias`, broadcast to
    /// `[n, heads, T, T]`, is added to them.
    pub fn attention(
        &mut self,
        at: &str,
        [query, key, value]: [&str; 3],
        heads: Heads,
        scale: Option<f32>,
        bias: Option<&str>,
    ) -> String {
        let split = self.list(&[0, 0, signed(heads.count), signed(heads.width)]);
        let joined = self.list(&[0, 0, signed(heads.count * heads.width)]);
        let mut part = |x: &str, name: &str, order: [i64; 4]| {
            let rows = self.node(
                "Reshape",
                &[x, &split],
                &format!("{at}.{name}.split"),
                vec![],
            );
            let name = format!("{at}.{name}.heads");
            self.node("Transpose", &[&rows], &name, vec![ints("perm", &order)])
        };
        let query = part(query, "query", [0, 2, 1, 3]);
        let key = part(key, "key", [0, 2, 3, 1]);
        let value = part(value, "value", [0, 2, 1, 3]);
        let at = |name: &str| format!("{at}.{name}");
        let mut scores = self.node("MatMul", &[&query, &key], &at("scores"), vec![]);
        if let Some(scale) = scale {
            let scale = self.scalar(scale);
            scores = self.node("Mul", &[&scores, &scale], &at("scores.scaled"), vec![]);
        }
        if let Some(bias) = bias {
            scores = self.node("Add", &[&scores, bias], &at("scores.masked"), vec![]);
        }
        let weights = self.node("Softmax", &[&scores], &at("weights"), vec![int("axis", -1)]);
        let context = self.node("MatMul", &[&weights, &value], &at("context.heads"), vec![]);
        let order = vec![ints("perm", &[0, 2, 1, 3])];
        let context = self.node("Transpose", &[&context], &at("context.order"), order);
        self.node("Reshape", &[&context, &joined], &at("context"), vec![])
    }

    /// `attention_mask [n, T] i64` as `mask [n, T] f32`.
    pub fn mask(&mut self) -> String {
        self.cast("attention_mask", DataType::Float, "mask")
    }

    /// 0 where `mask` is 1, [`MASKED_SCORE`] where it is 0: `[n, 1, 1, T]`.
    pub fn mask_bias(&mut self, mask: &str) -> String {
        let one = self.scalar(1.0);
        let score = self.scalar(MASKED_SCORE);
        let heads = self.list(&[1, 2]);
        let missing = self.node("Sub", &[&one, mask], "mask.missing", vec![]);
        let bias = self.node("Mul", &[&missing, &score], "mask.scores", vec![]);
        self.node("Unsqueeze", &[&bias, &heads], "mask.bias", vec![])
    }

    /// `T` of `input_ids [n, T]`, as a list of one.
    pub fn length(&mut self) -> String {
        let [first, second, third] = [0, 1, 2].map(|i| self.list(&[i]));
        let dims = self.node("Shape", &["input_ids"], "input.shape", vec![]);
        let inputs = [dims.as_str(), &second, &third, &first];
        self.node("Slice", &inputs, "input.length", vec![])
    }

    /// The first [`length`](Self::length) rows of `table`.
    pub fn rows(&mut self, table: &str, length: &str, name: &str) -> String {
        let first = self.list(&[0]);
        self.node("Slice", &[table, &first, length, &first], name, vec![])
    }

    /// Mean of `x [n, T, width]` over the tokens where `mask` is 1: `[n, width]`.
    pub fn masked_mean(&mut self, x: &str, mask: &str, name: &str) -> String {
        let at = |part: &str| format!("{name}.{part}");
        let second = self.list(&[1]);
        let rows = self.node("Unsqueeze", &[mask, &second], &at("rows"), vec![]);
        let sum = self.node("MatMul", &[&rows, x], &at("sum"), vec![]);
        let sum = self.node("Squeeze", &[&sum, &second], &at("flat"), vec![]);
        let keep = vec![int("keepdims", 1)];
        let count = self.node("ReduceSum", &[mask, &second], &at("count"), keep);
        self.node("Div", &[&sum, &count], name, vec![])
    }
}
