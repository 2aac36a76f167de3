//! The three convolutions of a mobile network with their gradients, channel-last, one thread.
//!
//! Tensors are `[n, height, width, channels] f32`, row-major, square (`side × side`). Padding is
//! TensorFlow's SAME: output side `⌈side / stride⌉`, the odd pixel of padding right and below.

/// Compiles a function for any CPU and once more for AVX-512, and picks one when called: twice to
/// four times the speed without asking for a build for one machine.
macro_rules! for_every_cpu {
    ($(#[$about:meta])* pub fn $name:ident($($argument:ident: $type:ty),* $(,)?) $body:block) => {
        $(#[$about])*
        pub fn $name($($argument: $type),*) {
            #[inline(always)]
            fn portable($($argument: $type),*) $body
            #[cfg(target_arch = "x86_64")]
            {
                #[target_feature(enable = "avx512f,avx512vl,avx2,fma")]
                fn wide($($argument: $type),*) {
                    portable($($argument),*);
                }
                if is_x86_feature_detected!("avx512f")
                    && is_x86_feature_detected!("avx512vl")
                    && is_x86_feature_detected!("avx2")
                    && is_x86_feature_detected!("fma")
                {
                    // SAFETY: the features it is compiled for were found just now.
                    unsafe { wide($($argument),*) };
                    return;
                }
            }
            portable($($argument),*);
        }
    };
}

/// `[m, k] · [k, n] → [m, n]`, all row-major; adds to `y` when `accumulate`.
///
/// # Panics
/// When a slice is not as long as its shape says.
pub fn matmul(
    x: &[f32],
    w: &[f32],
    y: &mut [f32],
    (m, k, n): (usize, usize, usize),
    accumulate: bool,
) {
    assert!(
        x.len() == m * k && w.len() == k * n && y.len() == m * n,
        "shapes of a product"
    );
    product(y, (m, n), x, (k, 1), w, (n, 1), k, accumulate);
}

/// Gradient of [`matmul`] with respect to its left factor: `dy [m, n] · wᵀ → dx [m, k]`.
///
/// # Panics
/// When a slice is not as long as its shape says.
pub fn matmul_grad_left(
    dy: &[f32],
    w: &[f32],
    dx: &mut [f32],
    (m, k, n): (usize, usize, usize),
    accumulate: bool,
) {
    assert!(
        dx.len() == m * k && w.len() == k * n && dy.len() == m * n,
        "shapes of a product"
    );
    product(dx, (m, k), dy, (n, 1), w, (1, n), n, accumulate);
}

/// Gradient of [`matmul`] with respect to its right factor, added to it: `dw [k, n] += xᵀ · dy`.
///
/// # Panics
/// When a slice is not as long as its shape says.
pub fn matmul_grad_right(x: &[f32], dy: &[f32], dw: &mut [f32], (m, k, n): (usize, usize, usize)) {
    assert!(
        x.len() == m * k && dw.len() == k * n && dy.len() == m * n,
        "shapes of a product"
    );
    product(dw, (k, n), x, (1, k), dy, (n, 1), m, true);
}

/// `out [rows, cols] (+)= left [rows, inner] · right [inner, cols]`; strides are (row, column).
#[expect(
    clippy::too_many_arguments,
    reason = "the arguments of a matrix product"
)]
fn product(
    out: &mut [f32],
    (rows, cols): (usize, usize),
    left: &[f32],
    left_strides: (usize, usize),
    right: &[f32],
    right_strides: (usize, usize),
    inner: usize,
    accumulate: bool,
) {
    if rows == 0 || cols == 0 {
        return;
    }
    let stride = usize::cast_signed;
    // SAFETY: the public callers checked that every slice holds exactly rows × columns values of
    // the shape the strides walk, and `out` is borrowed mutably, so nothing aliases it.
    unsafe {
        gemm::gemm(
            rows,
            cols,
            inner,
            out.as_mut_ptr(),
            1,
            stride(cols),
            accumulate,
            left.as_ptr(),
            stride(left_strides.1),
            stride(left_strides.0),
            right.as_ptr(),
            stride(right_strides.1),
            stride(right_strides.0),
            1.0,
            1.0,
            false,
            false,
            false,
            gemm::Parallelism::None,
        );
    }
}

for_every_cpu! {
    /// Adds `bias [c]` to every row of `y [rows, c]`, then clips to 0–6 when `relu6`.
    pub fn add_bias(y: &mut [f32], bias: &[f32], relu6: bool) {
        for row in y.chunks_exact_mut(bias.len()) {
            if relu6 {
                for (v, b) in row.iter_mut().zip(bias) {
                    *v = (*v + b).clamp(0.0, 6.0);
                }
            } else {
                for (v, b) in row.iter_mut().zip(bias) {
                    *v += b;
                }
            }
        }
    }
}

