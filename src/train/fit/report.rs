//! `report.html` of a refresh.

use std::cmp::Reverse;
use std::fmt::Write;

use anyhow::Result;

use super::outcome::Outcome;
use super::score::Answer;
use super::strength::Trial;
use crate::train::data::photos;
use crate::train::onnx::edit::Placed;
use crate::train::report::chart::{Chart, Line};
use crate::train::report::{Confusion, Page, escape, paragraph, percent, table, thumbnail};
use crate::train::tower::{Learn, Rank};

/// Photos shown.
const MAX_PHOTOS: usize = 24;

/// Longer edge of a thumbnail, pixels.
const EDGE_PX: u32 = 240;

/// Skipped entries listed.
const MAX_SKIPPED: usize = 100;

/// The report as one HTML file. `title` is what people know the new bundle by.
///
/// # Errors
/// None of its own; a photo that cannot be read again is shown without a picture.
pub fn html(outcome: &Outcome, title: &str) -> Result<String> {
    let (before, after) = (outcome.before, outcome.after);
    let from = match outcome.distilled_from() {
        Some(teacher) => format!("Distilled from {}", teacher.id),
        None => format!("{} refreshed", outcome.bundle),
    };
    let lead = format!(
        "{from} with {} photos; measured on {} held-out photos that were not learnt from.",
        outcome.train.len(),
        outcome.held_out.len()
    );
    let mut page = Page::new(title, &lead);
    let (first, second) = beside(outcome);
    let was = |value: String| format!("{first} {value}");
    let mut tiles = vec![
        (
            "right first",
            percent(after.accuracy),
            was(percent(before.accuracy)),
        ),
        (
            "held-out loss",
            format!("{:.3}", after.loss),
            was(format!("{:.3}", before.loss)),
        ),
        (
            "general sentences moved by",
            format!("{:.3}", outcome.drift),
            "mean change of a cosine".to_owned(),
        ),
        (
            "epoch kept",
            format!("{} of {}", outcome.learnt.best, outcome.settings.epochs),
            how(outcome),
        ),
    ];
    if let Some(taught) = &outcome.taught {
        let [before, after] = taught.agreement.map(|found| found.cosine());
        tiles.push((
            "cosine to the teacher",
            format!("{after:.3}"),
            format!("at first {before:.3}"),
        ));
    }
    page.tiles(&tiles);
    page.section("What came of it", &paragraph(&verdict(outcome)));
    page.section("How it learnt", &curves(outcome));
    if let Some([old, new]) = &outcome.answers {
        let classes: Vec<Option<usize>> = outcome
            .held_out
            .iter()
            .map(|item| outcome.dataset.items[*item].class)
            .collect();
        let names: Vec<String> = outcome
            .dataset
            .classes
            .iter()
            .map(|c| c.noun.clone())
            .collect();
        let confusion = |answers: &[Answer]| {
            let pairs = classes.iter().zip(answers);
            let pairs = pairs.filter_map(|(class, answer)| Some(((*class)?, answer.class)));
            Confusion::new(names.clone(), pairs)
        };
        let (old_counts, new_counts) = (confusion(old), confusion(new));
        page.section(
            &format!("Every class, {first} and {second}"),
            &per_class(&names, &old_counts, &new_counts, [first, second]),
        );
        let matrices = format!(
            "<p class=note>Rows: what the photo shows. Columns: what it was taken for.</p>\
             <div class=charts><figure><figcaption>{first}</figcaption>{}</figure>\
             <figure><figcaption>{second}</figcaption>{}</figure></div>",
            old_counts.html(),
            new_counts.html()
        );
        page.section("What is taken for what", &matrices);
        let (heading, html) = worst(outcome, &classes, old, new);
        page.section(heading, &html);
    }
    if !outcome.trials.is_empty() {
        page.section("How strongly the space was held", &trials(outcome));
    }
    page.section("The photos", &photos_used(outcome));
    Ok(page.finish())
}

/// What is set side by side: a bundle before and after, or a teacher and its student.
fn beside(outcome: &Outcome) -> (&'static str, &'static str) {
    match outcome.distilled_from() {
        Some(_) => ("teacher", "student"),
        None => ("before", "after"),
    }
}

