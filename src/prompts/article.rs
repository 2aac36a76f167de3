//! Articles: which form a word's first sound asks for.

use super::lexicon::{Gender, Number, is_vowel};

/// How a word starts, as articles see it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Onset {
    /// A vowel, mute h included: un albero, un'ape, un hotel.
    Vowel,
    /// s + consonant, z, x, gn, ps, pn and other clusters, semivowel i or y: uno, dello, degli.
    Impure,
    /// Any other consonant: un, del, dei.
    Plain,
}

/// The indefinite article with its space, before `phrase`: `un `, `uno `, `una ` or `un'`.
///
/// The form follows the first word (un bello scaffale, uno scaffale), `gender` is the head noun's.
pub(super) fn indefinite(gender: Gender, phrase: &str) -> &'static str {
    match (gender, onset(phrase)) {
        (Gender::Masculine, Onset::Impure) => "uno ",
        (Gender::Masculine, _) => "un ",
        (Gender::Feminine, Onset::Vowel) => "un'",
        (Gender::Feminine, _) => "una ",
    }
}

/// The partitive article with its space, before `phrase`: `del `, `dell'`, `degli ` and so on.
pub(super) fn partitive(gender: Gender, number: Number, phrase: &str) -> &'static str {
    match (number, gender, onset(phrase)) {
        (Number::Singular, _, Onset::Vowel) => "dell'",
        (Number::Singular, Gender::Masculine, Onset::Impure) => "dello ",
        (Number::Singular, Gender::Masculine, Onset::Plain) => "del ",
        (Number::Singular, Gender::Feminine, _) => "della ",
        (Number::Plural, Gender::Masculine, Onset::Plain) => "dei ",
        (Number::Plural, Gender::Masculine, _) => "degli ",
        (Number::Plural, Gender::Feminine, _) => "delle ",
    }
}

fn onset(phrase: &str) -> Onset {
    let word: Vec<char> = phrase
        .chars()
        .skip_while(|c| !c.is_alphanumeric())
        .take_while(|c| c.is_alphanumeric())
        .flat_map(char::to_lowercase)
        .collect();
    let Some((&first, rest)) = word.split_first() else {
        return Onset::Plain;
    };
    if first.is_ascii_digit() {
        // otto, undici
        let vowel = first == '8' || word == ['1', '1'];
        return if vowel { Onset::Vowel } else { Onset::Plain };
    }
    if !word.iter().any(|&c| is_vowel(c) || c == 'y') {
        return spelled(first);
    }
    let second = rest.first().copied().unwrap_or(' ');
    match first {
        'h' if is_vowel(second) => Onset::Vowel,
        'i' | 'y' if is_vowel(second) => Onset::Impure,
        'y' => Onset::Vowel,
        _ if is_vowel(first) => Onset::Vowel,
        'z' | 'x' => Onset::Impure,
        's' if !is_vowel(second) && second != 'y' => Onset::Impure,
        'm' if second == 'c' => Onset::Plain, // McDonald's
        _ if is_vowel(second) || matches!(second, 'l' | 'r' | 'h' | 'w' | 'y' | ' ') => {
            Onset::Plain
        }
        _ => Onset::Impure,
    }
}

/// A word without vowels is read letter by letter: un SMS (esse), una TV (ti).
fn spelled(first: char) -> Onset {
    match first {
        'f' | 'h' | 'l' | 'm' | 'n' | 'r' | 's' => Onset::Vowel,
        'x' | 'z' => Onset::Impure,
        _ => Onset::Plain,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_partitive_has_seven_forms() {
        let cases = [
            (Gender::Masculine, Number::Singular, "fumo", "del "),
            (Gender::Masculine, Number::Singular, "zucchero", "dello "),
            (Gender::Masculine, Number::Singular, "olio", "dell'"),
            (Gender::Feminine, Number::Singular, "sabbia", "della "),
            (Gender::Feminine, Number::Singular, "acqua", "dell'"),
            (Gender::Feminine, Number::Singular, "iuta", "della "),
            (Gender::Masculine, Number::Plural, "gatti", "dei "),
            (Gender::Masculine, Number::Plural, "alberi", "degli "),
            (Gender::Masculine, Number::Plural, "scaffali", "degli "),
            (Gender::Feminine, Number::Plural, "scatole", "delle "),
            (Gender::Feminine, Number::Plural, "arance", "delle "),
        ];
        for (gender, number, word, article) in cases {
            assert_eq!(partitive(gender, number, word), article, "{word}");
        }
    }

    #[test]
    fn the_onset_is_what_is_heard() {
        for word in [
            "albero",
            "ombra",
            "uomo",
            "hotel",
            "Épagneul",
            "SMS",
            "8",
            "iPhone",
        ] {
            assert_eq!(onset(word), Onset::Vowel, "{word}");
        }
        for word in [
            "scaffale",
            "zaino",
            "xilofono",
            "gnomo",
            "psicologo",
            "pneumatico",
            "iato",
            "yogurt",
            "shampoo",
            "tsunami",
            "pterodattilo",
            "mnemonico",
            "Sci",
        ] {
            assert_eq!(onset(word), Onset::Impure, "{word}");
        }
        for word in [
            "sale",
            "chiodo",
            "treno",
            "quadro",
            "whisky",
            "glicine",
            "thriller",
            "TV",
            "dj",
            "synth",
            "McDonald's",
            "100",
            "",
            "«gatto»",
            "y-3".split_at(1).1,
        ] {
            assert_eq!(onset(word), Onset::Plain, "{word}");
        }
    }
}
