//! Line charts as inline SVG.

use std::fmt::Write;

use super::escape;

const WIDTH: f64 = 460.0;
const HEIGHT: f64 = 210.0;
/// Room for numbers and names: left, right, top, bottom.
const MARGIN: (f64, f64, f64, f64) = (40.0, 74.0, 12.0, 26.0);
/// Points of a line at most.
const MAX_POINTS: usize = 500;

/// One line.
pub struct Line<'a> {
    /// What stands at its end.
    pub name: &'a str,
    /// `x` rising.
    pub points: Vec<(f64, f64)>,
}

/// A chart of one or two lines.
pub struct Chart<'a> {
    /// What is drawn.
    pub title: &'a str,
    /// At most two.
    pub lines: Vec<Line<'a>>,
    /// A place on the x axis to point out, and its name.
    pub mark: Option<(f64, &'a str)>,
    /// Values are shares of 1 and are shown as percent.
    pub shares: bool,
}

/// From values to pixels.
struct Scale {
    x: (f64, f64),
    y: (f64, f64),
}

impl Scale {
    fn at(&self, (x, y): (f64, f64)) -> (f64, f64) {
        let (left, right, top, bottom) = MARGIN;
        let part = |v: f64, (from, to): (f64, f64)| (v - from) / (to - from);
        (
            left + part(x, self.x) * (WIDTH - left - right),
            HEIGHT - bottom - part(y, self.y) * (HEIGHT - top - bottom),
        )
    }
}

impl Chart<'_> {
    /// The chart as a `<figure>`; nothing where there is no point.
    pub fn html(&self) -> String {
        let finite = |p: &&(f64, f64)| p.0.is_finite() && p.1.is_finite();
        let points = || self.lines.iter().flat_map(|l| &l.points).filter(finite);
        if points().next().is_none() {
            return String::new();
        }
        let range = |of: &dyn Fn(&(f64, f64)) -> f64| {
            points()
                .map(of)
                .fold((f64::MAX, f64::MIN), |(low, high), v| {
                    (low.min(v), high.max(v))
                })
        };
        let x = range(&|p| p.0);
        let x = if x.1 > x.0 { x } else { (x.0, x.0 + 1.0) };
        let (ticks, y) = ticks(range(&|p| p.1), self.shares);
        let scale = Scale { x, y };
        let mut svg = format!("<svg viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=img>");
        let right = WIDTH - MARGIN.1;
        for tick in ticks {
            let (_, py) = scale.at((x.0, tick));
            let label = if self.shares {
                format!("{:.0} %", tick * 100.0)
            } else {
                format!("{}", (tick * 1000.0).round() / 1000.0)
            };
            let (left, text, base) = (MARGIN.0, MARGIN.0 - 6.0, py + 4.0);
            let _ = write!(
                svg,
                "<line class=grid x1={left} x2={right} y1={py:.1} y2={py:.1} />\
                 <text x={text} y={base:.1} text-anchor=end>{label}</text>"
            );
        }
        for (value, anchor) in [(x.0, "start"), (x.1, "end")] {
            let (px, _) = scale.at((value, y.0));
            let base = HEIGHT - 8.0;
            let _ = write!(
                svg,
                "<text x={px:.1} y={base} text-anchor={anchor}>{value:.0}</text>"
            );
        }
        if let Some((at, name)) = self.mark {
            let (px, _) = scale.at((at, y.0));
            let (top, bottom, name) = (MARGIN.2, HEIGHT - MARGIN.3, escape(name));
            let (base, anchor) = (
                HEIGHT - 8.0,
                if px > right - 60.0 { "end" } else { "middle" },
            );
            let clear = px - MARGIN.0 > 46.0 && right - px > 46.0;
            let _ = write!(
                svg,
                "<line class=mark x1={px:.1} x2={px:.1} y1={top} y2={bottom} />"
            );
            if clear {
                let _ = write!(
                    svg,
                    "<text x={px:.1} y={base} text-anchor={anchor}>{name}</text>"
                );
            }
        }
        self.draw(&scale, &mut svg);
        svg.push_str("</svg>");
        let title = escape(self.title);
        format!("<figure><figcaption>{title}</figcaption>{svg}</figure>")
    }

    fn draw(&self, scale: &Scale, svg: &mut String) {
        let mut taken: Vec<f64> = Vec::new();
        for (line, class) in self.lines.iter().zip(["one", "two"]) {
            let step = line.points.len().div_ceil(MAX_POINTS).max(1);
            let last = line.points.len().saturating_sub(1);
            let shown = line.points.iter().enumerate();
            let shown = shown.filter(|(i, p)| (i % step == 0 || *i == last) && p.1.is_finite());
            let mut end = None;
            let _ = write!(svg, "<polyline class={class} points=\"");
            for (_, point) in shown {
                let (px, py) = scale.at(*point);
                let _ = write!(svg, "{px:.1},{py:.1} ");
                end = Some((px, py));
            }
            svg.push_str("\" />");
            let Some((px, py)) = end else { continue };
            let mut base = py + 4.0;
            while taken.iter().any(|other| (other - base).abs() < 13.0) {
                base += 13.0;
            }
            taken.push(base);
            let (x, name) = (px + 7.0, escape(line.name));
            let _ = write!(
                svg,
                "<text class={class} x={x:.1} y={base:.1}>{name}</text>"
            );
        }
    }
}

