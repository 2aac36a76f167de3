//! `--loss`, `--teacher` and `--texts`.

use std::path::PathBuf;
use std::str::FromStr;

use anyhow::{Result, ensure};
use clap::{Args, ValueEnum};
use vedetta::train::fit::distillation::Objective;
use vedetta::train::fit::loss::Loss;
use vedetta::train::fit::taught::Teaching;

/// What is made small.
#[derive(Args)]
pub struct Losses {
    /// One loss or several, each with a weight: infonce and sigmoid take what belongs together from the
    /// photos' classes and captions; mse and affinity learn what a teacher makes of them, as
    /// infonce,mse=0.5.
    #[arg(long, value_name = "NAME[=WEIGHT]", value_delimiter = ',')]
    loss: Vec<Weighted>,
    /// Texts that the text tower learns from its teacher beside prompts and captions, one a line.
    #[arg(long, value_name = "FILE")]
    texts: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Name {
    /// Symmetric softmax (CLIP).
    Infonce,
    /// Every pair by itself (SigLIP).
    Sigmoid,
    /// Distance to the teacher's embeddings.
    Mse,
    /// Divergence from the teacher's affinities of photos and texts (TinyCLIP).
    Affinity,
}

#[derive(Clone, Copy)]
struct Weighted(Name, f64);

impl FromStr for Weighted {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (name, weight) = text.split_once('=').unwrap_or((text, "1"));
        let named = <Name as ValueEnum>::from_str(name, false);
        let named = named
            .map_err(|_| format!("{name:?} is no loss; legal: infonce, sigmoid, mse, affinity"))?;
        let weight = weight
            .parse::<f64>()
            .ok()
            .filter(|w| w.is_finite() && *w >= 0.0);
        let weight =
            weight.ok_or_else(|| format!("{text:?}: a weight is a number of 0 or more"))?;
        Ok(Self(named, weight))
    }
}

impl Losses {
    /// The contrastive loss, and what is learnt from a teacher; `usual` is taken where nothing is said.
    ///
    /// # Errors
    /// Losses that exclude each other.
    pub fn read(&self, usual: &[(Name, f64)]) -> Result<(Loss, Teaching)> {
        let given: Vec<(Name, f64)> = match &self.loss[..] {
            [] => usual.to_vec(),
            given => given.iter().map(|Weighted(name, w)| (*name, *w)).collect(),
        };
        let weight = |wanted: Name| {
            let of_name = given.iter().filter(move |(name, _)| *name == wanted);
            of_name.map(|(_, weight)| *weight)
        };
        for name in [Name::Infonce, Name::Sigmoid, Name::Mse, Name::Affinity] {
            ensure!(weight(name).count() <= 1, "--loss names {name:?} twice");
        }
        let of = |name: Name| weight(name).sum::<f64>();
        ensure!(
            of(Name::Infonce) == 0.0 || of(Name::Sigmoid) == 0.0,
            "--loss takes infonce or sigmoid, not both"
        );
        let loss = if of(Name::Sigmoid) > 0.0 {
            Loss::Sigmoid
        } else {
            Loss::InfoNce
        };
        let teaching = Teaching {
            objective: Objective {
                contrast: of(Name::Infonce) + of(Name::Sigmoid),
                mse: of(Name::Mse),
                affinity: of(Name::Affinity),
            },
            teacher: None,
            texts: self.texts.clone(),
            decides: false,
        };
        Ok((loss, teaching))
    }
}
