//! The student as it begins: a bundle of towers that stay and towers that will learn.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use indicatif::ProgressBar;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use sha2::{Digest, Sha256};

use super::inherit::Inherited;
use super::new::{self, Size};
use crate::bundle::manifest::{self, Manifest, Precision, Provenance};
use crate::bundle::{Bundle, Limits, hex};
use crate::config::Id;
use crate::train::fit::write::check;
use crate::train::import::write::Staging;
use crate::train::onnx::edit;
use crate::train::onnx::{Model, Store};

/// Where a tower of the student comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// It is the teacher's, and stays.
    Teacher,
    /// It is another bundle's, and learns.
    Bundle,
    /// It is made from nothing, and learns.
    New(Size),
}

/// Which towers a student has.
#[derive(Clone, Debug)]
pub struct Student {
    /// The other bundle.
    pub bundle: Option<PathBuf>,
    /// Its image tower.
    pub image: Origin,
    /// Its text tower.
    pub text: Origin,
}

/// A student that begins.
pub struct Begun<'a> {
    teacher: &'a Bundle,
    student: &'a Student,
    /// The bundle that [`Student::bundle`] names.
    other: Option<Bundle>,
    name: Option<&'a str>,
    seed: u64,
}

impl<'a> Begun<'a> {
    /// `student` of `teacher`. Its `name` is by default the teacher's with `-student` behind it.
    ///
    /// # Errors
    /// A bundle that cannot be opened.
    pub fn new(
        teacher: &'a Bundle,
        student: &'a Student,
        name: Option<&'a str>,
        seed: u64,
    ) -> Result<Self> {
        let path = student.bundle.as_deref();
        let other = path.map(|path| Bundle::open(path, &Limits::default()));
        Ok(Self {
            teacher,
            student,
            other: other.transpose()?,
            name,
            seed,
        })
    }

    /// A folder's name for exactly this student.
    pub fn folder_name(&self) -> String {
        let mut hash = Sha256::new();
        hash.update(self.teacher.sha256());
        hash.update(self.other.as_ref().map_or("", Bundle::sha256));
        let (image, text) = (self.student.image, self.student.text);
        hash.update(format!("{image:?} {text:?} {:?} {}", self.name, self.seed));
        format!("student-{}", hex(&hash.finalize()[..8]))
    }

    /// Writes the bundle to `folder`; returns what people should know of it.
    ///
    /// # Errors
    /// Towers that do not go together, or a folder that cannot be written.
    pub fn write(&self, folder: &Path) -> Result<Vec<String>> {
        let (image, text) = (self.student.image, self.student.text);
        ensure!(
            image != Origin::Teacher || text != Origin::Teacher,
            "no tower is made smaller; give --student, --vit or --bert"
        );
        let other = self.other.as_ref();
        if let Some(other) = other {
            check(other)?;
        }
        let mut notes = Vec::new();
        std::fs::create_dir_all(folder.parent().unwrap_or(folder))
            .with_context(|| format!("cannot make {}", folder.display()))?;
        let staging = Staging::new(folder, true)?;
        let mut manifest = self.manifest()?;
        for (name, origin) in [("image.onnx", image), ("text.onnx", text)] {
            let (files, note) = self.tower(name, origin, &staging)?;
            manifest.files.extend(files);
            notes.extend(note);
        }
        let tokenizer = match (text, other) {
            (Origin::Bundle, Some(other)) => other,
            _ => self.teacher,
        };
        for (from, name) in [(tokenizer, "tokenizer.json"), (self.teacher, "LICENSES.md")] {
            let mut bytes = read(from, name)?;
            if let ("LICENSES.md", Some(other)) = (name, other) {
                bytes.extend(format!("\nThe student, {}:\n\n", other.id()).into_bytes());
                bytes.extend(read(other, name)?);
            }
            manifest.files.extend(staging.file(name, &bytes)?);
        }
        staging.manifest(&manifest)?;
        Bundle::open(staging.path(), &Limits::default())?;
        staging.commit()?;
        Ok(notes)
    }