/// Round numbers that hold `low` and `high` between them, and the first and last of them.
fn ticks((low, high): (f64, f64), shares: bool) -> (Vec<f64>, (f64, f64)) {
    let low = if shares {
        low.min(high - 0.1).max(0.0)
    } else {
        low.min(0.0)
    };
    let span = (high - low).max(1e-6);
    let rough = span / 4.0;
    let magnitude = 10f64.powf(rough.log10().floor());
    let steps = [1.0, 2.0, 5.0, 10.0];
    let step = steps
        .into_iter()
        .map(|s| s * magnitude)
        .find(|s| *s >= rough);
    let step = step.unwrap_or(10.0 * magnitude);
    let (from, to) = ((low / step).floor(), (high / step - 1e-9).ceil());
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "about five"
    )]
    let count = ((to - from).max(1.0) as usize).min(20);
    #[expect(clippy::cast_precision_loss, reason = "about five")]
    let ticks: Vec<f64> = (0..=count).map(|i| (from + i as f64) * step).collect();
    let ends = (ticks[0], ticks[count]);
    (ticks, ends)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn every_point_is_inside(
            points in prop::collection::vec((0.0f64..100.0, -5.0f64..5.0), 1..50), shares: bool,
        ) {
            let mut points = points;
            points.sort_by(|a, b| a.0.total_cmp(&b.0));
            if shares {
                points.iter_mut().for_each(|p| p.1 = (p.1 + 5.0) / 10.0);
            }
            let lines = vec![Line { name: "<b>", points }];
            let html = Chart { title: "<i>", lines, mark: Some((1.0, "&")), shares }.html();
            prop_assert!(!html.contains("<b>") && !html.contains("<i>"));
            let drawn = html.split("points=\"").nth(1).unwrap().split('"').next().unwrap();
            for point in drawn.split_whitespace() {
                let (x, y) = point.split_once(',').unwrap();
                let (x, y): (f64, f64) = (x.parse().unwrap(), y.parse().unwrap());
                prop_assert!((0.0..=WIDTH).contains(&x) && (0.0..=HEIGHT).contains(&y), "{point}");
            }
        }
    }

    #[test]
    fn a_flat_line_and_no_line_are_drawn_without_a_fuss() {
        let line = |points| vec![Line { name: "a", points }];
        let chart = |points| Chart {
            title: "t",
            lines: line(points),
            mark: None,
            shares: true,
        };
        assert!(
            chart(vec![(0.0, 1.0), (1.0, 1.0)])
                .html()
                .contains("polyline")
        );
        assert!(chart(vec![(3.0, 0.0)]).html().contains("polyline"));
        assert_eq!(chart(vec![(0.0, f64::NAN)]).html(), "");
    }
}
