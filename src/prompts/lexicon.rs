//! Gender and number of Italian nouns: a list of words, and rules for the words not in it.

use std::collections::{HashMap, HashSet};
use std::sync::LazyLock;

/// Grammatical gender.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Gender {
    /// Maschile.
    Masculine,
    /// Femminile.
    Feminine,
}

/// Grammatical number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Number {
    /// Singolare.
    Singular,
    /// Plurale.
    Plural,
}

/// What a word form says about gender and number; `None` where it leaves that open.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Agreement {
    /// `insegnante`, `grande`: open.
    pub(super) gender: Option<Gender>,
    /// `auto`, `blu`: open.
    pub(super) number: Option<Number>,
}

/// A noun form.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Noun {
    /// Its gender and number.
    pub(super) form: Agreement,
    /// `acqua`, `fumo`: takes no indefinite article.
    pub(super) mass: bool,
}

const M: Option<Gender> = Some(Gender::Masculine);
const F: Option<Gender> = Some(Gender::Feminine);
const SINGULAR: Option<Number> = Some(Number::Singular);
const PLURAL: Option<Number> = Some(Number::Plural);

const fn form(gender: Option<Gender>, number: Option<Number>) -> Agreement {
    Agreement { gender, number }
}

/// Words of the longest entry, elided words counted (`fuochi d'artificio`: 3).
pub(super) const MAX_ENTRY_WORDS: usize = 3;

struct Lexicon {
    nouns: HashMap<String, Noun>,
    adjectives: HashMap<String, Agreement>,
    /// Adjective forms that may precede their noun.
    before: HashSet<String>,
}

static LEXICON: LazyLock<Lexicon> = LazyLock::new(Lexicon::embedded);

/// The noun `key`, lower case, words separated by one space, an elided word ending in `'`.
pub(super) fn noun(key: &str) -> Option<Noun> {
    LEXICON.nouns.get(key).copied()
}

/// What the adjective or participle `word` agrees with; `None` when it is neither.
pub(super) fn adjective(word: &str) -> Option<Agreement> {
    if let Some(agreement) = LEXICON.adjectives.get(word) {
        return Some(*agreement);
    }
    if noun(word).is_some() {
        return None;
    }
    let participles = [
        ("o", form(M, SINGULAR)),
        ("a", form(F, SINGULAR)),
        ("i", form(M, PLURAL)),
        ("e", form(F, PLURAL)),
    ];
    participles.into_iter().find_map(|(ending, agreement)| {
        let stem = word.strip_suffix(ending)?;
        let is_participle = stem.len() > 3
            && ["at", "ut", "it", "os", "iv"]
                .iter()
                .any(|s| stem.ends_with(s));
        is_participle.then_some(agreement)
    })
}

/// Whether the adjective `word` may stand before its noun.
pub(super) fn may_precede(word: &str) -> bool {
    LEXICON.before.contains(word)
}

/// A vowel of Italian or of the foreign words Italian uses, lower case. `y` is not one.
pub(super) fn is_vowel(c: char) -> bool {
    "aeiouàáâãäåæèéêëìíîïòóôõöøœùúûü".contains(c)
}

impl Lexicon {
    fn embedded() -> Self {
        let mut lexicon = Self {
            nouns: HashMap::new(),
            adjectives: HashMap::new(),
            before: HashSet::new(),
        };
        // Plurals fill the gaps the singulars leave: `sale` is salt, not the plural of `sala`.
        let mut plurals = Vec::new();
        for (section, line) in sections(include_str!("nouns.txt")) {
            if section == "irregular" {
                plurals.extend(lexicon.add_irregular(line));
            } else {
                for entry in line.split_whitespace() {
                    plurals.extend(lexicon.add_noun(section, &key_of(&entry.replace('_', " "))));
                }
            }
        }
        for (word, noun) in plurals {
            lexicon.nouns.entry(word).or_insert(noun);
        }
        for (section, line) in sections(include_str!("adjectives.txt")) {
            lexicon.add_adjectives(section, line);
        }
        lexicon
    }

    /// Adds the base form, gives back the plurals.
    fn add_noun(&mut self, section: &str, word: &str) -> Vec<(String, Noun)> {
        let (gender, number, mass) = match section {
            "m" => (M, SINGULAR, false),
            "f" => (F, SINGULAR, false),
            "mf" => (None, SINGULAR, false),
            "m=" => (M, None, false),
            "f=" => (F, None, false),
            "m~" => (M, SINGULAR, true),
            "f~" => (F, SINGULAR, true),
            "m+" => (M, PLURAL, false),
            "f+" => (F, PLURAL, false),
            _ => return Vec::new(),
        };
        let plurals = plurals(word, gender);
        let invariable = plurals.iter().any(|p| p == word);
        let number = if invariable && number == SINGULAR && !mass {
            None
        } else {
            number
        };
        let noun = Noun {
            form: form(gender, number),
            mass,
        };
        self.nouns.insert(word.to_owned(), noun);
        if number != SINGULAR {
            return Vec::new();
        }
        let gender_of = |plural: &str| match gender {
            None if word.ends_with('a') => {
                if plural.ends_with('e') {
                    F
                } else {
                    M
                }
            } // autiste
            known => known,
        };
        plurals
            .into_iter()
            .map(|plural| {
                let form = form(gender_of(&plural), PLURAL);
                (plural, Noun { form, mass: false })
            })
            .collect()
    }

