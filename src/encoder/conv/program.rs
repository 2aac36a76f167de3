//! From a network to steps with packed weights and a place in memory for every value.
//!
//! A dense layer, the depthwise one after it and the pointwise one after that (an inverted residual,
//! or a depthwise-separable pair with what precedes it) become one step when nothing else reads what
//! lies between them: their wide intermediate maps then exist only for a panel of channels, or a
//! band of rows, and stay in cache.

use super::kernels::{Kernels, LANES};
use super::network::{Kind, Layer, Network, Shape, Window};
use super::packed::{Dense, Depthwise, Taps};
use super::place::Places;

/// What the intermediate maps of a fused step may take together, floats: they stay in a common
/// second-level cache.
const BAND_FLOATS: usize = (640 << 10) / size_of::<f32>();

/// Most that all values of a program may take, floats (1 GiB): what wants more is no tower for a
/// camera, and running out of memory is not an error that can be handled.
const MAX_FLOATS: usize = (1 << 30) / size_of::<f32>();

/// Where a value lies.
#[derive(Clone, Copy, Debug)]
pub struct Place {
    /// Index of its memory.
    pub slot: usize,
    /// Without its border.
    pub shape: Shape,
    /// Zero pixels above and to the left.
    pub before: [usize; 2],
    /// Floats between planes, or between blocks of channels.
    pub plane: usize,
    /// Floats between rows.
    pub pitch: usize,
    /// Floats of a pixel in a plane: 1 in planes, [`LANES`] in blocks.
    pub unit: usize,
}

impl Place {
    /// Floats from the start of the slot to pixel (0, 0).
    pub fn inner(&self) -> usize {
        self.before[0] * self.pitch + self.before[1] * self.unit
    }

    /// Floats from the start of the slot to the first tap of the first output of `window`.
    pub fn origin(&self, window: &Window) -> usize {
        (self.before[0] - window.before[0]) * self.pitch
            + (self.before[1] - window.before[1]) * self.unit
    }
}

/// A dense layer from value `source` to value `target`.
pub struct DenseStep {
    pub dense: Dense,
    pub taps: Taps,
    pub source: usize,
    pub target: usize,
    /// The value added to the target.
    pub add: Option<usize>,
}

/// Three layers in one, from value `source` to value `target`.
pub struct FusedStep {
    pub expand: Dense,
    pub expand_taps: Taps,
    pub depthwise: Depthwise,
    pub project: Dense,
    pub project_taps: Taps,
    pub source: usize,
    /// Shape between `expand` and `depthwise`.
    pub expanded: Shape,
    /// Shape between `depthwise` and `project`.
    pub filtered: Shape,
    pub target: usize,
    /// The value added to the target.
    pub add: Option<usize>,
    /// Most rows of `filtered` in a band.
    pub band_rows: usize,
}

impl FusedStep {
    /// Rows of `expanded` that `rows` of `filtered` need.
    pub fn expanded_rows(&self, rows: usize) -> usize {
        let window = &self.depthwise.window;
        (rows - 1) * window.stride + window.size[0]
    }

    /// Columns of `expanded` with its border.
    pub fn expanded_width(&self) -> usize {
        let window = &self.depthwise.window;
        (self.filtered.width - 1) * window.stride + window.size[1]
    }

    /// Floats of a plane of the expanded band.
    pub fn expanded_plane(&self) -> usize {
        self.expanded_rows(self.band_rows) * self.expanded_width() * LANES
    }

    /// Floats of a plane of the filtered band.
    pub fn filtered_plane(&self) -> usize {
        self.band_rows * self.filtered.width * LANES
    }

    /// Floats of the expanded band of the widest panel.
    pub fn expanded_floats(&self) -> usize {
        let widest = self.expand.panels.iter().map(|panel| panel.blocks).max();
        widest.unwrap_or(0) * self.expanded_plane()
    }

    /// Floats of the filtered band.
    pub fn filtered_floats(&self) -> usize {
        self.depthwise.blocks() * self.filtered_plane()
    }
}

/// One step of a program; `source` and `target` are values.
pub enum Step {
    Dense(DenseStep),
    Depthwise {
        depthwise: Depthwise,
        source: usize,
        target: usize,
    },
    Fused(Box<FusedStep>),
    Mean {
        source: usize,
        target: usize,
    },
}

