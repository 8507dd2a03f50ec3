//! What messages there are, from the `.proto` files themselves: a message, variant or field that is added is known here
//! without a word.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use anyhow::Context as _;
use bytes::Bytes;
use prost::Message as _;
use prost_reflect::{
    DescriptorPool, DynamicMessage, FieldDescriptor, Kind, MessageDescriptor, ReflectMessage as _, Value,
};

use crate::known::{Known, Plain};

/// The package of everything that passes through the relay.
const PACKAGE: &str = "flydex.v1";
/// The files in which the services and the frames stand; what they import comes with them.
const FILES: [&str; 4] =
    ["flydex/v1/session.proto", "flydex/v1/link.proto", "flydex/v1/machine.proto", "flydex/v1/internal.proto"];
/// Bytes fields that hold another message, exactly as it was signed: message, field, and what is inside.
const SIGNED: [(&str, &str, &str); 2] =
    [("Command", "header", "CommandHeader"), ("SignedReceipt", "receipt", "Receipt")];
/// A message may hold others this deep; none holds itself.
const DEPTH_MAX: usize = 12;
/// How deep in a frame stands who it is for: what is within belongs to what is carried.
const ADDRESS_DEPTH_MAX: usize = 2;

/// The messages of the relay.
pub struct Schema {
    pool: DescriptorPool,
}

/// One way through a message to a choice that holds no further choice: the names of the fields on it. An enumeration that
/// says what a signed message asks counts as a choice.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Variant(pub Vec<String>);

/// Where a field lies in a message.
pub type FieldPath = Vec<FieldDescriptor>;

impl Schema {
    /// Reads the `.proto` files of this tree.
    ///
    /// # Errors
    /// When they are not there or do not compile.
    pub fn load() -> anyhow::Result<Self> {
        let include = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../proto");
        let files = protox::compile(FILES, [include]).context("compile the .proto files")?;
        let pool = DescriptorPool::from_file_descriptor_set(files).context("read the descriptors")?;
        Ok(Self { pool })
    }

    /// A message of the package by its short name.
    ///
    /// # Errors
    /// When there is none.
    pub fn message(&self, name: &str) -> anyhow::Result<MessageDescriptor> {
        let full = format!("{PACKAGE}.{name}");
        self.pool.get_message_by_name(&full).with_context(|| format!("no message {full}"))
    }

    /// Every method of every service, as `Service/Method`.
    #[must_use]
    pub fn methods(&self) -> Vec<String> {
        let services = self.pool.services();
        services
            .flat_map(|one| one.methods().map(|it| format!("{}/{}", one.name(), it.name())).collect::<Vec<_>>())
            .collect()
    }

    /// Every choice of every message, as `Message.choice`.
    #[must_use]
    pub fn choices(&self) -> Vec<String> {
        let chosen = self.fields_of_all().filter(|(_, field)| is_choice(field));
        chosen.map(|(message, field)| format!("{message}.{}", field.name())).collect()
    }

    /// Every other field, by its message.
    #[must_use]
    pub fn plain_fields(&self) -> BTreeMap<String, BTreeSet<String>> {
        let messages = self.messages().map(|message| (message.name().to_owned(), BTreeSet::new()));
        let mut fields: BTreeMap<String, BTreeSet<String>> = messages.collect();
        for (message, field) in self.fields_of_all().filter(|(_, field)| !is_choice(field)) {
            fields.entry(message).or_default().insert(field.name().to_owned());
        }
        fields
    }

    fn messages(&self) -> impl Iterator<Item = MessageDescriptor> {
        self.pool.all_messages().filter(|message| message.package_name() == PACKAGE)
    }

    fn fields_of_all(&self) -> impl Iterator<Item = (String, FieldDescriptor)> {
        self.messages().flat_map(|message| {
            let name = message.name().to_owned();
            message.fields().map(move |field| (name.clone(), field)).collect::<Vec<_>>()
        })
    }

