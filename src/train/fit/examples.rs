//! Embeddings and what belongs together, drawn in batches.

use std::collections::{BTreeSet, HashMap};

use anyhow::Result;
use candle_core::{Device, Tensor};
use rand::Rng;
use rand::seq::{IndexedRandom, SliceRandom};

use super::loss::{Relation, Targets};
use crate::encoder::Embedding;
use crate::train::targets::select;

/// Classes in a batch at most; beyond, those of the batch's photos and random others.
const MAX_CLASSES: usize = 1024;

/// What is said of one photo.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Said {
    /// Its class.
    pub class: Option<usize>,
    /// Rows of [`Texts::rows`].
    pub captions: Vec<u32>,
}

/// Embedded texts and what they are.
#[derive(Clone, Debug)]
pub struct Texts {
    /// Unit rows `[T, D]`.
    pub rows: Tensor,
    /// What each row says.
    pub strings: Vec<String>,
    /// Rows of every class's prompts, at least one.
    pub classes: Vec<Vec<u32>>,
    /// Rows of the prompts that every label of the daemon competes with.
    pub negatives: Vec<u32>,
    /// Rows of texts that nobody said of a photo: what a teacher makes of them is learnt.
    pub general: Vec<u32>,
    /// Such rows that are only measured with.
    pub general_held_out: Vec<u32>,
}

impl Texts {
    /// Rows that photos are measured with of which this is said, in order.
    pub fn measured<'a>(&self, said: impl Iterator<Item = &'a Said>) -> Vec<u32> {
        let mut rows: BTreeSet<u32> = self.classes.iter().flatten().copied().collect();
        rows.extend(&self.negatives);
        rows.extend(&self.general_held_out);
        rows.extend(said.flat_map(|said| &said.captions));
        rows.into_iter().collect()
    }
}

/// Embedded photos, several views of each.
#[derive(Clone, Debug)]
pub struct Photos {
    /// Unit rows `[R, D]`, all views of a photo one after the other, the photo itself first.
    pub rows: Tensor,
    /// First row and number of rows of every photo.
    pub views: Vec<(u32, u32)>,
    /// What is said of every photo.
    pub said: Vec<Said>,
}

impl Photos {
    /// From the views of every photo.
    ///
    /// # Errors
    /// candle's, or more rows than u32 holds.
    pub fn new(photos: Vec<(Vec<Embedding>, Said)>, dim: usize) -> Result<Self> {
        let (mut values, mut views, mut said) = (Vec::new(), Vec::new(), Vec::new());
        let mut row = 0u32;
        for (embeddings, what) in photos {
            let count = u32::try_from(embeddings.len())?;
            views.push((row, count));
            row += count;
            said.push(what);
            values.extend(embeddings.iter().flat_map(|e| e.as_slice()).copied());
        }
        let rows = Tensor::from_vec(values, (usize::try_from(row)?, dim), &Device::Cpu)?;
        Ok(Self { rows, views, said })
    }

    /// How many.
    pub fn len(&self) -> usize {
        self.said.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.said.is_empty()
    }

    /// Only these photos; the rows are shared.
    pub fn subset(&self, photos: &[usize]) -> Self {
        Self {
            rows: self.rows.clone(),
            views: photos.iter().map(|p| self.views[*p]).collect(),
            said: photos.iter().map(|p| self.said[*p].clone()).collect(),
        }
    }

    /// The photos themselves, without their other views: `[N, D]`.
    ///
    /// # Errors
    /// candle's.
    pub fn themselves(&self) -> Result<Tensor> {
        let rows: Vec<u32> = self.views.iter().map(|(first, _)| *first).collect();
        Ok(select(&self.rows, &rows)?)
    }

    /// Every view of every photo once, shuffled: photo and row.
    pub fn shuffled(&self, rng: &mut impl Rng) -> Vec<(usize, u32)> {
        let views = self.views.iter().enumerate();
        let mut all: Vec<(usize, u32)> = views
            .flat_map(|(photo, (first, count))| (*first..first + count).map(move |r| (photo, r)))
            .collect();
        all.shuffle(rng);
        all
    }
}

