//! Gender and number of nouns the lexicon does not list, from how they are built and how they end.
//!
//! The rules are the usual ones of Italian grammars (Serianni, *Grammatica italiana*, III); they are
//! guesses, and an adjective that agrees overrules them. Foreign words are masculine by default.

use super::lexicon::{self, Agreement, Gender, Number};

/// First halves of compounds whose second half gives the gender: autobotte, motosega.
const PREFIXES: &[&str] = &[
    "anti", "auto", "bio", "contro", "elettro", "extra", "foto", "idro", "inter", "macro", "maxi",
    "mega", "micro", "mini", "mono", "moto", "multi", "pluri", "radio", "retro", "semi", "sopra",
    "sotto", "super", "tele", "termo", "video",
];

/// Verbs that make masculine compounds with what they act on: portaombrelli, tagliacarte.
const VERBS: &[&str] = &[
    "accendi",
    "appendi",
    "apri",
    "asciuga",
    "aspira",
    "attacca",
    "batti",
    "carica",
    "cava",
    "conta",
    "copri",
    "ferma",
    "gira",
    "gratta",
    "guarda",
    "lava",
    "para",
    "passa",
    "pela",
    "porta",
    "reggi",
    "salva",
    "scaccia",
    "scalda",
    "schiaccia",
    "scola",
    "segna",
    "spazza",
    "spremi",
    "taglia",
    "trita",
];

/// Endings that are feminine singular although words in -e are masculine by default.
const FEMININE: &[&str] = &[
    "zione", "sione", "gione", "trice", "tudine", "edine", "aggine", "igine", "uggine",
];

/// Endings of plurals of feminines in -a that hardly any singular in -e has.
const FEMININE_PLURAL: &[&str] = &[
    "che", "ghe", "cie", "gie", "glie", "rie", "nie", "tte", "lle", "zze", "sse", "nne", "cce",
    "ppe", "mme", "ffe", "bbe", "rre", "aie", "oie", "line", "tine", "rine", "cine", "sine",
    "pine", "vine", "ate", "ute", "ole", "ose", "ure", "zioni", "sioni", "gioni", "trici",
    "tudini",
];

/// The singular masculines among words in -a.
const MASCULINE_A: &[&str] = &["gramma", "blema", "stema", "plasma", "oma", "ista", "iatra"];

/// What `word` (lower case, not in the lexicon) most likely is.
///
/// `agreeing` is what an adjective beside it agrees with, if there is one.
pub(super) fn guess(word: &str, agreeing: Option<Agreement>) -> Agreement {
    if let Some(known) = compound(word) {
        return known;
    }
    let guessed = by_ending(word);
    let Some(agreeing) = agreeing else {
        return guessed;
    };
    let last = word.chars().next_back().unwrap_or(' ');
    // -o and -a are singular, whatever stands beside them; the rest is as the adjective says.
    let number = match last {
        'o' | 'a' => guessed.number,
        _ => agreeing.number.or(guessed.number),
    };
    Agreement {
        gender: agreeing.gender.or(guessed.gender),
        number,
    }
}

fn compound(word: &str) -> Option<Agreement> {
    let known = |part: &str| lexicon::noun(part).map(|noun| noun.form);
    let rest_of = |prefix: &&str| {
        word.strip_prefix(*prefix)
            .map(|rest| rest.trim_start_matches('-'))
    };
    let worth_it = |rest: &&str| rest.len() > 3 && known(rest).is_some();
    if VERBS.iter().filter_map(rest_of).any(|rest| worth_it(&rest)) {
        return Some(Agreement {
            gender: Some(Gender::Masculine),
            number: None,
        });
    }
    if let Some(rest) = PREFIXES.iter().filter_map(rest_of).find(worth_it) {
        return known(rest);
    }
    let (first, rest) = word.split_once('-')?;
    known(&format!("{first}{rest}"))
        .or_else(|| known(&format!("{first} {rest}")))
        .or_else(|| known(first))
}

fn by_ending(word: &str) -> Agreement {
    let is = |gender, number| Agreement {
        gender: Some(gender),
        number: Some(number),
    };
    let ends = |endings: &[&str]| endings.iter().any(|ending| word.ends_with(ending));
    let (masculine, feminine) = (Gender::Masculine, Gender::Feminine);
    if ends(&["tà", "tù"]) {
        return Agreement {
            gender: Some(feminine),
            number: None,
        };
    }
    if ends(FEMININE_PLURAL) {
        return is(feminine, Number::Plural);
    }
    match word.chars().next_back() {
        Some('a') if ends(MASCULINE_A) => is(masculine, Number::Singular),
        Some('a') => is(feminine, Number::Singular),
        Some('e') if ends(FEMININE) => is(feminine, Number::Singular),
        Some('o' | 'e') => is(masculine, Number::Singular),
        Some('i') => is(masculine, Number::Plural),
        _ => Agreement {
            gender: Some(masculine),
            number: None,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn compounds_take_the_gender_of_their_noun_unless_a_verb_makes_them() {
        let gender = |word| guess(word, None).gender;
        assert_eq!(gender("autobotte"), Some(Gender::Feminine));
        assert_eq!(gender("motosega"), Some(Gender::Feminine));
        assert_eq!(gender("minigonna"), Some(Gender::Feminine));
        assert_eq!(gender("portabottiglie"), Some(Gender::Masculine));
        assert_eq!(gender("lavatazze"), Some(Gender::Masculine));
        assert_eq!(gender("divano-letto"), Some(Gender::Masculine));
    }

    #[test]
    fn an_adjective_overrules_the_ending_but_not_a_plain_singular() {
        let feminine_singular = Agreement {
            gender: Some(Gender::Feminine),
            number: Some(Number::Singular),
        };
        let masculine_plural = Agreement {
            gender: Some(Gender::Masculine),
            number: Some(Number::Plural),
        };
        assert_eq!(
            guess("glacette", Some(feminine_singular)),
            feminine_singular
        );
        assert_eq!(guess("droidi", None), masculine_plural);
        assert_eq!(
            guess("blorpo", Some(masculine_plural)).number,
            Some(Number::Singular)
        );
    }
}
