//! Kernels, programs and the recogniser against plain loops and against tract.

mod kernels;
mod random;
mod recognise;
mod reference;
mod tower;

use super::kernels::Kernels;
use super::network::Network;
use super::program::Program;
use super::run::Memory;
use super::threads::Threads;

/// Threads started for each piece of work.
struct Scoped(usize);

impl Threads for Scoped {
    fn count(&self) -> usize {
        self.0
    }

    fn run(&self, work: &(dyn Fn(usize) + Sync)) {
        std::thread::scope(|scope| {
            for index in 1..self.0 {
                scope.spawn(move || work(index));
            }
            work(0);
        });
    }
}

/// Runs `network` twice through the same memory, which must not show, and gives the output.
fn run(
    network: &Network,
    kernels: &'static Kernels,
    input: &[f32],
    threads: &dyn Threads,
) -> Vec<f32> {
    let program = Program::new(network, kernels).expect("kernels for every layer");
    let mut memory = Memory::new(&program);
    let shape = network.output();
    let mut outputs = [(); 2].map(|()| {
        let mut output = vec![f32::NAN; shape.channels * shape.pixels()];
        program.run(&mut memory, input, &mut output, threads);
        output
    });
    assert_eq!(outputs[0], outputs[1]);
    std::mem::take(&mut outputs[0])
}

fn bits(values: &[f32]) -> Vec<u32> {
    values.iter().map(|value| value.to_bits()).collect()
}
