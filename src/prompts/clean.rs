//! Text from a configuration file or a broker, made fit to be a prompt.

use super::PromptError;

/// Most characters of a noun or a prompt, counted after whitespace was normalised.
pub const MAX_CHARS: usize = 256;

/// Normalises `text`: runs of whitespace become one space, the ends are trimmed, every kind of
/// apostrophe becomes `'`, a vowel followed by a combining grave or acute accent becomes one letter.
///
/// # Errors
/// [`PromptError::Invisible`] for control and invisible formatting characters (a zero-width space
/// would make two labels that look alike differ), [`PromptError::TooLong`] over [`MAX_CHARS`],
/// [`PromptError::Empty`] when no letter or digit is left.
pub fn clean(text: &str) -> Result<String, PromptError> {
    match normalise(text, MAX_CHARS)? {
        (_, true) => Err(PromptError::TooLong),
        (out, false) => worded(out),
    }
}

/// As [`clean`], but what is longer than `most` characters is cut behind a word.
///
/// # Errors
/// As [`clean`], without [`PromptError::TooLong`].
pub fn clean_to(text: &str, most: usize) -> Result<String, PromptError> {
    let (mut out, longer) = normalise(text, most)?;
    if longer {
        // The one character more tells whether the word before it is whole.
        match out.rfind(' ') {
            Some(word) => out.truncate(word),
            None => drop(out.pop()),
        }
    }
    worded(out)
}

/// The first `most` characters and one more where there are more, and whether there are.
fn normalise(text: &str, most: usize) -> Result<(String, bool), PromptError> {
    let mut out = String::with_capacity(text.len().min(4 * most));
    let mut chars = 0;
    let mut pending_space = false;
    for c in text.chars() {
        if c.is_whitespace() {
            pending_space = !out.is_empty();
            continue;
        }
        if c.is_control() || is_invisible(c) {
            return Err(PromptError::Invisible(c));
        }
        if let Some(composed) = compose(out.chars().next_back(), c).filter(|_| !pending_space) {
            out.pop();
            out.push(composed);
            continue;
        }
        if pending_space {
            out.push(' ');
            chars += 1;
            pending_space = false;
        }
        out.push(if is_apostrophe(c) { '\'' } else { c });
        chars += 1;
        if chars > most {
            return Ok((out, true));
        }
    }
    Ok((out, false))
}

fn worded(out: String) -> Result<String, PromptError> {
    if out.chars().any(char::is_alphanumeric) {
        Ok(out)
    } else {
        Err(PromptError::Empty)
    }
}

/// Zero-width, bidirectional and other formatting characters (Unicode category Cf, the ones that
/// occur in practice), and characters that have no meaning in interchange.
fn is_invisible(c: char) -> bool {
    matches!(c,
        '\u{AD}' | '\u{61C}' | '\u{180E}' | '\u{200B}'..='\u{200F}' | '\u{202A}'..='\u{202E}'
        | '\u{2060}'..='\u{206F}' | '\u{FEFF}' | '\u{FFF0}'..='\u{FFFF}'
        | '\u{E000}'..='\u{F8FF}' | '\u{E0000}'..='\u{E0FFF}')
}

fn is_apostrophe(c: char) -> bool {
    matches!(
        c,
        '\'' | '`' | '´' | '‘' | '’' | '‛' | 'ʹ' | 'ʼ' | 'ʻ' | '′' | '＇'
    )
}

/// The Italian accented letters, from their decomposed form.
fn compose(letter: Option<char>, mark: char) -> Option<char> {
    const GRAVE: [(char, char); 10] = [
        ('a', 'à'),
        ('e', 'è'),
        ('i', 'ì'),
        ('o', 'ò'),
        ('u', 'ù'),
        ('A', 'À'),
        ('E', 'È'),
        ('I', 'Ì'),
        ('O', 'Ò'),
        ('U', 'Ù'),
    ];
    const ACUTE: [(char, char); 10] = [
        ('a', 'á'),
        ('e', 'é'),
        ('i', 'í'),
        ('o', 'ó'),
        ('u', 'ú'),
        ('A', 'Á'),
        ('E', 'É'),
        ('I', 'Í'),
        ('O', 'Ó'),
        ('U', 'Ú'),
    ];
    let table = match mark {
        '\u{300}' => GRAVE,
        '\u{301}' => ACUTE,
        _ => return None,
    };
    let letter = letter?;
    table
        .iter()
        .find(|(base, _)| *base == letter)
        .map(|(_, accented)| *accented)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whitespace_apostrophes_and_accents_are_normalised() {
        assert_eq!(clean("  un’auto\t\u{a0}rossa \n").unwrap(), "un'auto rossa");
        assert_eq!(clean("caffe\u{300}").unwrap(), "caffè");
        assert_eq!(clean("una citta \u{300}").unwrap(), "una citta \u{300}");
    }

    #[test]
    fn invisible_characters_are_refused_and_named() {
        for c in [
            '\0', '\u{7}', '\u{1b}', '\u{200b}', '\u{202e}', '\u{feff}', '\u{85}',
        ] {
            let result = clean(&format!("una{c}mela"));
            if c.is_whitespace() {
                assert_eq!(result.unwrap(), "una mela");
            } else {
                assert_eq!(result, Err(PromptError::Invisible(c)));
            }
        }
    }

    #[test]
    fn nothing_but_signs_is_empty() {
        for text in ["", "   ", "'", "… !", "\n\t"] {
            assert_eq!(clean(text), Err(PromptError::Empty), "{text:?}");
        }
    }

    #[test]
    fn what_may_be_cut_is_cut_behind_a_word() {
        assert_eq!(clean_to("una mela rossa", 14).unwrap(), "una mela rossa");
        for most in 8..=13 {
            assert_eq!(clean_to("una mela rossa", most).unwrap(), "una mela");
        }
        assert_eq!(clean_to("una  mela\u{200b}", 5).unwrap(), "una");
        assert_eq!(clean_to(&"è".repeat(1000), 20).unwrap(), "è".repeat(20));
        assert_eq!(clean_to(&"… ".repeat(1000), 20), Err(PromptError::Empty));
    }

    #[test]
    fn the_length_limit_counts_characters_not_bytes() {
        assert_eq!(
            clean(&"è".repeat(MAX_CHARS)).unwrap().chars().count(),
            MAX_CHARS
        );
        assert_eq!(clean(&"è".repeat(MAX_CHARS + 1)), Err(PromptError::TooLong));
        assert_eq!(clean(&"a".repeat(10_000_000)), Err(PromptError::TooLong));
    }
}