    /// Every choice in a message, down to the last.
    ///
    /// # Errors
    /// When there is no such message.
    pub fn variants(&self, name: &str) -> anyhow::Result<Vec<Variant>> {
        let mut found = Vec::new();
        self.collect(&self.message(name)?, &mut Vec::new(), &mut found)?;
        Ok(found)
    }

    fn collect(&self, of: &MessageDescriptor, at: &mut Vec<String>, found: &mut Vec<Variant>) -> anyhow::Result<()> {
        anyhow::ensure!(at.len() <= DEPTH_MAX, "{} holds itself", of.full_name());
        let before = found.len();
        for field in of.fields() {
            let chosen = is_choice(&field);
            let inner = self.inside(&field)?;
            if !chosen && inner.is_none() {
                continue;
            }
            at.push(field.name().to_owned());
            let count = found.len();
            if let Some(inner) = &inner {
                self.collect(inner, at, found)?;
            }
            if chosen && found.len() == count {
                found.push(Variant(at.clone()));
            }
            at.pop();
        }
        let kind = of.get_field_by_name("kind").filter(|field| is_signed(of) && matches!(field.kind(), Kind::Enum(_)));
        if let (Some(Kind::Enum(kinds)), true) = (kind.map(|field| field.kind()), found.len() == before) {
            for value in kinds.values().filter(|value| value.number() != 0) {
                let names = at.iter().cloned().chain([value.name().to_owned()]);
                found.push(Variant(names.collect()));
            }
        }
        Ok(())
    }

    /// The message inside of a field: its type, or what was signed.
    fn inside(&self, field: &FieldDescriptor) -> anyhow::Result<Option<MessageDescriptor>> {
        if let Kind::Message(inner) = field.kind() {
            return Ok(Some(inner));
        }
        let signed = SIGNED.iter().find(|(of, name, _)| field.parent_message().name() == *of && field.name() == *name);
        signed.map(|(_, _, inner)| self.message(inner)).transpose()
    }

    /// A message of that variant in which every field has a value of its owner, by the fields' names.
    ///
    /// # Errors
    /// When there is no such message.
    pub fn sample(&self, name: &str, variant: &Variant, owner: &Known) -> anyhow::Result<DynamicMessage> {
        self.fill(&self.message(name)?, &variant.0, owner)
    }

    fn fill(&self, of: &MessageDescriptor, variant: &[String], owner: &Known) -> anyhow::Result<DynamicMessage> {
        let mut message = DynamicMessage::new(of.clone());
        let (next, rest) = variant.split_first().map_or((None, variant), |(next, rest)| (Some(next.as_str()), rest));
        for field in of.fields() {
            let is_next = next == Some(field.name());
            if is_choice(&field) && !is_next {
                continue;
            }
            let rest = if is_next { rest } else { &[] };
            let value = match self.inside(&field)? {
                Some(inner) => {
                    let inner = self.fill(&inner, rest, owner)?;
                    held(&field, inner)
                }
                None => {
                    if let Kind::Enum(values) = field.kind() {
                        let named = next.and_then(|name| values.get_value_by_name(name));
                        let first = values.values().nth(1).map_or(0, |value| value.number());
                        Value::EnumNumber(named.map_or(first, |value| value.number()))
                    } else {
                        owner.value(field.name(), &field.kind())
                    }
                }
            };
            let value = if field.is_list() { Value::List(vec![value]) } else { value };
            message.set_field(&field, value);
        }
        Ok(message)
    }

    /// Every field in a message that holds one value that may name something: bytes, texts and numbers, also within what
    /// was signed.
    ///
    /// # Errors
    /// When something signed does not decode.
    pub fn fields(&self, message: &DynamicMessage) -> anyhow::Result<Vec<FieldPath>> {
        let mut found = Vec::new();
        self.walk(message, &mut Vec::new(), &mut |path, _| found.push(path.to_vec()))?;
        Ok(found)
    }

