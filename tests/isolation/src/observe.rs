//! What an answer looks like from outside, and whether anything of another account stands in it.

use std::collections::HashMap;

use bytes::Bytes;
use prost::Message as _;
use prost_reflect::{DynamicMessage, MessageDescriptor, Value};

use crate::known::Plain;
use crate::schema::choices;

/// Fields that differ from answer to answer whatever was asked.
const VOLATILE: [&str; 3] = ["retry_after_ms", "server_time_ms", "since_ms"];
/// The bytes by which a value is looked up.
const PREFIX_BYTES: usize = 8;

/// One answer as it is compared: what it is, its code, and its size.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Seen {
    what: String,
    code: u32,
    bytes: usize,
}

impl Seen {
    /// An answer that is a message.
    ///
    /// # Errors
    /// When it does not decode.
    pub fn of(descriptor: &MessageDescriptor, frame: Bytes) -> anyhow::Result<Self> {
        let mut message = DynamicMessage::decode(descriptor.clone(), frame)?;
        let mut code = 0;
        settle(&mut message, &mut code);
        Ok(Self { what: choices(&message).join("."), code, bytes: message.encoded_len() })
    }

    /// Something that is no message.
    #[must_use]
    pub fn word(what: &str, code: u32) -> Self {
        Self { what: what.to_owned(), code, bytes: 0 }
    }
}

/// Takes out what is different every time, and finds the code.
fn settle(message: &mut DynamicMessage, code: &mut u32) {
    for name in VOLATILE {
        message.clear_field_by_name(name);
    }
    for (field, value) in message.fields_mut() {
        if let Value::Message(inner) = value {
            settle(inner, code);
        } else if let (Value::U32(number), "code") = (&*value, field.name()) {
            *code = *number;
        }
    }
}

/// Values that must not be seen, by their first bytes.
pub struct Needles {
    by_prefix: HashMap<[u8; PREFIX_BYTES], Vec<Bytes>>,
    /// The first two bytes of any of them: most places are ruled out by one look.
    begins: Vec<bool>,
}

impl Needles {
    /// All of those values that could not stand somewhere by chance, but for those that the finder has as well.
    #[must_use]
    pub fn new(of: impl Iterator<Item = Plain>, but: impl Iterator<Item = Plain>) -> Self {
        let shared: Vec<Plain> = but.collect();
        let mut needles = Self { by_prefix: HashMap::new(), begins: vec![false; 1 << 16] };
        for plain in of.filter(|plain| !shared.contains(plain)) {
            let Some(bytes) = plain.telling() else { continue };
            let (Some(prefix), Some(begin)) = (bytes.first_chunk(), bytes.first_chunk()) else { continue };
            needles.begins[usize::from(u16::from_be_bytes(*begin))] = true;
            needles.by_prefix.entry(*prefix).or_default().push(Bytes::copy_from_slice(bytes));
        }
        needles
    }

    /// The first of them that stands in `text`, save those that were put there.
    #[must_use]
    pub fn find(&self, text: &[u8], put: &[&[u8]]) -> Option<&Bytes> {
        for at in 0..text.len().saturating_sub(PREFIX_BYTES - 1) {
            if !self.begins[usize::from(u16::from_be_bytes([text[at], text[at + 1]]))] {
                continue;
            }
            let Some(prefix) = text[at..].first_chunk() else { continue };
            let Some(candidates) = self.by_prefix.get(prefix) else { continue };
            let found = candidates.iter().find(|bytes| text[at..].starts_with(bytes));
            if found.is_some_and(|found| !put.contains(&found.as_ref())) {
                return found;
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_needle_is_found_wherever_it_stands_unless_it_was_put_there() {
        let value = |text: &'static str| Plain::Bytes(Bytes::from_static(text.as_bytes()));
        let needles = Needles::new(
            [value("what nobody sees"), value("what all have")].into_iter(),
            [value("what all have")].into_iter(),
        );
        assert!(needles.find(b"before what nobody sees after", &[]).is_some());
        assert!(needles.find(b"before what nobody sees after", &[b"what nobody sees"]).is_none());
        assert!(needles.find(b"before what all have after what nobody saw", &[]).is_none());
    }
}
