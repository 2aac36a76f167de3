//! The example configuration against the code: it cannot drift.

use std::collections::BTreeSet;

use serde::de::value::Error;
use serde::{Deserialize, Deserializer, de, forward_to_deserialize_any};

use super::super::{Problem, raw};
use super::{MINIMAL, parse};

const EXAMPLE: &str = include_str!("../../../systemd/config.example.toml");
/// What the Debian package installs.
const STARTER: &str = include_str!("../../../cross/debian/vedetta.toml");

/// The example with what stands behind `marker` brought to life: lines that read as a key or table.
fn revived(marker: &str) -> String {
    let live = |line: &str| {
        let body = line.strip_prefix(marker)?;
        let key = body.split_once(" = ").map(|(key, _)| key);
        let is_key = key.is_some_and(|key| key.chars().all(|c| c.is_ascii_lowercase() || c == '_'));
        (is_key || marker != "# " && body.starts_with('[')).then(|| body.to_owned())
    };
    let lines = EXAMPLE.lines();
    lines
        .map(|line| live(line).unwrap_or_else(|| line.to_owned()) + "\n")
        .collect()
}

#[test]
fn the_example_is_a_configuration() {
    parse(EXAMPLE).unwrap();
}

#[test]
fn the_packaged_configuration_is_one_as_it_comes() {
    parse(STARTER).unwrap();
}

#[test]
fn every_default_in_the_example_is_the_default_of_the_code() {
    let revived = revived("# ");
    assert_ne!(revived, EXAMPLE);
    assert_eq!(parse(&revived).unwrap(), parse(MINIMAL).unwrap());
}

#[test]
fn every_key_without_a_default_shows_a_legal_value() {
    let lines: Vec<&str> = EXAMPLE.lines().collect();
    let marked = |line: &str| line.strip_prefix("#: ").map(str::to_owned);
    let keys = lines
        .iter()
        .enumerate()
        .filter(|(_, line)| line.starts_with("#: "));
    for (chosen, line) in keys {
        let live = |(n, other): (usize, &&str)| {
            let table = other.starts_with("#: [") && line.contains("_file");
            let revived = marked(other).filter(|_| n == chosen || table);
            revived.unwrap_or_else(|| (*other).to_owned()) + "\n"
        };
        let text: String = lines.iter().enumerate().map(live).collect();
        // Some need a partner, a file or the absence of another key: those messages are right.
        let Err(error) = parse(&text) else { continue };
        let alone = [
            "needs ",
            "exclude each other",
            "CREDENTIALS_DIRECTORY",
            "only goes with",
        ];
        let explained = |problem: &Problem| alone.iter().any(|why| problem.message.contains(why));
        assert!(error.problems.iter().all(explained), "{line}\n{error}");
    }
}

#[test]
fn every_key_is_in_the_example_and_every_key_of_the_example_is_known() {
    let mut keys: Vec<(String, String)> = Vec::new();
    let mut section = String::new();
    for line in EXAMPLE.lines() {
        let body = line
            .strip_prefix("#: ")
            .or(line.strip_prefix("# "))
            .unwrap_or(line);
        let live = body == line || line.starts_with("#: ");
        if live && body.starts_with('[') {
            section = body.trim_matches(['[', ']']).to_owned();
        }
        let key = body.split_once(" = ").map(|(key, _)| key.to_owned());
        let is_name = |key: &String| key.chars().all(|c| c.is_ascii_lowercase() || c == '_');
        keys.extend(key.filter(is_name).map(|key| (section.clone(), key)));
    }
    let found: BTreeSet<_> = keys.into_iter().collect();
    let mut known = BTreeSet::new();
    let sections: [(&str, &[&str]); 14] = [
        ("", fields::<raw::Config>()),
        ("model", fields::<raw::Model>()),
        ("update", fields::<raw::Update>()),
        ("mqtt", fields::<raw::Mqtt>()),
        ("mqtt.tls", fields::<raw::Tls>()),
        ("outbox", fields::<raw::Outbox>()),
        ("heat", fields::<raw::Heat>()),
        ("decision", fields::<raw::Decision>()),
        ("negatives", fields::<raw::Negatives>()),
        ("label", fields::<raw::Label>()),
        ("camera", fields::<raw::Camera>()),
        ("camera.gate", fields::<raw::Gate>()),
        ("camera.baseline", fields::<raw::Baseline>()),
        ("camera.zone", fields::<raw::Zone>()),
    ];
    let is_section = |name: &str| sections.iter().any(|(section, _)| *section == name);
    for (section, keys) in sections {
        for key in keys {
            let below = if section.is_empty() {
                (*key).to_owned()
            } else {
                format!("{section}.{key}")
            };
            if !is_section(&below) {
                known.insert((section.to_owned(), (*key).to_owned()));
            }
        }
    }
    assert_eq!(found, known);
}

/// The keys of a struct, as serde sees them.
fn fields<T: for<'de> Deserialize<'de>>() -> &'static [&'static str] {
    struct Spy<'a>(&'a mut &'static [&'static str]);

    impl<'de> Deserializer<'de> for Spy<'_> {
        type Error = Error;

        fn deserialize_any<V: de::Visitor<'de>>(self, _: V) -> Result<V::Value, Error> {
            Err(de::Error::custom("not a struct"))
        }

        fn deserialize_struct<V: de::Visitor<'de>>(
            self,
            _: &'static str,
            fields: &'static [&'static str],
            _: V,
        ) -> Result<V::Value, Error> {
            *self.0 = fields;
            Err(de::Error::custom("seen enough"))
        }

        forward_to_deserialize_any! {
            bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf
            option unit unit_struct newtype_struct seq tuple tuple_struct map enum identifier
            ignored_any
        }
    }

    let mut fields: &'static [&'static str] = &[];
    let refused = T::deserialize(Spy(&mut fields));
    assert!(refused.is_err() && !fields.is_empty());
    fields
}
