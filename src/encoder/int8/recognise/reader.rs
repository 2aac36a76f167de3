//! Reading a typed graph backwards: constants, arithmetic, and what only changes the view of a
//! tensor.

use std::cell::RefCell;
use std::collections::HashMap;

use tract_onnx::tract_core::internal::*;
use tract_onnx::tract_core::ops::array::{Gather, MultiBroadcastTo, Slice};
use tract_onnx::tract_core::ops::binary::TypedBinOp;
use tract_onnx::tract_core::ops::cast::Cast;
use tract_onnx::tract_core::ops::element_wise::{ElementWiseMiniOp, ElementWiseOp};
use tract_onnx::tract_core::ops::math::{Add, Div, Mul, Pow, Sub};
use tract_onnx::tract_core::plan::{Seating, SessionId};

/// Longest chain of operators followed in one direction. Real graphs need under 20.
const MAX_CHAIN: usize = 64;

/// Largest tensor evaluated while reading, values.
const MAX_VALUES: usize = 1 << 28;

/// A binary operator of arithmetic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Arithmetic {
    Add,
    Sub,
    Mul,
    Div,
    Pow,
}

/// One operator that moves values without changing them, and its constant operands.
#[derive(Clone, Debug)]
struct View {
    op: Box<dyn TypedOp>,
    /// In input order; `None` where the data goes.
    operands: Vec<Option<Arc<Tensor>>>,
}

/// How a tensor comes from another one by views and a scalar factor.
#[derive(Clone, Debug)]
pub(super) struct Path {
    /// Where the walk ended.
    pub source: OutletId,
    /// Product of the scalar factors on the way.
    pub factor: f32,
    /// From the source on.
    views: Vec<View>,
}

impl Path {
    /// This path, then `next`, which starts where this one ends.
    pub fn then(mut self, next: Self) -> Self {
        self.factor *= next.factor;
        self.views.extend(next.views);
        self
    }
}

/// A typed graph with one value bound to each of its symbols, so that layouts can be computed.
pub(super) struct Reader<'m> {
    pub model: &'m TypedModel,
    pub symbols: SymbolValues,
    /// By node: whether it depends on no input of the graph.
    is_constant: Vec<bool>,
    constants: RefCell<HashMap<OutletId, Arc<Tensor>>>,
    /// Values of masks, by outlet.
    pub masks: RefCell<HashMap<OutletId, Option<Vec<Tensor>>>>,
    seating: Seating,
}

impl<'m> Reader<'m> {
    /// # Errors
    /// A graph with a loop.
    pub fn new(model: &'m TypedModel, symbols: SymbolValues) -> TractResult<Self> {
        let mut is_constant = vec![false; model.nodes().len()];
        for id in model.eval_order()? {
            let node = model.node(id);
            let fed = !node.inputs.is_empty();
            is_constant[id] = node
                .outputs
                .iter()
                .all(|output| output.fact.konst.is_some())
                || (fed && node.inputs.iter().all(|input| is_constant[input.node]));
        }
        Ok(Self {
            model,
            symbols,
            is_constant,
            constants: RefCell::default(),
            masks: RefCell::default(),
            seating: Seating::single(),
        })
    }

