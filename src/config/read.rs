//! From the tree to the raw configuration: a serde deserializer that reports every wrong type and
//! unknown key instead of stopping at the first.

use std::fmt;
use std::marker::PhantomData;

use serde::de::value::StrDeserializer;
use serde::de::{self, DeserializeSeed, IntoDeserializer, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer, forward_to_deserialize_any};

use super::problem::{Place, PlaceId, Problems, nearest};
use super::source::{Entry, Node, Value};

/// A value of the raw configuration and where it stands. The value is `None` when it had the wrong
/// type, which was reported already.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Field<T> {
    pub place: PlaceId,
    pub value: Option<T>,
}

/// A key that may be absent.
pub(super) type Key<T> = Option<Field<T>>;

/// A field that was not read from anywhere.
pub(super) fn key<T>(value: T) -> Key<T> {
    let (place, value) = (PlaceId::default(), Some(value));
    Some(Field { place, value })
}

/// Reads `T` from the tree.
pub(super) fn read<'de, T: Deserialize<'de>>(tree: &Node, problems: &Problems) -> Option<T> {
    let reader = Reader {
        node: tree,
        key: String::new(),
        problems,
    };
    T::deserialize(reader).ok()
}

impl<T: Serialize> Serialize for Field<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.value.serialize(serializer)
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Field<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Located<T>(PhantomData<T>);

        impl<'de, T: Deserialize<'de>> Visitor<'de> for Located<T> {
            type Value = Field<T>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a place and a value")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Field<T>, A::Error> {
                let missing = || de::Error::custom("no place");
                let place = PlaceId(seq.next_element()?.ok_or_else(missing)?);
                // The reader reported a failure where it happened; the neighbours are read on.
                let value = seq.next_element().unwrap_or(None);
                Ok(Field { place, value })
            }
        }

        deserializer.deserialize_tuple_struct("Field", 2, Located(PhantomData))
    }
}

/// A failure that was reported already.
#[derive(Debug)]
pub(super) struct Reported;

impl fmt::Display for Reported {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the value has the wrong type")
    }
}

impl std::error::Error for Reported {}

impl de::Error for Reported {
    fn custom<T: fmt::Display>(_: T) -> Self {
        Self
    }
}

struct Reader<'t> {
    node: &'t Node,
    key: String,
    problems: &'t Problems,
}

impl<'t> Reader<'t> {
    fn child(&self, name: &str, node: &'t Node) -> Self {
        let key = if self.key.is_empty() {
            name.to_owned()
        } else {
            format!("{}.{name}", self.key)
        };
        let problems = self.problems;
        Self {
            node,
            key,
            problems,
        }
    }

    fn place(&self) -> PlaceId {
        let secret = self.key.ends_with("password");
        self.problems.add_place(Place {
            origin: self.node.origin.clone(),
            key: self.key.clone(),
            shown: self.node.shown().filter(|_| !secret),
        })
    }

    fn wrong<T>(&self, legal: &str) -> Result<T, Reported> {
        self.problems.at(self.place(), legal);
        Err(Reported)
    }
}

