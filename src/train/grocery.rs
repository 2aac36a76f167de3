//! The Grocery Store Dataset (Klasson et al., WACV 2019) with Italian names.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use image::RgbImage;

/// Fine classes of the dataset.
pub const FINE: usize = 81;
/// Coarse classes of the dataset.
pub const COARSE: usize = 43;

/// One labelled photo.
#[derive(Clone, Debug)]
pub struct Photo {
    /// Where it lies.
    pub path: PathBuf,
    /// 0–80.
    pub fine: usize,
    /// 0–42.
    pub coarse: usize,
}

/// One fine class.
#[derive(Clone, Debug)]
pub struct Class {
    /// English key, as in the dataset.
    pub key: String,
    /// 0–42.
    pub coarse: usize,
    /// Italian name of the coarse class, without article.
    pub coarse_name: String,
    /// Italian name with its article.
    pub name: String,
    /// One descriptive sentence.
    pub caption: String,
    /// Whether it is a packaged product: its writing has a left and a right.
    pub packaged: bool,
}

/// The dataset's lists; the photos stay on disk.
#[derive(Clone, Debug)]
pub struct Grocery {
    /// In the order of their numbers.
    pub classes: Vec<Class>,
    /// The training photos.
    pub train: Vec<Photo>,
    /// The validation photos.
    pub val: Vec<Photo>,
}

impl Grocery {
    /// Reads `classes.csv`, `italian.tsv`, `train.txt` and `val.txt` of `folder`.
    ///
    /// # Errors
    /// A missing or malformed list.
    pub fn open(folder: &Path) -> Result<Self> {
        let classes = classes(folder)?;
        let train = photos(folder, "train.txt")?;
        let val = photos(folder, "val.txt")?;
        ensure!(
            !train.is_empty() && !val.is_empty(),
            "no photos listed in {}",
            folder.display()
        );
        Ok(Self {
            classes,
            train,
            val,
        })
    }

    /// Italian names of the coarse classes, in the order of their numbers.
    pub fn coarse_names(&self) -> Vec<String> {
        (0..COARSE)
            .map(|id| {
                self.classes
                    .iter()
                    .find(|c| c.coarse == id)
                    .map_or_else(String::new, |c| c.coarse_name.clone())
            })
            .collect()
    }

    /// Splits the training photos: of every class the last `percent` by file name is held out.
    /// Neighbours in the list were taken one after the other, so a random split would leak.
    pub fn hold_out(&self, percent: usize) -> (Vec<Photo>, Vec<Photo>) {
        let (mut kept, mut held) = (Vec::new(), Vec::new());
        for class in 0..FINE {
            let of_class: Vec<&Photo> = self.train.iter().filter(|p| p.fine == class).collect();
            let cut = of_class.len() - (of_class.len() * percent).div_ceil(100);
            kept.extend(of_class[..cut].iter().map(|p| (*p).clone()));
            held.extend(of_class[cut..].iter().map(|p| (*p).clone()));
        }
        (kept, held)
    }
}

fn classes(folder: &Path) -> Result<Vec<Class>> {
    let path = folder.join("classes.csv");
    let mut ids = Vec::new();
    for row in csv::Reader::from_path(&path)
        .with_context(|| path.display().to_string())?
        .records()
    {
        let row = row.with_context(|| path.display().to_string())?;
        let coarse: usize = row
            .get(3)
            .unwrap_or("")
            .trim()
            .parse()
            .context("coarse class number")?;
        ensure!(
            coarse < COARSE,
            "coarse class {coarse} in {}",
            path.display()
        );
        ids.push((coarse, row.get(4).unwrap_or("").contains("/Packages/")));
    }
    let path = folder.join("italian.tsv");
    let text = std::fs::read_to_string(&path).with_context(|| path.display().to_string())?;
    let mut classes = Vec::new();
    for (row, (coarse, packaged)) in text.lines().skip(1).zip(&ids) {
        let fields: Vec<&str> = row.split('\t').collect();
        let [id, key, coarse_name, name, caption] = fields[..] else {
            anyhow::bail!("{}: five columns expected in `{row}`", path.display());
        };
        ensure!(
            id == classes.len().to_string(),
            "{}: class {id} out of order",
            path.display()
        );
        classes.push(Class {
            key: key.to_owned(),
            coarse: *coarse,
            coarse_name: coarse_name.to_owned(),
            name: name.to_owned(),
            caption: caption.to_owned(),
            packaged: *packaged,
        });
    }
    ensure!(
        classes.len() == FINE,
        "{} classes instead of {FINE}",
        classes.len()
    );
    Ok(classes)
}

fn photos(folder: &Path, list: &str) -> Result<Vec<Photo>> {
    let path = folder.join(list);
    let text = std::fs::read_to_string(&path).with_context(|| path.display().to_string())?;
    let mut photos = Vec::new();
    for row in text.lines().filter(|l| !l.trim().is_empty()) {
        let fields: Vec<&str> = row.split(',').map(str::trim).collect();
        let [file, fine, coarse] = fields[..] else {
            anyhow::bail!("{}: three columns expected in `{row}`", path.display());
        };
        let (fine, coarse): (usize, usize) = (fine.parse()?, coarse.parse()?);
        ensure!(
            fine < FINE && coarse < COARSE,
            "{}: class out of range in `{row}`",
            path.display()
        );
        photos.push(Photo {
            path: folder.join(file),
            fine,
            coarse,
        });
    }
    Ok(photos)
}

/// Decodes one photo.
///
/// # Errors
/// A file that cannot be read or decoded, with its name.
pub fn decode(path: &Path) -> Result<RgbImage> {
    Ok(image::open(path)
        .with_context(|| path.display().to_string())?
        .to_rgb8())
}
