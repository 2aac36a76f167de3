//! A slot of memory for every value, used again when a value is no longer read.

use super::kernels::LANES;
use super::network::{Kind, Layer, Network};
use super::program::Place;

impl Network {
    /// Layers that read `value`, the caller for the last one.
    pub(super) fn readers(&self, value: usize) -> usize {
        let reads = |layer: &&Layer| {
            let added = matches!(layer.kind, Kind::Dense(_, Some(add)) if add == value);
            layer.source == value || added
        };
        let caller = usize::from(value == self.layers.len());
        self.layers.iter().filter(reads).count() + caller
    }

    /// First layer after which `value` is not read.
    fn last_use(&self, value: usize) -> usize {
        if value == self.layers.len() {
            return usize::MAX;
        }
        let reads = |kind: &Kind| matches!(kind, Kind::Dense(_, Some(add)) if *add == value);
        let last = self
            .layers
            .iter()
            .rposition(|layer| layer.source == value || reads(&layer.kind));
        last.map_or(value, |last| last + 1)
    }

    /// Zero pixels that readers of `value` want before and after it, by axis.
    fn border(&self, value: usize) -> ([usize; 2], [usize; 2]) {
        let (mut before, mut after) = ([0; 2], [0; 2]);
        for layer in self.layers.iter().filter(|layer| layer.source == value) {
            let (Kind::Dense(convolution, _) | Kind::Depthwise(convolution)) = &layer.kind else {
                continue;
            };
            for axis in 0..2 {
                before[axis] = before[axis].max(convolution.window.before[axis]);
                after[axis] = after[axis].max(convolution.window.after[axis]);
            }
        }
        (before, after)
    }
}

/// Hands out places while a program is planned.
pub(super) struct Places<'a> {
    network: &'a Network,
    places: Vec<Option<Place>>,
    /// Floats of each slot and the layer before which its value is still read.
    slots: Vec<(usize, usize)>,
    /// Layers planned so far.
    now: usize,
}

impl<'a> Places<'a> {
    pub fn new(network: &'a Network) -> Self {
        Self {
            network,
            places: vec![None; network.layers.len() + 1],
            slots: Vec::new(),
            now: 0,
        }
    }

    /// The place of `value`, found when it is first asked for.
    ///
    /// A value with a border keeps its slot to itself: the border is zero from the beginning and
    /// nothing writes it. Other values take the smallest free slot that is large enough, or grow the
    /// largest free one.
    pub fn of(&mut self, value: usize) -> Place {
        if let Some(place) = self.places[value] {
            return place;
        }
        let shape = self.network.shape(value);
        let (before, after) = self.network.border(value);
        let unit = if value == 0 { 1 } else { LANES };
        let pitch = (before[1] + shape.width + after[1]) * unit;
        let plane = (before[0] + shape.height + after[0]).saturating_mul(pitch);
        let planes = match value {
            0 => shape.channels,
            _ => shape.channels.div_ceil(LANES),
        };
        let floats = planes.saturating_mul(plane);
        let bordered = before != [0; 2] || after != [0; 2];
        let until = match bordered {
            true => usize::MAX,
            false => self.network.last_use(value),
        };
        let free = |(_, (_, until)): &(usize, &(usize, usize))| !bordered && *until <= self.now;
        let candidates = || self.slots.iter().enumerate().filter(free);
        let fitting = candidates().filter(|(_, (size, _))| *size >= floats);
        let best = fitting.min_by_key(|(_, (size, _))| *size);
        let best = best.or_else(|| candidates().max_by_key(|(_, (size, _))| *size));
        let slot = match best.map(|(slot, _)| slot) {
            Some(slot) => {
                self.slots[slot] = (self.slots[slot].0.max(floats), until);
                slot
            }
            None => {
                self.slots.push((floats, until));
                self.slots.len() - 1
            }
        };
        let place = Place {
            slot,
            shape,
            before,
            plane,
            pitch,
            unit,
        };
        self.places[value] = Some(place);
        place
    }

    /// Layers below `layer` are planned: what only they read may be overwritten.
    pub fn release_before(&mut self, layer: usize) {
        self.now = layer;
    }

    /// Places by value, floats by slot.
    pub fn finish(self) -> (Vec<Option<Place>>, Vec<usize>) {
        let slots = self.slots.into_iter().map(|(floats, _)| floats).collect();
        (self.places, slots)
    }
}
