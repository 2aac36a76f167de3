//! The operator that tract's graph holds in place of a tower.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use tract_onnx::prelude::*;
use tract_onnx::tract_core::internal::*;

use super::program::Program;
use super::run::Memory;
use super::threads;

/// A convolutional tower: `[N, C, H, W] f32` to `[N, C', H', W'] f32`, image by image.
///
/// Weights are held once however often it is cloned. Each run borrows its working memory from a
/// stock that grows to the number of simultaneous runs.
#[derive(Clone)]
pub struct ConvTower(Arc<Inner>);

struct Inner {
    program: Program,
    stock: Mutex<Vec<Memory>>,
}

impl ConvTower {
    /// Runs `program`.
    pub fn new(program: Program) -> Self {
        Self(Arc::new(Inner {
            program,
            stock: Mutex::new(Vec::new()),
        }))
    }
}

impl fmt::Debug for ConvTower {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let program = &self.0.program;
        let (steps, kernels) = (program.steps.len(), program.kernels.name);
        write!(f, "ConvTower({steps} steps, {kernels})")
    }
}

impl PartialEq for ConvTower {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl Eq for ConvTower {}

impl Op for ConvTower {
    fn name(&self) -> StaticName {
        "ConvTower".into()
    }

    fn info(&self) -> TractResult<Vec<String>> {
        Ok(vec![format!("{self:?}")])
    }

    op_as_typed_op!();
}

impl EvalOp for ConvTower {
    op_out_of_plan!();

    fn eval(&self, _: &EvalContext, inputs: TVec<TValue>) -> TractResult<TVec<TValue>> {
        let Inner { program, stock } = &*self.0;
        let input = args_1!(inputs);
        let (from, to) = (program.input, program.output);
        let batch = match *input.shape() {
            [n, c, h, w] if [c, h, w] == [from.channels, from.height, from.width] => n,
            _ => bail!("a tower for {from:?} was given {:?}", input.shape()),
        };
        let mut output = Tensor::zero::<f32>(&[batch, to.channels, to.height, to.width])?;
        let borrowed = stock.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let mut memory = borrowed.unwrap_or_else(|| Memory::new(program));
        {
            let input = input.try_as_plain_ram()?;
            let images = input.as_slice::<f32>()?;
            let images = images.chunks_exact(from.channels * from.pixels());
            let mut output = output.try_as_plain_ram_mut()?;
            let results = output.as_slice_mut::<f32>()?;
            let results = results.chunks_exact_mut(to.channels * to.pixels());
            for (image, result) in images.zip(results) {
                threads::with_current(|threads| program.run(&mut memory, image, result, threads));
            }
        }
        let mut stock = stock.lock().unwrap_or_else(PoisonError::into_inner);
        stock.push(memory);
        Ok(tvec!(output.into_tvalue()))
    }
}

impl TypedOp for ConvTower {
    as_op!();

    fn output_facts(&self, inputs: &[&TypedFact]) -> TractResult<TVec<TypedFact>> {
        let batch = inputs[0].shape[0].clone();
        let to = self.0.program.output;
        let mut shape = tvec!(batch);
        shape.extend([to.channels, to.height, to.width].map(|dim| dim.to_dim()));
        Ok(tvec!(f32::fact(&*shape)))
    }
}
