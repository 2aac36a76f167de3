//! What the fields of a manifest may hold.

use std::path::Path;

use super::manifest::{FILES, File, Manifest, PACKED, SCHEMA, instead_of};
use super::{BundleError, Limits};
use crate::config::Id;

/// Longest files whose whole content is kept while it is parsed, bytes.
const MAX_BYTES: [(&str, u64); 2] = [("tokenizer.json", 64 << 20), ("LICENSES.md", 1 << 20)];

/// Checks every field. `path` is only for the messages.
///
/// # Errors
/// The first field that holds something illegal, with what would be legal.
pub fn check(path: &Path, manifest: &Manifest, limits: &Limits) -> Result<(), BundleError> {
    let fields = Fields { path };
    fields.identity(manifest)?;
    fields.towers(manifest)?;
    fields.files(manifest, limits)?;
    fields.evidence(manifest)
}

struct Fields<'a> {
    path: &'a Path,
}

impl Fields<'_> {
    fn require(
        &self,
        fits: bool,
        field: impl Into<String>,
        found: impl ToString,
        legal: impl Into<String>,
    ) -> Result<(), BundleError> {
        if fits {
            return Ok(());
        }
        Err(BundleError::Field {
            path: self.path.to_owned(),
            field: field.into(),
            found: shown(&found.to_string()),
            legal: legal.into(),
        })
    }

    fn identity(&self, m: &Manifest) -> Result<(), BundleError> {
        self.require(m.schema == SCHEMA, "schema", m.schema, SCHEMA.to_string())?;
        self.require(Id::new(&m.name).is_some(), "name", &m.name, Id::LEGAL)?;
        const VERSION: &str = "three numbers, as 1.0.0";
        self.require(
            version(&m.version).is_some(),
            "version",
            &m.version,
            VERSION,
        )?;
        let needs = version(&m.minimum_vedetta);
        self.require(
            needs.is_some(),
            "minimum_vedetta",
            &m.minimum_vedetta,
            VERSION,
        )?;
        let have = env!("CARGO_PKG_VERSION");
        if needs > version(have) {
            return Err(BundleError::TooNew {
                path: self.path.to_owned(),
                needs: m.minimum_vedetta.clone(),
                have,
            });
        }
        self.require(
            language(&m.language),
            "language",
            &m.language,
            "a BCP 47 tag, as it or it-IT",
        )
    }

    fn towers(&self, m: &Manifest) -> Result<(), BundleError> {
        let dim = m.embedding_dim;
        self.require((2..=8192).contains(&dim), "embedding_dim", dim, "2 to 8192")?;
        let size = m.image.size_px;
        self.require(
            (32..=1024).contains(&size),
            "image.size_px",
            size,
            "32 to 1024",
        )?;
        for mean in m.image.mean {
            let fits = (-1.0..=2.0).contains(&mean);
            self.require(fits, "image.mean", mean, "-1 to 2 (of 0–1 pixels)")?;
        }
        for std in m.image.std {
            let fits = (0.001..=10.0).contains(&std);
            self.require(fits, "image.std", std, "0.001 to 10 (of 0–1 pixels)")?;
        }
        let tokens = m.text.max_tokens;
        self.require(
            (4..=512).contains(&tokens),
            "text.max_tokens",
            tokens,
            "4 to 512",
        )?;
        let pad = m.text.pad_id;
        self.require(pad < 1 << 24, "text.pad_id", pad, "0 to 16777215")?;
        let scale = m.scoring.logit_scale;
        let fits = (1.0..=1000.0).contains(&scale);
        self.require(fits, "scoring.logit_scale", scale, "1 to 1000, linear")?;
        for (field, precision) in [
            ("precision.image", &m.precision.image),
            ("precision.text", &m.precision.text),
        ] {
            let fits = ["f32", "f16", "int8"].contains(&precision.as_str());
            self.require(fits, field, precision, "f32, f16 or int8")?;
        }
        Ok(())
    }

    fn files(&self, m: &Manifest, limits: &Limits) -> Result<(), BundleError> {
        let listed = [&FILES[..], &PACKED].concat().join(", ");
        for name in FILES {
            let instead = instead_of(name).is_some_and(|packed| m.files.contains_key(packed));
            let there = m.files.contains_key(name) || instead;
            self.require(
                there,
                format!("files.\"{name}\""),
                "missing",
                listed.clone(),
            )?;
        }
        for (name, file) in &m.files {
            let known = FILES.contains(&name.as_str()) || PACKED.contains(&name.as_str());
            self.require(known, "files", name, format!("only {listed}"))?;
            self.file(name, file, limits)?;
        }
        let total = m
            .files
            .values()
            .fold(0u64, |sum, f| sum.saturating_add(f.bytes));
        let most = limits.max_total_bytes;
        self.require(
            total <= most,
            "files: sum of bytes",
            total,
            format!("at most {most}"),
        )
    }

    fn file(&self, name: &str, file: &File, limits: &Limits) -> Result<(), BundleError> {
        let own = MAX_BYTES.iter().find(|(n, _)| *n == name);
        let most = own.map_or(limits.max_file_bytes, |(_, most)| {
            limits.max_file_bytes.min(*most)
        });
        self.require(
            (1..=most).contains(&file.bytes),
            format!("files.\"{name}\".bytes"),
            file.bytes,
            format!("1 to {most}"),
        )?;
        let digit = |c: u8| c.is_ascii_digit() || (b'a'..=b'f').contains(&c);
        self.require(
            file.sha256.len() == 64 && file.sha256.bytes().all(digit),
            format!("files.\"{name}\".sha256"),
            &file.sha256,
            "64 lower-case hex digits",
        )
    }

    fn evidence(&self, m: &Manifest) -> Result<(), BundleError> {
        for (name, value) in &m.evaluation {
            self.require(
                value.is_finite(),
                format!("evaluation.{}", shown(name)),
                value,
                "a finite number",
            )?;
        }
        let command = &m.provenance.command;
        let fits = !command.trim().is_empty();
        self.require(
            fits,
            "provenance.command",
            "empty",
            "the command that made it",
        )?;
        let fits = !m.provenance.sources.is_empty()
            && m.provenance.sources.iter().all(|s| !s.trim().is_empty());
        self.require(
            fits,
            "provenance.sources",
            "empty",
            "data and weights, each with its licence",
        )
    }
}

