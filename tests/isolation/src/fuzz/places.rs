//! Every field of every message that A can say something in.

use std::fmt;

use prost_reflect::{FieldDescriptor, Kind};

use crate::known::Known;
use crate::schema::{FieldPath, Schema, Variant};

/// Where A speaks: as a device, as a connector, and its gateway to the node.
const ROOTS: [&str; 3] = ["SessionUp", "LinkUp", "GatewayFrame"];
/// What opens a connection, and is another question.
const OPENING: [&str; 2] = ["hello", "proof"];
/// What proves itself, and names nothing: a good one of another and a bad one are not alike.
const TOKENS: [&str; 4] = ["grant", "credential", "ticket", "audit_receipt"];

/// What a machine's status is made of, and what is watched.
const LASTING: [&str; 4] = ["open_link", "report", "subscribed", "open_session"];

/// One field of one kind of message.
#[derive(Clone, Debug)]
pub(crate) struct Place {
    root: &'static str,
    pub(crate) variant: Variant,
    pub(crate) path: FieldPath,
    field: FieldDescriptor,
}

/// All of them.
pub(crate) struct Places {
    pub(crate) all: Vec<Place>,
}

impl Places {
    /// Finds them.
    pub(crate) fn all(schema: &Schema, known: &Known) -> anyhow::Result<Self> {
        let mut all = Vec::new();
        for root in ROOTS {
            for variant in schema.variants(root)? {
                if variant.0.first().is_some_and(|first| OPENING.contains(&first.as_str())) {
                    continue;
                }
                let sample = schema.sample(root, &variant, known)?;
                for path in schema.fields(&sample)? {
                    let Some(field) = path.last().cloned() else { continue };
                    all.push(Place { root, variant: variant.clone(), path, field });
                }
            }
        }
        Ok(Self { all })
    }
}

impl Place {
    pub(crate) fn root(&self) -> &'static str {
        self.root
    }

    /// The name of the field.
    pub(crate) fn name(&self) -> &str {
        self.field.name()
    }

    pub(crate) fn kind(&self) -> Kind {
        self.field.kind()
    }

    pub(crate) fn is_token(&self) -> bool {
        TOKENS.contains(&self.name())
    }

    /// Whether what is said there is shown later too: a connector's word on itself.
    pub(crate) fn lasts(&self) -> bool {
        let lasting = |name: &String| LASTING.contains(&name.as_str());
        self.variant.0.iter().any(lasting)
    }

    /// Whether the field lies within a field of that name, or is it.
    pub(crate) fn is_within(&self, name: &str) -> bool {
        self.path.iter().any(|field| field.name() == name)
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let path: Vec<&str> = self.path.iter().map(FieldDescriptor::name).collect();
        write!(f, "{} {} at {}", self.root, self.variant.0.join("."), path.join("."))
    }
}
