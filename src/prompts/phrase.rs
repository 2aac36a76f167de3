//! A noun phrase as people type it, taken apart far enough to put it into templates.

use super::article;
use super::endings;
use super::lexicon::{self, Agreement, Gender, MAX_ENTRY_WORDS, Number, key_of};

/// A phrase in the forms the templates have slots for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Phrase {
    /// Something that can be seen.
    Noun {
        /// `uno scaffale vuoto`, `scaffali vuoti`, `fumo`, `il gatto`.
        alone: String,
        /// `di uno scaffale vuoto`, `di scaffali vuoti`, `di fumo`, `del gatto`.
        of: String,
        /// `uno scaffale vuoto`, `degli scaffali vuoti`, `del fumo`, `il gatto`.
        some: String,
    },
    /// Anything else: `in cucina`, `il frigorifero è aperto`.
    Clause(String),
}

/// Definite articles and what `di` makes of them.
const DEFINITE: [(&str, &str); 7] = [
    ("il", "del"),
    ("lo", "dello"),
    ("la", "della"),
    ("l'", "dell'"),
    ("i", "dei"),
    ("gli", "degli"),
    ("le", "delle"),
];
const INDEFINITE: [&str; 4] = ["un", "uno", "una", "un'"];
/// After these no article is put, and `di` stands unchanged before them.
const DETERMINERS: &str = " due tre quattro cinque sei sette otto nove dieci undici dodici tredici \
    quattordici quindici sedici venti trenta cento mille alcun alcuni alcune qualche ogni nessun \
    nessuno nessuna nessun' molto molta molti molte poco poca pochi poche tanto tanta tanti tante \
    troppo troppa troppi troppe parecchio parecchia parecchi parecchie vari varie diversi diverse \
    numerosi numerose questo questa questi queste quest' quel quello quella quei quegli quelle quell' \
    mio mia tuo tua suo sua nostro nostra vostro vostra loro entrambi entrambe tutto tutta tutti \
    tutte qualcuno qualcosa niente nulla più meno ";
/// A phrase that starts with one of these is no noun phrase.
const STARTERS: &str = " a ad al allo alla all' ai agli alle da dal dallo dalla dall' dai dagli dalle \
    in nel nello nella nell' nei negli nelle su sul sullo sulla sull' sui sugli sulle con col di d' \
    per tra fra senza sotto sopra dentro fuori dietro davanti verso contro durante non c' ci si è e \
    dove quando che chi mentre se come qui qua là lì ";
const VERBS: &str = " è sono ha hanno sta stanno c' ";
/// After the head these are no adjectives: una panca vicino al muro.
const ADVERBS: &str = " vicino lontano lungo attorno intorno ";
/// A verb after one of these belongs to a relative clause and leaves a noun phrase one.
const RELATIVES: &str = " che cui dove quando ";

fn among(words: &str, word: &str) -> bool {
    words.split(' ').any(|w| !w.is_empty() && w == word)
}

/// Takes `text`, already cleaned, apart. Never fails: what is not understood is a clause or a
/// masculine singular.
pub(super) fn parse(text: &str) -> Phrase {
    let text = tidy(text);
    let key = key_of(&text);
    let words: Vec<&str> = key.split(' ').collect();
    let first = words.first().copied().unwrap_or_default();
    if words.len() > 1 && (among(STARTERS, first) || has_main_verb(&words)) {
        return Phrase::Clause(text);
    }
    let rest = |article: &str| {
        text.get(article.len()..)
            .unwrap_or_default()
            .trim_start()
            .to_owned()
    };
    if words.len() > 1 {
        if INDEFINITE.contains(&first) {
            return Phrase::Noun {
                of: format!("di {text}"),
                some: text.clone(),
                alone: text,
            };
        }
        if let Some((_, of)) = DEFINITE.iter().find(|(article, _)| *article == first) {
            let of = join(of, &rest(first));
            return Phrase::Noun {
                of,
                some: text.clone(),
                alone: text,
            };
        }
        if DEFINITE.iter().any(|(_, of)| *of == first) {
            return Phrase::Noun {
                of: format!("di {}", rest(first)),
                some: text.clone(),
                alone: text,
            };
        }
    }
    if among(DETERMINERS, first) || first.starts_with(|c: char| c.is_ascii_digit()) {
        return Phrase::Noun {
            of: format!("di {text}"),
            some: text.clone(),
            alone: text,
        };
    }
    bare(text, &words)
}

/// A noun without article, its adjectives around it.
fn bare(text: String, words: &[&str]) -> Phrase {
    let head = head(words);
    let gender = head.form.gender.unwrap_or(Gender::Masculine);
    let number = head.form.number.unwrap_or(Number::Singular);
    if number == Number::Singular && !head.mass {
        let with_article = format!("{}{text}", article::indefinite(gender, &text));
        return Phrase::Noun {
            of: format!("di {with_article}"),
            some: with_article.clone(),
            alone: with_article,
        };
    }
    Phrase::Noun {
        of: format!("di {text}"),
        some: format!("{}{text}", article::partitive(gender, number, &text)),
        alone: text,
    }
}