    pub fn node(&self, outlet: OutletId) -> &'m TypedNode {
        &self.model.nodes()[outlet.node]
    }

    /// The operator behind `outlet` when it is an `O`, with its inputs.
    pub fn op<O: TypedOp>(&self, outlet: OutletId) -> Option<(&'m O, &'m [OutletId])> {
        let node = self.node(outlet);
        (outlet.slot == 0)
            .then(|| node.op_as::<O>())?
            .map(|op| (op, &node.inputs[..]))
    }

    /// Shape with the symbols bound. `None` when something stays unknown.
    pub fn shape(&self, outlet: OutletId) -> Option<Vec<usize>> {
        let fact = self.model.outlet_fact(outlet).ok()?;
        let shape = fact.shape.eval_to_usize(&self.symbols).ok()?;
        Some(shape.to_vec())
    }

    pub fn is_f32(&self, outlet: OutletId) -> bool {
        self.model
            .outlet_fact(outlet)
            .is_ok_and(|fact| fact.datum_type == f32::datum_type())
    }

    fn evaluate(&self, op: &dyn TypedOp, inputs: TVec<TValue>) -> Option<Tensor> {
        let context = EvalContext {
            session: SessionId::NONE,
            node_id: usize::MAX,
            symbols: &self.symbols,
            scenario: None,
            shared: None,
            seating: &self.seating,
        };
        let mut outputs = op.eval(&context, inputs).ok()?;
        (outputs.len() == 1).then(|| outputs.remove(0).into_tensor())
    }

    /// The value of `outlet` when it does not depend on any input of the graph.
    pub fn constant(&self, outlet: OutletId) -> Option<Arc<Tensor>> {
        self.constant_within(outlet, MAX_CHAIN)
    }

    fn constant_within(&self, outlet: OutletId, depth: usize) -> Option<Arc<Tensor>> {
        let fact = self.model.outlet_fact(outlet).ok()?;
        if let Some(value) = &fact.konst {
            return Some(Arc::clone(value));
        }
        if depth == 0 || !self.is_constant[outlet.node] {
            return None;
        }
        if let Some(known) = self.constants.borrow().get(&outlet) {
            return Some(Arc::clone(known));
        }
        let node = self.node(outlet);
        let mut shape = fact.shape.as_concrete()?.iter();
        let volume = shape.try_fold(1_usize, |a, b| a.checked_mul(*b))?;
        if node.outputs.len() != 1 || volume > MAX_VALUES {
            return None;
        }
        let inputs = node
            .inputs
            .iter()
            .map(|input| {
                self.constant_within(*input, depth - 1)
                    .map(IntoTValue::into_tvalue)
            })
            .collect::<Option<TVec<TValue>>>()?;
        let outputs = node.op.eval_out_of_plan(inputs).ok()??;
        let value = outputs.into_iter().next()?.into_arc_tensor();
        self.constants
            .borrow_mut()
            .insert(outlet, Arc::clone(&value));
        Some(value)
    }

    /// A constant of one f32 value.
    pub fn scalar(&self, outlet: OutletId) -> Option<f32> {
        let value = self.constant(outlet)?;
        (value.len() == 1 && value.datum_type().is_float())
            .then(|| value.cast_to_scalar::<f32>().ok())?
    }

    /// A constant of f32 along the last axis: `width` values, or one that is repeated.
    pub fn vector(&self, outlet: OutletId, width: usize) -> Option<Vec<f32>> {
        let value = self.constant(outlet)?;
        if value.datum_type() != f32::datum_type() {
            return None;
        }
        let values = value
            .try_as_plain_ram()
            .ok()?
            .as_slice::<f32>()
            .ok()?
            .to_vec();
        match values.len() {
            1 => Some(vec![values[0]; width]),
            n if n == width && value.shape().last() == Some(&width) => Some(values),
            _ => None,
        }
    }

    /// The two operands when `outlet` is a float operation of arithmetic.
    pub fn arithmetic(&self, outlet: OutletId) -> Option<(Arithmetic, OutletId, OutletId)> {
        let (op, inputs) = self.op::<TypedBinOp>(outlet)?;
        if !self.is_f32(outlet) {
            return None;
        }
        let kind = if op.0.is::<Add>() {
            Arithmetic::Add
        } else if op.0.is::<Sub>() {
            Arithmetic::Sub
        } else if op.0.is::<Mul>() {
            Arithmetic::Mul
        } else if op.0.is::<Div>() {
            Arithmetic::Div
        } else if op.0.is::<Pow>() {
            Arithmetic::Pow
        } else {
            return None;
        };
        Some((kind, inputs[0], inputs[1]))
    }

    /// The function and its argument when `outlet` is a function of each value.
    pub fn function(&self, outlet: OutletId) -> Option<(&'m dyn ElementWiseMiniOp, OutletId)> {
        let (op, inputs) = self.op::<ElementWiseOp>(outlet)?;
        Some((op.0.as_ref(), inputs[0]))
    }

    /// The two summands of a sum, whichever way it is written.
    pub fn sum(&self, outlet: OutletId) -> Option<(OutletId, OutletId)> {
        match self.arithmetic(outlet)? {
            (Arithmetic::Add, a, b) => Some((a, b)),
            _ => None,
        }
    }

    fn view(&self, outlet: OutletId) -> Option<(OutletId, View)> {
        let node = self.node(outlet);
        if outlet.slot != 0 {
            return None;
        }
        let plain =
            node.op_is::<AxisOp>() || node.op_is::<Slice>() || node.op_is::<MultiBroadcastTo>();
        let operands = if plain {
            vec![None]
        } else if node.op_is::<Gather>() {
            vec![None, Some(self.constant(node.inputs[1])?)]
        } else {
            return None;
        };
        let op = node.op.clone();
        Some((node.inputs[0], View { op, operands }))
    }

    /// Whether `outlet` casts to the type its input has already.
    fn is_idle_cast(&self, outlet: OutletId) -> bool {
        self.op::<Cast>(outlet).is_some_and(|(cast, inputs)| {
            self.model
                .outlet_fact(inputs[0])
                .is_ok_and(|fact| fact.datum_type == cast.to)
        })
    }

    /// Walks back from `sink` through views and scalar factors.
    pub fn path(&self, sink: OutletId) -> Path {
        let mut path = Path {
            source: sink,
            factor: 1.0,
            views: Vec::new(),
        };
        for _ in 0..MAX_CHAIN {
            if let Some((before, view)) = self.view(path.source) {
                path.views.push(view);
                path.source = before;
            } else if let Some((factor, before)) = self.scaled(path.source) {
                path.factor *= factor;
                path.source = before;
            } else if self.is_idle_cast(path.source) {
                path.source = self.node(path.source).inputs[0];
            } else {
                break;
            }
        }
        path.views.reverse();
        path
    }

    /// The scalar factor and the tensor when `outlet` is their product or quotient.
    pub fn scaled(&self, outlet: OutletId) -> Option<(f32, OutletId)> {
        match self.arithmetic(outlet)? {
            (Arithmetic::Mul, a, b) => match (self.scalar(a), self.scalar(b)) {
                (None, Some(factor)) => Some((factor, a)),
                (Some(factor), None) => Some((factor, b)),
                _ => None,
            },
            (Arithmetic::Div, a, b) if self.constant(a).is_none() => {
                Some((1.0 / self.scalar(b)?, a))
            }
            _ => None,
        }
    }

    /// Applies the views of `path` to `tensor`, which has its source's shape.
    pub fn replay(&self, path: &Path, tensor: Tensor) -> Option<Tensor> {
        path.views.iter().try_fold(tensor, |tensor, view| {
            let mut data = Some(tensor.into_tvalue());
            let inputs = view
                .operands
                .iter()
                .map(|operand| match operand {
                    Some(constant) => Some(Arc::clone(constant).into_tvalue()),
                    None => data.take(),
                })
                .collect::<Option<TVec<TValue>>>()?;
            self.evaluate(view.op.as_ref(), inputs)
        })
    }

    /// Where each value of the end of `path` lies in its source: positions in row-major order.
    pub fn positions(&self, path: &Path) -> Option<Tensor> {
        self.replay(path, numbered(&self.shape(path.source)?)?)
    }

    /// Walks back through what keeps the values and their row-major order: axes of one element
    /// added, removed or moved, reshapes, idle casts.
    pub fn base(&self, mut outlet: OutletId) -> OutletId {
        for _ in 0..MAX_CHAIN {
            let keeps_order = match self.op::<AxisOp>(outlet) {
                Some((AxisOp::Move(from, to), inputs)) => {
                    let moved = (*from).min(*to)..=(*from).max(*to);
                    let Some(shape) = self.shape(inputs[0]) else {
                        return outlet;
                    };
                    let axes = shape.get(moved).unwrap_or_default();
                    axes.iter().filter(|d| **d != 1).count() <= 1 || shape[*from] == 1
                }
                Some(_) => true,
                None => self.is_idle_cast(outlet),
            };
            if !keeps_order {
                break;
            }
            outlet = self.node(outlet).inputs[0];
        }
        outlet
    }

    /// Whether both hold the same values in the same order.
    pub fn same(&self, a: OutletId, b: OutletId) -> bool {
        self.base(a) == self.base(b)
    }
}

/// `0, 1, 2 …` in row-major order, `i64`. `None` when that is too much to compute with.
pub(super) fn numbered(shape: &[usize]) -> Option<Tensor> {
    let volume = shape.iter().try_fold(1_usize, |a, b| a.checked_mul(*b))?;
    if volume > MAX_VALUES / 4 {
        return None;
    }
    let values: Vec<i64> = (0..i64::try_from(volume).ok()?).collect();
    Tensor::from_shape(shape, &values).ok()
}
