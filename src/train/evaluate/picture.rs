//! Precision and recall over the threshold, one panel per label, as an SVG.

use std::fmt::Write as _;

use super::metrics::Point;

/// Panels side by side.
const COLUMNS: usize = 3;
/// Plot area of a panel, pixels,
const PLOT: (f64, f64) = (220.0, 150.0);
/// and what lies around it: left, top, right, bottom.
const MARGIN: (f64, f64, f64, f64) = (44.0, 34.0, 20.0, 44.0);
/// Height of the legend above all panels.
const LEGEND: f64 = 40.0;

const PRECISION: &str = "#2a6fb0";
const RECALL: &str = "#c4572a";

/// One label.
#[derive(Clone, Debug)]
pub struct Panel {
    /// The label.
    pub title: String,
    /// The highest threshold first, as [`super::metrics::curve`] gives them.
    pub curve: Vec<Point>,
    /// Where it turns ON.
    pub enter: Option<f32>,
}

/// Draws `panels` under `title`.
pub fn svg(title: &str, panels: &[Panel]) -> String {
    let cell = (PLOT.0 + MARGIN.0 + MARGIN.2, PLOT.1 + MARGIN.1 + MARGIN.3);
    let columns = panels.len().clamp(1, COLUMNS);
    let rows = panels.len().div_ceil(columns).max(1);
    let (width, height) = (cell.0 * number(columns), LEGEND + cell.1 * number(rows));
    let mut out = String::new();
    // Writing into a string cannot fail.
    let _ = write!(
        out,
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" width=\"{width}\" \
         height=\"{height}\" font-family=\"sans-serif\" font-size=\"11\" fill=\"#333\">\n\
         <rect width=\"100%\" height=\"100%\" fill=\"#fff\"/>\n\
         <text x=\"{x}\" y=\"17\" font-size=\"13\" font-weight=\"bold\">{title}</text>\n",
        x = MARGIN.0,
        title = escape(title)
    );
    let legend = [
        ("precision", PRECISION),
        ("recall", RECALL),
        ("turns on", "#333"),
    ];
    for (n, (name, colour)) in legend.into_iter().enumerate() {
        let x = MARGIN.0 + 90.0 * number(n);
        let dash = if n == 2 {
            " stroke-dasharray=\"4 3\""
        } else {
            ""
        };
        let _ = writeln!(
            out,
            "<line x1=\"{x}\" y1=\"31\" x2=\"{}\" y2=\"31\" stroke=\"{colour}\" stroke-width=\"2\"{dash}/>\
             <text x=\"{}\" y=\"35\">{name}</text>",
            x + 20.0,
            x + 25.0
        );
    }
    for (n, panel) in panels.iter().enumerate() {
        let x = MARGIN.0 + cell.0 * number(n % columns);
        let y = LEGEND + MARGIN.1 + cell.1 * number(n / columns);
        let _ = writeln!(out, "<g transform=\"translate({x} {y})\">");
        draw(&mut out, panel);
        out.push_str("</g>\n");
    }
    out.push_str("</svg>\n");
    out
}

fn draw(out: &mut String, panel: &Panel) {
    let (w, h) = PLOT;
    let _ = writeln!(
        out,
        "<text x=\"0\" y=\"-10\" font-weight=\"bold\">{}</text>",
        escape(&panel.title)
    );
    for tick in [0.0, 0.25, 0.5, 0.75, 1.0] {
        let (x, y) = (w * tick, h * (1.0 - tick));
        let _ = writeln!(
            out,
            "<line x1=\"0\" y1=\"{y}\" x2=\"{w}\" y2=\"{y}\" stroke=\"#e4e4e4\"/>\
             <text x=\"-6\" y=\"{}\" text-anchor=\"end\">{tick}</text>\
             <text x=\"{x}\" y=\"{}\" text-anchor=\"middle\">{tick}</text>",
            y + 4.0,
            h + 15.0
        );
    }
    let _ = writeln!(
        out,
        "<text x=\"{}\" y=\"{}\" text-anchor=\"middle\" fill=\"#777\">probability</text>",
        w / 2.0,
        h + 30.0
    );
    if let Some(enter) = panel.enter {
        let x = w * f64::from(enter);
        let _ = writeln!(
            out,
            "<line x1=\"{x:.1}\" y1=\"0\" x2=\"{x:.1}\" y2=\"{h}\" stroke=\"#333\" stroke-dasharray=\"4 3\"/>"
        );
    }
    if panel.curve.is_empty() {
        let _ = writeln!(
            out,
            "<text x=\"{}\" y=\"{}\" text-anchor=\"middle\" fill=\"#777\">no frame shows it</text>",
            w / 2.0,
            h / 2.0
        );
        return;
    }
    let line = |value: &dyn Fn(&Point) -> f64, colour: &str| {
        let mut path = String::new();
        for (n, point) in panel.curve.iter().enumerate() {
            // A step: what a threshold gives holds for all down to the next score.
            let next = panel.curve.get(n + 1).map_or(0.0, |next| next.threshold);
            let (from, to) = (w * f64::from(point.threshold), w * f64::from(next));
            let (command, y) = (if n == 0 { 'M' } else { 'L' }, h * (1.0 - value(point)));
            let _ = write!(path, "{command}{from:.1} {y:.1} L{to:.1} {y:.1} ");
        }
        format!(
            "<path d=\"{path}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"2\" stroke-linejoin=\"round\"/>\n"
        )
    };
    out.push_str(&line(&|point| point.precision, PRECISION));
    out.push_str(&line(&|point| point.recall, RECALL));
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
}

#[expect(clippy::cast_precision_loss, reason = "a few panels")]
fn number(n: usize) -> f64 {
    n as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panel_has_both_lines_its_threshold_and_no_markup_of_others() {
        let point = |threshold, precision, recall| Point {
            threshold,
            precision,
            recall,
        };
        let panels = [
            Panel {
                title: "mela <script> & pera".to_owned(),
                curve: vec![point(0.9, 1.0, 0.5), point(0.4, 0.5, 1.0)],
                enter: Some(0.5),
            },
            Panel {
                title: "vuoto".to_owned(),
                curve: Vec::new(),
                enter: None,
            },
        ];
        let svg = svg("demo", &panels);
        assert!(svg.contains("mela &lt;script&gt; &amp; pera") && !svg.contains("<script>"));
        assert_eq!(svg.matches("<path ").count(), 2);
        assert!(
            svg.contains("M198.0 0.0 L88.0 0.0 L88.0 75.0 L0.0 75.0"),
            "{svg}"
        );
        assert!(svg.contains("no frame shows it") && svg.ends_with("</svg>\n"));
        assert_eq!(svg.matches("<g ").count(), svg.matches("</g>").count());
    }
}
