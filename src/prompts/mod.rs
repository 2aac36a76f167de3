//! Italian prompts: from what a person writes under a label to the texts that are embedded.
//!
//! ```text
//! "scaffale vuoto" ──► uno scaffale vuoto │ una foto di uno scaffale vuoto │ …   (templates.txt)
//! "scaffali vuoti" ──► scaffali vuoti     │ una foto di scaffali vuoti     │ …
//! "fumo"           ──► fumo               │ una foto di fumo               │ …
//! ```
//!
//! Articles are chosen by rule and lexicon; an article that is given is kept, right or wrong.

use std::collections::HashSet;
use std::sync::LazyLock;

use thiserror::Error;

use crate::config::{Label, Negatives, PromptSource};

mod article;
mod clean;
mod endings;
mod lexicon;
mod phrase;
#[cfg(test)]
mod tests;

pub use clean::{MAX_CHARS, clean, clean_to};
use phrase::Phrase;

/// Most prompts one label may give.
pub const MAX_PROMPTS: usize = 64;

/// Why a text cannot be a prompt.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum PromptError {
    /// No letter, no digit; or no prompt at all.
    #[error("there is no text to look for; give a noun (\"una mela\") or whole prompts")]
    Empty,
    /// More than [`MAX_CHARS`] characters.
    #[error("the text is longer than {MAX_CHARS} characters; shorten it")]
    TooLong,
    /// A control or formatting character.
    #[error("the text contains the invisible character U+{:04X}; remove it", u32::from(*.0))]
    Invisible(char),
    /// More than [`MAX_PROMPTS`] prompts.
    #[error("there are {0} prompts; a label may have {MAX_PROMPTS}, remove some")]
    TooMany(usize),
}

static TEMPLATES: &str = include_str!("templates.txt");

static NEGATIVES: LazyLock<Vec<String>> = LazyLock::new(|| {
    lexicon::sections(include_str!("negatives.txt"))
        .map(|(_, line)| line.to_owned())
        .collect()
});

/// The prompts of a label, at least one, cleaned, without repetitions; the first is [`display`]'s.
///
/// # Errors
/// The text, or one of the prompts, is empty, too long or has invisible characters; or there are
/// too many prompts.
pub fn for_label(source: &PromptSource) -> Result<Vec<String>, PromptError> {
    match source {
        PromptSource::Noun(noun) => Ok(fill(&phrase::parse(&clean(noun)?))),
        PromptSource::Prompts(prompts) if prompts.is_empty() => Err(PromptError::Empty),
        PromptSource::Prompts(prompts) if prompts.len() > MAX_PROMPTS => {
            Err(PromptError::TooMany(prompts.len()))
        }
        PromptSource::Prompts(prompts) => {
            let cleaned: Result<Vec<String>, _> = prompts.iter().map(|p| clean(p)).collect();
            Ok(distinct(cleaned?))
        }
    }
}

/// The one prompt people read in events: `uno scaffale vuoto`.
///
/// For a source that [`for_label`] refuses it is what can be shown of it, possibly nothing.
pub fn display(source: &PromptSource) -> String {
    if let Some(first) = for_label(source)
        .ok()
        .and_then(|prompts| prompts.into_iter().next())
    {
        return first;
    }
    let raw = match source {
        PromptSource::Noun(noun) => noun.as_str(),
        PromptSource::Prompts(prompts) => prompts.first().map_or("", String::as_str),
    };
    let shown: String = raw
        .chars()
        .filter(|c| !c.is_control())
        .take(MAX_CHARS)
        .collect();
    clean(&shown).unwrap_or_default()
}

/// The prompts every label competes with: the built-in ones, if wanted, then the extra ones.
///
/// An extra one that [`clean`] refuses is left out; the configuration refuses it before, with its
/// line.
pub fn negatives(negatives: &Negatives) -> Vec<String> {
    let builtin = NEGATIVES.iter().filter(|_| negatives.builtin).cloned();
    let extra = negatives.extra.iter().filter_map(|text| clean(text).ok());
    distinct(builtin.chain(extra))
}

/// [`negatives`] without those that are a prompt of one of `labels`: who watches for *una strada*
/// must not have it lose against *una foto di una strada*.
pub fn negatives_besides(negatives: &Negatives, labels: &[Label]) -> Vec<String> {
    let wanted: Vec<String> = labels
        .iter()
        .filter_map(|label| for_label(&label.prompts).ok())
        .flatten()
        .collect();
    without(self::negatives(negatives), &wanted)
}

fn without(mut texts: Vec<String>, unwanted: &[String]) -> Vec<String> {
    let unwanted: HashSet<String> = unwanted.iter().map(|text| text.to_lowercase()).collect();
    texts.retain(|text| !unwanted.contains(&text.to_lowercase()));
    texts
}

fn fill(phrase: &Phrase) -> Vec<String> {
    let (wanted, slots) = match phrase {
        Phrase::Noun { alone, of, some } => (
            "noun",
            vec![("{alone}", alone), ("{of}", of), ("{some}", some)],
        ),
        Phrase::Clause(text) => ("clause", vec![("{alone}", text)]),
    };
    let filled = lexicon::sections(TEMPLATES)
        .filter(|(section, _)| *section == wanted)
        .filter_map(|(_, template)| {
            // One slot each; replacing it by hand keeps braces in the user's text as they are.
            slots.iter().find_map(|(slot, text)| {
                let (before, after) = template.split_once(slot)?;
                Some(format!("{before}{text}{after}"))
            })
        });
    distinct(filled)
}

/// Keeps the first of equal texts, letter case aside.
fn distinct(texts: impl IntoIterator<Item = String>) -> Vec<String> {
    let mut seen = HashSet::new();
    texts
        .into_iter()
        .filter(|text| seen.insert(text.to_lowercase()))
        .collect()
}