/// A batch: unit rows and what belongs together.
pub struct Batch {
    /// `[N, D]`.
    pub images: Tensor,
    /// `[M, D]`.
    pub texts: Tensor,
    /// Their relations.
    pub targets: Targets,
}

/// What a text of a batch is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Text {
    /// A prompt of a class.
    Class(usize),
    /// A caption; its row tells equal ones.
    Caption(u32),
    /// Fits nothing.
    Negative,
    /// May fit anything.
    General,
}

/// Texts of a batch and what belongs together.
pub struct Drawn {
    /// Rows of [`Texts::rows`].
    pub texts: Vec<u32>,
    /// Relations of the photos and them.
    pub targets: Targets,
}

impl Drawn {
    /// One random prompt of every class, one random caption of every photo that has some, all
    /// negatives where there are classes, and as many random general texts as photos; `said` is what is
    /// said of each photo of the batch.
    ///
    /// # Errors
    /// candle's.
    pub fn draw(said: &[&Said], texts: &Texts, rng: &mut impl Rng) -> Result<Self> {
        let (mut kinds, mut rows) = (Vec::new(), Vec::new());
        for class in classes(said, texts, rng) {
            let row = texts.classes[class].choose(rng).copied().unwrap_or(0);
            kinds.push(Text::Class(class));
            rows.push(row);
        }
        if !kinds.is_empty() {
            kinds.extend(texts.negatives.iter().map(|_| Text::Negative));
            rows.extend(&texts.negatives);
        }
        let mut captions = BTreeSet::new();
        for said in said {
            captions.extend(said.captions.choose(rng));
        }
        kinds.extend(captions.iter().map(|row| Text::Caption(*row)));
        rows.extend(captions);
        let general = texts.general.choose_multiple(rng, said.len());
        let general: Vec<u32> = general.copied().collect();
        kinds.extend(general.iter().map(|_| Text::General));
        rows.extend(general);

        let mut class_of: HashMap<u32, Option<usize>> = HashMap::new();
        for said in said {
            class_of.extend(said.captions.iter().map(|row| (*row, said.class)));
        }
        let relation = |n: usize, m: usize| {
            let said = said[n];
            let same = match kinds[m] {
                Text::Class(class) => match said.class {
                    None => return Relation::Unknown,
                    Some(own) => own == class,
                },
                Text::Negative => false,
                Text::General => return Relation::Unknown,
                Text::Caption(row) if said.captions.contains(&row) => true,
                // What is said of a photo of a class may hold for others of the class.
                Text::Caption(row) => match (said.class, class_of.get(&row)) {
                    (Some(own), Some(Some(class))) if own == *class => return Relation::Unknown,
                    _ => false,
                },
            };
            if same {
                Relation::Same
            } else {
                Relation::Other
            }
        };
        Ok(Self {
            targets: Targets::new((said.len(), rows.len()), relation)?,
            texts: rows,
        })
    }
}

impl Batch {
    /// Photos' views with the texts that [`Drawn::draw`] draws.
    ///
    /// # Errors
    /// candle's.
    pub fn draw(
        photos: &Photos,
        texts: &Texts,
        views: &[(usize, u32)],
        rng: &mut impl Rng,
    ) -> Result<Self> {
        let said: Vec<&Said> = views
            .iter()
            .map(|(photo, _)| &photos.said[*photo])
            .collect();
        let drawn = Drawn::draw(&said, texts, rng)?;
        let images: Vec<u32> = views.iter().map(|(_, row)| *row).collect();
        Ok(Self {
            images: select(&photos.rows, &images)?,
            targets: drawn.targets,
            texts: select(&texts.rows, &drawn.texts)?,
        })
    }
}

/// All classes, or those of the photos filled up with random ones.
fn classes(said: &[&Said], texts: &Texts, rng: &mut impl Rng) -> Vec<usize> {
    let count = texts.classes.len();
    if count <= MAX_CLASSES {
        return (0..count).collect();
    }
    let mut chosen: BTreeSet<usize> = said.iter().filter_map(|said| said.class).collect();
    while chosen.len() < MAX_CLASSES {
        chosen.insert(rng.random_range(0..count));
    }
    chosen.into_iter().collect()
}
