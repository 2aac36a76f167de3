//! Finds convolutional towers in tract's graph and puts our operator in their place.
//!
//! Recognition is by structure: a dense convolution begins a segment, which takes in what follows as
//! long as it is a convolution our kernels know, a clip (`max`, `min` with constants), a sum of two
//! of its own values, or the mean over all pixels. A segment ends where something else begins and
//! has one output. What is not recognised stays tract's.

use std::collections::HashMap;

use tract_onnx::prelude::*;
use tract_onnx::tract_core::internal::TypedModelPatch;
use tract_onnx::tract_core::ops::cnn::Conv;

use super::extract::{Bound, bound, convolution, is_division, pixel_sum, shape, sum};
use super::kernels::Kernels;
use super::network::{Kind, Layer, Network, Shape};
use super::op::ConvTower;
use super::program::Program;

/// What the pass did.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// Convolutions that run on our kernels.
    pub taken: usize,
    /// Names of those that stayed tract's.
    pub left: Vec<String>,
    /// Multiply–adds per image of those taken.
    pub multiply_adds: usize,
}

impl Report {
    /// Says in the log who computes the convolutions of `file`.
    pub fn log(&self, file: &str) {
        let (taken, kernels) = (self.taken, Kernels::best().name);
        let macs = self.multiply_adds / 1_000_000;
        log::debug!("{file}: {taken} convolutions ({macs} M multiply-adds) on {kernels} kernels");
        if !self.left.is_empty() {
            let names = self.left.join(", ");
            log::info!("{file}: convolutions left to tract: {names}");
        }
    }
}

/// Replaces every segment of `model` that `kernels` can run.
///
/// # Errors
/// What tract reports while its graph is changed.
pub fn replace_towers(model: &mut TypedModel, kernels: &'static Kernels) -> TractResult<Report> {
    let mut report = Report::default();
    let mut from = 0;
    loop {
        let order = model.eval_order()?;
        let Some((position, segment)) = first_segment(model, &order, from)? else {
            break;
        };
        // Nodes before a segment keep their order when it is replaced by one node.
        from = position + 1;
        let Some(program) = Program::new(&segment.network, kernels) else {
            continue;
        };
        let last = segment.output;
        let name = format!("{}.tower", model.node(last.node).name);
        let mut patch = TypedModelPatch::new("convolutional tower");
        let input = patch.tap_model(model, segment.input)?;
        let wire = patch.wire_node(name, ConvTower::new(program), &[input])?[0];
        patch.shunt_outside(model, last, wire)?;
        patch.apply(model)?;
        model.compact()?;
        report.taken += segment.convolutions;
        report.multiply_adds += segment.network.multiply_adds();
    }
    let stayed = |node: &&TypedNode| node.op_as::<Conv>().is_some();
    let left = model.nodes().iter().filter(stayed);
    report.left = left.map(|node| node.name.clone()).collect();
    Ok(report)
}

/// Nodes to be replaced.
struct Segment {
    network: Network,
    input: OutletId,
    output: OutletId,
    convolutions: usize,
}

/// The first segment that begins at position `from` of `order` or later, and where.
fn first_segment(
    model: &TypedModel,
    order: &[usize],
    from: usize,
) -> TractResult<Option<(usize, Segment)>> {
    for (position, id) in order.iter().enumerate().skip(from) {
        let found = convolution(model, model.node(*id));
        if found.is_none_or(|found| found.depthwise) {
            continue;
        }
        let whole = Growth::new(model, &order[position..], usize::MAX)?;
        let Some(nodes) = whole.closed(model) else {
            continue;
        };
        let part = Growth::new(model, &order[position..], nodes)?;
        if let Some(segment) = part.segment() {
            return Ok(Some((position, segment)));
        }
    }
    Ok(None)
}

/// A segment while nodes are added to it.
struct Growth {
    input: OutletId,
    network: Network,
    /// Value of each outlet inside; that of a sum over pixels is not known before its division.
    values: HashMap<OutletId, Option<usize>>,
    /// In order of execution.
    nodes: Vec<usize>,
    convolutions: usize,
}

impl Growth {
    /// Begins with the convolution `order[0]` and takes in at most `most` nodes.
    fn new(model: &TypedModel, order: &[usize], most: usize) -> TractResult<Self> {
        let input = model.node(order[0]).inputs[0];
        let mut growth = Self {
            input,
            network: Network {
                input: shape(model, input).map_or(Shape::EMPTY, |(_, shape)| shape),
                layers: Vec::new(),
            },
            values: HashMap::from([(input, Some(0))]),
            nodes: Vec::new(),
            convolutions: 0,
        };
        for id in order {
            if growth.nodes.len() == most {
                break;
            }
            let node = model.node(*id);
            if let Some(value) = growth.take(model, node)? {
                growth.values.insert((*id).into(), value);
                growth.nodes.push(*id);
            }
        }
        Ok(growth)
    }