/// What was learnt, in a few words.
fn how(outcome: &Outcome) -> String {
    match outcome.tuning.map(|tuning| tuning.learn) {
        Some(
            Learn::Adapters(Rank { rank, .. }) | Learn::AdaptersAndProjection(Rank { rank, .. }),
        ) => format!("adapters of rank {rank}"),
        Some(_) => "all weights".to_owned(),
        None => format!("strength {}", outcome.settings.strength),
    }
}

fn verdict(outcome: &Outcome) -> String {
    let few = if outcome.held_out.len() < 50 {
        " So few held-out photos measure roughly: one photo more or less is a visible step."
    } else {
        ""
    };
    let trial = |t: &&Trial| t.strength == outcome.settings.strength;
    let sober = outcome.trials.iter().find(trial).map_or(String::new(), |trial| {
        let accuracy = percent(trial.accuracy);
        format!(" Cross-validation among the photos learnt from, which chose no epoch, says {accuracy}.")
    });
    let chosen = format!(
        "The held-out photos also chose the epoch, so that new photos may do a little worse.{sober}"
    );
    match outcome.written {
        Some(places) if outcome.learnt.best > 0 => {
            let place = |placed: Placed| match placed {
                Placed::Folded => "a map was folded into its last product",
                Placed::Appended => "a map was put behind it as one more product",
                Placed::Throughout => "its own weights were learnt",
                Placed::Nowhere => "it stayed as it was",
            };
            let came = match outcome.distilled_from() {
                Some(_) => "The student came closer to its teacher and was written.",
                None => "The refreshed bundle was better and was written.",
            };
            format!(
                "{came} Image tower: {}. Text tower: {}. \
                 {chosen}{few}",
                place(places[0]),
                place(places[1])
            )
        }
        Some(_) => {
            format!("The refreshed bundle is no better; it was written because of --force.{few}")
        }
        None if outcome.distilled_from().is_some() => {
            format!("The student did not come closer to its teacher, so nothing was written.{few}")
        }
        None => format!(
            "The refresh was no better than the bundle it started from, so nothing was written. \
             More photos help most, above all of what is mistaken below.{few}"
        ),
    }
}

#[expect(clippy::cast_precision_loss, reason = "epochs")]
fn curves(outcome: &Outcome) -> String {
    let curve = &outcome.learnt.curve;
    let line = |name, value: &dyn Fn(usize) -> Option<f64>| Line {
        name,
        points: (0..curve.len())
            .filter_map(|i| Some((i as f64, value(i)?)))
            .collect(),
    };
    let best = outcome.learnt.best;
    let mark = (best > 0).then_some((best as f64, "kept"));
    let loss = Chart {
        title: "loss per epoch",
        lines: vec![
            line("held-out", &|i| Some(curve[i].held_out_loss)),
            line("learning", &|i| curve[i].loss),
        ],
        mark,
        shares: false,
    };
    let accuracy = Chart {
        title: match outcome.distilled_from() {
            Some(_) => "mean cosine to the teacher on what is held out",
            None => "held-out photos whose right answer comes first",
        },
        lines: vec![line("held-out", &|i| Some(curve[i].accuracy))],
        mark,
        shares: outcome.distilled_from().is_none(),
    };
    format!("<div class=charts>{}{}</div>", loss.html(), accuracy.html())
}

#[expect(clippy::cast_precision_loss, reason = "counts of photos")]
fn per_class(
    names: &[String],
    before: &Confusion,
    after: &Confusion,
    [first, second]: [&str; 2],
) -> String {
    let share = |(photos, right): (usize, usize)| match photos {
        0 => "–".to_owned(),
        n => percent(right as f64 / n as f64),
    };
    let rows: Vec<Vec<String>> = names
        .iter()
        .enumerate()
        .map(|(class, name)| {
            let photos = after.of(class).0.to_string();
            let (before, after) = (share(before.of(class)), share(after.of(class)));
            vec![name.clone(), photos, before, after]
        })
        .collect();
    table(
        &[
            "class",
            "held-out photos",
            &format!("right, {first}"),
            &format!("right, {second}"),
        ],
        &rows,
    )
}

