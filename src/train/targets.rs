//! The texts that images are pulled towards: which row of `texts.tsv` speaks of which class.

use std::path::Path;

use anyhow::{Context, Result, ensure};
use candle_core::{DType, Device, Tensor};
use rand::Rng;

use super::grocery::{COARSE, FINE};
pub use super::texts::{EVERYDAY, Text, read_texts};

/// Reads the teacher's embeddings of those texts, `[N, 512] f32`.
///
/// # Errors
/// A file that does not fit the texts.
pub fn read_teacher(path: &Path, texts: usize) -> Result<Tensor> {
    let teacher = Tensor::read_npy(path)
        .with_context(|| path.display().to_string())?
        .to_dtype(DType::F32)?;
    ensure!(
        teacher.dims2()?.0 == texts,
        "{} and texts.tsv differ in length: run the teacher again",
        path.display()
    );
    Ok(teacher)
}

/// Columns of the candidate matrix: all fine classes, then all coarse ones, then all of ImageNet.
pub const CANDIDATES: usize = FINE + COARSE + EVERYDAY;

/// For every class the rows that name it.
pub struct Bank {
    /// `[candidate][…]` row numbers in `texts.tsv`.
    rows: Vec<Vec<u32>>,
    /// Rows of kind `basic` that name ImageNet class i among others.
    basic: Vec<Vec<u32>>,
    /// The row of `una foto di {nome}` of every fine, then every coarse class.
    prompts: Vec<u32>,
    /// Candidates that mean the same as candidate i or contain it: neither right nor wrong.
    related: Vec<Vec<usize>>,
}

impl Bank {
    /// Sorts the texts by what they name.
    ///
    /// # Errors
    /// A class that no text names.
    pub fn new(texts: &[Text], coarse_of: &[usize], coarse_names: &[String]) -> Result<Self> {
        let mut rows = vec![Vec::new(); CANDIDATES];
        let mut basic = vec![Vec::new(); EVERYDAY];
        let mut prompts = vec![None; FINE + COARSE];
        let mut links = Vec::new();
        for (row, text) in texts.iter().enumerate() {
            let row = u32::try_from(row)?;
            if text.kind == "basic" {
                for id in &text.imagenet {
                    basic[*id].push(row);
                }
                continue;
            }
            let imagenet = text.imagenet.first().copied();
            // What fits several classes is the right answer for none of them alone.
            let candidate = match (&text.fine[..], &text.coarse[..], imagenet) {
                (&[fine], _, _) => fine,
                ([], &[coarse], _) => FINE + coarse,
                ([], [], Some(id)) if text.kind == "everyday" => FINE + COARSE + id,
                _ => continue,
            };
            rows[candidate].push(row);
            if let Some(id) = imagenet
                && candidate < FINE + COARSE
            {
                links.push((candidate, FINE + COARSE + id));
                // Such a text is also what the ImageNet class is called.
                if matches!(
                    text.kind.as_str(),
                    "prompt" | "name" | "template" | "everyday"
                ) {
                    rows[FINE + COARSE + id].push(row);
                }
            }
            if text.kind == "prompt" && candidate < FINE && prompts[candidate].is_none() {
                prompts[candidate] = Some(row);
            }
        }
        // A coarse class is asked for by its bare name; where that is a fine class's text too, by that.
        for (coarse, name) in coarse_names.iter().enumerate() {
            let asked = format!("una foto di {name}");
            prompts[FINE + coarse] = texts
                .iter()
                .position(|t| t.text == asked)
                .map(u32::try_from)
                .transpose()?;
            if rows[FINE + coarse].is_empty() {
                rows[FINE + coarse] = coarse_of
                    .iter()
                    .enumerate()
                    .filter(|(_, c)| **c == coarse)
                    .flat_map(|(fine, _)| rows[fine].clone())
                    .collect();
            }
        }
        for (candidate, rows) in rows.iter().enumerate() {
            ensure!(
                !rows.is_empty(),
                "no text names candidate {candidate}: run the teacher again"
            );
        }
        let prompts = prompts
            .into_iter()
            .enumerate()
            .map(|(i, p)| p.with_context(|| format!("no `una foto di …` for class {i}")))
            .collect::<Result<Vec<u32>>>()?;
        let mut related = vec![Vec::new(); CANDIDATES];
        for (fine, coarse) in coarse_of.iter().enumerate() {
            related[fine].push(FINE + coarse);
            related[FINE + coarse].push(fine);
        }
        for (class, everyday) in links {
            related[class].push(everyday);
            related[everyday].push(class);
            // What a fine class is called, its coarse class may be, and the other way round.
            if class < FINE {
                related[FINE + coarse_of[class]].push(everyday);
                related[everyday].push(FINE + coarse_of[class]);
            } else {
                for (fine, _) in coarse_of
                    .iter()
                    .enumerate()
                    .filter(|(_, c)| FINE + **c == class)
                {
                    related[fine].push(everyday);
                    related[everyday].push(fine);
                }
            }
        }
        Ok(Self {
            rows,
            basic,
            prompts,
            related,
        })
    }

    /// One row for every candidate, `[1124]`: with probability `prompt_share` the evaluation
    /// prompt where there is one, else any of its texts.
    pub fn draw(&self, prompt_share: f64, rng: &mut impl Rng) -> Vec<u32> {
        self.rows
            .iter()
            .enumerate()
            .map(|(candidate, rows)| match self.prompts.get(candidate) {
                Some(prompt) if rng.random_bool(prompt_share) => *prompt,
                _ => rows[rng.random_range(0..rows.len())],
            })
            .collect()
    }

