//! Styled lines of known width, and their escape sequences.

use std::fmt::Write as _;

/// How a [`Line`]'s text looks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Style {
    /// The terminal's own.
    #[default]
    Plain,
    /// Headings.
    Strong,
    /// What matters less.
    Faint,
    /// There, right, connected.
    Good,
    /// On its way, or not known.
    Doubtful,
    /// Lost, wrong, failed.
    Bad,
    /// Names and commands.
    Accent,
    /// `▀` in the upper colour over the lower one: two pixels of a picture, red first.
    Pixels([u8; 3], [u8; 3]),
}

/// Colours a terminal can show.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Palette {
    /// None: `NO_COLOR` is set.
    Monochrome,
    /// The 256 indexed ones.
    Indexed,
    /// 24 bits.
    Full,
}

/// One line of a screen. Every character is taken to be one cell wide.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Line {
    spans: Vec<(Style, String)>,
}

impl Line {
    /// An empty line.
    pub fn new() -> Self {
        Self::default()
    }

    /// A line of one style.
    pub fn of(style: Style, text: impl AsRef<str>) -> Self {
        Self::new().with(style, text)
    }

    /// Adds text at the end. Control characters are left out: payloads come from strangers.
    #[must_use]
    pub fn with(mut self, style: Style, text: impl AsRef<str>) -> Self {
        let text: String = text.as_ref().chars().filter(|c| !c.is_control()).collect();
        self.spans.push((style, text));
        self
    }

    /// Adds the spans of another line at the end.
    #[must_use]
    pub fn joined(mut self, other: Line) -> Self {
        self.spans.extend(other.spans);
        self
    }

    /// Fills up with spaces to `width` cells, or cuts there.
    #[must_use]
    pub fn fitted(mut self, width: usize) -> Self {
        let missing = width.saturating_sub(self.width());
        self.spans.push((Style::Plain, " ".repeat(missing)));
        self.cut(width)
    }

    /// Cuts what is beyond `width` cells; the last one shows that something was cut.
    #[must_use]
    pub fn cut(mut self, width: usize) -> Self {
        if self.width() <= width {
            return self;
        }
        let mut left = width.saturating_sub(1);
        for (_, text) in &mut self.spans {
            *text = text.chars().take(left).collect();
            left -= text.chars().count();
        }
        if width > 0 {
            self.spans.push((Style::Faint, "…".to_owned()));
        }
        self
    }

    /// Cells.
    pub fn width(&self) -> usize {
        self.spans
            .iter()
            .map(|(_, text)| text.chars().count())
            .sum()
    }

    /// The text without its styles.
    pub fn text(&self) -> String {
        self.spans.iter().map(|(_, text)| text.as_str()).collect()
    }

    /// With escape sequences (ECMA-48 SGR), ending in the terminal's own style.
    pub fn ansi(&self, palette: Palette) -> String {
        let mut out = String::new();
        for (style, text) in &self.spans {
            match sgr(*style, palette) {
                Some(codes) if !text.is_empty() => {
                    let _ = write!(out, "\x1b[{codes}m{text}\x1b[0m");
                }
                _ => out.push_str(text),
            }
        }
        out
    }
}

/// The parameters of an SGR sequence; `None` for the terminal's own style.
fn sgr(style: Style, palette: Palette) -> Option<String> {
    if let Style::Pixels(upper, lower) = style {
        return match palette {
            Palette::Monochrome => None,
            Palette::Indexed => Some(format!("38;5;{};48;5;{}", cube(upper), cube(lower))),
            Palette::Full => {
                let [r, g, b] = upper;
                let [s, h, c] = lower;
                Some(format!("38;2;{r};{g};{b};48;2;{s};{h};{c}"))
            }
        };
    }
    let colour = palette != Palette::Monochrome;
    let codes = match style {
        Style::Strong => "1",
        Style::Faint if colour => "90",
        Style::Good if colour => "32",
        Style::Doubtful if colour => "33",
        Style::Bad if colour => "31",
        Style::Accent if colour => "36",
        _ => return None,
    };
    Some(codes.to_owned())
}

/// The nearest of the 6×6×6 colours that xterm keeps at 16–231.
fn cube(rgb: [u8; 3]) -> u8 {
    let level = |value: u8| match value {
        0..48 => 0,
        48..115 => 1,
        // Levels 2 to 5 lie at 135, 175, 215 and 255.
        _ => (value - 35) / 40,
    };
    16 + 36 * level(rgb[0]) + 6 * level(rgb[1]) + level(rgb[2])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_cut_and_filled_to_the_cell() {
        let line = Line::of(Style::Good, "mela").with(Style::Plain, " verde");
        assert_eq!(line.clone().fitted(12).text(), "mela verde  ");
        assert_eq!(line.clone().cut(10).text(), "mela verde");
        assert_eq!(line.clone().cut(6).text(), "mela …");
        assert_eq!(line.clone().cut(0).text(), "");
        assert_eq!(line.fitted(3).text(), "me…");
    }

    #[test]
    fn escape_sequences_of_a_payload_do_not_reach_the_terminal() {
        let line = Line::of(Style::Plain, "\x1b[2Jciao\u{9b}1m\n");
        assert_eq!(line.ansi(Palette::Full), "[2Jciao1m");
    }

    #[test]
    fn without_colours_only_weight_is_left() {
        let line = Line::of(Style::Good, "ON").with(Style::Strong, "!");
        assert_eq!(line.ansi(Palette::Monochrome), "ON\x1b[1m!\x1b[0m");
    }

    #[test]
    fn indexed_colours_are_the_nearest_of_the_cube() {
        assert_eq!(cube([0, 0, 0]), 16);
        assert_eq!(cube([255, 255, 255]), 231);
        assert_eq!(cube([95, 135, 175]), 16 + 36 + 12 + 3);
        assert_eq!(cube([114, 115, 40]), 16 + 36 + 12);
    }
}
