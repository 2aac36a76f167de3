//! Draws a [`Live`] table: redrawn in place on a terminal, line by line elsewhere.

use std::fmt::Write as _;
use std::io::{self, IsTerminal, Write as _};

use comfy_table::presets::UTF8_HORIZONTAL_ONLY;
use comfy_table::{Attribute, Cell, Color, Table};

use super::{Live, Row};

const BAR_CELLS: usize = 20;

/// Where a [`Live`] is shown.
#[derive(Debug)]
pub struct Screen {
    terminal: bool,
    printed: u64,
}

impl Default for Screen {
    fn default() -> Self {
        Self {
            terminal: io::stdout().is_terminal(),
            printed: 0,
        }
    }
}

impl Screen {
    /// Shows `live` under `heading`. On a terminal the whole screen is drawn anew; elsewhere only
    /// the messages that are new since the last call are printed.
    ///
    /// # Errors
    /// The terminal's, a closed pipe among them.
    pub fn show(&mut self, live: &Live, heading: &str) -> io::Result<()> {
        let mut out = io::stdout().lock();
        if self.terminal {
            // Home, then clear from there to the end: no flicker.
            write!(
                out,
                "\x1b[H{}\x1b[J",
                frame(live, heading).replace('\n', "\x1b[K\n")
            )?;
        } else {
            let new = usize::try_from(live.heard - self.printed).unwrap_or(usize::MAX);
            let skip = live.messages.len().saturating_sub(new);
            for (topic, payload) in live.messages.iter().skip(skip) {
                writeln!(out, "{topic} {payload}")?;
            }
            self.printed = live.heard;
        }
        out.flush()
    }

    /// Clears the terminal once, before the first [`Screen::show`].
    ///
    /// # Errors
    /// The terminal's.
    pub fn begin(&self) -> io::Result<()> {
        if self.terminal {
            print!("\x1b[2J\x1b[H");
        }
        io::stdout().flush()
    }
}

/// The whole screen as text.
fn frame(live: &Live, heading: &str) -> String {
    let mut text = format!("{heading}\n\n");
    for (device, status) in &live.devices {
        let backend = live.info.get(device).map_or(String::new(), |info| {
            format!("  {} on {}", info.bundle, info.backend)
        });
        let _ = writeln!(text, "{device}: {status}{backend}");
    }
    for ((device, camera), status) in &live.cameras {
        let health = live
            .health
            .get(device)
            .into_iter()
            .flat_map(|health| &health.cameras);
        let numbers = health.filter(|c| c.camera == *camera).map(|c| {
            format!(
                "  {:.1} fps, {} encoded, {} unchanged",
                c.fps, c.encoded, c.unchanged
            )
        });
        let _ = writeln!(
            text,
            "camera {camera}: {status}{}",
            numbers.collect::<String>()
        );
    }
    let mut table = Table::new();
    table.load_preset(UTF8_HORIZONTAL_ONLY);
    table.set_header(["zone", "label", "state", "probability", ""]);
    for ((_, zone, label), row) in &live.rows {
        table.add_row(cells(zone, label, row));
    }
    let _ = writeln!(text, "{table}\n\nmessages:");
    let width = Table::new().width().map_or(100, usize::from).max(40);
    for (topic, payload) in &live.messages {
        let line: String = format!("{topic} {payload}")
            .chars()
            .take(width - 1)
            .collect();
        let _ = writeln!(text, "{line}");
    }
    text
}

fn cells(zone: &str, label: &str, row: &Row) -> Vec<Cell> {
    let color = match row.state.as_str() {
        "ON" => Color::Green,
        "OFF" => Color::DarkGrey,
        _ => Color::Yellow,
    };
    let probability = row
        .attributes
        .as_ref()
        .map_or(0.0, |a| a.probability.clamp(0.0, 1.0));
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        clippy::cast_precision_loss,
        reason = "0 to 20 cells"
    )]
    let filled = (probability * BAR_CELLS as f32).round() as usize;
    let bar: String = "█".repeat(filled) + &"·".repeat(BAR_CELLS - filled);
    vec![
        Cell::new(zone),
        Cell::new(row.prompt.as_deref().unwrap_or(label)),
        Cell::new(&row.state)
            .fg(color)
            .add_attribute(Attribute::Bold),
        Cell::new(bar).fg(color),
        Cell::new(format!("{:.0} %", probability * 100.0)),
    ]
}
