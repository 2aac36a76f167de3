//! The float rest of a tower as NNEF, with placeholders for what is fused.

use std::io::Cursor;
use std::sync::Arc;

use tract_nnef::internal::*;
use tract_onnx::WithOnnx;

use crate::encoder::int8::kernels::Context;
use crate::encoder::int8::lookup::Lookup;
use crate::encoder::int8::op::{Patches, Sublayers};
use crate::encoder::int8::patches::PatchEmbedding;
use crate::encoder::int8::sublayer::Sublayer;
use crate::encoder::int8::table::EmbeddingTable;

/// What a tower holds besides its float rest, as its placeholders count it.
#[derive(Default)]
pub(super) struct Fused {
    pub sublayers: Vec<Arc<Sublayer>>,
    pub patches: Vec<Arc<PatchEmbedding>>,
    pub tables: Vec<Arc<EmbeddingTable>>,
}

/// Stands for a fused operator while a graph is written or read.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Placeholder {
    Sublayers {
        first: usize,
        count: usize,
        masked: bool,
    },
    Patches {
        index: usize,
        /// `[patches, n]`.
        shape: [usize; 2],
    },
    Lookup {
        index: usize,
        width: usize,
    },
}

/// Takes a recognised tower apart: the float rest as NNEF, and what it holds besides.
pub(super) fn store(model: &TypedModel) -> TractResult<(Vec<u8>, Fused)> {
    let mut model = model.clone().into_decluttered()?;
    let mut fused = Fused::default();
    for id in model.eval_order()? {
        let node = model.node(id);
        let placeholder = if let Some(op) = node.op_as::<Sublayers>() {
            let first = fused.sublayers.len();
            fused.sublayers.extend(op.sublayers().iter().cloned());
            Placeholder::Sublayers {
                first,
                count: op.sublayers().len(),
                masked: op.is_masked(),
            }
        } else if let Some(op) = node.op_as::<Patches>() {
            fused.patches.push(Arc::clone(op.embedding()));
            Placeholder::Patches {
                index: fused.patches.len() - 1,
                shape: op.shape(),
            }
        } else if let Some(op) = node.op_as::<Lookup>() {
            fused.tables.push(Arc::clone(op.table()));
            Placeholder::Lookup {
                index: fused.tables.len() - 1,
                width: op.table().width(),
            }
        } else {
            continue;
        };
        model.node_mut(id).op = Box::new(placeholder);
    }
    let mut nnef = Vec::new();
    reader()
        .write_to_tar_with_config(&model, &mut nnef, false, true)
        .context("writing the float rest of the tower")?;
    Ok((nnef, fused))
}

/// Puts a tower together.
pub(super) fn restore(
    nnef: &[u8],
    fused: &Fused,
    context: &Arc<Context>,
) -> TractResult<TypedModel> {
    let mut model = reader()
        .model_for_read(&mut Cursor::new(nnef))
        .context("reading the float rest of the tower")?;
    for id in 0..model.nodes().len() {
        let Some(placeholder) = model.node(id).op_as::<Placeholder>() else {
            continue;
        };
        let op: Box<dyn TypedOp> = match placeholder {
            Placeholder::Sublayers { first, count, .. } => {
                let end = first.checked_add(*count);
                let some = end.and_then(|end| fused.sublayers.get(*first..end));
                let some = some.filter(|some| {
                    let width = some.first().map(|s| s.width());
                    width.is_some_and(|width| some.iter().all(|s| s.width() == width))
                });
                let some = some.with_context(|| format!("no sublayers for {placeholder:?}"))?;
                Box::new(Sublayers::new(Arc::clone(context), some.to_vec()))
            }
            Placeholder::Patches { index, .. } => {
                let one = fused.patches.get(*index);
                let one = one.with_context(|| format!("nothing for {placeholder:?}"))?;
                Box::new(Patches::new(Arc::clone(context), Arc::clone(one)))
            }
            Placeholder::Lookup { index, .. } => {
                let one = fused.tables.get(*index);
                let one = one.with_context(|| format!("nothing for {placeholder:?}"))?;
                Box::new(Lookup::new(Arc::clone(one)))
            }
        };
        let facts = op.output_facts(&model.node_input_facts(id)?)?;
        let same = facts.len() == 1 && facts[0].shape == model.outlet_fact(id.into())?.shape;
        ensure!(same, "{op:?} does not fit its place in the graph");
        model.node_mut(id).op = op;
    }
    Ok(model)
}