for_every_cpu! {
    /// Backward of [`add_bias`]: zeroes `dy` where the clip was active (`y` is the clipped output) and
    /// adds its column sums to `dbias`.
    pub fn add_bias_grad(dy: &mut [f32], y: &[f32], dbias: &mut [f32], relu6: bool) {
        let c = dbias.len();
        for (dy, y) in dy.chunks_exact_mut(c).zip(y.chunks_exact(c)) {
            if relu6 {
                for ((d, y), b) in dy.iter_mut().zip(y).zip(&mut *dbias) {
                    *d = if *y > 0.0 && *y < 6.0 { *d } else { 0.0 };
                    *b += *d;
                }
            } else {
                for (d, b) in dy.iter().zip(&mut *dbias) {
                    *b += d;
                }
            }
        }
    }
}

/// Size of a depthwise convolution (or of the stem's patches) over one image.
#[derive(Clone, Copy, Debug)]
pub struct Window {
    /// Input height and width.
    pub side: usize,
    /// Channels.
    pub channels: usize,
    /// Kernel height and width.
    pub kernel: usize,
    /// Step.
    pub stride: usize,
}

impl Window {
    /// Output height and width.
    #[inline(always)]
    pub fn out_side(self) -> usize {
        self.side.div_ceil(self.stride)
    }

    /// Padding above and to the left.
    #[inline(always)]
    pub fn pad(self) -> usize {
        ((self.out_side() - 1) * self.stride + self.kernel).saturating_sub(self.side) / 2
    }

    /// Calls `f(output pixel, input pixel, tap)` for every pair a tap connects, tap by tap.
    #[inline(always)]
    fn each(self, mut f: impl FnMut(usize, usize, usize)) {
        let (out, pad) = (self.out_side(), self.pad());
        for oy in 0..out {
            for ky in 0..self.kernel {
                let Some(iy) = (oy * self.stride + ky)
                    .checked_sub(pad)
                    .filter(|v| *v < self.side)
                else {
                    continue;
                };
                for kx in 0..self.kernel {
                    for ox in 0..out {
                        let Some(ix) = (ox * self.stride + kx)
                            .checked_sub(pad)
                            .filter(|v| *v < self.side)
                        else {
                            continue;
                        };
                        f(oy * out + ox, iy * self.side + ix, ky * self.kernel + kx);
                    }
                }
            }
        }
    }
}

/// Channels worked on together: one AVX-512 register.
const LANES: usize = 16;

for_every_cpu! {
    /// Depthwise convolution of one image: `x [side², c]`, `w [kernel², c]` → `y [out², c]`.
    pub fn depthwise(x: &[f32], w: &[f32], y: &mut [f32], window: Window) {
        let (c, out, pad) = (window.channels, window.out_side(), window.pad());
        let whole = c / LANES * LANES;
        for oy in 0..out {
            let rows = taps(oy, window, pad);
            for ox in 0..out {
                let columns = taps(ox, window, pad);
                let y = &mut y[(oy * out + ox) * c..][..c];
                for first in (0..whole).step_by(LANES) {
                    let mut sum = [0.0f32; LANES];
                    for ky in rows.clone() {
                        let iy = oy * window.stride + ky - pad;
                        for kx in columns.clone() {
                            let ix = ox * window.stride + kx - pad;
                            let x = &x[(iy * window.side + ix) * c + first..][..LANES];
                            let w = &w[(ky * window.kernel + kx) * c + first..][..LANES];
                            for lane in 0..LANES {
                                sum[lane] += x[lane] * w[lane];
                            }
                        }
                    }
                    y[first..first + LANES].copy_from_slice(&sum);
                }
                for channel in whole..c {
                    let mut sum = 0.0;
                    for ky in rows.clone() {
                        let iy = oy * window.stride + ky - pad;
                        for kx in columns.clone() {
                            let ix = ox * window.stride + kx - pad;
                            sum += x[(iy * window.side + ix) * c + channel]
                                * w[(ky * window.kernel + kx) * c + channel];
                        }
                    }
                    y[channel] = sum;
                }
            }
        }
    }
}

/// Kernel positions that fall inside the image for output row (or column) `o`.
#[inline(always)]
fn taps(o: usize, window: Window, pad: usize) -> std::ops::Range<usize> {
    let first = pad.saturating_sub(o * window.stride);
    let last = (window.side + pad - o * window.stride).min(window.kernel);
    first..last
}

