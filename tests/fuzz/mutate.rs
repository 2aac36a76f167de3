//! Mutations of seeds, the same ones at every run.

/// Numbers that lengths and counts break at.
const NUMBERS: [u64; 12] = [
    0,
    1,
    0x7f,
    0x80,
    0xff,
    0x7fff,
    0xffff,
    0x7fff_ffff,
    0xffff_ffff,
    1 << 40,
    i64::MAX as u64,
    u64::MAX,
];

/// What means something to text formats.
const WORDS: [&str; 22] = [
    "-1",
    "0",
    "1e999",
    "nan",
    "inf",
    "18446744073709551616",
    "99999999999999999999999",
    "\"",
    "{",
    "}",
    "[",
    "]",
    "\n",
    "\0",
    "../",
    "/",
    "=",
    ",",
    "null",
    "\u{202e}",
    "true",
    "0.0000000001",
];

/// Longest input.
const MOST_BYTES: usize = 1 << 17;

/// See the module.
pub struct Mutations<'a> {
    seeds: &'a [Vec<u8>],
    state: u64,
}

impl<'a> Mutations<'a> {
    pub fn new(seeds: &'a [Vec<u8>]) -> Self {
        Self { seeds, state: 1 }
    }

    /// SplitMix64 (Steele, Lea and Flood, 2014).
    fn random(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, n: usize) -> usize {
        usize::try_from(self.random() % n.max(1) as u64).expect("below a usize")
    }

    fn of<T: Copy>(&mut self, all: &[T]) -> T {
        all[self.below(all.len())]
    }

    /// A seed with one to eight changes.
    pub fn next(&mut self) -> Vec<u8> {
        let mut input = self.seeds[self.below(self.seeds.len())].clone();
        for _ in 0..=self.below(8) {
            self.change(&mut input);
            input.truncate(MOST_BYTES);
        }
        input
    }

    fn change(&mut self, input: &mut Vec<u8>) {
        let at = self.place(input.len());
        let end = (at + 1 + self.below(64)).min(input.len());
        match self.below(9) {
            0 if !input.is_empty() => {
                let bit = self.below(8);
                input[at.min(end - 1)] ^= 1 << bit;
            }
            1 => {
                let number = self.of(&NUMBERS);
                let bytes = if self.below(2) == 0 {
                    number.to_le_bytes()
                } else {
                    number.to_be_bytes()
                };
                let width = self.of(&[1, 2, 4, 8]);
                let from = if self.below(2) == 0 { 0 } else { 8 - width };
                for (place, byte) in input[at..].iter_mut().zip(&bytes[from..from + width]) {
                    *place = *byte;
                }
            }
            2 => input.truncate(at),
            3 => drop(input.drain(at..end)),
            4 => {
                let piece = input[at..end].to_vec();
                let times = 1 + self.below(4);
                let to = self.below(input.len() + 1);
                input.splice(to..to, piece.repeat(times));
            }
            5 => {
                let word = self.of(&WORDS);
                let to = if self.below(2) == 0 { end } else { at };
                input.splice(at..to, word.bytes());
            }
            6 => {
                let times = 1 << self.below(12);
                let word = self.of(&WORDS);
                input.splice(at..at, word.repeat(times).into_bytes());
            }
            7 => {
                // Another seed's end behind this one's beginning.
                let other = self.below(self.seeds.len());
                let from = self.place(self.seeds[other].len());
                input.truncate(at);
                input.extend_from_slice(&self.seeds[other][from..]);
            }
            _ => {
                let value = self.random().to_le_bytes()[0];
                input.insert(at, value);
            }
        }
    }

    /// A place in `0..=length` (below it where there is any), half of the time among the first
    /// bytes, where headers are.
    fn place(&mut self, length: usize) -> usize {
        let within = if self.below(2) == 0 {
            length.min(64)
        } else {
            length
        };
        self.below(within)
    }
}