/// Mistakes, the surest first; without any, the photos that were closest to one.
fn worst(
    outcome: &Outcome,
    classes: &[Option<usize>],
    before: &[Answer],
    after: &[Answer],
) -> (&'static str, String) {
    let labelled = || (0..classes.len()).filter_map(|i| Some((i, classes[i]?)));
    let mut shown: Vec<(usize, usize)> =
        labelled().filter(|(i, c)| after[*i].class != *c).collect();
    let mistakes = !shown.is_empty();
    if !mistakes {
        shown = labelled().collect();
    }
    shown.sort_by(|a, b| after[a.0].of_right.total_cmp(&after[b.0].of_right));
    let all = shown.len();
    shown.truncate(if mistakes { MAX_PHOTOS } else { 8 });
    let (first, _) = beside(outcome);
    let noun = |class: usize| escape(&outcome.dataset.classes[class].noun);
    let mut html = String::new();
    if !mistakes {
        html.push_str(&paragraph(
            "No held-out photo is mistaken. These were the least sure.",
        ));
    } else if all > MAX_PHOTOS {
        html.push_str(&paragraph(&format!(
            "{MAX_PHOTOS} of {all}, the worst first."
        )));
    }
    html.push_str("<div class=photos>");
    for (photo, class) in shown {
        let item = &outcome.dataset.items[outcome.held_out[photo]];
        let picture = match photos::read(&item.source) {
            Ok(photo) => format!(
                "<img alt=\"\" src=\"{}\">",
                thumbnail::data_uri(&photo, EDGE_PX)
            ),
            Err(_) => String::new(),
        };
        let (old, new) = (&before[photo], &after[photo]);
        let sure = |share: f32| percent(f64::from(share));
        let answered = format!("<b>{}</b>, {}", noun(new.class), sure(new.probability));
        let answered = if new.class == class {
            answered
        } else {
            format!(
                "answered {answered}<br>is <b>{}</b>, {}",
                noun(class),
                sure(new.of_right)
            )
        };
        let _ = write!(
            html,
            "<div class=photo>{picture}<div>{answered}<small>{first}: {}, {}</small>\
             <small title=\"{name}\">{name}</small></div></div>",
            noun(old.class),
            sure(old.probability),
            name = escape(&item.name),
        );
    }
    html.push_str("</div>");
    (
        if mistakes {
            "The worst mistakes"
        } else {
            "The closest calls"
        },
        html,
    )
}

fn trials(outcome: &Outcome) -> String {
    let rows: Vec<Vec<String>> = outcome
        .trials
        .iter()
        .map(|trial| {
            let chosen = trial.strength == outcome.settings.strength;
            vec![
                format!(
                    "{}{}",
                    trial.strength,
                    if chosen { "  (chosen)" } else { "" }
                ),
                format!("{:.3} ± {:.3}", trial.loss, trial.error),
                percent(trial.accuracy),
            ]
        })
        .collect();
    let why = "Cross-validation among the photos that were learnt from. Of all strengths whose loss is \
               within one standard error of the best, the strongest is taken: what differs by chance \
               alone should not bend the space.";
    format!(
        "{}{}",
        paragraph(why),
        table(&["strength", "loss", "right first"], &rows)
    )
}

fn photos_used(outcome: &Outcome) -> String {
    let mut counts = vec![(0usize, 0usize); outcome.dataset.classes.len()];
    for item in &outcome.train {
        if let Some(class) = outcome.dataset.items[*item].class {
            counts[class].0 += 1;
        }
    }
    for item in &outcome.held_out {
        if let Some(class) = outcome.dataset.items[*item].class {
            counts[class].1 += 1;
        }
    }
    let mut rows: Vec<(usize, Vec<String>)> = outcome
        .dataset
        .classes
        .iter()
        .zip(counts)
        .map(|(class, (train, held))| {
            let row = vec![
                class.noun.clone(),
                class.key.clone(),
                train.to_string(),
                held.to_string(),
            ];
            (train, row)
        })
        .collect();
    rows.sort_by_key(|(train, _)| Reverse(*train));
    let rows: Vec<Vec<String>> = rows.into_iter().map(|(_, row)| row).collect();
    let mut html = String::new();
    if !rows.is_empty() {
        html.push_str(&table(
            &["class", "folder", "learnt from", "held out"],
            &rows,
        ));
    }
    let skipped = &outcome.skipped;
    if skipped.count() > 0 {
        let listed = skipped.first().iter().take(MAX_SKIPPED);
        let rows: Vec<Vec<String>> = listed
            .map(|s| vec![s.name.clone(), s.reason.clone()])
            .collect();
        let _ = write!(
            html,
            "<details><summary>{} entries were skipped</summary>{}</details>",
            skipped.count(),
            table(&["entry", "reason"], &rows)
        );
    }
    html
}
