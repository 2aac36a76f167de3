//! The steps that make the demo bundle, each resumable from the files of the ones before it.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};
use candle_core::Tensor;
use indicatif::{ProgressBar, ProgressStyle};
use rand::{SeedableRng, rngs::StdRng};

use super::anchors::{Anchors, synthesize};
use super::augment::Strength;
use super::grocery::Grocery;
use super::head::Head;
use super::onnx::{Pretrained, read_lite0};
use super::optimizer::save;
use super::space::{self, DIM, Examples, Space};
use super::targets::{Bank, Text, read_teacher, read_texts};
use super::tune::{self, Photos};

/// Everything the steps share.
pub struct Workshop {
    /// Data folder with `grocery/` and `weights/`.
    pub data: PathBuf,
    /// Where intermediate files lie.
    pub work: PathBuf,
    /// The photos' lists and names.
    pub grocery: Grocery,
    /// The published tower.
    pub pretrained: Pretrained,
    /// Share of the training photos to hold out for choosing settings, in percent; with 0 all are
    /// trained on and the validation photos are reported on.
    pub hold_out: usize,
    /// Random seed.
    pub seed: u64,
}

impl Workshop {
    /// Opens the data folder.
    ///
    /// # Errors
    /// A missing or malformed file, with its name.
    pub fn open(data: &Path, work: &Path, hold_out: usize, seed: u64) -> Result<Self> {
        std::fs::create_dir_all(work.join("image")).with_context(|| work.display().to_string())?;
        Ok(Self {
            data: data.to_owned(),
            work: work.to_owned(),
            grocery: Grocery::open(&data.join("grocery"))?,
            pretrained: read_lite0(&data.join("weights/efficientnet_lite0_in1k_fp32.onnx"))?,
            hold_out,
            seed,
        })
    }

    fn photos(&self) -> Result<(Photos, Photos)> {
        let (train, check) = if self.hold_out == 0 {
            (self.grocery.train.clone(), self.grocery.val.clone())
        } else {
            self.grocery.hold_out(self.hold_out)
        };
        Ok((
            Photos::load(&train, &self.grocery.classes)?,
            Photos::load(&check, &self.grocery.classes)?,
        ))
    }

    pub(super) fn bank(&self, texts: &[Text]) -> Result<Bank> {
        let coarse_of: Vec<usize> = self.grocery.classes.iter().map(|c| c.coarse).collect();
        Bank::new(texts, &coarse_of, &self.grocery.coarse_names())
    }

    pub(super) fn image(&self, name: &str) -> PathBuf {
        self.work.join("image").join(name)
    }

    /// Views' features of the published tower, with anchors made from them.
    fn frozen(
        &self,
        train: &Photos,
        check: &Photos,
        size_px: usize,
    ) -> Result<(Examples, Examples, Anchors)> {
        let tower = &self.pretrained.tower;
        let bar = progress("features of the training photos");
        let examples = tune::features(
            tower,
            train,
            size_px,
            4,
            Strength::default(),
            self.seed,
            &bar,
        )?;
        bar.finish();
        let bar = progress("features of the photos to report on");
        let seen = tune::features(tower, check, size_px, 0, Strength::default(), 0, &bar)?;
        bar.finish();
        let anchors = self.anchors(&examples)?;
        Ok((examples, seen, anchors))
    }

    fn anchors(&self, examples: &Examples) -> Result<Anchors> {
        let mut rng = StdRng::seed_from_u64(self.seed);
        let classes: Vec<usize> = examples
            .shows
            .iter()
            .map(|s| match *s {
                super::contrast::Shows::Grocery { fine, .. } => fine,
                super::contrast::Shows::Everyday(id) => id,
            })
            .collect();
        let anchors = synthesize(&self.pretrained, &examples.features, &classes, 8, &mut rng)?;
        log::info!("{} anchors of everyday things", anchors.classes.len());
        Ok(anchors)
    }

    /// Step `space`: `texts.tsv` and `teacher.npy` → `space.safetensors`.
    ///
    /// # Errors
    /// A missing file of the step before, or candle's.
    pub fn space(&self) -> Result<()> {
        let texts = read_texts(&self.work.join("texts.tsv"))?;
        let teacher = read_teacher(&self.work.join("teacher.npy"), texts.len())?;
        let bank = self.bank(&texts)?;
        let (train, check) = self.photos()?;
        let (examples, seen, anchors) = self.frozen(&train, &check, 224)?;
        let head = Head::new(&self.pretrained, DIM)?;
        let bar = progress("shared space");
        let settings = space::Settings {
            seed: self.seed,
            ..space::Settings::default()
        };
        let space = space::fit(
            &teacher, &bank, &head, &examples, &anchors, &seen, settings, &bar,
        )?;
        bar.finish();
        space.save(&self.work.join("space.safetensors"))
    }

