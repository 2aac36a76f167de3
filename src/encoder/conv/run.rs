//! Runs a program.
//!
//! Work is shared between threads by rows of output where a share is tall enough that the rows
//! computed twice (a depthwise kernel looks beyond its share) do not count, and by panels of channels
//! otherwise. Either way every output is the same sum in the same order: thread counts do not change
//! bits.

use std::ops::Range;

use super::kernels::buffer::Buffer;
use super::kernels::layout::{blocks_to_planes, mean};
use super::kernels::{Kernels, LANES};
use super::network::Window;
use super::packed::Panel;
use super::program::{DenseStep, FusedStep, Place, Program, Step};
use super::stage::{Band, Map, dense, depthwise};
use super::threads::{Threads, share};

/// A thread's share of a fused step has at least this many times the rows it shares with others.
const ROWS_PER_OVERLAP: usize = 3;

/// Memory of one image on its way through a [`Program`].
pub struct Memory {
    slots: Vec<Buffer>,
    workers: Vec<Worker>,
}

/// Intermediate maps of a thread's fused steps.
struct Worker {
    expanded: Buffer,
    filtered: Buffer,
}

impl Memory {
    /// For `program`; grows when it is used with more than one thread.
    pub fn new(program: &Program) -> Self {
        Self {
            slots: program
                .slots
                .iter()
                .map(|len| Buffer::zeros(*len))
                .collect(),
            workers: Vec::new(),
        }
    }

    fn grow(&mut self, program: &Program, threads: usize) {
        let fused = || {
            program.steps.iter().filter_map(|step| match step {
                Step::Fused(step) => Some(step),
                _ => None,
            })
        };
        let expanded = fused().map(|step| step.expanded_floats()).max();
        let filtered = fused().map(|step| step.filtered_floats()).max();
        while self.workers.len() < threads {
            self.workers.push(Worker {
                expanded: Buffer::zeros(expanded.unwrap_or(0)),
                filtered: Buffer::zeros(filtered.unwrap_or(0)),
            });
        }
    }

    fn map(&mut self, place: &Place) -> Map {
        Map::new(&mut self.slots[place.slot], 0, place.plane, place.pitch)
    }
}

impl Program {
    /// One image: `input` is `[C, H, W]`, `output` `[C, H, W]` of the last value. `memory` was made
    /// for this program.
    ///
    /// # Panics
    /// When input, output or memory are not of this program.
    pub fn run(
        &self,
        memory: &mut Memory,
        input: &[f32],
        output: &mut [f32],
        threads: &dyn Threads,
    ) {
        memory.grow(self, threads.count());
        self.read(memory, input);
        for step in &self.steps {
            self.step(memory, step, threads);
        }
        self.write(memory, output);
    }

    fn step(&self, memory: &mut Memory, step: &Step, threads: &dyn Threads) {
        match step {
            Step::Dense(step) => self.dense(memory, step, threads),
            Step::Fused(step) => self.fused(memory, step, threads),
            Step::Depthwise {
                depthwise: filter,
                source,
                target,
            } => {
                let (from, to) = (self.place(*source), self.place(*target));
                let source = memory.map(from).at(from.origin(&filter.window));
                let target = memory.map(to).at(to.inner());
                let band = Band {
                    rows: to.shape.height,
                    width: to.shape.width,
                };
                threads.run(&|index| {
                    for block in share(filter.blocks(), index, threads.count()) {
                        let source = source.block(block);
                        let target = target.block(block);
                        // SAFETY: threads take different blocks; the two values have different
                        // slots.
                        unsafe { depthwise(filter, block, source, target, band) }
                    }
                });
            }
            Step::Mean { source, target } => self.mean(memory, *source, *target),
        }
    }

    /// Input planes into their place.
    fn read(&self, memory: &mut Memory, input: &[f32]) {
        let place = self.place(0);
        let shape = self.input;
        assert_eq!(input.len(), shape.channels * shape.pixels());
        let slot = &mut memory.slots[place.slot];
        for (row, values) in input.chunks_exact(shape.width.max(1)).enumerate() {
            let (channel, y) = (row / shape.height, row % shape.height);
            let start = place.inner() + channel * place.plane + y * place.pitch;
            slot[start..start + shape.width].copy_from_slice(values);
        }
    }

    /// The last value into planes.
    fn write(&self, memory: &Memory, output: &mut [f32]) {
        let place = self.place(self.places.len() - 1);
        let shape = place.shape;
        let len = shape.channels.next_multiple_of(LANES) * shape.pixels();
        let slot = &memory.slots[place.slot];
        blocks_to_planes(&slot[..len], shape.channels, shape.pixels(), output);
    }

