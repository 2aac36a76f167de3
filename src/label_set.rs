//! Labels as they compete with each other and with the negatives: the texts that a label bank is the
//! embedding of. Pure but for [`LabelSet::bank`].

use std::path::Path;

use thiserror::Error;

use crate::bundle::Bundle;
use crate::config::{Id, Label, Negatives};
use crate::label_bank::{self, LabelBankError};
use crate::matcher::LabelBank;
use crate::prompts::{self, PromptError};

/// One label with the texts that stand for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Contender {
    /// The slug.
    pub id: Id,
    /// At least one; the first is what people read.
    pub prompts: Vec<String>,
    /// Labels of one group exclude each other.
    pub group: Option<Id>,
}

/// Labels and what they compete with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LabelSet {
    /// In the order of the scores.
    pub labels: Vec<Contender>,
    /// Texts that compete with every label.
    pub negatives: Vec<String>,
}

/// A label whose prompts cannot be made.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("label {label}: {source}")]
pub struct LabelSetError {
    /// Which.
    pub label: Id,
    /// Why.
    pub source: PromptError,
}

impl LabelSet {
    /// What `labels` and `negatives` of a configuration mean: the prompts of every label, and the
    /// negatives that are no prompt of one of them.
    ///
    /// # Errors
    /// A label whose prompts cannot be made.
    pub fn new(labels: &[Label], negatives: &Negatives) -> Result<Self, LabelSetError> {
        let contender = |label: &Label| {
            let prompts = prompts::for_label(&label.prompts).map_err(|source| LabelSetError {
                label: label.id.clone(),
                source,
            })?;
            Ok(Contender {
                id: label.id.clone(),
                prompts,
                group: label.group.clone(),
            })
        };
        Ok(Self {
            labels: labels.iter().map(contender).collect::<Result<_, _>>()?,
            negatives: prompts::negatives_besides(negatives, labels),
        })
    }

    /// The labels at these positions, as a zone has them, against the same negatives. Positions
    /// that are not there are left out.
    pub fn select(&self, positions: &[usize]) -> Self {
        let at = |n: &usize| self.labels.get(*n).cloned();
        Self {
            labels: positions.iter().filter_map(at).collect(),
            negatives: self.negatives.clone(),
        }
    }

    /// Position of a label.
    pub fn position(&self, id: &Id) -> Option<usize> {
        self.labels.iter().position(|label| label.id == *id)
    }

    /// The other labels of the group of the label at `position`.
    pub fn rivals(&self, position: usize) -> impl Iterator<Item = &Contender> {
        let group = self.labels[position].group.as_ref();
        let others = self.labels.iter().enumerate();
        others
            .filter(move |(n, other)| {
                *n != position && group.is_some() && other.group.as_ref() == group
            })
            .map(|(_, other)| other)
    }

    /// Per label: the number of its group, as [`LabelBank::groups`] has it.
    pub fn groups(&self) -> Vec<Option<usize>> {
        let mut names: Vec<&Id> = Vec::new();
        let mut number = |name| {
            let known = names.iter().position(|known| *known == name);
            known.unwrap_or_else(|| {
                names.push(name);
                names.len() - 1
            })
        };
        let groups = self.labels.iter().map(|label| label.group.as_ref());
        groups.map(|group| group.map(&mut number)).collect()
    }

    /// Embeds them; see [`label_bank::build`].
    ///
    /// # Errors
    /// See [`LabelBankError`].
    pub fn bank(
        &self,
        bundle: &Bundle,
        cache_dir: Option<&Path>,
        progress: &mut dyn FnMut(usize, usize),
    ) -> Result<LabelBank, LabelBankError> {
        let labels: Vec<Vec<String>> = self.labels.iter().map(|l| l.prompts.clone()).collect();
        let negatives: Vec<Vec<String>> = self.negatives.iter().map(|n| vec![n.clone()]).collect();
        label_bank::build(
            bundle,
            cache_dir,
            &labels,
            self.groups(),
            &negatives,
            progress,
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Config, Environment};

    fn set(labels: &str) -> LabelSet {
        let text = format!("[[camera]]\nid = \"c\"\nreplay = \"/nowhere\"\n{labels}");
        let config = Config::from_toml(&text, "vedetta.toml", &[], &Environment::bare()).unwrap();
        LabelSet::new(&config.labels, &config.negatives).unwrap()
    }

    #[test]
    fn rivals_are_the_others_of_the_group() {
        let set = set("[[label]]\nnoun = \"mela\"\ngroup = \"frutta\"\n\
             [[label]]\nnoun = \"latte\"\n[[label]]\nnoun = \"pera\"\ngroup = \"frutta\"\n");
        let rivals = |n| set.rivals(n).map(|c| c.id.as_str()).collect::<Vec<_>>();
        assert_eq!(
            (rivals(0), rivals(1), rivals(2)),
            (vec!["pera"], vec![], vec!["mela"])
        );
        assert_eq!(set.groups(), [Some(0), None, Some(0)]);
        assert_eq!(set.select(&[2, 1, 9]).groups(), [Some(0), None]);
    }

    #[test]
    fn a_negative_that_is_watched_for_is_no_negative() {
        let all = set("[[label]]\nnoun = \"mela\"\n").negatives.len();
        let fewer = set("[[label]]\nnoun = \"strada\"\n").negatives.len();
        assert_eq!(fewer, all - 1);
    }
}
