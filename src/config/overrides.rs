//! `--set key=value` and `VEDETTA__KEY=value`, merged into the tree before it is checked.

use super::environment::Environment;
use super::problem::{Origin, Problems};
use super::source::{Entry, Node, Value, parse_value};

/// Prefix of the variables that override keys; `__` separates levels.
const PREFIX: &str = "VEDETTA__";

/// Most levels of an override's key.
const MAX_LEVELS: usize = 8;

/// Applies the variables of `environment`, then `sets`; the later one wins.
pub(super) fn apply(
    tree: &mut Node,
    environment: &Environment,
    sets: &[String],
    problems: &Problems,
) {
    for (variable, value) in &environment.variables {
        let Some(key) = variable.strip_prefix(PREFIX) else {
            continue;
        };
        // Compose files pass variables that nobody set as empty ones.
        if value.is_empty() {
            continue;
        }
        let key = key.to_lowercase().replace("__", ".");
        set(
            tree,
            &key,
            value,
            Origin::Override(variable.clone()),
            problems,
        );
    }
    for text in sets {
        match text.split_once('=') {
            Some((key, value)) => {
                let key = key.trim();
                let origin = Origin::Override(format!("--set {key}"));
                set(tree, key, value.trim(), origin, problems);
            }
            None => problems.at_key(
                // It may be a secret that was mistyped.
                Origin::Override("--set".to_owned()),
                String::new(),
                "must be key=value, for example mqtt.host=192.168.1.10",
            ),
        }
    }
}

fn set(tree: &mut Node, key: &str, text: &str, origin: Origin, problems: &Problems) {
    let levels: Vec<&str> = key.split('.').collect();
    if levels.len() > MAX_LEVELS || levels.iter().any(|level| level.is_empty()) {
        let legal = "must be a dotted key, for example mqtt.host or camera.0.rate_fps";
        problems.at_key(origin, key.to_owned(), legal);
        return;
    }
    let mut node = tree;
    for (n, level) in levels.iter().enumerate() {
        let numbered = levels
            .get(n + 1)
            .is_some_and(|next| next.parse::<usize>().is_ok());
        match step(node, level, numbered, &origin) {
            Ok(next) => node = next,
            Err(message) => {
                problems.at_key(origin, levels[..=n].join("."), message);
                return;
            }
        }
    }
    *node = Node {
        // What is no TOML value is text: hosts and names need no quotes on a command line.
        value: parse_value(text, &origin).unwrap_or_else(|| Value::Text(text.to_owned())),
        raw: Some(text.to_owned()),
        origin,
    };
}

/// The child of `node` named `level`, made when it is missing: as a list when a number follows.
fn step<'t>(
    node: &'t mut Node,
    level: &str,
    numbered: bool,
    origin: &Origin,
) -> Result<&'t mut Node, String> {
    let absent = || {
        let mut node = Node::table(origin.clone());
        if numbered {
            node.value = Value::Array(Vec::new());
        }
        node
    };
    match &mut node.value {
        Value::Table(entries) => {
            let entry = entries.entry(level.to_owned()).or_insert_with(|| Entry {
                key_origin: origin.clone(),
                node: absent(),
            });
            Ok(&mut entry.node)
        }
        Value::Array(items) => {
            let index = match level.parse::<usize>() {
                Ok(index) => Some(index),
                Err(_) => items.iter().position(|item| has_id(item, level)),
            };
            match index {
                Some(index) if index < items.len() => Ok(&mut items[index]),
                Some(index) if index == items.len() => {
                    items.push(absent());
                    Ok(&mut items[index])
                }
                _ => Err(format!(
                    "there is no such entry; name one by its id or by its number, 0 to {}",
                    items.len()
                )),
            }
        }
        _ => Err("is a value, not a table".to_owned()),
    }
}

/// Whether a table has this id; variables cannot hold a `-`, so `_` stands for it.
fn has_id(node: &Node, level: &str) -> bool {
    let Value::Table(entries) = &node.value else {
        return false;
    };
    let id = entries.get("id").map(|entry| &entry.node.value);
    matches!(id, Some(Value::Text(id)) if id.replace('-', "_") == level.replace('-', "_"))
}