    fn mean(&self, memory: &mut Memory, source: usize, target: usize) {
        let (from, to) = (self.place(source), self.place(target));
        let pixels = from.shape.pixels();
        let blocks = from.shape.channels.div_ceil(LANES);
        let mut means = vec![0.0; blocks * LANES];
        let source = &memory.slots[from.slot];
        if from.plane == pixels * LANES {
            mean(&source[..blocks * pixels * LANES], pixels, &mut means);
        } else {
            let mut inner = Vec::with_capacity(blocks * pixels * LANES);
            for block in 0..blocks {
                for y in 0..from.shape.height {
                    let start = from.inner() + block * from.plane + y * from.pitch;
                    inner.extend_from_slice(&source[start..start + from.shape.width * LANES]);
                }
            }
            mean(&inner, pixels, &mut means);
        }
        let target = &mut memory.slots[to.slot];
        for (block, mean) in means.chunks_exact(LANES).enumerate() {
            let start = to.inner() + block * to.plane;
            target[start..start + LANES].copy_from_slice(mean);
        }
    }

    /// Maps of a step's source at the first tap, of its target and of what is added to it.
    fn maps(
        &self,
        memory: &mut Memory,
        (source, window): (usize, &Window),
        target: usize,
        add: Option<usize>,
    ) -> (Map, Map, Option<Map>) {
        let (from, to) = (self.place(source), self.place(target));
        let source = memory.map(from).at(from.origin(window));
        let target = memory.map(to).at(to.inner());
        let add = add.map(|value| {
            let place = self.place(value);
            memory.map(place).at(place.inner())
        });
        (source, target, add)
    }

    fn dense(&self, memory: &mut Memory, step: &DenseStep, threads: &dyn Threads) {
        let window = &step.dense.window;
        let (source, target, add) = self.maps(memory, (step.source, window), step.target, step.add);
        let shape = self.place(step.target).shape;
        let source = source.with_pitch(source.pitch * window.stride);
        let pieces = Pieces::new(&step.dense.panels, shape.height, threads.count());
        threads.run(&|index| {
            for (panel, rows) in pieces.of(index) {
                let band = Band {
                    rows: rows.len(),
                    width: shape.width,
                };
                let down = |map: Map| map.at(rows.start * map.pitch);
                let source = down(source);
                let target = down(target).block(panel.first);
                let add = add.map(|add| down(add).block(panel.first));
                let layer = (&step.dense, &step.taps);
                // SAFETY: threads take different pieces of the target; the three values are
                // different ones that live at once, so they have different slots.
                unsafe { dense(self.kernels, layer, panel, source, target, add, band) }
            }
        });
    }

    fn fused(&self, memory: &mut Memory, step: &FusedStep, threads: &dyn Threads) {
        let window = (step.source, &step.expand.window);
        let (source, target, add) = self.maps(memory, window, step.target, step.add);
        let pitch = step.expanded_width() * LANES;
        let filtered_pitch = step.filtered.width * LANES;
        let workers = memory.workers.iter_mut().map(|worker| {
            let Worker { expanded, filtered } = worker;
            let expanded = Map::new(expanded, 0, step.expanded_plane(), pitch);
            let filtered = Map::new(filtered, 0, step.filtered_plane(), filtered_pitch);
            (expanded, filtered)
        });
        let run = Fused {
            kernels: self.kernels,
            step,
            source: source.with_pitch(source.pitch * step.expand.window.stride),
            target,
            add,
            workers: workers.collect(),
        };
        let (count, height) = (threads.count(), step.filtered.height);
        let window = &step.depthwise.window;
        let overlap = window.size[0].saturating_sub(window.stride);
        let tall = height / count * window.stride >= ROWS_PER_OVERLAP * overlap;
        if count == 1 || tall || step.band_rows < height {
            threads.run(&|index| run.rows(index, share(height, index, count)));
        } else {
            let panels = &step.expand.panels;
            threads.run(&|index| {
                run.filter(
                    index,
                    0,
                    &panels[share(panels.len(), index, count)],
                    0..height,
                );
            });
            let pieces = Pieces::new(&step.project.panels, height, count);
            threads.run(&|index| {
                for (panel, rows) in pieces.of(index) {
                    run.project(0, &[panel], 0, rows);
                }
            });
        }
    }
}

/// Panels and bands of rows, dealt out to threads.
struct Pieces<'a> {
    panels: &'a [Panel],
    height: usize,
    bands: usize,
    threads: usize,
}

