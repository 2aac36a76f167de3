//! The terminal: redrawn in place where standard output is one, line by line elsewhere.

use std::env;
use std::io::{self, IsTerminal, Write};

use super::Live;
use super::line::{Line, Palette};
use super::page::{Page, Size};

/// Assumed where the terminal does not say.
const USUAL: Size = Size {
    columns: 80,
    rows: 24,
};

/// Standard output as a screen. Dropping it gives the terminal back as it was.
#[derive(Debug)]
pub struct Screen {
    terminal: bool,
    palette: Palette,
    shown: Vec<String>,
    printed: u64,
}

impl Screen {
    /// Takes the terminal over: alternate screen, no cursor. Where standard output is no terminal,
    /// or a dumb one, nothing happens yet.
    ///
    /// # Errors
    /// The terminal's.
    pub fn open() -> io::Result<Self> {
        let terminal = Self::is_available();
        if terminal {
            let mut out = io::stdout().lock();
            write!(out, "\x1b[?1049h\x1b[?25l\x1b[2J")?;
            out.flush()?;
        }
        Ok(Self {
            terminal,
            palette: palette(),
            shown: Vec::new(),
            printed: 0,
        })
    }

    /// Whether [`Screen::open`] would find a terminal that can be drawn on.
    pub fn is_available() -> bool {
        let dumb = env::var_os("TERM").is_none_or(|term| term.is_empty() || term == "dumb");
        io::stdout().is_terminal() && !dumb
    }

    /// Whether this is a terminal: [`Screen::show`] draws, otherwise [`Screen::print`] prints.
    pub fn is_terminal(&self) -> bool {
        self.terminal
    }

    /// Whether a picture can be drawn.
    pub fn has_colours(&self) -> bool {
        self.terminal && self.palette != Palette::Monochrome
    }

    /// Cells, asked anew every time: windows change.
    pub fn size(&self) -> Size {
        let asked = rustix::termios::tcgetwinsize(io::stdout());
        let (columns, rows) = asked.map_or((0, 0), |size| (size.ws_col, size.ws_row));
        match (columns, rows) {
            (0, _) | (_, 0) => USUAL,
            _ => Size {
                columns: columns.into(),
                rows: rows.into(),
            },
        }
    }

    /// Draws `page` on a terminal; writes nothing when it looks as before.
    ///
    /// # Errors
    /// The terminal's.
    pub fn show(&mut self, page: &Page<'_>) -> io::Result<()> {
        if !self.terminal {
            return Ok(());
        }
        let lines = page.lines(self.size());
        let lines: Vec<String> = lines.iter().map(|line| line.ansi(self.palette)).collect();
        if lines == self.shown {
            return Ok(());
        }
        // Home, every line cleared to its right, the rest below: no flicker. Synchronised output
        // (mode 2026) where the terminal knows it.
        let drawn = lines.join("\x1b[K\r\n");
        let mut out = io::stdout().lock();
        write!(out, "\x1b[?2026h\x1b[H{drawn}\x1b[K\x1b[J\x1b[?2026l")?;
        self.shown = lines;
        out.flush()
    }

    /// Prints the messages that are new since the last call, where there is no terminal.
    ///
    /// # Errors
    /// The pipe's: the reader may be gone.
    pub fn print(&mut self, live: &Live) -> io::Result<()> {
        if self.terminal {
            return Ok(());
        }
        let new = usize::try_from(live.listed - self.printed).unwrap_or(usize::MAX);
        let mut out = io::stdout().lock();
        if let Some(missed) = new.checked_sub(live.messages.len()).filter(|n| *n > 0) {
            writeln!(out, "… {missed} messages …")?;
        }
        let known = live.messages.len().saturating_sub(new);
        for message in live.messages.iter().skip(known) {
            writeln!(out, "{} {}", message.topic, message.payload)?;
        }
        self.printed = live.listed;
        out.flush()
    }

    /// Prints lines for good: where there is no terminal, or after it was given back.
    ///
    /// # Errors
    /// The pipe's.
    pub fn print_lines(lines: &[Line]) -> io::Result<()> {
        let palette = if Self::is_available() {
            palette()
        } else {
            Palette::Monochrome
        };
        let mut out = io::stdout().lock();
        for line in lines {
            let text = match palette {
                Palette::Monochrome => line.text(),
                _ => line.ansi(palette),
            };
            writeln!(out, "{text}")?;
        }
        out.flush()
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        if self.terminal {
            let mut out = io::stdout().lock();
            // Nobody is left to be told.
            let _ = write!(out, "\x1b[?25h\x1b[?1049l");
            let _ = out.flush();
        }
    }
}

/// What the environment says about colours (no-color.org, termstandard/colors).
fn palette() -> Palette {
    let is_set = |name| env::var_os(name).is_some_and(|value| !value.is_empty());
    let colorterm = env::var("COLORTERM").unwrap_or_default();
    if is_set("NO_COLOR") {
        Palette::Monochrome
    } else if matches!(colorterm.as_str(), "truecolor" | "24bit") {
        Palette::Full
    } else {
        Palette::Indexed
    }
}
