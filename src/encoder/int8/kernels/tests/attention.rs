//! Attention in f32.

use std::ops::Range;

use super::*;

pub(super) struct AttentionCase {
    pub batch: usize,
    pub tokens: usize,
    pub heads: usize,
    pub dim: usize,
    pub masked: bool,
    pub causal: bool,
}

impl AttentionCase {
    fn run(&self, cx: &Context, qkv: &[f32], mask: Option<&[f32]>) -> Vec<f32> {
        self.run_some(cx, qkv, mask, 0..self.tokens)
    }

    fn run_some(
        &self,
        cx: &Context,
        qkv: &[f32],
        mask: Option<&[f32]>,
        queries: Range<usize>,
    ) -> Vec<f32> {
        self.run_in(cx, qkv, Order::Rows, mask, queries)
    }

    fn run_in(
        &self,
        cx: &Context,
        qkv: &[f32],
        order: Order,
        mask: Option<&[f32]>,
        queries: Range<usize>,
    ) -> Vec<f32> {
        let mut out = vec![9.0; self.batch * queries.len() * self.heads * self.dim];
        let scale = 1.0 / (self.dim as f32).sqrt();
        attention(
            cx,
            qkv,
            order,
            self.batch,
            self.tokens,
            self.heads,
            self.dim,
            scale,
            mask,
            self.causal,
            queries,
            &mut out,
        );
        out
    }

    /// `[rows, 3 · heads · dim]` in panels, NaN past the columns; `None` for heads that do not fit.
    pub fn in_panels(&self, qkv: &[f32]) -> Option<Vec<f32>> {
        let columns = 3 * self.heads * self.dim;
        let rows = self.batch * self.tokens;
        if Order::of_heads(self.dim) != Order::Panels {
            return None;
        }
        let mut panels = vec![f32::NAN; Order::Panels.len(rows, columns)];
        for (i, value) in qkv.iter().enumerate() {
            let (row, column) = (i / columns, i % columns);
            panels[(column / 64 * rows + row) * 64 + column % 64] = *value;
        }
        Some(panels)
    }

    /// Some queries give what they give among all, whatever the others are.
    fn check_some(
        &self,
        cx: &Context,
        qkv: &[f32],
        mask: Option<&[f32]>,
        all: &[f32],
        random: &mut Random,
    ) {
        let (tokens, width) = (self.tokens, self.heads * self.dim);
        let first = random.below(tokens);
        let queries = first..first + 1 + random.below(tokens - first);
        let mut qkv = qkv.to_vec();
        for (row, values) in qkv.chunks_exact_mut(3 * width).enumerate() {
            if !queries.contains(&(row % tokens)) {
                values[..width].fill(f32::NAN);
            }
        }
        let got = self.run_some(cx, &qkv, mask, queries.clone());
        let rows = all.chunks_exact(width).enumerate();
        let wanted = rows.filter(|(row, _)| queries.contains(&(row % tokens)));
        let wanted: Vec<f32> = wanted.flat_map(|(_, row)| row.to_vec()).collect();
        let what = format!("{} queries {queries:?} of {tokens}", cx.isa());
        assert_same(&got, &wanted, &what);
    }

    pub fn reference(&self, qkv: &[f32], mask: Option<&[f32]>) -> Vec<f64> {
        let (tokens, width) = (self.tokens, self.heads * self.dim);
        let mut out = vec![0.0; self.batch * tokens * width];
        let at = |image: usize, token: usize, which: usize, column: usize| {
            f64::from(qkv[((image * tokens + token) * 3 + which) * width + column])
        };
        for image in 0..self.batch {
            for column in (0..width).step_by(self.dim) {
                for query in 0..tokens {
                    let keys = if self.causal { query + 1 } else { tokens };
                    let scores: Vec<f64> = (0..keys)
                        .map(|key| {
                            let dot: f64 = (0..self.dim)
                                .map(|d| {
                                    at(image, query, 0, column + d) * at(image, key, 1, column + d)
                                })
                                .sum();
                            let mask =
                                mask.map_or(0.0, |mask| f64::from(mask[image * tokens + key]));
                            dot / (self.dim as f64).sqrt() + mask
                        })
                        .collect();
                    let max = scores.iter().copied().fold(f64::MIN, f64::max);
                    let total: f64 = scores.iter().map(|s| (s - max).exp()).sum();
                    for d in 0..self.dim {
                        let sum: f64 = (0..keys)
                            .map(|key| (scores[key] - max).exp() * at(image, key, 2, column + d))
                            .sum();
                        out[(image * tokens + query) * width + column + d] = sum / total;
                    }
                }
            }
        }
        out
    }
}

#[test]
fn attention_follows_its_formula_and_is_the_same_everywhere() {
    let mut random = Random(5);
    let shapes = [
        (1, 1, 1, 1),
        (2, 5, 3, 20),
        (1, 50, 2, 64),
        (1, 77, 2, 32),
        (2, 40, 1, 80),
        (1, 197, 1, 64),
    ];
    for (batch, tokens, heads, dim) in shapes {
        for (masked, causal) in [(false, false), (true, false), (false, true), (true, true)] {
            let case = AttentionCase {
                batch,
                tokens,
                heads,
                dim,
                masked,
                causal,
            };
            let qkv: Vec<f32> = random
                .values(batch * tokens * 3 * heads * dim)
                .iter()
                .map(|v| v * 3.0)
                .collect();
            let mask: Vec<f32> = (0..batch * tokens)
                .map(|i| match i % tokens {
                    0 => 0.0,
                    token if token % 3 == 2 => [f32::NEG_INFINITY, f32::MIN, -1e4][token % 2],
                    _ => 0.0,
                })
                .collect();
            let mask = case.masked.then_some(mask.as_slice());
            let expected = case.run(&context(Isa::Scalar, 1), &qkv, mask);
            for (got, exact) in expected.iter().zip(case.reference(&qkv, mask)) {
                assert!((f64::from(*got) - exact).abs() < 1e-5, "{got} for {exact}");
            }
            for isa in Isa::supported() {
                for threads in [1, 4] {
                    let got = case.run(&context(isa, threads), &qkv, mask);
                    assert_same(&got, &expected, &format!("{isa} {tokens} tokens of {dim}"));
                    if let Some(panels) = case.in_panels(&qkv) {
                        let cx = context(isa, threads);
                        let got = case.run_in(&cx, &panels, Order::Panels, mask, 0..tokens);
                        assert_same(&got, &expected, &format!("{isa} panels of {dim}"));
                    }
                    case.check_some(&context(isa, threads), &qkv, mask, &expected, &mut random);
                }
            }
        }
    }
}