impl<'a> Pieces<'a> {
    /// Whole panels when they deal out evenly, else each thread has a band of all of them.
    fn new(panels: &'a [Panel], height: usize, threads: usize) -> Self {
        let even = panels.len().is_multiple_of(threads);
        Self {
            panels,
            height,
            bands: if even { 1 } else { threads },
            threads,
        }
    }

    fn of(&self, thread: usize) -> impl Iterator<Item = (Panel, Range<usize>)> + '_ {
        let panels = self.panels.len();
        share(panels * self.bands, thread, self.threads).map(move |piece| {
            let band = share(self.height, piece / panels, self.bands);
            (self.panels[piece % panels], band)
        })
    }
}

/// A fused step on its maps.
struct Fused<'a> {
    kernels: &'static Kernels,
    step: &'a FusedStep,
    /// At the first tap of the first output of `expand`; pitch between rows of those outputs.
    source: Map,
    target: Map,
    add: Option<Map>,
    /// Expanded and filtered band of each thread.
    workers: Vec<(Map, Map)>,
}

impl Fused<'_> {
    /// All channels of some rows, band after band, by one thread.
    fn rows(&self, thread: usize, rows: Range<usize>) {
        let bands = rows.len().div_ceil(self.step.band_rows);
        for band in 0..bands {
            let part = share(rows.len(), band, bands);
            let band = rows.start + part.start..rows.start + part.end;
            self.filter(thread, thread, &self.step.expand.panels, band.clone());
            self.project(thread, &self.step.project.panels, band.start, band);
        }
    }

    /// Expands and filters some panels over `rows` of the filtered map, into the filtered band of
    /// worker `into`.
    fn filter(&self, thread: usize, into: usize, panels: &[Panel], rows: Range<usize>) {
        let step = self.step;
        let window = &step.depthwise.window;
        let (expanded, filtered) = (self.workers[thread].0, self.workers[into].1);
        let [above, left] = window.before;
        // Rows of the expanded map in the band, the border counted: `top` of them are above the
        // image, `inside` in it.
        let all = step.expanded_rows(rows.len());
        let first = rows.start * window.stride;
        let top = above.saturating_sub(first).min(all);
        let begin = (first + top).saturating_sub(above);
        let inside = step.expanded.height.saturating_sub(begin).min(all - top);
        let width = step.expanded_width();
        let columns = step.expanded.width.min(width - left);
        let right = width - left - columns;
        let planes = panels.iter().map(|panel| panel.blocks).max();
        let planes = planes.unwrap_or(0);
        let pitch = expanded.pitch;
        // SAFETY: the expanded band belongs to this thread.
        unsafe {
            expanded.clear(planes, top, width * LANES);
            let below = expanded.at((top + inside) * pitch);
            below.clear(planes, all - top - inside, width * LANES);
            let middle = expanded.at(top * pitch);
            middle.clear(planes, inside, left * LANES);
            let end = middle.at((left + columns) * LANES);
            end.clear(planes, inside, right * LANES);
        }
        for panel in panels {
            let layer = (&step.expand, &step.expand_taps);
            let source = self.source.at(begin * self.source.pitch);
            let inner = expanded.at(top * pitch + left * LANES);
            let band = Band {
                rows: inside,
                width: columns,
            };
            // SAFETY: the expanded band belongs to this thread; nothing writes the source.
            unsafe { dense(self.kernels, layer, *panel, source, inner, None, band) }
            let band = Band {
                rows: rows.len(),
                width: step.filtered.width,
            };
            for index in 0..panel.blocks {
                let block = panel.first + index;
                let source = expanded.block(index);
                let target = filtered.block(block);
                // SAFETY: the expanded band belongs to this thread, and so do the blocks of its
                // panels in the filtered band.
                unsafe { depthwise(&step.depthwise, block, source, target, band) }
            }
        }
    }

    /// Projects `rows` of the filtered band of worker `from`, which begins at row `start`.
    fn project(&self, from: usize, panels: &[Panel], start: usize, rows: Range<usize>) {
        let step = self.step;
        let filtered = self.workers[from].1;
        let source = filtered.at((rows.start - start) * filtered.pitch);
        let down = |map: Map| map.at(rows.start * map.pitch);
        let (target, add) = (down(self.target), self.add.map(down));
        let band = Band {
            rows: rows.len(),
            width: step.filtered.width,
        };
        for panel in panels {
            let layer = (&step.project, &step.project_taps);
            let (target, add) = (target.block(panel.first), add.map(|a| a.block(panel.first)));
            // SAFETY: threads take different panels or rows of the target; the filtered band is
            // complete; source, target and addend have different slots.
            unsafe { dense(self.kernels, layer, *panel, source, target, add, band) }
        }
    }
}
