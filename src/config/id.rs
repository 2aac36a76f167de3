//! Ids: the only text that may stand in a topic.

use std::fmt;

/// An id that may stand in a topic: 1–64 characters of `[a-z0-9-]`, neither first nor last a `-`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Id(String);

/// Longest id, in characters (which are bytes).
const MAX_LEN: usize = 64;

/// Articles that an id made from a noun leaves out, without their apostrophe.
const ARTICLES: [&str; 10] = ["un", "uno", "una", "il", "lo", "la", "l", "i", "gli", "le"];

impl Id {
    /// The legal values, as error messages quote them.
    pub const LEGAL: &str = "1 to 64 of a-z, 0-9 and '-', not starting or ending with '-'";

    /// Checks `text`; `None` when it is not an id.
    pub fn new(text: &str) -> Option<Self> {
        let legal = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
        let fits = (1..=MAX_LEN).contains(&text.len()) && text.chars().all(legal);
        (fits && !text.starts_with('-') && !text.ends_with('-')).then(|| Self(text.to_owned()))
    }

    /// Makes an id out of free text: lower case, Latin accents dropped, everything else a `-`.
    /// `Scaffale n° 7` becomes `scaffale-n-7`. `None` when no letter or digit is left.
    pub fn from_text(text: &str) -> Option<Self> {
        let mut id = String::new();
        for c in text.chars().flat_map(char::to_lowercase).map(unaccented) {
            if id.len() == MAX_LEN {
                break;
            }
            if c.is_ascii_alphanumeric() {
                id.push(c);
            } else if !id.is_empty() && !id.ends_with('-') {
                id.push('-');
            }
        }
        Self::new(id.trim_end_matches('-'))
    }

    /// [`Id::from_text`] of an Italian noun without its article: `una mela rossa` becomes
    /// `mela-rossa`.
    pub fn from_noun(noun: &str) -> Option<Self> {
        let id = Self::from_text(noun)?;
        let bare =
            id.0.split_once('-')
                .filter(|(first, _)| ARTICLES.contains(first))
                .and_then(|(_, rest)| Self::new(rest));
        Some(bare.unwrap_or(id))
    }

    /// The id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The letter under the accents that Italian, and the names of products, use.
fn unaccented(c: char) -> char {
    match c {
        'à' | 'á' | 'â' | 'ä' | 'ã' | 'å' => 'a',
        'è' | 'é' | 'ê' | 'ë' => 'e',
        'ì' | 'í' | 'î' | 'ï' => 'i',
        'ò' | 'ó' | 'ô' | 'ö' | 'õ' => 'o',
        'ù' | 'ú' | 'û' | 'ü' => 'u',
        'ç' => 'c',
        'ñ' => 'n',
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn an_id_is_made_from_a_noun_without_its_article() {
        let made = |noun| Id::from_noun(noun).map(|id| id.to_string());
        assert_eq!(made("scaffale vuoto").as_deref(), Some("scaffale-vuoto"));
        assert_eq!(made("una mela rossa").as_deref(), Some("mela-rossa"));
        assert_eq!(made("L'insalata").as_deref(), Some("insalata"));
        assert_eq!(made("un'arancia").as_deref(), Some("arancia"));
        assert_eq!(made("caffè").as_deref(), Some("caffe"));
        assert_eq!(made("una").as_deref(), Some("una"));
        assert_eq!(made("…"), None);
    }

    proptest! {
        #[test]
        fn an_id_made_from_any_text_is_an_id(text in ".{0,200}") {
            for id in [Id::from_text(&text), Id::from_noun(&text)].into_iter().flatten() {
                prop_assert_eq!(Id::new(id.as_str()), Some(id.clone()));
            }
        }
    }
}
