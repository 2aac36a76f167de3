//! Which parts of a calibration hold for what a daemon is about to score.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;

use super::{Calibration, Fit, Platt, Thresholds};
use crate::bundle::Bundle;
use crate::config::{Config, Id};
use crate::label_set::LabelSet;
use crate::matcher::Shots;

/// Why what was fitted for a label does not hold here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// It was made for another model.
    Model,
    /// The label's prompts changed.
    Prompts,
    /// It competes with other labels.
    Rivals,
    /// It competes with other negatives.
    Negatives,
    /// The embeddings of its frames are of another length.
    Frames,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Model => "it was made for another model",
            Self::Prompts => "the label's prompts are others now",
            Self::Rivals => "the other labels of its group are others now",
            Self::Negatives => "the negatives are others now",
            Self::Frames => "its frames are of another model",
        })
    }
}

/// A label whose part of the calibration is not used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    /// The label.
    pub label: Id,
    /// Why.
    pub why: Refusal,
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { label, why } = self;
        write!(f, "label {label} is not calibrated: {why}")
    }
}

/// What holds of a calibration, label by label of a configuration.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Applied {
    calibration: Option<Arc<Calibration>>,
    /// Per label of the configuration: its position in the calibration, when that holds.
    labels: Vec<Option<usize>>,
    /// Labels that were fitted for something else, each once.
    pub refused: Vec<Refused>,
    /// Why the file cannot be used at all.
    pub problem: Option<String>,
}

impl Applied {
    /// What holds of the file that `config` names, with the model of `bundle`; nothing without one.
    pub fn of_config(config: &Config, bundle: &Bundle) -> Self {
        let Some(path) = &config.model.calibration else {
            return Self::default();
        };
        // Prompts that cannot be made are said elsewhere, and keep the daemon from starting.
        let Ok(set) = LabelSet::new(&config.labels, &config.negatives) else {
            return Self::default();
        };
        let zones = config.cameras.iter().flat_map(|camera| &camera.zones);
        match Calibration::load(path) {
            Ok(calibration) => Self::new(
                calibration,
                &bundle.model_sha256(),
                bundle.manifest().embedding_dim,
                &set,
                zones.map(|zone| zone.labels.as_slice()),
            ),
            Err(error) => Self {
                problem: Some(error.to_string()),
                ..Self::default()
            },
        }
    }

