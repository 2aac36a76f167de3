//! Plain loops in f64 over planes.

use crate::encoder::conv::network::{Convolution, Kind, Network, Shape};

/// The network's output, `[C, H, W]`.
pub fn run(network: &Network, input: &[f32]) -> Vec<f64> {
    let mut values = vec![input.iter().map(|v| f64::from(*v)).collect::<Vec<f64>>()];
    for layer in &network.layers {
        let (source, from) = (&values[layer.source], network.shape(layer.source));
        let output = match &layer.kind {
            Kind::Dense(convolution, add) => {
                let mut output = convolve(source, from, convolution, layer.shape, false);
                if let Some(add) = add {
                    output
                        .iter_mut()
                        .zip(&values[*add])
                        .for_each(|(o, a)| *o += a);
                }
                output
            }
            Kind::Depthwise(convolution) => convolve(source, from, convolution, layer.shape, true),
            Kind::Mean => source
                .chunks_exact(from.pixels())
                .map(|plane| plane.iter().sum::<f64>() / plane.len() as f64)
                .collect(),
        };
        values.push(output);
    }
    values.pop().unwrap()
}

fn convolve(
    source: &[f64],
    from: Shape,
    convolution: &Convolution,
    to: Shape,
    depthwise: bool,
) -> Vec<f64> {
    let window = convolution.window;
    let [rows, columns] = window.size;
    let channels = if depthwise { 1 } else { from.channels };
    let mut output = Vec::new();
    for o in 0..to.channels {
        for p in 0..to.pixels() {
            let (y, x) = (p / to.width * window.stride, p % to.width * window.stride);
            let mut sum = f64::from(convolution.bias[o]);
            for k in 0..channels * rows * columns {
                let (channel, tap) = (k / (rows * columns), k % (rows * columns));
                let channel = if depthwise { o } else { channel };
                let y = (y + tap / columns).checked_sub(window.before[0]);
                let x = (x + tap % columns).checked_sub(window.before[1]);
                if let (Some(y), Some(x)) = (y, x)
                    && y < from.height
                    && x < from.width
                {
                    let value = source[channel * from.pixels() + y * from.width + x];
                    let weight = convolution.weights[o * channels * rows * columns + k];
                    sum += value * f64::from(weight);
                }
            }
            if let Some([low, high]) = convolution.clip {
                sum = sum.max(f64::from(low)).min(f64::from(high));
            }
            output.push(sum);
        }
    }
    output
}