    /// The manifest but for its files.
    fn manifest(&self) -> Result<Manifest> {
        let (teacher, student) = (self.teacher.manifest(), self.student);
        let other = self.other.as_ref();
        let from = |origin: Origin| match (origin, other) {
            (Origin::Bundle, Some(other)) => other.manifest(),
            _ => teacher,
        };
        let precision = |origin: Origin, of: &dyn Fn(&Precision) -> &String| match origin {
            Origin::New(_) => precision(store(of(&teacher.precision))),
            _ => of(&from(origin).precision).clone(),
        };
        let usual = format!("{}-student", teacher.name);
        let name = self.name.unwrap_or(&usual);
        let name = Id::new(name).with_context(|| format!("--name {name}: {}", Id::LEGAL))?;
        let mut sources = teacher.provenance.sources.clone();
        if let Some(other) = other {
            sources.push(format!(
                "the student began as {} (SHA-256 of its manifest {})",
                other.id(),
                other.sha256()
            ));
            sources.extend(other.manifest().provenance.sources.iter().cloned());
        }
        Ok(Manifest {
            name: name.as_str().to_owned(),
            version: "0.0.0".to_owned(),
            minimum_vedetta: env!("CARGO_PKG_VERSION").to_owned(),
            image: from(student.image).image.clone(),
            text: from(student.text).text.clone(),
            precision: Precision {
                image: precision(student.image, &|p| &p.image),
                text: precision(student.text, &|p| &p.text),
            },
            files: BTreeMap::new(),
            evaluation: BTreeMap::new(),
            provenance: Provenance {
                command: "vedetta-train distill, before it learnt".to_owned(),
                sources,
            },
            ..teacher.clone()
        })
    }

    fn tower(
        &self,
        name: &str,
        origin: Origin,
        staging: &Staging,
    ) -> Result<(BTreeMap<String, manifest::File>, Option<String>)> {
        let bar = ProgressBar::hidden();
        let teacher = self.teacher.manifest();
        let image = name == "image.onnx";
        Ok(match origin {
            Origin::Teacher => {
                ensure!(
                    teacher.files.contains_key(name),
                    "the teacher has no {name}: it is packed for int8. Distil from the float bundle, or \
                     make both towers smaller"
                );
                (staging.file(name, &read(self.teacher, name)?)?, None)
            }
            Origin::Bundle => {
                let other = self.other.as_ref();
                let other = other.context("name the student's bundle with --student")?;
                let bytes = read(other, name)?;
                let (inputs, outputs) = (other.manifest().embedding_dim, teacher.embedding_dim);
                if inputs == outputs {
                    return Ok((staging.file(name, &bytes)?, None));
                }
                let values = projection([inputs, outputs], self.seed);
                let model = edit::with_projection(&bytes, [inputs, outputs], &values)
                    .with_context(|| name.to_owned())?;
                let note = format!("{name}: a projection {inputs} → {outputs} was put behind it");
                (staging.model(name, model, &bar)?, Some(note))
            }
            Origin::New(size) => {
                let precision = &teacher.precision;
                let stored = if image {
                    &precision.image
                } else {
                    &precision.text
                };
                let make = if image { new::image } else { new::text };
                let (model, inherited) =
                    make(&size, self.teacher, store(stored), self.seed).context(name.to_owned())?;
                let note = begun_with(name, &size, &model, inherited);
                (staging.model(name, model, &bar)?, Some(note))
            }
        })
    }
}

fn begun_with(name: &str, size: &Size, model: &Model, inherited: Option<Inherited>) -> String {
    let bytes = model.graph_bytes();
    match inherited {
        Some(Inherited { taken, of }) => format!(
            "{name}: {size}, {bytes} bytes; {taken} of {of} weights begin as the teacher's, the others at \
             random"
        ),
        None => format!(
            "{name}: {size}, {bytes} bytes; the teacher's tower is of another family, so all weights \
             begin at random"
        ),
    }
}

/// How a new tower's matrices are stored beside a teacher's.
fn store(precision: &str) -> Store {
    if precision == "f32" {
        Store::Float
    } else {
        Store::Half
    }
}

fn precision(store: Store) -> String {
    match store {
        Store::Float => "f32",
        Store::Half => "f16",
    }
    .to_owned()
}

/// Random directions: cosines are kept roughly.
#[expect(clippy::cast_precision_loss, reason = "a width")]
fn projection([inputs, outputs]: [usize; 2], seed: u64) -> Vec<f32> {
    let mut rng = StdRng::seed_from_u64(seed);
    let bound = (3.0 / inputs.max(1) as f32).sqrt();
    (0..inputs * outputs)
        .map(|_| rng.random_range(-bound..bound))
        .collect()
}

fn read(bundle: &Bundle, name: &str) -> Result<Vec<u8>> {
    let listed = bundle.manifest().files.get(name);
    let listed = listed.with_context(|| format!("{} has no {name}", bundle.id()))?;
    Ok(bundle.read(name, listed.bytes)?)
}