    /// What of `calibration` holds for the labels of `set`, scored by the model with the hash
    /// `model_sha256` and embeddings of `dim` values in `zones`, each a list of positions in `set`.
    ///
    /// A label that competes differently in any of its zones is refused in all of them.
    pub fn new<'a>(
        calibration: Calibration,
        model_sha256: &str,
        dim: usize,
        set: &LabelSet,
        zones: impl Iterator<Item = &'a [usize]> + Clone,
    ) -> Self {
        let mut refused = Vec::new();
        let mut labels = Vec::with_capacity(set.labels.len());
        for (n, label) in set.labels.iter().enumerate() {
            let Some(known) = calibration.set.position(&label.id) else {
                labels.push(None);
                continue;
            };
            let in_zones = zones.clone().filter_map(|zone| {
                let position = zone.iter().position(|at| *at == n)?;
                Some((set.select(zone), position))
            });
            let why = if calibration.model_sha256 != model_sha256 {
                Some(Refusal::Model)
            } else if !calibration.frames_have(dim) {
                Some(Refusal::Frames)
            } else {
                in_zones
                    .filter_map(|(zone, at)| differs(&calibration.set, known, &zone, at))
                    .next()
            };
            if let Some(why) = why {
                let label = label.id.clone();
                refused.push(Refused { label, why });
            }
            labels.push(Some(known).filter(|_| why.is_none()));
        }
        Self {
            calibration: Some(Arc::new(calibration)),
            labels,
            refused,
            problem: None,
        }
    }

    /// What holds for the label at position `label` of the configuration.
    pub fn fit(&self, label: usize) -> Option<&Fit> {
        let known = self.labels.get(label).copied().flatten()?;
        self.calibration.as_ref()?.fits.get(known)
    }

    /// Its scores' calibration; the default changes nothing.
    pub fn platt(&self, label: usize) -> Platt {
        let fit = self.fit(label);
        fit.and_then(|fit| fit.platt).unwrap_or_default()
    }

    /// Its thresholds, where some were found.
    pub fn thresholds(&self, label: usize) -> Option<Thresholds> {
        self.fit(label)?.thresholds
    }

    /// Puts the thresholds that were found into the rules of `config`, whose labels these are.
    pub fn put_thresholds_into(&self, config: &mut Config) {
        for (n, label) in config.labels.iter_mut().enumerate() {
            if let Some(thresholds) = self.thresholds(n) {
                label.rule = thresholds.put_into(label.rule);
            }
        }
    }

    /// Whether every label is scored as with `other`, thresholds aside.
    pub fn scores_like(&self, other: &Self) -> bool {
        let few_shot = |applied: &Self| applied.calibration.as_ref()?.few_shot.clone();
        let platts = |applied: &Self| -> Vec<Platt> {
            let labels = 0..self.labels.len().max(other.labels.len());
            labels.map(|n| applied.platt(n)).collect()
        };
        platts(self) == platts(other)
            && few_shot(self) == few_shot(other)
            && (few_shot(self).is_none() || self.labels == other.labels)
    }

    /// How many labels are calibrated.
    pub fn count(&self) -> usize {
        let fits = (0..self.labels.len()).filter_map(|n| self.fit(n));
        fits.filter(|fit| fit.platt.is_some()).count()
    }

    /// The frames that are blended into the scores of a zone with these labels, positions in the
    /// configuration. Labels that are not calibrated are scored without them.
    pub fn shots(&self, zone: &[usize]) -> Option<Shots> {
        let calibration = self.calibration.as_ref()?;
        let few_shot = calibration.few_shot.as_ref()?;
        let known = |n: &usize| self.labels.get(*n).copied().flatten();
        let blended: Vec<bool> = zone
            .iter()
            .map(|n| self.fit(*n).is_some_and(|fit| fit.platt.is_some()))
            .collect();
        if !blended.contains(&true) {
            return None;
        }
        let here = |shows: &Option<usize>| {
            let shows = (*shows)?;
            zone.iter().position(|n| known(n) == Some(shows))
        };
        Some(Shots {
            keys: Arc::clone(&few_shot.keys),
            shows: few_shot.shows.iter().map(here).collect(),
            blended,
            alpha: few_shot.alpha,
            beta: few_shot.beta,
        })
    }
}

impl Calibration {
    fn frames_have(&self, dim: usize) -> bool {
        let mut keys = self.few_shot.iter().flat_map(|shots| shots.keys.iter());
        keys.all(|key| key.as_slice().len() == dim)
    }
}

