//! Nouns to articles, whole prompt lists, and what no input may do.

use proptest::prelude::*;

use super::lexicon::{key_of, sections};
use super::*;
use crate::config::Negatives;

fn noun(text: &str) -> PromptSource {
    PromptSource::Noun(text.to_owned())
}

/// `cases.txt`: what is typed, what is shown, what follows *una foto di*.
#[test]
fn nouns_get_their_article() {
    let mut seen = 0;
    for (_, line) in sections(include_str!("cases.txt")) {
        let mut fields = line.split('|').map(str::trim);
        let (input, shown) = (fields.next().unwrap(), fields.next().unwrap());
        let after_di = match fields.next().unwrap_or(shown) {
            contracted if contracted.starts_with('=') => contracted[1..].to_owned(),
            plain => format!("di {plain}"),
        };
        let prompts = for_label(&noun(input)).unwrap();
        assert_eq!(prompts[0], shown, "{input}");
        assert!(
            prompts.contains(&format!("una foto {after_di}")),
            "{input}: {prompts:#?}"
        );
        assert_eq!(display(&noun(input)), shown);
        seen += 1;
    }
    assert!(seen >= 187, "{seen} cases");
}

/// `golden.txt` holds whole lists for people to read: `> input`, then its prompts.
#[test]
fn prompt_lists_are_as_committed() {
    let golden = include_str!("golden.txt");
    let mut rendered = String::new();
    for line in golden.lines() {
        if line.starts_with('#') {
            rendered.push_str(&format!("{line}\n"));
        } else if let Some(input) = line.strip_prefix("> ") {
            let prompts = for_label(&noun(input)).unwrap().join("\n");
            rendered.push_str(&format!("\n> {input}\n{prompts}\n"));
        }
    }
    assert!(rendered == golden, "golden.txt should now be:\n{rendered}");
}

#[test]
fn whole_prompts_are_used_as_they_are() {
    let source = PromptSource::Prompts(vec![
        "  scaffale   mezzo vuoto".into(),
        "Uno scaffale".into(),
        "uno scaffale".into(),
        "un’auto".into(),
    ]);
    let prompts = for_label(&source).unwrap();
    assert_eq!(prompts, ["scaffale mezzo vuoto", "Uno scaffale", "un'auto"]);
    assert_eq!(display(&source), "scaffale mezzo vuoto");
}

#[test]
fn what_cannot_be_a_prompt_is_refused_with_the_reason() {
    let many = |n: usize| PromptSource::Prompts((0..n).map(|i| format!("prova {i}")).collect());
    assert_eq!(for_label(&noun("")), Err(PromptError::Empty));
    assert_eq!(
        for_label(&PromptSource::Prompts(vec![])),
        Err(PromptError::Empty)
    );
    let with_empty = PromptSource::Prompts(vec!["una mela".into(), " ".into()]);
    assert_eq!(for_label(&with_empty), Err(PromptError::Empty));
    assert_eq!(
        for_label(&noun("una\0mela")),
        Err(PromptError::Invisible('\0'))
    );
    assert_eq!(
        for_label(&noun(&"mela ".repeat(100))),
        Err(PromptError::TooLong)
    );
    assert!(for_label(&many(MAX_PROMPTS)).is_ok());
    assert_eq!(
        for_label(&many(MAX_PROMPTS + 1)),
        Err(PromptError::TooMany(MAX_PROMPTS + 1))
    );
    let message = PromptError::Invisible('\u{202e}').to_string();
    assert!(message.contains("U+202E"), "{message}");
}

#[test]
fn a_refused_source_is_still_shown_without_its_control_characters() {
    assert_eq!(display(&noun("una\u{7}mela")), "unamela");
    assert_eq!(display(&noun("")), "");
    assert_eq!(display(&noun(&"x".repeat(1000))).chars().count(), MAX_CHARS);
}

#[test]
fn negatives_are_the_built_in_ones_then_the_extra_ones_each_once() {
    let of = |builtin, extra: &[&str]| {
        negatives(&Negatives {
            builtin,
            extra: extra.iter().map(|&text| text.to_owned()).collect(),
        })
    };
    let builtin = of(true, &[]);
    assert!((12..=24).contains(&builtin.len()), "{}", builtin.len());
    assert!(
        builtin
            .iter()
            .all(|text| clean(text).as_deref() == Ok(text.as_str()))
    );
    let extended = of(
        true,
        &["una vetrina", "UNA FOTO", "\u{200b}", " una  vetrina "],
    );
    assert_eq!(extended.len(), builtin.len() + 1);
    assert_eq!(extended.last().unwrap(), "una vetrina");
    assert_eq!(of(false, &["una vetrina"]), ["una vetrina"]);
    assert!(of(false, &[]).is_empty());
}

