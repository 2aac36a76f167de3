use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::*;
use crate::encoder::int8::kernels::Isa;
use crate::encoder::int8::sublayer::tests::{WIDTH, body, layers, plain_norm, waves};
use crate::encoder::int8::sublayer::{Body, Placement};

/// Doubles what it is given, so many times.
struct Doubling {
    works: usize,
    calls: AtomicUsize,
}

impl Device for Doubling {
    fn run(&self, x: &mut Vec<f32>, batch: Batch) -> Result<(), String> {
        assert_eq!(x.len(), batch.batch * batch.tokens * WIDTH);
        if self.calls.fetch_add(1, Ordering::Relaxed) >= self.works {
            return Err("an illegal memory access was encountered".to_owned());
        }
        x.iter_mut().for_each(|v| *v *= 2.0);
        Ok(())
    }

    fn most_rows(&self) -> usize {
        1 << 14
    }
}

fn sublayers() -> Sublayers {
    let context = Arc::new(Context::new(Isa::detect(), NonZeroUsize::MIN));
    let sublayer = |body| Arc::new(Sublayer::new(plain_norm(), Placement::Pre, body).unwrap());
    let all = vec![
        sublayer(Body::Attention(body())),
        sublayer(Body::FeedForward(layers())),
    ];
    Sublayers::new(context, all)
}

fn run(sublayers: &Sublayers, x: &[f32], items: usize) -> Vec<Vec<f32>> {
    let tokens = x.len() / items / WIDTH;
    let item = |x: &[f32]| {
        tvec!(
            Tensor::from_shape(&[1, tokens, WIDTH], x)
                .unwrap()
                .into_tvalue()
        )
    };
    let results = sublayers.run(x.chunks_exact(tokens * WIDTH).map(item).collect());
    let values = |tensor: Tensor| {
        let plain = tensor.try_as_plain_ram().unwrap();
        plain.as_slice::<f32>().unwrap().to_vec()
    };
    results.unwrap().into_iter().map(values).collect()
}

#[test]
fn a_device_that_fails_leaves_the_work_to_the_cpu_for_good() {
    let (here, x) = (sublayers(), waves(3 * 7 * WIDTH, 0.137, 1.0));
    let expected = run(&here, &x, 3);
    let device = Arc::new(Doubling {
        works: 1,
        calls: AtomicUsize::new(0),
    });
    let there = here.on(Arc::clone(&device) as Arc<dyn Device>);
    let doubled: Vec<f32> = x.iter().map(|v| v * 2.0).collect();
    assert_eq!(run(&there, &x, 3).concat(), doubled, "all items at once");
    assert_eq!(run(&there, &x, 3), expected, "what failed is done here");
    assert_eq!(run(&there.clone(), &x, 3), expected);
    assert_eq!(device.calls.load(Ordering::Relaxed), 2, "not asked again");
}

#[test]
fn more_rows_than_a_device_takes_go_in_parts() {
    let here = sublayers();
    let device = Arc::new(Doubling {
        works: usize::MAX,
        calls: AtomicUsize::new(0),
    });
    let there = here.on(Arc::clone(&device) as Arc<dyn Device>);
    let x = waves(3 * 6000 * WIDTH, 0.01, 1.0);
    let doubled: Vec<f32> = x.iter().map(|v| v * 2.0).collect();
    assert_eq!(run(&there, &x, 3).concat(), doubled);
    assert_eq!(device.calls.load(Ordering::Relaxed), 2, "two, then one");
}