/// Gender, number and countability of a phrase: what its adjectives say, then its head noun.
fn head(words: &[&str]) -> lexicon::Noun {
    let mut at = 0;
    let mut before: Option<Agreement> = None;
    while at < 2 && precedes(words, at) {
        let said = lexicon::adjective(words[at]).unwrap_or_default();
        let known = before.unwrap_or_default();
        before = Some(Agreement {
            gender: known.gender.or(said.gender),
            number: known.number.or(said.number),
        });
        at += 1;
    }
    let longest = MAX_ENTRY_WORDS.min(words.len() - at);
    let entry = (1..=longest)
        .rev()
        .find_map(|n| Some((n, lexicon::noun(&words[at..at + n].join(" "))?)));
    let after = at + entry.map_or(1, |(n, _)| n);
    let beside = words.get(after).filter(|word| !among(ADVERBS, word));
    let agreeing = before.or_else(|| lexicon::adjective(beside?));
    let said = agreeing.unwrap_or_default();
    match entry {
        Some((_, noun)) => lexicon::Noun {
            form: Agreement {
                gender: noun.form.gender.or(said.gender),
                number: noun.form.number.or(said.number),
            },
            mass: noun.mass,
        },
        None => lexicon::Noun {
            form: endings::guess(words[at], agreeing),
            mass: false,
        },
    }
}

/// Whether the word at `at` is an adjective in front of the head.
fn precedes(words: &[&str], at: usize) -> bool {
    let Some(next) = words.get(at + 1) else {
        return false;
    };
    let is_noun = |word| lexicon::noun(word).is_some();
    lexicon::may_precede(words[at])
        && !among(STARTERS, next)
        && (is_noun(next) || lexicon::may_precede(next) || lexicon::adjective(next).is_none())
        && (is_noun(next) || !is_noun(words[at]))
}

fn has_main_verb(words: &[&str]) -> bool {
    words
        .iter()
        .take_while(|word| !among(RELATIVES, word))
        .any(|word| among(VERBS, word))
}

/// `dell'` takes no space after it.
fn join(article: &str, rest: &str) -> String {
    let space = if article.ends_with('\'') { "" } else { " " };
    format!("{article}{space}{rest}")
}

/// Puts right what does not change the meaning: the sign at the end, the space after an elision,
/// an apostrophe in place of an accent, the capital at the beginning.
fn tidy(text: &str) -> String {
    let text = text.trim_end_matches(['.', ',', ';', ':', '!', '?', ' ']);
    let mut words: Vec<String> = text.split(' ').map(accented).collect();
    if let Some(first) = words.first_mut() {
        let lower = first.to_lowercase();
        let key = key_of(&lower);
        let start = key.split(' ').next().unwrap_or_default();
        let known = |word: &str| {
            lexicon::noun(word).is_some()
                || lexicon::adjective(word).is_some()
                || INDEFINITE.contains(&word)
                || among(DETERMINERS, word)
                || among(STARTERS, word)
                || DEFINITE
                    .iter()
                    .any(|(article, of)| *article == word || *of == word)
        };
        let capital = first.chars().skip(1).all(|c| !c.is_uppercase());
        if capital && known(start) && lexicon::noun(first).is_none() {
            *first = lower;
        }
    }
    let mut out = String::with_capacity(text.len());
    for word in words {
        if !out.is_empty() && !elided(&out) {
            out.push(' ');
        }
        out.push_str(&word);
    }
    out
}

/// Whether `out` ends in an elided article: `un'` but not `po'`.
fn elided(out: &str) -> bool {
    let last = out.rsplit(' ').next().unwrap_or_default().to_lowercase();
    matches!(
        last.as_str(),
        "un'" | "l'" | "dell'" | "d'" | "bell'" | "quell'" | "quest'"
    )
}

/// `citta'` is how keyboards without accents write `città`.
fn accented(word: &str) -> String {
    let Some(stem) = word.strip_suffix('\'') else {
        return word.to_owned();
    };
    let Some(last) = stem.chars().next_back() else {
        return word.to_owned();
    };
    let accents: &[char] = match last {
        'a' => &['à'],
        'e' => &['è', 'é'],
        'i' => &['ì'],
        'o' => &['ò'],
        'u' => &['ù'],
        _ => return word.to_owned(),
    };
    accents
        .iter()
        .map(|accent| format!("{}{accent}", &stem[..stem.len() - 1]))
        .find(|candidate| lexicon::noun(&candidate.to_lowercase()).is_some())
        .unwrap_or_else(|| word.to_owned())
}
