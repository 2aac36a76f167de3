//! Looking up embeddings as an operator of tract.

use std::sync::Arc;

use tract_onnx::tract_core::internal::*;

use super::table::EmbeddingTable;

/// Rows of a quantized table.
///
/// Input: ids, `[…] i64`. Output: `[…, width] f32`.
#[derive(Clone)]
pub struct Lookup(Arc<EmbeddingTable>);

impl Lookup {
    /// An operator for this table.
    pub fn new(table: Arc<EmbeddingTable>) -> Self {
        Self(table)
    }

    /// The table.
    pub fn table(&self) -> &Arc<EmbeddingTable> {
        &self.0
    }
}

impl std::fmt::Debug for Lookup {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Int8Lookup([{}, {}])", self.0.rows(), self.0.width())
    }
}

impl PartialEq for Lookup {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl Eq for Lookup {}

impl Op for Lookup {
    fn name(&self) -> StaticName {
        "Int8Lookup".into()
    }

    op_as_typed_op!();
}

impl EvalOp for Lookup {
    op_out_of_plan!();

    fn eval(&self, _: &EvalContext, inputs: TVec<TValue>) -> TractResult<TVec<TValue>> {
        let ids = inputs.first().context("no ids")?;
        let mut shape: TVec<usize> = ids.shape().into();
        shape.push(self.0.width());
        let mut rows = Vec::with_capacity(ids.len() * self.0.width());
        for id in ids.try_as_plain_ram()?.as_slice::<i64>()? {
            let found = self.0.look_up(*id, &mut rows);
            ensure!(found, "no embedding of id {id} among {}", self.0.rows());
        }
        Ok(tvec!(Tensor::from_shape(&shape, &rows)?.into_tvalue()))
    }
}

impl TypedOp for Lookup {
    fn output_facts(&self, inputs: &[&TypedFact]) -> TractResult<TVec<TypedFact>> {
        let ids = inputs.first().context("no ids")?;
        ensure!(inputs.len() == 1, "{} inputs", inputs.len());
        ensure!(
            ids.datum_type == i64::datum_type(),
            "{ids:?} instead of ids"
        );
        let mut shape = ids.shape.to_tvec();
        shape.push(self.0.width().to_dim());
        Ok(tvec!(f32::datum_type().fact(shape)))
    }

    as_op!();
}
