//! Lays a [`Live`] out as a screenful of lines: devices, a picture beside the table, messages.

use std::fmt::Write as _;

use jiff::Timestamp;

use super::line::{Line, Style};
use super::{Live, Message, Row};
use crate::event::{EventType, Health};

/// Cells of a terminal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Size {
    /// From left to right.
    pub columns: usize,
    /// From top to bottom.
    pub rows: usize,
}

/// Narrowest table that is worth a picture beside it.
const TABLE_COLUMNS: usize = 40;
/// Between the picture and the table.
const GUTTER: usize = 2;
/// Lines of messages that the table leaves free.
const LEAST_MESSAGES: usize = 3;
/// Longest bar of a probability, cells.
const LONGEST_BAR: usize = 32;
/// The state column: `● UNKNOWN`.
const STATE_COLUMNS: usize = 9;
/// The column with the time since the state changed.
const SINCE_COLUMNS: usize = 8;

/// What stands on the screen.
#[derive(Clone, Debug)]
pub struct Page<'a> {
    /// What was heard.
    pub live: &'a Live,
    /// Above everything.
    pub heading: Vec<Line>,
    /// Left of the table, where there is room.
    pub picture: Vec<Line>,
    /// The last lines of the screen.
    pub footer: Vec<Line>,
    /// The wall clock.
    pub now: Timestamp,
}

impl Page<'_> {
    /// At most `size.rows` lines of at most `size.columns` cells.
    pub fn lines(&self, size: Size) -> Vec<Line> {
        let mut top = self.heading.clone();
        top.push(Line::new());
        top.extend(devices(self.live));
        top.push(Line::new());
        // A blank line and the title of the messages.
        let title = 2;
        let reserved = top.len() + self.footer.len() + title + LEAST_MESSAGES;
        let room = size.rows.saturating_sub(reserved).max(3);
        top.extend(self.body(size.columns, room));
        let used = top.len() + self.footer.len() + title;
        let free = size.rows.saturating_sub(used);
        top.push(Line::new());
        top.push(Line::of(
            Style::Faint,
            format!("messages ({})", self.live.heard),
        ));
        let skipped = self.live.messages.len().saturating_sub(free);
        top.extend(self.live.messages.iter().skip(skipped).map(message));
        // The footer keeps its place while messages are few.
        let filled = size.rows.saturating_sub(self.footer.len());
        top.resize(filled, Line::new());
        top.extend(self.footer.iter().cloned());
        top.truncate(size.rows);
        top.into_iter().map(|line| line.cut(size.columns)).collect()
    }

    fn body(&self, columns: usize, room: usize) -> Vec<Line> {
        let width = self.picture.iter().map(Line::width).max().unwrap_or(0);
        let beside = width > 0 && width + GUTTER + TABLE_COLUMNS <= columns;
        if !beside {
            return self.table(columns, room);
        }
        let table = self.table(columns - width - GUTTER, room);
        let height = table
            .len()
            .max(self.picture.len())
            .min(room.max(table.len()));
        let empty = Line::new();
        let side_by_side = |n: usize| {
            let left = self.picture.get(n).unwrap_or(&empty).clone();
            let left = left.fitted(width + GUTTER);
            left.joined(table.get(n).unwrap_or(&empty).clone())
        };
        (0..height).map(side_by_side).collect()
    }

    fn table(&self, columns: usize, room: usize) -> Vec<Line> {
        let labels = self
            .live
            .rows
            .keys()
            .map(|(device, _, label)| self.label(device, label));
        let longest = labels.map(|label| label.chars().count()).max().unwrap_or(0);
        let widths = Widths::fit(longest, columns);
        let mut lines = self.rows(&widths, |_| true);
        if lines.is_empty() {
            lines.push(Line::of(Style::Faint, "no zone has reported yet"));
        }
        if lines.len() > room {
            // What is OFF can best be spared.
            let all = self.live.rows.len();
            let shown = self.live.rows.values().filter(|row| row.state != "OFF");
            let mut hidden = all - shown.count();
            lines = self.rows(&widths, |row| row.state != "OFF");
            while lines.len() >= room.max(1) {
                lines.pop();
                hidden += 1;
            }
            lines.push(Line::of(
                Style::Faint,
                format!("… and {hidden} more; enlarge the window"),
            ));
        }
        lines
    }

    /// The rows that are `wanted`, under the names of their zones.
    fn rows(&self, widths: &Widths, wanted: impl Fn(&Row) -> bool) -> Vec<Line> {
        let mut lines = Vec::new();
        let mut place = None;
        for ((device, zone, label), row) in &self.live.rows {
            if !wanted(row) {
                continue;
            }
            if place != Some((device, zone)) {
                place = Some((device, zone));
                let heading = Line::of(Style::Strong, zone);
                lines.push(heading.with(Style::Faint, format!("  {device}")));
            }
            lines.push(self.row(widths, device, label, row));
        }
        lines
    }

    fn label<'a>(&'a self, device: &str, label: &'a str) -> &'a str {
        let settings = self
            .live
            .settings
            .get(&(device.to_owned(), label.to_owned()));
        settings.and_then(|s| s.prompt.as_deref()).unwrap_or(label)
    }

    fn row(&self, widths: &Widths, device: &str, label: &str, row: &Row) -> Line {
        let settings = self
            .live
            .settings
            .get(&(device.to_owned(), label.to_owned()));
        let threshold = settings.and_then(|settings| settings.threshold);
        let probability = row
            .attributes
            .as_ref()
            .map(|a| a.probability.clamp(0.0, 1.0));
        let leaning = probability
            .zip(threshold)
            .is_some_and(|(p, enter)| p >= enter);
        let (style, dot) = match row.state.as_str() {
            "ON" => (Style::Good, '●'),
            "UNKNOWN" => (Style::Doubtful, '?'),
            _ if leaning => (Style::Doubtful, '○'),
            _ => (Style::Faint, '○'),
        };
        let name = if row.state == "ON" {
            Style::Strong
        } else {
            Style::Plain
        };
        let number = probability.map_or(String::new(), |p| format!("{:.0} %", p * 100.0));
        let mut line = Line::of(name, self.label(device, label)).fitted(widths.label);
        line = line.with(Style::Plain, " ");
        line = line.joined(bar(
            probability.unwrap_or(0.0),
            threshold,
            widths.bar,
            style,
        ));
        line = line.with(style, format!("{number:>6} "));
        line = line.joined(Line::of(style, format!("{dot} {}", row.state)).fitted(STATE_COLUMNS));
        if widths.since {
            let since = row.attributes.as_ref().map(|a| age(a.since, self.now));
            let since = since.unwrap_or_default();
            line = line.with(Style::Faint, format!(" {since:>SINCE_COLUMNS$}"));
        }
        line
    }
}