fn reader() -> Nnef {
    let mut registry = Registry::new("vedetta_int8");
    registry
        .from_tract
        .insert(TypeId::of::<Placeholder>(), Box::new(dump));
    let (tensor, integer) = (TypeName::Scalar.tensor(), TypeName::Integer);
    let result = [("output", tensor.clone())];
    let number = |name: &str| integer.named(name);
    let x = || tensor.clone().named("x");
    let parameters = [x(), number("first"), number("count")];
    registry.register_primitive(
        "vedetta_int8_sublayers",
        &parameters,
        &result,
        load_sublayers,
    );
    let parameters = [
        x(),
        tensor.clone().named("mask"),
        number("first"),
        number("count"),
    ];
    registry.register_primitive(
        "vedetta_int8_masked_sublayers",
        &parameters,
        &result,
        load_masked_sublayers,
    );
    let parameters = [x(), number("index"), number("patches"), number("n")];
    registry.register_primitive("vedetta_int8_patches", &parameters, &result, load_patches);
    let parameters = [
        tensor.clone().named("ids"),
        number("index"),
        number("width"),
    ];
    registry.register_primitive("vedetta_int8_lookup", &parameters, &result, load_lookup);
    // The exact GELU of a projection that is not fused; tract can read but not write it.
    registry.register_unit_element_wise(
        "vedetta_gelu_exact",
        &tract_nnef::tract_core::ops::nn::GeluExact {},
    );
    tract_nnef::nnef().with_onnx().with_registry(registry)
}

fn dump(ast: &mut IntoAst, node: &TypedNode) -> TractResult<Option<Arc<RValue>>> {
    let inputs: TVec<Arc<RValue>> = node.inputs.iter().map(|i| ast.mapping[i].clone()).collect();
    Ok(node
        .op_as::<Placeholder>()
        .map(|placeholder| match placeholder {
            Placeholder::Sublayers {
                first,
                count,
                masked,
            } => {
                let name = match masked {
                    true => "vedetta_int8_masked_sublayers",
                    false => "vedetta_int8_sublayers",
                };
                invocation(
                    name,
                    &inputs,
                    &[("first", numeric(first)), ("count", numeric(count))],
                )
            }
            Placeholder::Patches {
                index,
                shape: [patches, n],
            } => {
                let named = [
                    ("index", numeric(index)),
                    ("patches", numeric(patches)),
                    ("n", numeric(n)),
                ];
                invocation("vedetta_int8_patches", &inputs, &named)
            }
            Placeholder::Lookup { index, width } => {
                let named = [("index", numeric(index)), ("width", numeric(width))];
                invocation("vedetta_int8_lookup", &inputs, &named)
            }
        }))
}

fn load_sublayers(builder: &mut ModelBuilder, call: &ResolvedInvocation) -> TractResult<Value> {
    let x = call.named_arg_as(builder, "x")?;
    let placeholder = Placeholder::Sublayers {
        first: call.named_arg_as(builder, "first")?,
        count: call.named_arg_as(builder, "count")?,
        masked: false,
    };
    builder.wire(placeholder, &[x])
}

fn load_masked_sublayers(
    builder: &mut ModelBuilder,
    call: &ResolvedInvocation,
) -> TractResult<Value> {
    let x = call.named_arg_as(builder, "x")?;
    let mask = call.named_arg_as(builder, "mask")?;
    let placeholder = Placeholder::Sublayers {
        first: call.named_arg_as(builder, "first")?,
        count: call.named_arg_as(builder, "count")?,
        masked: true,
    };
    builder.wire(placeholder, &[x, mask])
}

fn load_patches(builder: &mut ModelBuilder, call: &ResolvedInvocation) -> TractResult<Value> {
    let x = call.named_arg_as(builder, "x")?;
    let placeholder = Placeholder::Patches {
        index: call.named_arg_as(builder, "index")?,
        shape: [
            call.named_arg_as(builder, "patches")?,
            call.named_arg_as(builder, "n")?,
        ],
    };
    builder.wire(placeholder, &[x])
}

fn load_lookup(builder: &mut ModelBuilder, call: &ResolvedInvocation) -> TractResult<Value> {
    let ids: OutletId = call.named_arg_as(builder, "ids")?;
    let placeholder = Placeholder::Lookup {
        index: call.named_arg_as(builder, "index")?,
        width: call.named_arg_as(builder, "width")?,
    };
    builder.wire(placeholder, &[ids])
}

impl Op for Placeholder {
    fn name(&self) -> StaticName {
        "Int8Placeholder".into()
    }

    op_as_typed_op!();
}

impl EvalOp for Placeholder {
    not_out_of_plan!();
}

impl TypedOp for Placeholder {
    fn output_facts(&self, inputs: &[&TypedFact]) -> TractResult<TVec<TypedFact>> {
        let x = inputs.first().context("no input")?;
        Ok(match self {
            Self::Sublayers { .. } => tvec!(x.datum_type.fact(x.shape.clone())),
            Self::Patches { shape, .. } => {
                tvec!(x.datum_type.fact([1, shape[0], shape[1]]))
            }
            Self::Lookup { width, .. } => {
                let mut shape = x.shape.to_tvec();
                shape.push(width.to_dim());
                tvec!(f32::datum_type().fact(shape))
            }
        })
    }

    as_op!();
}
