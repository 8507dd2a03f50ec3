//! The values that an account's messages hold, by the names of their fields; and for each a twin that nobody has.
//!
//! What is done with a value of another account is done with its twin as well: where the answers differ, they tell what
//! exists.

use std::collections::{BTreeMap, HashMap};

use bytes::Bytes;
use prost_reflect::{DynamicMessage, Kind, Value};

use crate::chance::Chance;
use crate::schema::Schema;

/// Values of one name that are remembered.
const VALUES_MAX: usize = 16;
/// The least bytes of a value that cannot stand somewhere by chance.
const TELLING_BYTES_MIN: usize = 12;

/// What one account's messages hold.
#[derive(Clone, Debug, Default)]
pub struct Known {
    values: BTreeMap<String, Vec<Value>>,
}

/// A value as it is compared.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Plain {
    /// Bytes.
    Bytes(Bytes),
    /// A text.
    Text(String),
    /// A number of 32 bits.
    Short(u32),
    /// A number of 64 bits.
    Long(u64),
}

impl Plain {
    /// What may be swapped; nothing of truths, choices and messages.
    #[must_use]
    pub fn of(value: &Value) -> Option<Self> {
        if let Value::Bytes(bytes) = value {
            Some(Self::Bytes(bytes.clone()))
        } else if let Value::String(text) = value {
            Some(Self::Text(text.clone()))
        } else if let Value::U32(number) = value {
            Some(Self::Short(*number))
        } else if let Value::U64(number) = value {
            Some(Self::Long(*number))
        } else {
            None
        }
    }

    /// The bytes by which it would be recognised wherever it stands.
    #[must_use]
    pub fn telling(&self) -> Option<&[u8]> {
        let bytes = match self {
            Self::Bytes(bytes) => bytes.as_ref(),
            Self::Text(text) => text.as_bytes(),
            Self::Short(_) | Self::Long(_) => return None,
        };
        (bytes.len() >= TELLING_BYTES_MIN).then_some(bytes)
    }

    /// Whether both could stand in the same field and look alike.
    #[must_use]
    pub fn is_like(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Bytes(one), Self::Bytes(other)) => one.len() == other.len(),
            (Self::Text(one), Self::Text(other)) => one.len() == other.len(),
            (Self::Short(_), Self::Short(_)) | (Self::Long(_), Self::Long(_)) => true,
            (Self::Bytes(_) | Self::Text(_) | Self::Short(_) | Self::Long(_), _) => false,
        }
    }
}

impl From<Plain> for Value {
    fn from(plain: Plain) -> Self {
        match plain {
            Plain::Bytes(bytes) => Self::Bytes(bytes),
            Plain::Text(text) => Self::String(text),
            Plain::Short(number) => Self::U32(number),
            Plain::Long(number) => Self::U64(number),
        }
    }
}

impl Known {
    /// Notes a value under the name of its field.
    pub fn note(&mut self, field: &str, value: Value) {
        let values = self.values.entry(field.to_owned()).or_default();
        if !values.contains(&value) && values.len() < VALUES_MAX {
            values.push(value);
        }
    }

    /// Notes a value in place of all that the name had.
    pub fn set(&mut self, field: &str, value: Value) {
        self.values.insert(field.to_owned(), vec![value]);
    }

    /// Notes bytes.
    pub fn bytes(&mut self, field: &str, bytes: &[u8]) {
        self.note(field, Value::Bytes(Bytes::copy_from_slice(bytes)));
    }

    /// Notes everything in a message.
    ///
    /// # Errors
    /// When something signed in it does not decode.
    pub fn harvest(&mut self, schema: &Schema, message: &DynamicMessage) -> anyhow::Result<()> {
        schema.walk(message, &mut Vec::new(), &mut |path, value| {
            let empty = Plain::of(value).is_none_or(|plain| is_empty(&plain));
            if let (Some(field), false) = (path.last(), empty) {
                self.note(field.name(), value.clone());
            }
        })
    }

    /// A value for a field: one of that name, or one that stands for a field which this account never filled.
    #[must_use]
    pub fn value(&self, field: &str, kind: &Kind) -> Value {
        let named = self.values.get(field).and_then(|values| values.iter().find(|value| value.is_valid(kind)));
        named.cloned().unwrap_or_else(|| filler(kind))
    }

    /// All values of that name.
    #[must_use]
    pub fn all(&self, field: &str) -> Vec<Plain> {
        self.values.get(field).into_iter().flatten().filter_map(Plain::of).collect()
    }

    /// The name under which a value is known.
    #[must_use]
    pub fn name_of(&self, value: &[u8]) -> Option<&str> {
        let has = |values: &[Value]| values.iter().filter_map(Plain::of).any(|plain| plain.telling() == Some(value));
        self.values.iter().find(|(_, values)| has(values)).map(|(name, _)| name.as_str())
    }

    /// The name under which a value is known, and which of that name it is.
    #[must_use]
    pub fn place_of(&self, value: &Plain) -> Option<(String, usize)> {
        self.values.keys().find_map(|name| {
            let index = self.all(name).iter().position(|one| one == value)?;
            Some((name.clone(), index))
        })
    }

    /// Every value.
    pub fn every(&self) -> impl Iterator<Item = Plain> {
        self.values.values().flatten().filter_map(Plain::of)
    }
}

fn is_empty(plain: &Plain) -> bool {
    match plain {
        Plain::Bytes(bytes) => bytes.is_empty(),
        Plain::Text(text) => text.is_empty(),
        Plain::Short(number) => *number == 0,
        Plain::Long(number) => *number == 0,
    }
}

fn filler(kind: &Kind) -> Value {
    if matches!(kind, Kind::Bytes) { Value::Bytes(Bytes::from_static(&[0x5a; 16])) } else { kind.default_value() }
}

/// The twins of values: alike in kind and size, and nobody's.
#[derive(Debug)]
pub struct Twins {
    twins: HashMap<Plain, Plain>,
    chance: Chance,
}

impl Twins {
    /// Twins that a seed decides.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self { twins: HashMap::new(), chance: Chance::new(seed) }
    }

    /// The twin of a value, always the same.
    pub fn of(&mut self, value: &Plain) -> Plain {
        if let Some(twin) = self.twins.get(value) {
            return twin.clone();
        }
        let twin = match value {
            Plain::Bytes(bytes) => Plain::Bytes(Bytes::from(self.chance.many(bytes.len()))),
            Plain::Text(text) => Plain::Text(self.text(text.len())),
            // Close by, so that it is on the same side of every other number.
            Plain::Short(number) => Plain::Short(number ^ 1),
            Plain::Long(number) => Plain::Long(number ^ 1),
        };
        self.twins.insert(value.clone(), twin.clone());
        twin
    }

    fn text(&mut self, length: usize) -> String {
        self.chance.many(length).into_iter().map(|byte| char::from(b'a' + byte % 26)).collect()
    }
}