for_every_cpu! {
    /// Gradients of [`depthwise`]; adds to `dx` and `dw`.
    pub fn depthwise_grad(
        x: &[f32],
        w: &[f32],
        dy: &[f32],
        dx: &mut [f32],
        dw: &mut [f32],
        window: Window,
    ) {
        let c = window.channels;
        window.each(|o, i, tap| {
            let dy = &dy[o * c..][..c];
            let x = &x[i * c..][..c];
            let dx = &mut dx[i * c..][..c];
            let w = &w[tap * c..][..c];
            let dw = &mut dw[tap * c..][..c];
            for channel in 0..c {
                dx[channel] += dy[channel] * w[channel];
                dw[channel] += dy[channel] * x[channel];
            }
        });
    }
}

/// Lays the windows of one image out as rows: `x [side², c]` → `[out², kernel² · c]`, zero where a
/// window leaves the image.
pub fn patches(x: &[f32], window: Window) -> Vec<f32> {
    let (c, taps) = (window.channels, window.kernel * window.kernel);
    let mut rows = vec![0.0; window.out_side().pow(2) * taps * c];
    window.each(|o, i, tap| {
        rows[(o * taps + tap) * c..][..c].copy_from_slice(&x[i * c..][..c]);
    });
    rows
}

#[cfg(test)]
mod tests {
    use super::*;

    fn noise(n: usize, seed: u64) -> Vec<f32> {
        use rand::{Rng, SeedableRng};
        let mut rng = rand::rngs::StdRng::seed_from_u64(seed);
        (0..n).map(|_| rng.random_range(-1.0..1.0)).collect()
    }

    #[test]
    fn depthwise_equals_its_definition_for_odd_sizes_and_channels() {
        for (side, channels, kernel, stride) in
            [(7, 19, 3, 1), (8, 32, 5, 2), (5, 16, 5, 1), (6, 3, 3, 2)]
        {
            let window = Window {
                side,
                channels,
                kernel,
                stride,
            };
            let x = noise(side * side * channels, 1);
            let w = noise(kernel * kernel * channels, 2);
            let mut y = vec![0.0; window.out_side().pow(2) * channels];
            depthwise(&x, &w, &mut y, window);
            let mut expected = vec![0.0; y.len()];
            window.each(|o, i, tap| {
                for c in 0..channels {
                    expected[o * channels + c] += x[i * channels + c] * w[tap * channels + c];
                }
            });
            for (a, b) in y.iter().zip(&expected) {
                assert!((a - b).abs() < 1e-5, "{a} {b}");
            }
        }
    }

    #[test]
    fn depthwise_gradients_are_the_adjoint_of_the_forward_pass() {
        let window = Window {
            side: 9,
            channels: 20,
            kernel: 5,
            stride: 2,
        };
        let x = noise(81 * 20, 3);
        let w = noise(25 * 20, 4);
        let dy = noise(window.out_side().pow(2) * 20, 5);
        let (mut dx, mut dw) = (vec![0.0; x.len()], vec![0.0; w.len()]);
        depthwise_grad(&x, &w, &dy, &mut dx, &mut dw, window);
        let mut y = vec![0.0; dy.len()];
        depthwise(&x, &w, &mut y, window);
        let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f32>();
        // The convolution is linear in x and in w, so <y, dy> = <x, dx> = <w, dw>.
        assert!((dot(&y, &dy) - dot(&x, &dx)).abs() < 1e-2);
        assert!((dot(&y, &dy) - dot(&w, &dw)).abs() < 1e-2);
    }

    #[test]
    fn products_and_their_gradients_agree_with_the_definition() {
        let (m, k, n) = (7, 5, 9);
        let (x, w, dy) = (noise(m * k, 6), noise(k * n, 7), noise(m * n, 8));
        let mut y = vec![0.0; m * n];
        matmul(&x, &w, &mut y, (m, k, n), false);
        for i in 0..m {
            for j in 0..n {
                let sum: f32 = (0..k).map(|l| x[i * k + l] * w[l * n + j]).sum();
                assert!((sum - y[i * n + j]).abs() < 1e-5);
            }
        }
        let (mut dx, mut dw) = (vec![0.0; m * k], vec![0.0; k * n]);
        matmul_grad_left(&dy, &w, &mut dx, (m, k, n), false);
        matmul_grad_right(&x, &dy, &mut dw, (m, k, n));
        let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f32>();
        assert!((dot(&y, &dy) - dot(&x, &dx)).abs() < 1e-4);
        assert!((dot(&y, &dy) - dot(&w, &dw)).abs() < 1e-4);
    }
}
