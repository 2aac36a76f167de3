//! The options of the stages that learn the towers themselves.

use anyhow::{Result, ensure};
use clap::{Args, ValueEnum};
use vedetta::train::fit::tuning::{Compute, Tuning, Views};
use vedetta::train::tower::Rank;

use super::Stage;

/// Options of whatever learns towers.
#[derive(Args, Default, PartialEq)]
pub struct Learning {
    /// Views that are learnt from.
    #[arg(long, value_enum)]
    augment: Option<Augment>,
    /// Photos or texts that are in memory together, however large the batch is [default: 16].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    chunk: Option<u16>,
    /// Epochs at the beginning, beside --epochs, in which only the towers' last products are learnt; with
    /// adapters they go on being learnt then [default: 0; 3 with --preset clip-italian].
    #[arg(long, value_name = "N")]
    frozen_epochs: Option<usize>,
    /// Highest learning rate of those [default: 5e-5].
    #[arg(long, value_name = "RATE")]
    frozen_rate: Option<f64>,
    /// Where it is computed. cuda multiplies in bf16; it has not been tried on a GPU yet.
    #[arg(long, value_enum)]
    device: Option<DeviceName>,
}

/// Options of `--stage adapters` and `--stage full`.
#[derive(Args, PartialEq)]
#[command(next_help_heading = "Stages adapters and full")]
pub struct Towers {
    /// Which towers are learnt.
    #[arg(long, value_enum)]
    tower: Option<Which>,
    /// A published recipe, for --stage full: clip-italian.
    #[arg(long, value_enum)]
    preset: Option<Preset>,
    /// Width of an adapter [default: 8].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    rank: Option<u16>,
    /// Factor of an adapter, times its rank [default: 2 · rank].
    #[arg(long)]
    alpha: Option<f64>,
    #[command(flatten)]
    learning: Learning,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Which {
    Both,
    Image,
    Text,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Preset {
    /// AdaBelief with adaptive gradient clipping, batches of 128, rate 5e-5 frozen and 1e-5 then.
    ClipItalian,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Augment {
    /// The photo itself.
    None,
    /// Crop, warp, colours, blur.
    Mild,
    /// As CLIP-Italian: also perspective, hue, contrast, equalized.
    ClipItalian,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum DeviceName {
    Cpu,
    Cuda,
}

/// What is taken where nothing is said.
pub struct Usual {
    pub batch: u16,
    pub rate: f64,
    /// AdamW's.
    pub decay: f32,
}

/// What is taken where nothing is said.
pub fn usual(stage: Stage, towers: &Towers) -> Usual {
    let (batch, rate) = match stage {
        Stage::Projection => (256, 3e-4),
        Stage::Adapters => (32, 3e-4),
        Stage::Full if towers.preset.is_some() => (128, 1e-5),
        Stage::Full => (32, 1e-5),
    };
    let decay = if stage == Stage::Projection {
        0.0
    } else {
        0.01
    };
    Usual { batch, rate, decay }
}

impl Towers {
    /// How the towers are learnt; nothing where they are not.
    ///
    /// # Errors
    /// Options of other stages.
    pub fn tuning(&self, stage: Stage) -> Result<Option<Tuning>> {
        let full = stage == Stage::Full;
        ensure!(
            full || self.preset.is_none(),
            "--preset is for --stage full"
        );
        let adapter = self.rank.is_some() || self.alpha.is_some();
        ensure!(
            stage == Stage::Adapters || !adapter,
            "--rank and --alpha are for --stage adapters"
        );
        let rank = self.rank.unwrap_or(8);
        let mut tuning = match stage {
            Stage::Projection => {
                let given = self.tower.is_some() || self.learning != Learning::default();
                ensure!(
                    !given,
                    "--tower, --augment, --chunk, --frozen-epochs, --frozen-rate and --device are \
                     for --stage adapters and --stage full"
                );
                return Ok(None);
            }
            Stage::Adapters => Tuning::adapters(Rank {
                rank: usize::from(rank),
                alpha: self.alpha.unwrap_or(2.0 * f64::from(rank)),
            }),
            Stage::Full if self.preset.is_some() => Tuning::clip_italian(3),
            Stage::Full => Tuning::full(),
        };
        let which = self.tower.unwrap_or(Which::Both);
        tuning.image = which != Which::Text;
        tuning.text = which != Which::Image;
        self.learning.apply(&mut tuning);
        Ok(Some(tuning))
    }
}

impl Learning {
    /// Every weight, so.
    pub fn full(&self) -> Tuning {
        let mut tuning = Tuning::full();
        self.apply(&mut tuning);
        tuning
    }

    fn apply(&self, tuning: &mut Tuning) {
        if let Some(augment) = self.augment {
            tuning.views = match augment {
                Augment::None => Views::Plain,
                Augment::Mild => Views::Mild,
                Augment::ClipItalian => Views::ClipItalian,
            };
        }
        if let Some(chunk) = self.chunk {
            tuning.chunk = usize::from(chunk);
        }
        tuning.frozen_epochs = self.frozen_epochs.unwrap_or(tuning.frozen_epochs);
        tuning.frozen_rate = self.frozen_rate.unwrap_or(5e-5);
        if self.device == Some(DeviceName::Cuda) {
            tuning.compute = Compute::Cuda;
        }
    }
}