/// Columns of the table.
struct Widths {
    label: usize,
    bar: usize,
    since: bool,
}

impl Widths {
    fn fit(longest_label: usize, columns: usize) -> Self {
        // A blank before the bar, `100 % ` with two blanks, and the state.
        let fixed = 1 + 7 + STATE_COLUMNS;
        let free = columns.saturating_sub(fixed);
        let label = longest_label.min(free / 2).max(8);
        let left = free.saturating_sub(label);
        let since = left >= SINCE_COLUMNS + 1 + 16;
        let bar = left.saturating_sub(if since { SINCE_COLUMNS + 1 } else { 0 });
        Self {
            label,
            bar: bar.min(LONGEST_BAR),
            since,
        }
    }
}

/// Eighths of a cell, and a mark where the enter threshold lies.
fn bar(probability: f32, threshold: Option<f32>, cells: usize, style: Style) -> Line {
    const EIGHTHS: [&str; 8] = ["", "▏", "▎", "▍", "▌", "▋", "▊", "▉"];
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        clippy::cast_precision_loss,
        reason = "a fraction of at most a few hundred cells"
    )]
    let scaled = |value: f32, steps: usize| (value.clamp(0.0, 1.0) * steps as f32) as usize;
    let filled = scaled(probability, cells * 8);
    let (full, part) = (filled / 8, EIGHTHS[filled % 8]);
    let drawn = full + usize::from(!part.is_empty());
    let mark = threshold.map(|t| scaled(t, cells).min(cells.saturating_sub(1)));
    let empty = |n: usize| if Some(n) == mark { '┊' } else { '·' };
    let rest: String = (drawn..cells).map(empty).collect();
    Line::of(style, "█".repeat(full) + part).with(Style::Faint, rest)
}