/// What stands in a field, short enough for a message and without control characters.
fn shown(found: &str) -> String {
    const MOST: usize = 80;
    let mut text: String = found
        .chars()
        .take(MOST)
        .map(|c| if c.is_control() { '\u{fffd}' } else { c })
        .collect();
    if found.chars().count() > MOST {
        text.push('…');
    }
    if text.is_empty() {
        "empty".to_owned()
    } else {
        text
    }
}

/// `major.minor.patch`; a pre-release or build suffix is ignored.
fn version(text: &str) -> Option<[u32; 3]> {
    let core = text.split(['-', '+']).next()?;
    let mut parts = core.split('.').map(|part| {
        let digits = !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit());
        digits.then(|| part.parse().ok()).flatten()
    });
    let version = [parts.next()??, parts.next()??, parts.next()??];
    parts.next().is_none().then_some(version)
}

/// The shape of a BCP 47 tag; whether the language exists is not checked.
fn language(tag: &str) -> bool {
    let mut parts = tag.split('-');
    let primary = parts.next().unwrap_or_default();
    tag.len() <= 35
        && (2..=3).contains(&primary.len())
        && primary.bytes().all(|b| b.is_ascii_lowercase())
        && parts.all(|p| (1..=8).contains(&p.len()) && p.bytes().all(|b| b.is_ascii_alphanumeric()))
}