/// A network ready to run.
pub struct Program {
    /// What the weights are packed for.
    pub kernels: &'static Kernels,
    /// In order of execution.
    pub steps: Vec<Step>,
    /// By value; those inside a fused step have none.
    pub places: Vec<Option<Place>>,
    /// Floats of each slot.
    pub slots: Vec<usize>,
    /// Of value 0.
    pub input: Shape,
    /// Of the last value.
    pub output: Shape,
}

impl Program {
    /// Plans `network` for `kernels`. `None` when a layer has no kernel, or the values take too
    /// much memory.
    ///
    /// # Panics
    /// When weights and shapes of the network do not fit each other.
    pub fn new(network: &Network, kernels: &'static Kernels) -> Option<Self> {
        let mut places = Places::new(network);
        let mut steps = Vec::new();
        let mut index = 0;
        while index < network.layers.len() {
            let (step, used) = match fused(network, index, kernels, &mut places) {
                Some(step) => (Step::Fused(Box::new(step)), 3),
                None => (single(network, index, kernels, &mut places)?, 1),
            };
            steps.push(step);
            index += used;
            places.release_before(index);
        }
        let (places, slots) = places.finish();
        let values = slots.iter().copied().fold(0, usize::saturating_add);
        if values > MAX_FLOATS {
            return None;
        }
        Some(Self {
            kernels,
            steps,
            places,
            slots,
            input: network.input,
            output: network.output(),
        })
    }

    /// The place of a value that a step reads or writes.
    ///
    /// # Panics
    /// For a value inside a fused step.
    pub fn place(&self, value: usize) -> &Place {
        self.places[value].as_ref().expect("a value with a place")
    }
}

/// The step of one layer.
fn single(
    network: &Network,
    index: usize,
    kernels: &Kernels,
    places: &mut Places<'_>,
) -> Option<Step> {
    let layer = &network.layers[index];
    let (source, target) = (layer.source, index + 1);
    let from = places.of(source);
    Some(match &layer.kind {
        Kind::Dense(convolution, add) => {
            let channels = from.shape.channels;
            let dense = Dense::pack(kernels, convolution, channels, from.unit == 1)?;
            places.of(target);
            Step::Dense(DenseStep {
                taps: dense.taps(from.plane, from.pitch),
                dense,
                source,
                target,
                add: *add,
            })
        }
        Kind::Depthwise(convolution) if from.unit == LANES => {
            places.of(target);
            Step::Depthwise {
                depthwise: Depthwise::pack(kernels, convolution)?,
                source,
                target,
            }
        }
        Kind::Mean if from.unit == LANES => {
            places.of(target);
            Step::Mean { source, target }
        }
        Kind::Depthwise(_) | Kind::Mean => return None,
    })
}

/// Layers `index` and the two after it as one step, if they are such a chain.
fn fused(
    network: &Network,
    index: usize,
    kernels: &Kernels,
    places: &mut Places<'_>,
) -> Option<FusedStep> {
    let [first, second, third] = network.layers.get(index..index + 3)? else {
        return None;
    };
    let (Kind::Dense(expand, None), Kind::Depthwise(filter), Kind::Dense(project, add)) =
        (&first.kind, &second.kind, &third.kind)
    else {
        return None;
    };
    let only_next = |layer: &Layer, value| layer.source == value && network.readers(value) == 1;
    if !only_next(second, index + 1)
        || !only_next(third, index + 2)
        || project.window != Window::POINT
    {
        return None;
    }
    let from = places.of(first.source);
    let expand = Dense::pack(kernels, expand, from.shape.channels, from.unit == 1)?;
    let depthwise = Depthwise::pack(kernels, filter)?;
    let project = Dense::pack(kernels, project, second.shape.channels, false)?;
    let expand_taps = expand.taps(from.plane, from.pitch);
    places.of(index + 3);
    let mut step = FusedStep {
        expand,
        expand_taps,
        depthwise,
        project_taps: project.taps(0, 0),
        project,
        source: first.source,
        expanded: first.shape,
        filtered: second.shape,
        target: index + 3,
        add: *add,
        band_rows: second.shape.height,
    };
    while step.band_rows > 1 && step.expanded_floats() + step.filtered_floats() > BAND_FLOATS {
        step.band_rows -= 1;
    }
    let pitch = step.filtered.width * LANES;
    step.project_taps = step.project.taps(step.filtered_plane(), pitch);
    Some(step)
}