fn devices(live: &Live) -> Vec<Line> {
    let mut lines = Vec::new();
    for (device, status) in &live.devices {
        let mut line = Line::of(Style::Strong, device);
        line = line.with(Style::Plain, "  ").joined(status_mark(status));
        if let Some(health) = live.health.get(device) {
            line = line.joined(health_line(health));
        }
        if let Some(info) = live.info.get(device) {
            // The hash is for machines; its first digits are enough to tell two bundles apart.
            let (bundle, hash) = info
                .bundle
                .split_once("@sha256:")
                .unwrap_or((&info.bundle, ""));
            let hash: String = hash.chars().take(8).collect();
            line = line.with(Style::Faint, format!("  {bundle} {hash}  {}", info.backend));
        }
        lines.push(line);
        for ((_, camera), status) in live.cameras.range(of_device(device)) {
            let mut line = Line::of(Style::Plain, format!("  camera {camera}  "));
            line = line.joined(status_mark(status));
            let health = live.health.get(device).into_iter().flat_map(|h| &h.cameras);
            for c in health.filter(|c| c.camera == *camera) {
                let numbers = format!(
                    "  {:.1} fps  {} encoded, {} unchanged",
                    c.fps, c.encoded, c.unchanged
                );
                line = line.with(Style::Faint, numbers);
            }
            lines.push(line);
        }
    }
    lines
}

/// Rounded; a dash before the first measurement.
fn or_dash(number: Option<f32>) -> String {
    number.map_or_else(|| "–".to_owned(), |number| format!("{number:.0}"))
}

fn health_line(health: &Health) -> Line {
    let mut numbers = format!(
        "  encode {} ms (p95 {})  {:.0} MiB",
        or_dash(health.encode_p50_ms),
        or_dash(health.encode_p95_ms),
        mebibytes(health.resident_bytes)
    );
    if let Some(celsius) = health.temperature_c {
        let _ = write!(numbers, "  {celsius:.0} °C");
    }
    let mut line = Line::of(Style::Plain, numbers);
    if health.throttled == Some(true) {
        line = line.with(Style::Bad, "  throttled");
    }
    if health.frame_share > 0.0 && health.frame_share < 1.0 {
        let slowed = format!("  1 of {:.0} frames (heat)", 1.0 / health.frame_share);
        line = line.with(Style::Doubtful, slowed);
    }
    if health.queue.length > 0 {
        let waiting = format!("  {} event(s) waiting", health.queue.length);
        line = line.with(Style::Doubtful, waiting);
    }
    line
}

/// The keys of one device in a map by device and camera.
fn of_device(device: &str) -> impl std::ops::RangeBounds<(String, String)> {
    let from = (device.to_owned(), String::new());
    // No string lies between a device's name and the same with a NUL behind it.
    let to = (format!("{device}\0"), String::new());
    from..to
}

fn status_mark(status: &str) -> Line {
    let style = match status {
        "online" => Style::Good,
        "stalled" | "covered" => Style::Doubtful,
        _ => Style::Bad,
    };
    Line::of(style, format!("● {status}"))
}

fn message(message: &Message) -> Line {
    let topic = Line::of(Style::Accent, &message.topic).with(Style::Plain, "  ");
    let Some(event) = &message.event else {
        let style = match message.payload.as_str() {
            "ON" | "online" => Style::Good,
            "UNKNOWN" | "stalled" | "covered" => Style::Doubtful,
            "lost" | "offline" => Style::Bad,
            _ => Style::Plain,
        };
        return topic.with(style, &message.payload);
    };
    let style = match event.kind {
        EventType::Confirmed => Style::Good,
        EventType::Updated => Style::Plain,
        EventType::Ended => Style::Faint,
    };
    let percent = event.probability * 100.0;
    topic
        .with(style, event.kind.as_str())
        .with(Style::Strong, format!("  {}", event.prompt))
        .with(Style::Plain, format!("  {percent:.0} %"))
        .with(Style::Faint, format!("  {}  {}", event.zone, event.id))
}

/// `12 s`, `3 min`, `2 h`, `5 d`; nothing when the two clocks disagree.
fn age(since: Timestamp, now: Timestamp) -> String {
    let seconds = now.as_second() - since.as_second();
    match seconds {
        ..0 => String::new(),
        0..100 => format!("{seconds} s"),
        100..6_000 => format!("{} min", seconds / 60),
        6_000..172_800 => format!("{} h", seconds / 3600),
        _ => format!("{} d", seconds / 86_400),
    }
}

#[expect(clippy::cast_precision_loss, reason = "shown without decimals")]
fn mebibytes(bytes: u64) -> f64 {
    bytes as f64 / 1_048_576.0
}

#[cfg(test)]
mod tests;