/// How the label at `at` in `zone` is scored otherwise than the one at `known` in `fitted`.
fn differs(fitted: &LabelSet, known: usize, zone: &LabelSet, at: usize) -> Option<Refusal> {
    let rivals = |set: &LabelSet, n: usize| -> BTreeSet<Vec<String>> {
        set.rivals(n).map(|rival| rival.prompts.clone()).collect()
    };
    let negatives =
        |set: &LabelSet| -> BTreeSet<String> { set.negatives.iter().cloned().collect() };
    if fitted.labels[known].prompts != zone.labels[at].prompts {
        Some(Refusal::Prompts)
    } else if rivals(fitted, known) != rivals(zone, at) {
        Some(Refusal::Rivals)
    } else if negatives(fitted) != negatives(zone) {
        Some(Refusal::Negatives)
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::super::Calibration;
    use super::*;
    use crate::config::{Environment, Probability};

    fn config(labels: &str) -> Config {
        let text = format!("[[camera]]\nid = \"c\"\nreplay = \"/nowhere\"\n{labels}");
        Config::from_toml(&text, "vedetta.toml", &[], &Environment::bare()).unwrap()
    }

    const FRUIT: &str = "[[label]]\nnoun = \"mela\"\ngroup = \"frutta\"\n\
                         [[label]]\nnoun = \"pera\"\ngroup = \"frutta\"\n[[label]]\nnoun = \"latte\"\n";

    fn set(config: &Config) -> LabelSet {
        LabelSet::new(&config.labels, &config.negatives).unwrap()
    }

    /// Fitted for all labels of [`FRUIT`].
    fn fitted() -> Calibration {
        let p = |value| Probability::new(value).unwrap();
        let set = set(&config(FRUIT));
        let fit = Fit {
            platt: Platt::new(2.0, 0.5),
            thresholds: Some(Thresholds {
                enter: p(0.9),
                leave: p(0.4),
            }),
            measured: None,
        };
        Calibration {
            bundle: "tiny".to_owned(),
            model_sha256: "ab".repeat(32),
            precision: p(0.95),
            fits: vec![fit; set.labels.len()],
            set,
            few_shot: None,
        }
    }

    fn apply(config: &Config) -> Applied {
        let zones = config.cameras.iter().flat_map(|camera| &camera.zones);
        let zones = zones.map(|zone| zone.labels.as_slice());
        Applied::new(fitted(), &"ab".repeat(32), 4, &set(config), zones)
    }

    fn whys(applied: &Applied) -> Vec<(&str, Refusal)> {
        let refused = applied.refused.iter();
        refused.map(|r| (r.label.as_str(), r.why)).collect()
    }

    #[test]
    fn what_was_fitted_for_these_labels_holds() {
        let mut config = config(FRUIT);
        let applied = apply(&config);
        assert_eq!((applied.count(), whys(&applied)), (3, vec![]));
        assert_eq!(applied.platt(1), Platt::new(2.0, 0.5).unwrap());
        applied.put_thresholds_into(&mut config);
        let rule = config.labels[2].rule;
        assert_eq!((rule.enter.get(), rule.leave.get()), (0.9, 0.4));
    }

    #[test]
    fn another_prompt_refuses_the_label_and_its_rivals_only() {
        let applied = apply(&config(
            &FRUIT.replace("\"pera\"", "\"pesca\"\nid = \"pera\""),
        ));
        let expected = vec![("mela", Refusal::Rivals), ("pera", Refusal::Prompts)];
        assert_eq!(whys(&applied), expected);
        assert_eq!((applied.platt(0), applied.count()), (Platt::default(), 1));
        assert_eq!(applied.thresholds(1), None);
    }

    #[test]
    fn other_negatives_refuse_every_label() {
        let text = format!("{FRUIT}[negatives]\nextra = [\"un carrello\"]\n");
        let applied = apply(&config(&text));
        assert_eq!(whys(&applied).len(), 3);
        assert!(
            whys(&applied)
                .iter()
                .all(|(_, why)| *why == Refusal::Negatives)
        );
    }

    #[test]
    fn a_zone_in_which_a_label_has_other_rivals_refuses_it() {
        let zones = "[[camera.zone]]\nid = \"a\"\n\
                     [[camera.zone]]\nid = \"b\"\nlabels = [\"mela\", \"latte\"]\n";
        let config = config(&format!("{zones}{FRUIT}"));
        assert_eq!(whys(&apply(&config)), [("mela", Refusal::Rivals)]);
    }

    #[test]
    fn another_model_refuses_everything_and_a_new_label_is_not_refused() {
        let config = config(&format!("{FRUIT}[[label]]\nnoun = \"scopa\"\n"));
        let all = [0, 1, 2, 3];
        let zones = std::iter::once(&all[..]);
        let applied = Applied::new(fitted(), &"cd".repeat(32), 4, &set(&config), zones);
        assert!(whys(&applied).iter().all(|(_, why)| *why == Refusal::Model));
        assert_eq!((applied.count(), whys(&applied).len()), (0, 3));
    }
}
