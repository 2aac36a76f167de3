//! From text to a tree of values that know who wrote them.

use std::collections::BTreeMap;

use toml::de::{DeTable, DeValue};

use super::problem::{Origin, Problems};

/// Longest configuration file, bytes.
pub(super) const MAX_BYTES: usize = 1 << 20;

/// Deepest nesting of tables and arrays; the configuration itself needs 5.
const MAX_DEPTH: usize = 16;

/// A value and who wrote it.
#[derive(Clone, Debug)]
pub(super) struct Node {
    pub origin: Origin,
    pub value: Value,
    /// The text of a scalar given by an override: `--set mqtt.password=1234` is text as well.
    pub raw: Option<String>,
}

#[derive(Clone, Debug)]
pub(super) enum Value {
    Bool(bool),
    Integer(i64),
    Float(f64),
    Text(String),
    Array(Vec<Node>),
    Table(BTreeMap<String, Entry>),
    /// Nothing the configuration uses: a date, or a number that does not fit.
    Other(String),
}

/// A key of a table.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    pub key_origin: Origin,
    pub node: Node,
}

impl Node {
    pub fn table(origin: Origin) -> Self {
        let value = Value::Table(BTreeMap::new());
        let raw = None;
        Self { origin, value, raw }
    }

    /// The value as a message shows it: scalars and short arrays, cut to one line.
    pub fn shown(&self) -> Option<String> {
        const MAX_CHARS: usize = 60;
        let text = match &self.value {
            Value::Bool(value) => value.to_string(),
            Value::Integer(value) => value.to_string(),
            Value::Float(value) => value.to_string(),
            Value::Text(value) => format!("{value:?}"),
            Value::Other(value) => value.clone(),
            Value::Array(items) => {
                let items: Option<Vec<_>> = items.iter().take(MAX_CHARS).map(Node::shown).collect();
                format!("[{}]", items?.join(", "))
            }
            Value::Table(_) => return None,
        };
        if text.chars().count() <= MAX_CHARS {
            return Some(text);
        }
        Some(text.chars().take(MAX_CHARS).chain(['…']).collect())
    }
}

/// Byte offsets of the line starts of a text.
struct Lines(Vec<usize>);

impl Lines {
    fn of(text: &str) -> Self {
        let breaks = text.bytes().enumerate().filter(|(_, byte)| *byte == b'\n');
        Self(
            std::iter::once(0)
                .chain(breaks.map(|(at, _)| at + 1))
                .collect(),
        )
    }

    /// The line, from 1, of a byte offset.
    fn at(&self, offset: usize) -> usize {
        self.0.partition_point(|start| *start <= offset)
    }
}

/// Reads TOML. Syntax errors are reported one per line; `None` when there was any.
pub(super) fn parse(text: &str, problems: &Problems) -> Option<Node> {
    if text.len() > MAX_BYTES {
        problems.in_file(None, format!("is larger than {MAX_BYTES} bytes"));
        return None;
    }
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let lines = Lines::of(text);
    let (document, errors) = DeTable::parse_recoverable(text);
    let mut last = None;
    for error in &errors {
        let line = error.span().map(|span| lines.at(span.start));
        // What follows an error on its line is mostly its consequence.
        if last != Some(line) {
            problems.in_file(line, format!("this is not TOML: {}", error.message()));
        }
        last = Some(line);
    }
    if !errors.is_empty() {
        return None;
    }
    let origin = |span: std::ops::Range<usize>| Origin::Line(lines.at(span.start));
    let mut deep = None;
    let value = table(document.get_ref(), &origin, MAX_DEPTH, &mut deep);
    if let Some(Origin::Line(line)) = deep {
        problems.in_file(
            Some(line),
            format!("is nested deeper than {MAX_DEPTH} levels"),
        );
        return None;
    }
    let (origin, raw) = (Origin::Line(1), None);
    Some(Node { origin, value, raw })
}

/// Reads one TOML value of an override.
pub(super) fn parse_value(text: &str, origin: &Origin) -> Option<Value> {
    let value = DeValue::parse(text).ok()?;
    let mut deep = None;
    let value = convert(value.get_ref(), &|_| origin.clone(), MAX_DEPTH, &mut deep);
    deep.is_none().then_some(value)
}

type OriginOf<'a> = &'a dyn Fn(std::ops::Range<usize>) -> Origin;

fn table(
    entries: &DeTable<'_>,
    origin: OriginOf,
    depth: usize,
    deep: &mut Option<Origin>,
) -> Value {
    let entry = |(key, value): (&toml::Spanned<_>, &toml::Spanned<DeValue<'_>>)| {
        let key_origin = origin(key.span());
        let text: &std::borrow::Cow<'_, str> = key.get_ref();
        let node = node(value, origin, depth, deep);
        (text.clone().into_owned(), Entry { key_origin, node })
    };
    Value::Table(entries.iter().map(entry).collect())
}

fn node(
    value: &toml::Spanned<DeValue<'_>>,
    origin: OriginOf,
    depth: usize,
    deep: &mut Option<Origin>,
) -> Node {
    let (at, raw) = (origin(value.span()), None);
    if depth == 0 {
        let value = Value::Other(String::new());
        *deep = Some(at.clone());
        return Node {
            origin: at,
            value,
            raw,
        };
    }
    let value = convert(value.get_ref(), origin, depth, deep);
    Node {
        origin: at,
        value,
        raw,
    }
}

fn convert(
    value: &DeValue<'_>,
    origin: OriginOf,
    depth: usize,
    deep: &mut Option<Origin>,
) -> Value {
    match value {
        DeValue::String(text) => Value::Text(text.clone().into_owned()),
        DeValue::Integer(number) => i64::from_str_radix(number.as_str(), number.radix())
            .map_or_else(|_| Value::Other(number.to_string()), Value::Integer),
        DeValue::Float(number) => number
            .as_str()
            .parse()
            .map_or_else(|_| Value::Other(number.to_string()), Value::Float),
        DeValue::Boolean(value) => Value::Bool(*value),
        DeValue::Datetime(time) => Value::Other(time.to_string()),
        DeValue::Array(items) => {
            let item = |item| node(item, origin, depth - 1, deep);
            Value::Array(items.iter().map(item).collect())
        }
        DeValue::Table(entries) => table(entries, origin, depth - 1, deep),
    }
}
