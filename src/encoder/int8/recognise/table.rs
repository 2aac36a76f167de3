//! Embedding tables: gathers of rows of a large constant.

use std::sync::Arc;

use tract_onnx::tract_core::internal::*;
use tract_onnx::tract_core::ops::array::Gather;

use super::reader::Reader;
use crate::encoder::int8::lookup::Lookup;
use crate::encoder::int8::table::EmbeddingTable;

/// Rows from which a table is quantized: the few of token types are not worth an error.
const LEAST_ROWS: usize = 32;

/// An embedding table as found in a graph.
pub(super) struct Table {
    pub input: OutletId,
    pub output: OutletId,
    values: Arc<Tensor>,
}

impl Reader<'_> {
    /// The table whose rows `outlet` is.
    pub fn table(&self, outlet: OutletId) -> Option<Table> {
        let (gather, inputs) = self.op::<Gather>(outlet)?;
        let ids = inputs[1];
        let by_id = gather.axis == 0
            && gather.output_type.is_none()
            && self.constant(ids).is_none()
            && self.model.outlet_fact(ids).ok()?.datum_type == i64::datum_type();
        let values = by_id.then(|| self.constant(inputs[0]))??;
        let fits = values.datum_type() == f32::datum_type()
            && matches!(values.shape(), &[rows, width] if rows >= LEAST_ROWS && width > 0);
        fits.then_some(Table {
            input: ids,
            output: outlet,
            values,
        })
    }
}

impl Table {
    /// Replaces the gather.
    pub fn replace(&self, model: &mut TypedModel) -> TractResult<()> {
        let values = self.values.try_as_plain_ram()?.as_slice::<f32>()?;
        ensure!(
            values.iter().all(|value| value.is_finite()),
            "an embedding is not finite"
        );
        let (rows, width) = (self.values.shape()[0], self.values.shape()[1]);
        let table = EmbeddingTable::quantize(values, rows, width);
        let name = format!("{}.int8", model.node(self.output.node).name);
        let mut patch = TypedModelPatch::new("int8 embedding table");
        let taps = patch.taps(model, &[self.input])?;
        let wire = patch.wire_node(&name, Lookup::new(Arc::new(table)), &taps)?;
        patch.shunt_outside(model, self.output, wire[0])?;
        patch.apply(model)
    }
}