#[test]
fn a_negative_that_is_a_label_is_no_negative() {
    let wanted = [noun("strada"), noun("gatto")].map(|source| for_label(&source).unwrap());
    let all = Negatives {
        builtin: true,
        extra: vec!["un gatto".into()],
    };
    let left = without(negatives(&all), &wanted.concat());
    assert_eq!(left.len(), negatives(&all).len() - 2);
    assert!(!left.contains(&"una foto di una strada".to_owned()));
}

#[test]
fn the_word_lists_are_well_formed() {
    let mut seen = std::collections::HashSet::new();
    let classes = ["m", "f", "mf", "m=", "f=", "m~", "f~", "m+", "f+"];
    for (section, line) in sections(include_str!("nouns.txt")) {
        if section == "irregular" {
            let fields: Vec<&str> = line.split_whitespace().collect();
            let genders = fields.get(1).zip(fields.get(3));
            assert!(
                fields.len() == 4
                    && genders.is_some_and(|(a, b)| "mf".contains(a) && "mf".contains(b)),
                "{line}"
            );
            assert!(seen.insert(fields[0]), "twice: {line}");
            continue;
        }
        assert!(classes.contains(&section), "section {section}");
        for word in line.split_whitespace() {
            assert!(seen.insert(word), "twice: {word}");
            let key = key_of(&word.replace('_', " "));
            assert!(key.split(' ').count() <= lexicon::MAX_ENTRY_WORDS, "{word}");
            assert!(lexicon::noun(&key).is_some(), "{word}");
        }
    }
    assert!(seen.len() > 2000, "{} nouns", seen.len());
    for (section, line) in sections(include_str!("adjectives.txt")) {
        assert!(
            ["o", "e", "before", "short"].contains(&section),
            "section {section}"
        );
        for word in line.split_whitespace().filter(|_| section == "before") {
            assert!(
                lexicon::adjective(word).is_some(),
                "{word} is in no other section"
            );
        }
    }
    for (section, template) in sections(TEMPLATES) {
        assert!(["noun", "clause"].contains(&section), "section {section}");
        assert_eq!(template.matches('{').count(), 1, "{template}");
    }
}

proptest! {
    #[test]
    fn no_text_makes_it_panic_and_all_prompts_are_clean(text in "\\PC{0,80}|[ -~’à-ù]{0,300}|.{0,40}") {
        let source = noun(&text);
        let _ = display(&source);
        if let Ok(prompts) = for_label(&source) {
            prop_assert!(!prompts.is_empty());
            for prompt in &prompts {
                prop_assert!(!prompt.chars().any(char::is_control));
                prop_assert!(!prompt.contains("  "));
                prop_assert!(prompt.chars().count() <= MAX_CHARS + 64);
            }
        }
    }

    #[test]
    fn any_words_of_the_lists_make_a_prompt(
        words in prop::collection::vec(prop::sample::select(vec![
            "un", "un'", "l'", "dell'", "bel", "bell'", "grande", "vecchia", "il", "degli", "che", "è",
            "di", "scaffale", "auto", "fumo", "scaffali", "pesce", "spada", "insegnante", "d'", "e",
            "3", "TV", "-", "porta-", "'", "qualcuno", "vicino", "citta'", ".",
        ]), 1..8),
        spaced in any::<bool>(),
    ) {
        let text = words.join(if spaced { " " } else { "" });
        if let Ok(cleaned) = clean(&text) {
            let prompts = for_label(&noun(&cleaned)).unwrap();
            prop_assert!(prompts.len() >= 3, "{prompts:?}");
        }
    }

    #[test]
    fn giving_the_article_or_leaving_it_out_is_the_same(word in "[a-z]{2,12}") {
        let bare = for_label(&noun(&word)).unwrap();
        let given = for_label(&noun(&bare[0])).unwrap();
        prop_assert_eq!(&bare[0], &given[0]);
    }
}