    /// Rows of `una foto di {nome}` of the fine classes.
    pub fn fine_prompts(&self) -> &[u32] {
        &self.prompts[..FINE]
    }

    /// Rows of `una foto di {nome}` of the coarse classes.
    pub fn coarse_prompts(&self) -> &[u32] {
        &self.prompts[FINE..]
    }

    /// Rows that name ImageNet class `id`.
    pub fn everyday_rows(&self, id: usize) -> &[u32] {
        &self.rows[FINE + COARSE + id]
    }

    /// Rows with the short names that ImageNet class `id` shares with others (*un cane*, *un'anatra*).
    pub fn basic_rows(&self, id: usize) -> &[u32] {
        &self.basic[id]
    }

    /// Candidates neither right nor wrong for candidate `i`.
    pub fn related(&self, i: usize) -> &[usize] {
        &self.related[i]
    }
}

/// Rows of `table [N, D]` by number.
///
/// # Errors
/// candle's.
pub fn select(table: &Tensor, rows: &[u32]) -> candle_core::Result<Tensor> {
    table.index_select(&Tensor::new(rows, &Device::Cpu)?, 0)
}

/// Scales every row of `[N, D]` to unit length.
///
/// # Errors
/// candle's.
pub fn unit_rows(x: &Tensor) -> candle_core::Result<Tensor> {
    x.broadcast_div(&(x.sqr()?.sum_keepdim(1)? + 1e-12)?.sqrt()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(
        kind: &str,
        fine: Option<usize>,
        coarse: Option<usize>,
        imagenet: Option<usize>,
        text: &str,
    ) -> Text {
        Text {
            kind: kind.into(),
            fine: fine.into_iter().collect(),
            coarse: coarse.into_iter().collect(),
            imagenet: imagenet.into_iter().collect(),
            text: text.into(),
        }
    }

    #[test]
    fn a_class_without_any_text_is_reported() {
        let error = Bank::new(
            &[text("prompt", Some(0), Some(0), None, "una foto di x")],
            &[0; FINE],
            &[],
        )
        .err()
        .map(|e| e.to_string());
        assert!(error.is_some_and(|e| e.contains("no text names")));
    }

    fn bank(texts: &[Text]) -> Bank {
        let coarse_of: Vec<usize> = (0..FINE).map(|f| f % COARSE).collect();
        let names: Vec<String> = (0..COARSE).map(|c| format!("c{c}")).collect();
        Bank::new(texts, &coarse_of, &names).expect("complete texts")
    }

    /// A text for every class.
    fn complete() -> Vec<Text> {
        let mut texts: Vec<Text> = (0..FINE)
            .map(|fine| {
                text(
                    "prompt",
                    Some(fine),
                    Some(fine % COARSE),
                    None,
                    &format!("f{fine}"),
                )
            })
            .collect();
        texts.extend((0..COARSE).map(|coarse| {
            text(
                "prompt",
                None,
                Some(coarse),
                None,
                &format!("una foto di c{coarse}"),
            )
        }));
        texts.extend((0..EVERYDAY).map(|id| text("everyday", None, None, Some(id), "e")));
        texts
    }

    #[test]
    fn a_text_that_fits_several_classes_is_drawn_for_none() {
        let mut texts = complete();
        let mut several = text("caption", None, None, None, "agrume");
        several.coarse = vec![3, 4];
        texts.push(several);
        let bank = bank(&texts);
        let last = u32::try_from(texts.len() - 1).expect("few texts");
        assert!(bank.rows.iter().all(|rows| !rows.contains(&last)));
    }

    #[test]
    fn a_short_name_belongs_to_all_its_classes_and_is_drawn_for_none() {
        let mut texts = complete();
        let mut dogs = text("basic", None, None, None, "un cane");
        dogs.imagenet = vec![151, 268];
        texts.push(dogs);
        let bank = bank(&texts);
        let last = u32::try_from(texts.len() - 1).expect("few texts");
        assert_eq!(bank.basic_rows(151), [last]);
        assert_eq!(bank.basic_rows(268), [last]);
        assert!(bank.basic_rows(200).is_empty());
        assert!(bank.rows.iter().all(|rows| !rows.contains(&last)));
    }

    #[test]
    fn an_imagenet_name_of_a_coarse_class_is_no_negative_for_its_fine_classes() {
        let mut texts = Vec::new();
        for fine in 0..FINE {
            texts.push(text(
                "prompt",
                Some(fine),
                Some(fine % COARSE),
                None,
                &format!("una foto di f{fine}"),
            ));
        }
        for coarse in 0..COARSE {
            let imagenet = (coarse == 3).then_some(948);
            texts.push(text(
                "prompt",
                None,
                Some(coarse),
                imagenet,
                &format!("una foto di c{coarse}"),
            ));
        }
        for id in 0..EVERYDAY {
            texts.push(text("everyday", None, None, Some(id), &format!("e{id}")));
        }
        let bank = bank(&texts);
        assert!(bank.related(3).contains(&(FINE + COARSE + 948)));
        assert!(bank.related(3 + COARSE).contains(&(FINE + COARSE + 948)));
        assert!(!bank.related(4).contains(&(FINE + COARSE + 948)));
        assert_eq!(
            bank.coarse_prompts()[3],
            u32::try_from(FINE + 3).unwrap_or(0)
        );
    }
}