    /// Shows every such field with its value.
    ///
    /// # Errors
    /// When something signed does not decode.
    pub fn walk(
        &self,
        message: &DynamicMessage,
        at: &mut FieldPath,
        seen: &mut impl FnMut(&[FieldDescriptor], &Value),
    ) -> anyhow::Result<()> {
        for field in message.descriptor().fields() {
            if is_choice(&field) && !message.has_field(&field) {
                continue;
            }
            let value = message.get_field(&field);
            let value = match (&*value, field.is_list()) {
                (Value::List(list), true) => match list.first() {
                    Some(first) => first.clone(),
                    None => continue,
                },
                (value, _) => value.clone(),
            };
            at.push(field.clone());
            match (&value, self.inside(&field)?) {
                (Value::Message(inner), _) if message.has_field(&field) => self.walk(inner, at, seen)?,
                (Value::Message(_), _) => {}
                (Value::Bytes(bytes), Some(inner)) => {
                    self.walk(&DynamicMessage::decode(inner, bytes.clone())?, at, seen)?;
                }
                (Value::Bytes(_) | Value::String(_) | Value::U32(_) | Value::U64(_), _) => seen(at, &value),
                _ => {}
            }
            at.pop();
        }
        Ok(())
    }

    /// Puts values into the fields of those names that say who a frame is for.
    ///
    /// # Errors
    /// When something signed does not decode.
    pub(crate) fn readdress(&self, message: &mut DynamicMessage, address: &[(&str, &Plain)]) -> anyhow::Result<()> {
        for path in self.fields(message)?.into_iter().filter(|path| path.len() <= ADDRESS_DEPTH_MAX) {
            let value = path.last().and_then(|field| address.iter().find(|(name, _)| field.name() == *name));
            if let Some((_, value)) = value {
                self.put(message, &path, &Value::from((*value).clone()))?;
            }
        }
        Ok(())
    }

    /// Puts a value into a field.
    ///
    /// # Errors
    /// When the path leads nowhere.
    pub fn put(&self, message: &mut DynamicMessage, path: &[FieldDescriptor], value: &Value) -> anyhow::Result<()> {
        let (field, rest) = path.split_first().context("an empty path")?;
        if rest.is_empty() {
            let value = if field.is_list() { Value::List(vec![value.clone()]) } else { value.clone() };
            message.set_field(field, value);
            return Ok(());
        }
        let inner = self.inside(field)?.context("no message inside")?;
        let value_held = message.get_field(field).into_owned();
        let first = if let Value::List(list) = value_held { list.into_iter().next() } else { Some(value_held) };
        let mut inside = if let Some(Value::Message(inside)) = first {
            inside
        } else if let Some(Value::Bytes(bytes)) = first {
            DynamicMessage::decode(inner, bytes)?
        } else {
            DynamicMessage::new(inner)
        };
        self.put(&mut inside, rest, value)?;
        let value = held(field, inside);
        message.set_field(field, if field.is_list() { Value::List(vec![value]) } else { value });
        Ok(())
    }
}

/// A message as its field holds it: as itself, or as the bytes that were signed.
fn held(field: &FieldDescriptor, inside: DynamicMessage) -> Value {
    if let Kind::Message(_) = field.kind() {
        Value::Message(inside)
    } else {
        Value::Bytes(Bytes::from(inside.encode_to_vec()))
    }
}

fn is_choice(field: &FieldDescriptor) -> bool {
    field.containing_oneof().is_some_and(|oneof| !oneof.is_synthetic())
}

fn is_signed(message: &MessageDescriptor) -> bool {
    SIGNED.iter().any(|(_, _, inner)| message.name() == *inner)
}

/// The names of what was chosen in a message, from the outside in.
#[must_use]
pub fn choices(message: &DynamicMessage) -> Vec<String> {
    let mut names = Vec::new();
    for (field, value) in message.fields() {
        let chosen = is_choice(&field);
        if chosen {
            names.push(field.name().to_owned());
        }
        if let Value::Message(inner) = value {
            names.extend(choices(inner));
        }
    }
    names
}

#[cfg(test)]
mod tests;
