//! `[[label]]`, `[decision]` and `[negatives]`.

use super::super::defaults::{self, leave_for};
use super::super::raw;
use super::super::read::Field;
use super::super::{Id, Label, Negatives, PromptSource, Rule};
use super::values::{Context, count, given, probability, seconds};

/// Most labels; each has a text embedding and a topic per zone.
const MAX_LABELS: usize = 256;
/// Most prompts of a label.
const MAX_PROMPTS: usize = 32;
/// Most negatives that a configuration adds.
const MAX_NEGATIVES: usize = 256;

/// Rule values before the defaults of the machine are filled in.
#[derive(Clone, Copy, Default)]
struct Partial {
    enter: Option<f64>,
    leave: Option<f64>,
    dwell_s: Option<f64>,
    window: Option<usize>,
}

pub fn labels(context: &Context<'_>, raw: &raw::Config) -> Vec<Label> {
    let defaults = given(&raw.decision).map(|(_, raw)| {
        let partial = Partial {
            enter: context.probability(&raw.enter),
            leave: context.probability(&raw.leave),
            dwell_s: context.number(&raw.dwell_s, 0.0..=3600.0),
            window: window(context, &raw.window),
        };
        if let (Some((place, _)), Some(enter), Some(leave)) = (
            given(&raw.leave),
            partial.enter.or(Some(defaults::ENTER)),
            partial.leave,
        ) && leave > enter
        {
            context
                .problems
                .at(place, format!("must be at most enter, {enter}"));
        }
        partial
    });
    let defaults = defaults.unwrap_or_default();
    let Some((place, list)) = given(&raw.label) else {
        if raw.label.is_none() {
            let message = "has no label: add [[label]] and noun = \"scaffale vuoto\"";
            context.problems.in_file(None, message);
        }
        return Vec::new();
    };
    if list.is_empty() || list.len() > MAX_LABELS {
        context
            .problems
            .at(place, format!("must be 1 to {MAX_LABELS} labels"));
        return Vec::new();
    }
    let mut labels: Vec<Label> = Vec::new();
    for raw in list {
        let Some(label) = label(context, raw, &defaults) else {
            continue;
        };
        if labels.iter().any(|other| other.id == label.id) {
            let message = format!("a label with the id {} is there already", label.id);
            let id = raw.value.as_ref().and_then(|raw| raw.id.as_ref());
            let place = id.map_or(raw.place, |id| id.place);
            context.problems.at(place, message);
            continue;
        }
        labels.push(label);
    }
    labels
}

fn label(context: &Context<'_>, raw: &Field<raw::Label>, defaults: &Partial) -> Option<Label> {
    let (place, raw) = (raw.place, raw.value.as_ref()?);
    let prompts = match (&raw.noun, &raw.prompts) {
        (Some(noun), Some(_)) => {
            context.wrong(noun.place, "noun and prompts exclude each other; keep one")
        }
        (Some(_), None) => context.text(&raw.noun).map(PromptSource::Noun),
        (None, Some(_)) => context
            .texts(&raw.prompts, 1..=MAX_PROMPTS)
            .map(PromptSource::Prompts),
        (None, None) => context.wrong(
            place,
            "needs noun = \"scaffale vuoto\" or prompts = [\"uno scaffale vuoto\"]",
        ),
    };
    let id = match (&raw.id, &prompts) {
        (Some(_), _) => context.id(&raw.id),
        (None, Some(PromptSource::Noun(noun))) => Id::from_noun(noun)
            .or_else(|| context.wrong(place, "needs an id: its noun has no letter to make one of")),
        (None, Some(PromptSource::Prompts(_))) => context.wrong(
            place,
            "needs an id beside its prompts, for example id = \"mela\"",
        ),
        (None, None) => None,
    };
    let group = context.id(&raw.group);
    let rule = rule(context, raw, defaults);
    Some(Label {
        id: id?,
        prompts: prompts?,
        group,
        rule: rule?,
    })
}

fn rule(context: &Context<'_>, raw: &raw::Label, defaults: &Partial) -> Option<Rule> {
    let own_enter = context.probability(&raw.enter);
    let enter = own_enter.or(defaults.enter).unwrap_or(defaults::ENTER);
    let leave = match (context.probability(&raw.leave), defaults.leave) {
        (Some(leave), _) if leave > enter => {
            let place = given(&raw.leave)?.0;
            context
                .problems
                .at(place, format!("must be at most enter, {enter}"));
            return None;
        }
        (Some(leave), _) => leave,
        // A default for all labels gives way to a label whose own enter lies under it.
        (None, Some(leave)) if leave <= enter => leave,
        (None, _) => leave_for(enter),
    };
    let dwell_s = context
        .number(&raw.dwell_s, 0.0..=3600.0)
        .or(defaults.dwell_s);
    let window = window(context, &raw.window).or(defaults.window);
    Some(Rule {
        enter: probability(enter)?,
        leave: probability(leave)?,
        dwell: seconds(dwell_s.unwrap_or(defaults::DWELL_S)),
        window: window.unwrap_or(count(defaults::WINDOW)),
    })
}

fn window(context: &Context<'_>, key: &super::super::read::Key<u64>) -> Option<usize> {
    let window = context.whole(key, 1..=31)?;
    if window % 2 == 0 {
        let place = given(key)?.0;
        return context.wrong(place, "must be odd, 1 to 31, so that it has a middle");
    }
    Some(count(window))
}

pub fn negatives(context: &Context<'_>, raw: &raw::Config) -> Negatives {
    let raw = given(&raw.negatives).map(|(_, raw)| raw);
    let builtin = raw.and_then(|raw| context.flag(&raw.builtin));
    let extra = raw.and_then(|raw| context.texts(&raw.extra, 0..=MAX_NEGATIVES));
    Negatives {
        builtin: builtin.unwrap_or(true),
        extra: extra.unwrap_or_default(),
    }
}
