//! Every field of every message that A can say something in.

use std::collections::BTreeMap;
use std::fmt;

use prost_reflect::{FieldDescriptor, Kind};

use super::report::Surface;
use crate::chance::Chance;
use crate::known::Known;
use crate::schema::{FieldPath, Schema, Variant};

/// Where A speaks, and from whom to whom that is.
const HOPS: [(&str, &str); 5] = [
    ("SessionUp", "browser to gateway"),
    ("LinkUp", "connector to gateway"),
    ("GatewayFrame", "gateway to node"),
    ("NodeFrame", "node to gateway"),
    ("RevocationRecord", "control to both"),
];
/// What opens a connection. Between gateway and node it names no account.
const OPENING: [&str; 2] = ["hello", "proof"];
/// Who a frame between gateway and node is for, and from.
pub(crate) const ADDRESSES: [&str; 5] = ["account_id", "machine_id", "session_id", "link_id", "subject_id"];
/// What proves itself, and names nothing: a good one of another and a bad one are not alike.
const TOKENS: [&str; 4] = ["grant", "credential", "ticket", "audit_receipt"];
/// What a machine's status is made of, and what is watched.
const LASTING: [&str; 4] = ["open_link", "report", "subscribed", "open_session"];
/// What opens something, and is answered by itself.
const LONELY: [&str; 3] = ["open", "open_link", "open_session"];

/// One field of one kind of message.
#[derive(Clone, Debug)]
pub(crate) struct Place {
    /// Which place it is.
    pub(crate) index: usize,
    /// The surface that it is a part of.
    pub(crate) surface: usize,
    root: &'static str,
    pub(crate) variant: Variant,
    pub(crate) path: FieldPath,
    field: FieldDescriptor,
}

/// All of them.
pub(crate) struct Places {
    pub(crate) all: Vec<Place>,
    pub(crate) surfaces: Vec<Surface>,
    /// The places of each surface.
    of_surfaces: Vec<Vec<usize>>,
    /// Those that can be said one after another, by [`Place::company`].
    companies: BTreeMap<(&'static str, bool), Vec<usize>>,
}

impl Places {
    /// Finds them.
    pub(crate) fn all(schema: &Schema, known: &Known) -> anyhow::Result<Self> {
        let mut places =
            Self { all: Vec::new(), surfaces: Vec::new(), of_surfaces: Vec::new(), companies: BTreeMap::new() };
        for (root, hop) in HOPS {
            for variant in schema.variants(root)? {
                places.add(schema, known, root, hop, &variant)?;
            }
        }
        for place in places.all.iter().filter(|place| !place.is_lonely()) {
            places.companies.entry(place.company()).or_default().push(place.index);
        }
        Ok(places)
    }

    fn add(
        &mut self,
        schema: &Schema,
        known: &Known,
        root: &'static str,
        hop: &'static str,
        variant: &Variant,
    ) -> anyhow::Result<()> {
        let sample = schema.sample(root, variant, known)?;
        let surface = self.surfaces.len();
        for path in schema.fields(&sample)? {
            let Some(field) = path.last().cloned() else { continue };
            let place = Place { index: self.all.len(), surface, root, variant: variant.clone(), path, field };
            if place.is_tried() {
                self.all.push(place);
            }
        }
        let places: Vec<usize> =
            self.all.iter().rev().take_while(|place| place.surface == surface).map(|place| place.index).collect();
        if !places.is_empty() {
            self.surfaces.push(Surface { what: variant.0.join("."), hop });
            self.of_surfaces.push(places);
        }
        Ok(())
    }

    /// One of them: every surface has the same chance, however many fields it has.
    pub(crate) fn draw(&self, chance: &mut Chance) -> Option<&Place> {
        let of_surface = chance.one_of(&self.of_surfaces)?;
        self.all.get(*chance.one_of(of_surface)?)
    }

    /// Those that can be said one after another with that one, it among them.
    pub(crate) fn company(&self, place: &Place) -> &[usize] {
        self.companies.get(&place.company()).map_or(&[], Vec::as_slice)
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

    /// Whether what stands there names something, so that answers to it are compared. A number is larger or smaller
    /// than others, and an epoch moves the machine on.
    pub(crate) fn names(&self) -> bool {
        let is_epoch = self.is_within("highest") || self.is_within("epoch");
        let named = matches!(self.kind(), Kind::Bytes | Kind::String) && !is_epoch;
        named && (self.opens() || !self.is_token())
    }

    /// Whether it is a part of opening a connection: then a token's twin is as good, of an account that is nobody's.
    pub(crate) fn opens(&self) -> bool {
        self.variant.0.first().is_some_and(|first| OPENING.contains(&first.as_str()))
    }

    /// Numbers of what opens a connection or ends what it names tell of A itself.
    fn is_tried(&self) -> bool {
        match self.root {
            "SessionUp" | "LinkUp" => !self.opens() || self.names(),
            // A device that control takes from B is B's, whatever it is called.
            "RevocationRecord" => self.names() && !(self.name() == "account_id" && self.is_one_of(&["device_id"])),
            _ => !self.opens(),
        }
    }

    /// Whether it stands in a frame with an address, which may be another's whole.
    pub(crate) fn is_addressed(&self) -> bool {
        matches!(self.root, "GatewayFrame" | "NodeFrame")
    }

    /// Whether what is said there is shown later too: a connector's word on itself.
    pub(crate) fn lasts(&self) -> bool {
        self.is_one_of(&LASTING)
    }

    /// Whether it is said alone.
    pub(crate) fn is_lonely(&self) -> bool {
        self.lasts() || self.opens() || self.is_one_of(&LONELY)
    }

    fn is_one_of(&self, names: &[&str]) -> bool {
        self.variant.0.iter().any(|name| names.contains(&name.as_str()))
    }

    fn company(&self) -> (&'static str, bool) {
        (self.root, self.names())
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
