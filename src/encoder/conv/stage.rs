//! Rows of feature maps through the kernels: where bounds are checked, once per band of rows.

use super::kernels::buffer::Buffer;
use super::kernels::{DepthwiseRow, Kernels, LANES, Tile};
use super::packed::{Dense, Depthwise, Panel, Taps};

/// A feature map in memory, `[planes][rows][pixels]`. Threads that share one write disjoint pixels of
/// it and never read what another one writes meanwhile.
#[derive(Clone, Copy)]
pub struct Map {
    start: *mut f32,
    len: usize,
    /// Floats between planes, or between blocks of channels.
    pub plane: usize,
    /// Floats between rows.
    pub pitch: usize,
}

// SAFETY: a map is an address with bounds; every access is an unsafe block that argues for itself.
unsafe impl Send for Map {}
// SAFETY: as above.
unsafe impl Sync for Map {}

impl Map {
    /// A map that begins at `offset` of `buffer`; all bounds are those of the buffer. It must not
    /// outlive the borrow, which is what the executor's exclusive borrow of its memory ensures.
    pub fn new(buffer: &mut Buffer, offset: usize, plane: usize, pitch: usize) -> Self {
        assert!(offset <= buffer.len(), "a map begins inside its buffer");
        Self {
            // SAFETY: inside the buffer, or one past its end.
            start: unsafe { buffer.start().add(offset) },
            len: buffer.len() - offset,
            plane,
            pitch,
        }
    }

    /// The map whose first pixel is `offset` floats further on.
    pub fn at(self, offset: usize) -> Self {
        assert!(offset <= self.len, "a map begins inside its buffer");
        Self {
            // SAFETY: inside the buffer, or one past its end.
            start: unsafe { self.start.add(offset) },
            len: self.len - offset,
            ..self
        }
    }

    /// The same map with rows `pitch` floats apart.
    pub fn with_pitch(self, pitch: usize) -> Self {
        Self { pitch, ..self }
    }

    /// The map from block `index` on.
    pub fn block(self, index: usize) -> Self {
        self.at(index * self.plane)
    }

    /// `planes` planes of `rows` rows of `len` floats lie inside the buffer.
    fn holds(&self, planes: usize, rows: usize, len: usize) -> bool {
        let last = |count: usize, step: usize| count.saturating_sub(1).saturating_mul(step);
        let end = last(planes, self.plane).saturating_add(last(rows, self.pitch));
        rows == 0 || end.saturating_add(len) <= self.len
    }

    /// Zeroes `len` floats in each of `rows` rows of `planes` planes.
    ///
    /// # Safety
    /// No other thread touches them meanwhile.
    pub unsafe fn clear(&self, planes: usize, rows: usize, len: usize) {
        assert!(self.holds(planes, rows, len), "a band inside its buffer");
        for plane in 0..planes {
            for row in 0..rows {
                let offset = plane * self.plane + row * self.pitch;
                // SAFETY: inside the buffer, see above.
                unsafe { self.start.add(offset).write_bytes(0, len) }
            }
        }
    }
}

/// A band of output pixels.
#[derive(Clone, Copy)]
pub struct Band {
    pub rows: usize,
    pub width: usize,
}

/// One panel of a dense convolution over a band.
///
/// `source` begins at the origin of the band's first pixel and its pitch is the distance between the
/// origins of output rows; `target` and `add` begin at the band's first pixel of the panel's first
/// block.
///
/// # Safety
/// No other thread writes the source, touches the panel's band in `target` or writes it in `add`
/// meanwhile.
///
/// # Panics
/// When the band is not inside the maps.
pub unsafe fn dense(
    kernels: &Kernels,
    (dense, taps): (&Dense, &Taps),
    panel: Panel,
    source: Map,
    target: Map,
    add: Option<Map>,
    band: Band,
) {
    let step = dense.step.floats();
    let Band { rows, width } = band;
    if rows == 0 || width == 0 {
        return;
    }
    let read = (width - 1) * step + taps.extent;
    assert!(source.holds(1, rows, read), "sources inside their buffer");
    for map in [Some(target), add].into_iter().flatten() {
        let fits = map.holds(panel.blocks, rows, width * LANES);
        assert!(fits, "outputs inside their buffer");
    }
    let contiguous = |map: Map| map.pitch == width * LANES;
    let flat = source.pitch == width * step && contiguous(target) && add.is_none_or(contiguous);
    let (rows, width) = if flat {
        (1, rows * width)
    } else {
        (rows, width)
    };
    let (weights, bias) = dense.panel(panel);
    let mut ahead = dense.ahead(panel);
    for row in 0..rows {
        // SAFETY: the bounds of source, target and add were checked above for the whole band; a flat
        // band is the same floats as one row. The panel's weights and bias are of its width. The
        // caller vouches for other threads.
        unsafe {
            let tile = Tile {
                runs: &taps.runs,
                src: source.start.add(row * source.pitch),
                weights: weights.as_ptr(),
                ahead: weights.as_ptr(),
                bias: bias.as_ptr(),
                dst: target.start.add(row * target.pitch),
                dst_plane: target.plane,
                residual: match add {
                    Some(add) => add.start.add(row * add.pitch),
                    None => std::ptr::null(),
                },
                residual_plane: add.map_or(0, |add| add.plane),
                clip: dense.clip,
            };
            kernels.dense_row(&tile, (dense.step, panel.blocks, width), &mut ahead);
        }
    }
}

/// One block of a depthwise convolution over a band: `source` begins at the top left tap of the
/// band's first pixel, `target` at that pixel, both in this block's plane.
///
/// # Safety
/// No other thread writes the source or touches the band in `target` meanwhile.
///
/// # Panics
/// When the band is not inside the maps.
pub unsafe fn depthwise(
    depthwise: &Depthwise,
    block: usize,
    source: Map,
    target: Map,
    Band { rows, width }: Band,
) {
    if rows == 0 || width == 0 {
        return;
    }
    let window = depthwise.window;
    let read = ((width - 1) * window.stride + window.size[1]) * LANES;
    let read_rows = (rows - 1) * window.stride + window.size[0];
    assert!(source.holds(1, read_rows, read), "sources in their buffer");
    assert!(target.holds(1, rows, width * LANES), "outputs in theirs");
    let (weights, bias) = depthwise.block(block);
    for row in 0..rows {
        // SAFETY: the bounds of source and target were checked above for the whole band; weights and
        // bias are of one block. The caller vouches for other threads.
        unsafe {
            (depthwise.kernel)(&DepthwiseRow {
                src: source.start.add(row * window.stride * source.pitch),
                src_pitch: source.pitch,
                weights: weights.as_ptr(),
                bias: bias.as_ptr(),
                dst: target.start.add(row * target.pitch),
                pixels: width,
                clip: depthwise.clip,
            });
        }
    }
}
