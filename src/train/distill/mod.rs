//! A smaller student learns what its teacher makes of photos and texts.
//!
//! ```text
//! teacher ─► towers that stay ─────────────┐
//! another bundle ─► its towers ────────────┼─► student as it begins ─► fit, taught ─► bundle
//! sizes ─► new towers ◄─ layers of the teacher ┘          teacher ─► embeddings, once ─┘
//! ```
//!
//! The student shares the teacher's space, so that a tower which is not made smaller stays the
//! teacher's own. What is learnt, checkpointed, measured and written is [`super::fit`]'s work.

pub mod inherit;
pub mod new;
pub mod student;

use std::path::Path;

use anyhow::{Context, Result, ensure};

pub use self::new::Size;
pub use self::student::{Origin, Student};
use super::fit::{self, Outcome, fit};
use crate::bundle::{Bundle, Limits};

/// What to do.
#[derive(Clone, Debug)]
pub struct Options {
    /// The student.
    pub student: Student,
    /// The new bundle's name; by default the teacher's with `-student` behind it.
    pub name: Option<String>,
    /// How it learns; teacher and towers are filled in.
    pub fit: fit::Options,
}

/// Distils the bundle at `teacher` into `out`. The outcome sets the student beside the teacher; the
/// notes say what it began with.
///
/// # Errors
/// A bundle, a dataset or a folder that cannot be used; the message says what to do.
pub fn distill(teacher: &Path, out: &Path, options: &Options) -> Result<(Outcome, Vec<String>)> {
    let mut fitting = options.fit.clone();
    ensure!(
        fitting.teaching.objective.is_taught(),
        "a student learns from its teacher: give --loss mse or --loss affinity a weight"
    );
    let tuning = fitting.tuning.as_mut().context("no tower is learnt")?;
    tuning.image = options.student.image != Origin::Teacher;
    tuning.text = options.student.text != Origin::Teacher;
    fitting.teaching.teacher = Some(teacher.to_owned());
    fitting.teaching.decides = true;
    let teacher = Bundle::open(teacher, &Limits::default())?;
    // The same command makes the same student, so that an interrupted one can go on.
    let name = options.name.as_deref();
    let begun = student::Begun::new(&teacher, &options.student, name, fitting.seed)?;
    let folder = fitting.cache.join(begun.folder_name());
    let notes = begun.write(&folder)?;
    for note in &notes {
        log::info!("{note}");
    }
    let outcome = fit(&folder, out, &fitting);
    if let Err(error) = std::fs::remove_dir_all(&folder) {
        log::warn!("{} is left over: {error}", folder.display());
    }
    Ok((outcome?, notes))
}