    /// `uovo m uova f`.
    fn add_irregular(&mut self, line: &str) -> Option<(String, Noun)> {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let [singular, gender, plural, plural_gender] = fields.as_slice() else {
            return None;
        };
        let gender_of = |letter: &str| if letter == "f" { F } else { M };
        let entry = |letter, number| Noun {
            form: form(gender_of(letter), number),
            mass: false,
        };
        self.nouns
            .insert(singular.replace('_', " "), entry(gender, SINGULAR));
        Some((plural.replace('_', " "), entry(plural_gender, PLURAL)))
    }

    fn add_adjectives(&mut self, section: &str, line: &str) {
        if section == "short" {
            let fields: Vec<&str> = line.split_whitespace().collect();
            if let [word, gender, number] = fields.as_slice() {
                let gender = match *gender {
                    "m" => M,
                    "f" => F,
                    _ => None,
                };
                let number = if *number == "pl" { PLURAL } else { SINGULAR };
                self.adjectives
                    .insert((*word).to_owned(), form(gender, number));
                self.before.insert((*word).to_owned());
            }
            return;
        }
        for word in line.split_whitespace() {
            for (inflected, agreement) in inflections(word) {
                if section == "before" {
                    self.before.insert(inflected);
                } else {
                    self.adjectives.insert(inflected, agreement);
                }
            }
        }
    }
}

/// Lines with the section they stand in; comments and blank lines left out.
pub(super) fn sections(text: &str) -> impl Iterator<Item = (&str, &str)> {
    let mut section = "";
    text.lines().filter_map(move |line| {
        let line = line.trim();
        if let Some(name) = line.strip_prefix('[').and_then(|l| l.strip_suffix(']')) {
            section = name;
            return None;
        }
        (!line.is_empty() && !line.starts_with('#')).then_some((section, line))
    })
}

/// `text` as it is looked up: lower case, a space after each apostrophe.
pub(super) fn key_of(text: &str) -> String {
    text.to_lowercase()
        .replace('\'', "' ")
        .split_whitespace()
        .collect::<Vec<_>>()
        .join(" ")
}

/// The plural forms a singular can have by its ending; of several words the first is inflected.
/// Where the ending allows two (amici, fuochi) both are given: the wrong one is not a word.
fn plurals(entry: &str, gender: Option<Gender>) -> Vec<String> {
    let (word, rest) = entry.split_at(entry.find(' ').unwrap_or(entry.len()));
    let with = |cut: usize, endings: &[&str]| -> Vec<String> {
        let stem = &word[..word.len() - cut];
        endings
            .iter()
            .map(|ending| format!("{stem}{ending}{rest}"))
            .collect()
    };
    let feminine = gender == F;
    let common = gender.is_none();
    if word.ends_with("ca") || word.ends_with("ga") {
        with(
            1,
            if feminine {
                &["he"]
            } else if common {
                &["hi", "he"]
            } else {
                &["hi"]
            },
        )
    } else if feminine && (word.ends_with("cia") || word.ends_with("gia")) {
        with(2, &["e", "ie"])
    } else if word.ends_with("co") || word.ends_with("go") {
        with(1, &["hi", "i"])
    } else if word.ends_with("io") {
        with(1, &[""])
    } else if word.ends_with('a') {
        with(
            1,
            if feminine {
                &["e"]
            } else if common {
                &["i", "e"]
            } else {
                &["i"]
            },
        )
    } else if word.ends_with('o') || word.ends_with('e') {
        with(1, &["i"])
    } else {
        vec![entry.to_owned()]
    }
}

/// All forms of an adjective in -o (four) or -e (two).
fn inflections(word: &str) -> Vec<(String, Agreement)> {
    if let Some(stem) = word.strip_suffix('e') {
        return vec![
            (word.to_owned(), form(None, SINGULAR)),
            (format!("{stem}i"), form(None, PLURAL)),
        ];
    }
    let Some(stem) = word.strip_suffix('o') else {
        return vec![(word.to_owned(), Agreement::default())];
    };
    let masculine = if stem.ends_with('i') {
        stem.to_owned()
    } else {
        format!("{stem}i")
    };
    let mut forms = vec![
        (word.to_owned(), form(M, SINGULAR)),
        (format!("{stem}a"), form(F, SINGULAR)),
        (masculine, form(M, PLURAL)),
    ];
    if stem.ends_with('c') || stem.ends_with('g') {
        forms.push((format!("{stem}hi"), form(M, PLURAL)));
        forms.push((format!("{stem}he"), form(F, PLURAL)));
    } else {
        forms.push((format!("{stem}e"), form(F, PLURAL)));
    }
    if let Some(short) = stem.strip_suffix('i') {
        forms.push((format!("{short}e"), form(F, PLURAL))); // marce
    }
    forms
}