    /// Adds `node` if it belongs here: `Some` with the value of its output.
    #[expect(
        clippy::option_option,
        reason = "a node may belong here and have no value of ours"
    )]
    fn take(&mut self, model: &TypedModel, node: &TypedNode) -> TractResult<Option<Option<usize>>> {
        let value = |outlet: &OutletId| self.values.get(outlet).copied().flatten();
        if let Some(found) = convolution(model, node) {
            let Some(source) = value(&node.inputs[0]) else {
                return Ok(None);
            };
            if found.depthwise && source == 0 || found.source != self.network.shape(source) {
                return Ok(None);
            }
            let kind = match found.depthwise {
                true => Kind::Depthwise(found.convolution()?),
                false => Kind::Dense(found.convolution()?, None),
            };
            self.convolutions += 1;
            return Ok(Some(Some(self.push(kind, source, found.shape))));
        }
        if let Some((clipped, bound)) = bound(model, node) {
            return Ok(value(&clipped)
                .filter(|_| only_reader(model, clipped))
                .and_then(|value| self.clip(value, &bound))
                .map(Some));
        }
        if let Some(terms) = sum(node) {
            let [Some(a), Some(b)] = [value(&terms[0]), value(&terms[1])] else {
                return Ok(None);
            };
            let pairs = [(terms[0], a, b), (terms[1], b, a)];
            let sum = pairs.into_iter().find_map(|(outlet, to, term)| {
                only_reader(model, outlet)
                    .then(|| self.add(to, term))
                    .flatten()
            });
            return Ok(sum.map(Some));
        }
        if let Some(source) = pixel_sum(model, node) {
            return Ok(value(&source).filter(|source| *source > 0).map(|_| None));
        }
        if is_division(node) && self.values.get(&node.inputs[0]) == Some(&None) {
            let summed = model.node(node.inputs[0].node).inputs[0];
            return Ok(value(&summed).map(|source| {
                let shape = Shape {
                    height: 1,
                    width: 1,
                    ..self.network.shape(source)
                };
                Some(self.push(Kind::Mean, source, shape))
            }));
        }
        Ok(None)
    }

    fn push(&mut self, kind: Kind, source: usize, shape: Shape) -> usize {
        self.network.layers.push(Layer {
            kind,
            source,
            shape,
        });
        self.network.layers.len()
    }

    /// Clips `value` where it is computed.
    fn clip(&mut self, value: usize, bound: &Bound) -> Option<usize> {
        let layer = &mut self.network.layers[value.checked_sub(1)?];
        let (Kind::Dense(convolution, None) | Kind::Depthwise(convolution)) = &mut layer.kind
        else {
            return None;
        };
        let [low, high] = convolution
            .clip
            .unwrap_or([f32::NEG_INFINITY, f32::INFINITY]);
        let [low, high] = match *bound {
            Bound::Low(bound) => [low.max(bound), high],
            Bound::High(bound) => [low, high.min(bound)],
        };
        if low > high {
            return None;
        }
        convolution.clip = Some([low, high]);
        Some(value)
    }

    /// Adds `term` to `value` where that is computed.
    fn add(&mut self, value: usize, term: usize) -> Option<usize> {
        if term == 0 || term >= value || self.network.shape(term) != self.network.shape(value) {
            return None;
        }
        match &mut self.network.layers[value - 1].kind {
            Kind::Dense(_, add @ None) => {
                *add = Some(term);
                Some(value)
            }
            _ => None,
        }
    }

    /// How many of the nodes, from the first, have one output: all that is read outside is the last
    /// one. The most there can be.
    fn closed(&self, model: &TypedModel) -> Option<usize> {
        // Position after the last reader of each node's output.
        let position: HashMap<usize, usize> = self
            .nodes
            .iter()
            .enumerate()
            .map(|(i, id)| (*id, i))
            .collect();
        let readers: Vec<usize> = self
            .nodes
            .iter()
            .map(|id| {
                let outlet = OutletId::from(*id);
                if model.outputs.contains(&outlet) {
                    return usize::MAX;
                }
                let successors = model.node(*id).outputs[0].successors.iter();
                let places = successors.map(|s| position.get(&s.node).copied());
                places.map(|p| p.unwrap_or(usize::MAX)).max().unwrap_or(0)
            })
            .collect();
        // `reach` is the furthest reader of nodes 0..i; all of them are inside 0..=i when it is ≤ i.
        let mut best = None;
        let mut reach = 0;
        for (i, id) in self.nodes.iter().enumerate() {
            let complete = self
                .values
                .get(&OutletId::from(*id))
                .is_some_and(Option::is_some);
            if reach <= i && complete {
                best = Some(i + 1);
            }
            reach = reach.max(readers[i]);
        }
        best
    }

    fn segment(self) -> Option<Segment> {
        let output = OutletId::from(*self.nodes.last()?);
        // The last node's value is the network's only if nothing was computed after it.
        let value = self.values.get(&output).copied().flatten()?;
        (value == self.network.layers.len()).then_some(Segment {
            network: self.network,
            input: self.input,
            output,
            convolutions: self.convolutions,
        })
    }
}

/// Whether nothing but one node reads `outlet`.
fn only_reader(model: &TypedModel, outlet: OutletId) -> bool {
    let readers = &model.node(outlet.node).outputs[outlet.slot].successors;
    readers.len() == 1 && !model.outputs.contains(&outlet)
}
