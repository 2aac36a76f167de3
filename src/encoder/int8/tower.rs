//! A recognised tower, from a float graph or a packed file, before its shapes are fixed.

use std::io::Write;
use std::sync::Arc;

use tract_onnx::prelude::*;
use tract_onnx::tract_core::internal::*;

use super::file::{self, Relocation};
use super::kernels::Context;
use super::op::Accelerator;
use super::program::Program;
use super::recognise::{Options, Report, recognise};
use crate::bundle::Bundle;
use crate::encoder::tract::graph::{engine_error, guarded, image_input, parse, text_inputs, typed};
use crate::encoder::{Embedding, EncodeError};

/// Name of the symbol for the number of tokens.
const TOKENS: &str = "tokens";

/// The number of tokens that layouts are looked at with.
const SAMPLE_TOKENS: i64 = 6;

/// Which tower of a bundle.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// `image.onnx` or `image.int8`.
    Image,
    /// `text.onnx` or `text.int8`.
    Text,
}

impl Kind {
    /// `image` or `text`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Image => "image",
            Self::Text => "text",
        }
    }

    /// The float graph's file.
    pub fn onnx(self) -> &'static str {
        match self {
            Self::Image => "image.onnx",
            Self::Text => "text.onnx",
        }
    }

    /// The packed tower's file.
    pub fn packed(self) -> &'static str {
        match self {
            Self::Image => "image.int8",
            Self::Text => "text.int8",
        }
    }
}

/// A tower whose sublayers are fused and quantized.
#[derive(Clone, Debug)]
pub struct Tower {
    kind: Kind,
    /// With [`TOKENS`] in its input shapes where it takes any number of them.
    model: TypedModel,
    dim: usize,
    report: Report,
    relocation: Option<Relocation>,
}

impl Tower {
    /// Maps the packed tower of a bundle, or quantizes the float one where there is no other.
    ///
    /// # Errors
    /// A packed file of another version; a graph that does not follow the contract in
    /// [`crate::bundle::Manifest`], or in which nothing is recognised.
    pub fn load(bundle: &Bundle, kind: Kind, context: &Arc<Context>) -> Result<Self, EncodeError> {
        let packed = kind.packed();
        if bundle.manifest().files.contains_key(packed) {
            let mapped = bundle.map(packed);
            let mapped = mapped.map_err(|error| engine_error("reading the bundle", error))?;
            let (model, relocation) = file::read(mapped, context)?;
            return Ok(Self {
                kind,
                model,
                dim: bundle.manifest().embedding_dim,
                report: Report::default(),
                relocation,
            });
        }
        let tower = Self::quantize(bundle, kind, context, &Options::default())?;
        if tower.report.found.is_empty() {
            let file = kind.onnx();
            let problem = format!("no transformer block is recognised; {}", tower.report);
            return Err(engine_error(&format!("quantizing {file}"), problem));
        }
        Ok(tower)
    }

    /// Quantizes a float tower, which may have nothing to be quantized.
    ///
    /// # Errors
    /// A graph that does not follow the contract in [`crate::bundle::Manifest`].
    pub fn quantize(
        bundle: &Bundle,
        kind: Kind,
        context: &Arc<Context>,
        options: &Options,
    ) -> Result<Self, EncodeError> {
        let manifest = bundle.manifest();
        let parsed = parse(bundle, kind.onnx())?;
        let quantized = |model: TypedModel, symbols: SymbolValues| {
            let (model, report) = recognise(model, symbols, context, options)?;
            let dim = manifest.embedding_dim;
            let fact = model.output_fact(0)?;
            let wanted = [1.to_dim(), dim.to_dim()];
            let fits = fact.datum_type == f32::datum_type() && fact.shape.to_tvec()[..] == wanted;
            ensure!(
                fits,
                "gives {fact:?} where embedding_dim asks for [1, {dim}] f32"
            );
            Ok(Self {
                kind,
                model,
                dim,
                report,
                relocation: None,
            })
        };
        let step = format!("quantizing {}", kind.onnx());
        if kind == Kind::Image {
            return guarded(&step, || {
                let inputs = [image_input(manifest.image.size_px)];
                quantized(typed(parsed.clone(), &inputs)?, SymbolValues::default())
            });
        }
        let any_length = guarded(&step, || {
            let model = parsed.clone();
            let tokens = model.symbols.sym(TOKENS);
            let typed = typed(model, &text_inputs(tokens.clone()))?;
            quantized(typed, SymbolValues::default().with(&tokens, SAMPLE_TOKENS))
        });
        let most = manifest.text.max_tokens;
        let tried = any_length.and_then(|tower: Self| {
            tower.try_text(most)?;
            Ok(tower)
        });
        if let Ok(tower) = &tried
            && tower.report.is_whole()
        {
            return tried;
        }
        // Some graphs are written for one length.
        let one_length = guarded(&step, || {
            let inputs = text_inputs(most);
            quantized(typed(parsed.clone(), &inputs)?, SymbolValues::default())
        });
        one_length.or(tried)
    }