    /// Embeddings of the texts: the student's where it has been trained, else the mapped teacher's.
    pub(super) fn text_embeddings(&self, texts: &[Text]) -> Result<Tensor> {
        let student = self.work.join("student_texts.safetensors");
        if student.exists() {
            let tensors = candle_core::safetensors::load(&student, &candle_core::Device::Cpu)?;
            let table = tensors
                .get("embedding")
                .context("no tensor `embedding` in student_texts.safetensors")?;
            anyhow::ensure!(
                table.dims2()? == (texts.len(), DIM),
                "student_texts.safetensors does not fit texts.tsv: run the text step again"
            );
            return Ok(super::targets::unit_rows(table)?);
        }
        log::warn!("no student_texts.safetensors yet: the teacher's texts stand in");
        let teacher = read_teacher(&self.work.join("teacher.npy"), texts.len())?;
        // Detached: no gradient has any business in the map now, and it would go through every text.
        let space = Space::load(&self.work.join("space.safetensors"))?;
        Ok(space.map(&teacher)?.detach())
    }

    /// Step `image`: fine-tunes tower and head.
    ///
    /// # Errors
    /// A missing file of a step before, or candle's.
    pub fn tune(&self, settings: &tune::Settings) -> Result<()> {
        let texts = read_texts(&self.work.join("texts.tsv"))?;
        let table = self.text_embeddings(&texts)?;
        let bank = self.bank(&texts)?;
        let (train, check) = self.photos()?;
        let (examples, seen, anchors) = self.frozen(&train, &check, settings.size_px)?;
        let head = Head::new(&self.pretrained, DIM)?;
        let bar = progress("head on frozen features");
        tune::fit_head(
            &head,
            &bank,
            &table,
            &examples,
            &anchors,
            &seen,
            (400, 1e-3),
            settings,
            &bar,
        )?;
        bar.finish();
        let bar = progress("fine-tuning the tower");
        tune::tune(
            &self.pretrained.tower,
            &train,
            &check,
            &bank,
            &table,
            &anchors,
            &head,
            settings,
            &self.work.join("image"),
            &bar,
        )?;
        bar.finish();
        Ok(())
    }

    /// Step `head`: fits the head again on the tuned tower's features and the texts as they are now.
    ///
    /// # Errors
    /// A missing file of a step before, or candle's.
    pub fn head(&self, settings: &tune::Settings) -> Result<()> {
        let texts = read_texts(&self.work.join("texts.tsv"))?;
        let table = self.text_embeddings(&texts)?;
        let bank = self.bank(&texts)?;
        let (train, check) = self.photos()?;
        let tower = tune::load_tower(&self.image("tower.safetensors"))?;
        let bar = progress("features of the tuned tower");
        let examples = tune::features(
            &tower,
            &train,
            settings.size_px,
            settings.refit_views,
            settings.strength,
            self.seed,
            &bar,
        )?;
        let seen = tune::features(
            &tower,
            &check,
            settings.size_px,
            0,
            settings.strength,
            0,
            &bar,
        )?;
        bar.finish();
        let anchors = self.anchors(&examples)?;
        let head = Head::new(&self.pretrained, DIM)?;
        head.load(&self.image("head.safetensors"))?;
        let bar = progress("head");
        tune::fit_head(
            &head,
            &bank,
            &table,
            &examples,
            &anchors,
            &seen,
            (settings.refit_steps, 4e-4),
            settings,
            &bar,
        )?;
        bar.finish();
        save(&head.snapshot()?, &self.image("head.safetensors"))
    }
}

/// A bar with rate and time left; plain lines where there is no terminal.
pub fn progress(what: &'static str) -> ProgressBar {
    let bar = ProgressBar::new(0);
    let style =
        ProgressStyle::with_template("{prefix} {wide_bar} {pos}/{len} {per_sec} {eta} left {msg}");
    if let Ok(style) = style {
        bar.set_style(style);
    }
    bar.set_prefix(what);
    bar.enable_steady_tick(Duration::from_millis(500));
    bar
}

/// Logs a line above the bar; without a terminal the bar is silent but the log is not.
pub fn report_line(bar: &ProgressBar, line: &str) {
    bar.suspend(|| log::info!("{line}"));
}