impl<'de> Deserializer<'de> for Reader<'_> {
    type Error = Reported;

    fn deserialize_any<V: Visitor<'de>>(self, _: V) -> Result<V::Value, Reported> {
        self.wrong("cannot be read")
    }

    fn deserialize_bool<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Reported> {
        match self.node.value {
            Value::Bool(value) => visitor.visit_bool(value),
            _ => self.wrong("must be true or false"),
        }
    }

    fn deserialize_f64<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Reported> {
        match self.node.value {
            Value::Float(value) => visitor.visit_f64(value),
            #[expect(clippy::cast_precision_loss, reason = "no legal value is that large")]
            Value::Integer(value) => visitor.visit_f64(value as f64),
            _ => self.wrong("must be a number"),
        }
    }

    fn deserialize_u64<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Reported> {
        match self.node.value {
            Value::Integer(value) if value >= 0 => visitor.visit_u64(value.unsigned_abs()),
            _ => self.wrong("must be a whole number, 0 or more"),
        }
    }

    fn deserialize_string<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Reported> {
        match (&self.node.value, &self.node.raw) {
            (Value::Text(text), _) => visitor.visit_str(text),
            (_, Some(raw)) => visitor.visit_str(raw),
            _ => self.wrong("must be text in quotes"),
        }
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Reported> {
        match &self.node.value {
            Value::Array(items) => visitor.visit_seq(Items {
                rest: items.iter(),
                of: self,
            }),
            Value::Table(_) => {
                let name = &self.key;
                self.wrong(&format!("is a list: write [[{name}]] instead of [{name}]"))
            }
            _ => self.wrong("must be a list in [ ]"),
        }
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Reported> {
        let Value::Table(entries) = &self.node.value else {
            let name = &self.key;
            return self.wrong(&match self.node.value {
                Value::Array(_) => format!("is one table: write [{name}] instead of [[{name}]]"),
                _ => format!("is a table: write [{name}] and its keys on lines of their own"),
            });
        };
        for (name, entry) in entries
            .iter()
            .filter(|(name, _)| !fields.contains(&name.as_str()))
        {
            let name: String = name.chars().take(64).collect();
            let legal = fields.join(", ");
            let message = match nearest(&name, fields) {
                Some(near) => format!("unknown key; did you mean {near}? Legal here: {legal}"),
                None => format!("unknown key; legal here: {legal}"),
            };
            let key = self.child(&name, self.node).key;
            self.problems.at_key(entry.key_origin.clone(), key, message);
        }
        visitor.visit_map(Entries {
            rest: entries.iter(),
            of: self,
            fields,
            value: None,
        })
    }

    fn deserialize_tuple_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: usize,
        visitor: V,
    ) -> Result<V::Value, Reported> {
        let place = Some(self.place());
        let of = Some(self);
        visitor.visit_seq(PlaceAndValue { place, of })
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Reported> {
        visitor.visit_some(self)
    }

    forward_to_deserialize_any! {
        i8 i16 i32 i64 i128 u8 u16 u32 u128 f32 char str bytes byte_buf unit unit_struct
        newtype_struct tuple map enum identifier ignored_any
    }
}

struct PlaceAndValue<'t> {
    place: Option<PlaceId>,
    of: Option<Reader<'t>>,
}

impl<'de> SeqAccess<'de> for PlaceAndValue<'_> {
    type Error = Reported;

    fn next_element_seed<S: DeserializeSeed<'de>>(
        &mut self,
        seed: S,
    ) -> Result<Option<S::Value>, Reported> {
        if let Some(PlaceId(place)) = self.place.take() {
            return seed.deserialize(place.into_deserializer()).map(Some);
        }
        self.of
            .take()
            .map(|reader| seed.deserialize(reader))
            .transpose()
    }
}

struct Items<'t> {
    rest: std::slice::Iter<'t, Node>,
    of: Reader<'t>,
}

impl<'de> SeqAccess<'de> for Items<'_> {
    type Error = Reported;

    fn next_element_seed<S: DeserializeSeed<'de>>(
        &mut self,
        seed: S,
    ) -> Result<Option<S::Value>, Reported> {
        let Some(node) = self.rest.next() else {
            return Ok(None);
        };
        let (key, problems) = (self.of.key.clone(), self.of.problems);
        let item = Reader {
            node,
            key,
            problems,
        };
        seed.deserialize(item).map(Some)
    }
}

struct Entries<'t> {
    rest: std::collections::btree_map::Iter<'t, String, Entry>,
    of: Reader<'t>,
    fields: &'static [&'static str],
    value: Option<Reader<'t>>,
}

impl<'de> MapAccess<'de> for Entries<'_> {
    type Error = Reported;

    fn next_key_seed<S: DeserializeSeed<'de>>(
        &mut self,
        seed: S,
    ) -> Result<Option<S::Value>, Reported> {
        let fields = self.fields;
        let Some((name, entry)) = self.rest.find(|(name, _)| fields.contains(&name.as_str()))
        else {
            return Ok(None);
        };
        self.value = Some(self.of.child(name, &entry.node));
        let name: StrDeserializer<'_, Reported> = name.as_str().into_deserializer();
        seed.deserialize(name).map(Some)
    }

    fn next_value_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<S::Value, Reported> {
        seed.deserialize(self.value.take().ok_or(Reported)?)
    }
}