    /// Writes the tower packed: what [`Self::load`] maps.
    ///
    /// # Errors
    /// A tower in which something has no packed form, by name; a failure of `out`.
    pub fn write(&self, out: impl Write) -> Result<(), EncodeError> {
        guarded(&format!("writing {}", self.kind.packed()), || {
            file::write(&self.model, out)
        })
    }

    /// How many tokens a text tower takes. `None` for any number of them.
    pub fn tokens(&self) -> Option<usize> {
        let fact = self.model.input_fact(0).ok()?;
        (self.kind == Kind::Text).then(|| fact.shape.as_concrete()?.get(1).copied())?
    }

    /// Runs a text tower once.
    fn try_text(&self, tokens: usize) -> Result<(), EncodeError> {
        let program = self.program(Some(tokens))?;
        guarded("trying the text tower", || {
            let ones = Tensor::from_shape(&[1, tokens], &vec![1_i64; tokens])?;
            let ones = ones.into_tvalue();
            program.run(vec![tvec!(ones.clone(), ones)]).map(drop)
        })
    }

    /// Brings mapped weights to where they are read fastest, for everything that is made of this tower;
    /// best started when the first embedding is there.
    pub fn relocation(&self) -> Option<&Relocation> {
        self.relocation.as_ref()
    }

    /// What was recognised; nothing is told of a tower that was packed already.
    pub fn report(&self) -> &Report {
        &self.report
    }

    /// Fixes the number of tokens, if it is open, and prepares the tower for running.
    ///
    /// # Errors
    /// A graph that tract cannot run, or that is made for another number of tokens.
    pub fn program(&self, tokens: Option<usize>) -> Result<Program, EncodeError> {
        self.program_on(tokens, None)
    }

    /// As [`Self::program`], with the sublayers on an accelerator that it takes.
    ///
    /// # Errors
    /// As [`Self::program`].
    pub fn program_on(
        &self,
        tokens: Option<usize>,
        accelerator: Option<&dyn Accelerator>,
    ) -> Result<Program, EncodeError> {
        guarded("preparing the int8 tower", || {
            let symbol = self.model.symbols.get(TOKENS);
            let mut model = self.model.clone();
            if let (Some(symbol), Some(tokens)) = (symbol, tokens) {
                model = model.set_symbols(&HashMap::from([(symbol, tokens.to_dim())]))?;
            }
            let fact = model.output_fact(0)?;
            ensure!(
                fact.shape.as_concrete() == Some(&[1, self.dim]),
                "gives {fact:?} for {:?}",
                self.kind
            );
            Program::on(model, accelerator)
        })
    }
}

/// The unit vector of a tower's output, `[1, D] f32`.
pub(super) fn embedding(output: &Tensor) -> Result<Embedding, EncodeError> {
    let values = guarded("reading an embedding", || {
        Ok(output.try_as_plain_ram()?.as_slice::<f32>()?.to_vec())
    })?;
    Embedding::normalized(values)
        .ok_or_else(|| engine_error("encoding", "the output is zero or not finite"))
}

/// Engine, precision and threads.
pub(super) fn describe(context: &Context) -> String {
    let threads = context.threads();
    let plural = if threads == 1 { "" } else { "s" };
    format!("int8-cpu {}, {threads} thread{plural}", context.isa())
}
