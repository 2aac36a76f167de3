//! The Italian names in `models/data`: complete, unique, and with the article the rules give.

use std::collections::{HashMap, HashSet};

use vedetta::config::PromptSource;
use vedetta::prompts;

const IMAGENET: &str = include_str!("../models/data/imagenet_it.tsv");
const EVERYDAY: &str = include_str!("../models/data/everyday_it.tsv");

/// Names whose article the rules do not find, because the word alone does not tell.
const NOT_BY_RULE: [&str; 10] = [
    "un lama",            // una lama is a blade
    "una Ford modello T", // the gender of a car in a maker's name
    "una monovolume",     // both genders are used
    "un jeans",           // the rules take it for a plural
    "una cipria",         // the rest are mass nouns, here one piece or dish of it
    "una stoffa di velluto",
    "un velluto",
    "un brodo ristretto",
    "una pasta per il pane",
    "un vino rosso",
];

fn rows(text: &'static str) -> impl Iterator<Item = Vec<&'static str>> {
    text.lines().skip(1).map(|line| line.split('\t').collect())
}

/// Splits `una mela` into its article and its noun.
fn split_article(name: &str) -> Option<(&str, &str)> {
    ["un'", "un ", "uno ", "una "]
        .into_iter()
        .find_map(|article| Some((article, name.strip_prefix(article)?)))
}

fn all_names() -> Vec<&'static str> {
    let imagenet = rows(IMAGENET).flat_map(|row| {
        let synonyms = row[4].split(';').filter(|synonym| !synonym.is_empty());
        std::iter::once(row[3]).chain(synonyms).collect::<Vec<_>>()
    });
    imagenet.chain(rows(EVERYDAY).map(|row| row[0])).collect()
}

#[test]
fn all_thousand_classes_are_there_in_logit_order_each_with_its_own_name() {
    let mut names = HashSet::new();
    let mut previous = "";
    let mut count = 0;
    for (index, row) in rows(IMAGENET).enumerate() {
        assert_eq!(row.len(), 5, "{row:?}");
        assert_eq!(row[0].parse::<usize>().unwrap(), index);
        assert!(
            row[1] > previous && row[1].starts_with('n') && row[1].len() == 9,
            "{}",
            row[1]
        );
        assert!(names.insert(row[3]), "{} twice", row[3]);
        previous = row[1];
        count += 1;
    }
    assert_eq!(count, 1000);
}

#[test]
fn the_forty_everyday_things_share_no_class() {
    let mut things = HashMap::new();
    let mut count = 0;
    for row in rows(EVERYDAY) {
        for index in row[1].split(',') {
            let index: usize = index.parse().unwrap();
            assert!(index < 1000, "{}: {index}", row[0]);
            let earlier = things.insert(index, row[0]);
            assert!(
                earlier.is_none(),
                "{index} is {} and {}",
                row[0],
                earlier.unwrap_or_default()
            );
        }
        count += 1;
    }
    assert_eq!(count, 40);
}

#[test]
fn every_name_is_a_clean_phrase_with_an_article() {
    for name in all_names() {
        assert_eq!(prompts::clean(name).as_deref(), Ok(name));
        assert!(split_article(name).is_some(), "{name}");
    }
}

#[test]
fn the_rules_give_every_name_the_article_a_person_wrote() {
    let mut checked = 0;
    for name in all_names()
        .into_iter()
        .filter(|name| !NOT_BY_RULE.contains(name))
    {
        let (_, noun) = split_article(name).unwrap();
        let shown = prompts::display(&PromptSource::Noun(noun.to_owned()));
        assert_eq!(shown.to_lowercase(), name.to_lowercase());
        checked += 1;
    }
    assert!(checked > 1600, "{checked}");
}
