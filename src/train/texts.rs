//! `texts.tsv`: the Italian texts of the training, and the classes they name.

use std::path::Path;

use anyhow::{Context, Result, ensure};

use super::grocery::{COARSE, FINE};

/// Classes of ImageNet-1k.
pub const EVERYDAY: usize = 1000;

/// One row of `texts.tsv`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Text {
    /// `prompt`, `template`, `name`, `caption`, `everyday`, `basic` or `corpus`.
    pub kind: String,
    /// Fine classes it fits: none, the one it names, or all that it describes equally well.
    pub fine: Vec<usize>,
    /// Coarse classes it fits, those of its fine classes among them.
    pub coarse: Vec<usize>,
    /// ImageNet classes it names: none, one, or all that are called so for short (kind `basic`).
    pub imagenet: Vec<usize>,
    /// The text itself.
    pub text: String,
}

impl Text {
    /// Whether the text is kept out of training to measure on: one in twenty of the general
    /// texts, chosen by a hash (FNV-1a) of the text so that a grown corpus keeps its choice.
    pub fn held_out(&self) -> bool {
        let hash = self
            .text
            .bytes()
            .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
                (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
            });
        self.kind == "corpus" && (hash >> 32).is_multiple_of(20)
    }
}

/// Reads `texts.tsv`: a heading, then kind, fine classes, coarse classes, ImageNet classes (−1 for none,
/// commas between several) and text, with tabs between them.
///
/// # Errors
/// The file cannot be read, or a malformed row, with its number.
pub fn read_texts(path: &Path) -> Result<Vec<Text>> {
    let content = std::fs::read_to_string(path)
        .with_context(|| format!("{}: run the step `teacher` first", path.display()))?;
    let id = |s: &str, below: usize| -> Result<Option<usize>> {
        let id: i64 = s.parse()?;
        ensure!(id < i64::try_from(below)?, "class {id} out of range");
        Ok(usize::try_from(id).ok())
    };
    let ids = |s: &str, below: usize| -> Result<Vec<usize>> {
        let ids = s.split(',').map(|one| id(one, below));
        Ok(ids
            .collect::<Result<Vec<_>>>()?
            .into_iter()
            .flatten()
            .collect())
    };
    let mut texts = Vec::new();
    for (number, row) in content.lines().enumerate().skip(1) {
        let fields: Vec<&str> = row.split('\t').collect();
        let place = || format!("{}, line {}", path.display(), number + 1);
        let [kind, fine, coarse, imagenet, text] = fields[..] else {
            anyhow::bail!("{}: five columns expected", place());
        };
        texts.push(Text {
            kind: kind.to_owned(),
            fine: ids(fine, FINE).with_context(place)?,
            coarse: ids(coarse, COARSE).with_context(place)?,
            imagenet: ids(imagenet, EVERYDAY).with_context(place)?,
            text: text.to_owned(),
        });
    }
    Ok(texts)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_read_and_wrong_ones_named_by_their_line() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("texts.tsv");
        let read = |rows: &str| {
            std::fs::write(&path, format!("kind\tfine\tcoarse\timagenet\ttext\n{rows}")).unwrap();
            read_texts(&path)
        };
        let texts =
            read("prompt\t3\t1\t-1\tuna foto di \"mela\"\ncaption\t-1\t8,9\t-1\tagrume\n").unwrap();
        assert_eq!(
            (&texts[1].fine[..], &texts[1].coarse[..]),
            (&[][..], &[8, 9][..])
        );
        let expected = Text {
            kind: "prompt".to_owned(),
            fine: vec![3],
            coarse: vec![1],
            imagenet: Vec::new(),
            text: "una foto di \"mela\"".to_owned(),
        };
        assert_eq!(texts[0], expected);
        for wrong in [
            "prompt\t3\t1\tx",
            "prompt\t3\t1\t-1\tx\ty",
            "prompt\t9999\t1\t-1\tx",
            "prompt\t1,9999\t1\t-1\tx",
        ] {
            let error = format!(
                "{:#}",
                read(&format!("name\t-1\t-1\t-1\ty\n{wrong}\n")).unwrap_err()
            );
            assert!(error.contains("line 3"), "{error}");
        }
    }
}
