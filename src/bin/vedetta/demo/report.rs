//! What the demo says around the table, and at the end.

use vedetta::live::line::{Line, Style};

use super::photos::Photo;
use super::showings::Tally;
use super::{Demo, plain, stage};

impl Demo {
    /// The first lines where there is no terminal.
    pub(super) fn introduction(&self) -> Vec<Line> {
        let stage = &self.stage;
        let label = |(id, noun): &(_, String)| format!("{id} ({noun})");
        let labels: Vec<String> = stage.labels.iter().map(label).collect();
        vec![
            plain(&format!("model   {}", stage.bundle.display())),
            plain(&format!(
                "camera  {} photos from {}",
                stage.photos.len(),
                stage.folder.display()
            )),
            plain(&format!("labels  {}", labels.join(", "))),
            plain(&format!(
                "broker  127.0.0.1:{}; beside it: {}",
                self.port,
                self.command()
            )),
        ]
    }

    /// Above the table.
    pub(super) fn heading(&self) -> Vec<Line> {
        let title = Line::of(Style::Strong, "vedetta demo");
        let title = title.with(
            Style::Faint,
            "  photos as the camera, a broker inside; Ctrl-C ends it",
        );
        vec![title, self.progress()]
    }

    fn progress(&self) -> Line {
        let Some(shown) = self.showing() else {
            let bundle = self.stage.bundle.display();
            let what = if self.live.info.is_empty() {
                format!("loading the model {bundle} …")
            } else {
                "waiting for the first photo …".to_owned()
            };
            return Line::of(Style::Doubtful, what);
        };
        let photo = self.showings.photo(shown);
        let total = self.showings.total();
        let of = format!("photo {} of {}  ", photo + 1, self.stage.photos.len());
        Line::of(Style::Faint, of)
            .with(Style::Accent, &self.stage.photos[photo].name)
            .with(Style::Faint, format!("  {} s  ", shown.as_secs()))
            .joined(verdicts(&total))
    }

    /// Below the messages.
    pub(super) fn footer(&self) -> Vec<Line> {
        let mut lines = vec![Line::new()];
        if let Some(log) = self.journal.last() {
            lines.push(Line::of(Style::Bad, log));
        }
        let beside = Line::of(Style::Plain, "Try beside it:  ");
        lines.push(beside.with(Style::Accent, self.command()));
        lines
    }

    fn command(&self) -> String {
        format!(
            "mosquitto_sub -h 127.0.0.1 -p {} -t 'vedetta/#' -v",
            self.port
        )
    }

    /// What happened; nothing when no photo was ever shown.
    pub(super) fn report(&self) -> Option<Vec<Line>> {
        let seconds = self.showing()?.as_secs();
        let total = self.showings.total();
        let mut lines = vec![Line::new()];
        lines.push(Line::of(
            Style::Strong,
            format!("{seconds} s, {} photo(s) shown", total.shown),
        ));
        lines.push(Line::new());
        lines.extend(self.photos());
        if total.shown == 0 {
            lines.push(plain(
                "  no photo was shown to its end; give the demo 5 seconds or more",
            ));
        }
        lines.push(Line::new());
        lines.push(plain("  against the file names  ").joined(verdicts(&total)));
        lines.push(self.events());
        lines.extend(self.numbers());
        Some(lines)
    }

    fn photos(&self) -> Vec<Line> {
        let photos = self.stage.photos.iter().zip(&self.showings.tallies);
        let shown: Vec<_> = photos.filter(|(_, tally)| tally.shown > 0).collect();
        let longest = shown
            .iter()
            .map(|(photo, _)| photo.name.chars().count())
            .max();
        let width = longest.unwrap_or(0).min(40) + 2;
        let line = |(photo, tally): &(&Photo, &Tally)| {
            let (style, mark) = match (&photo.expected, tally) {
                (None, _) => (Style::Plain, "  "),
                (
                    _,
                    Tally {
                        wrong: 0,
                        undecided: 0,
                        ..
                    },
                ) => (Style::Good, "✓ "),
                (_, Tally { wrong: 0, .. }) => (Style::Doubtful, "? "),
                _ => (Style::Bad, "✗ "),
            };
            let seen = match tally.seen.as_slice() {
                [] => "nothing for sure".to_owned(),
                labels => labels.join(", "),
            };
            let times = match tally.shown {
                1 => String::new(),
                n => format!("  {} of {n} right", tally.right),
            };
            let name = Line::of(Style::Plain, format!("  {}", photo.name)).fitted(width + 2);
            let times = if photo.expected.is_some() {
                times
            } else {
                String::new()
            };
            name.with(style, mark)
                .with(style, seen)
                .with(Style::Faint, times)
        };
        shown.iter().map(line).collect()
    }

    fn events(&self) -> Line {
        let count = |kind| self.live.events.get(kind).copied().unwrap_or(0);
        plain(&format!(
            "  events                  {} confirmed, {} updated, {} ended; {} messages in all",
            count("confirmed"),
            count("updated"),
            count("ended"),
            self.live.heard
        ))
    }

    fn numbers(&self) -> Vec<Line> {
        let Some(health) = self.live.health.get(stage::DEVICE) else {
            return vec![plain(
                "  no health was published; give the demo a few seconds more",
            )];
        };
        let encoded: u64 = health.cameras.iter().map(|camera| camera.encoded).sum();
        let unchanged: u64 = health.cameras.iter().map(|camera| camera.unchanged).sum();
        let (bundle, backend) = match self.live.info.get(stage::DEVICE) {
            Some(info) => (info.bundle.as_str(), info.backend.as_str()),
            None => ("", ""),
        };
        let mebibytes = health.resident_bytes >> 20;
        let mut times = self.encodes_ms.clone();
        times.sort_by(f32::total_cmp);
        let encode = match (quantile(&times, 50), quantile(&times, 95)) {
            (Some(median), Some(p95)) => {
                format!("{median:.0} ms median, {p95:.0} ms 95th percentile; ")
            }
            _ => String::new(),
        };
        vec![
            plain(&format!(
                "  encode                  {encode}{encoded} frames, and {unchanged} that were \
                 unchanged"
            )),
            plain(&format!(
                "  memory                  {mebibytes} MiB resident, with broker and table"
            )),
            plain(&format!("  model                   {bundle} on {backend}")),
        ]
    }
}

/// Nearest rank.
fn quantile(sorted: &[f32], percent: usize) -> Option<f32> {
    let rank = (sorted.len() * percent).div_ceil(100).max(1);
    sorted.get(rank - 1).copied()
}

/// `7 right, 1 wrong`, and the rest where there is any.
fn verdicts(total: &Tally) -> Line {
    let mut line = Line::of(Style::Good, format!("{} right", total.right));
    line = line.with(Style::Plain, ", ");
    let style = if total.wrong > 0 {
        Style::Bad
    } else {
        Style::Faint
    };
    line = line.with(style, format!("{} wrong", total.wrong));
    if total.undecided > 0 {
        line = line.with(Style::Plain, ", ");
        line = line.with(Style::Doubtful, format!("{} undecided", total.undecided));
    }
    let judged = total.right + total.wrong + total.undecided;
    if total.shown > judged {
        let rest = total.shown - judged;
        line = line.with(
            Style::Faint,
            format!(", {rest} without a label in the name"),
        );
    }
    line
}
