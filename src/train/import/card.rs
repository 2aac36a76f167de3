//! What the model card (`README.md` beside the weights) says about the licence.

use std::path::Path;

use anyhow::Result;

use super::checkpoint::{MAX_JSON_BYTES, read_text};

/// Longest licence that is repeated, characters.
const MAX_LICENCE: usize = 80;

/// A weight file's name and lower-case hex SHA-256.
pub type Hash = (String, String);

/// Where weights came from, as far as their folder says.
pub struct Card {
    title: String,
    licence: Option<String>,
    hashes: Vec<Hash>,
}

impl Card {
    /// Reads the licence of the checkpoint `title` in `folder` from the card's front matter, unless it is
    /// `given`. `hashes` are its weight files'.
    ///
    /// # Errors
    /// A card that cannot be read.
    pub fn read(
        folder: &Path,
        title: &str,
        given: Option<&str>,
        hashes: Vec<Hash>,
    ) -> Result<Self> {
        let path = folder.join("README.md");
        let licence = match given {
            Some(licence) => Some(licence.to_owned()),
            None if path.exists() => stated(&read_text(&path, MAX_JSON_BYTES)?),
            None => None,
        };
        Ok(Self {
            title: title.to_owned(),
            licence,
            hashes,
        })
    }

    /// What the user should know.
    pub fn note(&self) -> Option<String> {
        self.licence.is_none().then(|| {
            format!(
                "{} states no licence: look at its model page before you pass the bundle on, and \
                 name it with --licence",
                self.title
            )
        })
    }

    fn named(&self) -> &str {
        self.licence
            .as_deref()
            .unwrap_or("licence unknown: check the model page")
    }

    /// For the manifest's `provenance.sources`.
    pub fn sources(&self) -> Vec<String> {
        let file = |(name, sha256): &Hash| {
            format!("{}, {name} sha256:{sha256} ({})", self.title, self.named())
        };
        self.hashes.iter().map(file).collect()
    }
}

/// The checkpoint's name: its folder's.
pub fn title(folder: &Path) -> String {
    let absolute = std::path::absolute(folder).unwrap_or_else(|_| folder.to_owned());
    absolute.file_name().map_or_else(
        || "checkpoint".to_owned(),
        |name| name.to_string_lossy().into_owned(),
    )
}

/// `LICENSES.md`.
pub fn licences(cards: &[Card]) -> String {
    let mut text = "# Licences\n\nThis bundle was made from the checkpoints below. Their weights, \
                    their tokenizers and everything derived from them, this bundle included, are \
                    under their licences.\n"
        .to_owned();
    for card in cards {
        text.push_str(&format!("\n## {}: {}\n\n", card.title, card.named()));
        for (name, sha256) in &card.hashes {
            text.push_str(&format!("- `{name}`, sha256 `{sha256}`\n"));
        }
    }
    text
}

/// `license:` in the YAML front matter.
fn stated(card: &str) -> Option<String> {
    let matter = card.strip_prefix("---")?.split("\n---").next()?;
    let value = matter
        .lines()
        .find_map(|line| line.strip_prefix("license:"))?;
    let text = value.trim().trim_matches(['"', '\'']);
    let clean: String = text
        .chars()
        .filter(|c| !c.is_control())
        .take(MAX_LICENCE)
        .collect();
    (!clean.is_empty()).then_some(clean)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_licence_is_the_front_matters() {
        let card = "---\nlanguage: it\nlicense: \"gpl-3.0\"\n---\n# Card\nlicense: none\n";
        assert_eq!(stated(card).as_deref(), Some("gpl-3.0"));
        assert_eq!(stated("# Card\nlicense: mit\n"), None);
        assert_eq!(stated("---\nlicense:\n---\n"), None);
    }
}
