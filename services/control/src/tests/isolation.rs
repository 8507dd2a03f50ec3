//! A fuzzer of two accounts over the HTTP API: what A sends is sent with B's values in it, in the path and in every field
//! of a body, and with a twin of each value that nobody has.
//!
//! Routes and fields come from the API's own description, so that a new one is covered by itself. A failure to do
//! something must look the same for both, byte for byte, and cost the same statements of the database; no answer may hold
//! a value of B; and B's account must stay as it is.

use std::collections::BTreeMap;
use std::time::Duration;

use axum::body::Body;
use flydex_domain::key::PublicKey;
use flydex_domain::scope::Role;
use flydex_domain::token::EncodedKey;
use flydex_store::sql::testing::counting_statements;
use http::{Method, Request, header};
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use serde_json::{Map, Value, json};

use super::harness::{
    Answer, Desk, Phone, World, encode, machine_request, page_request, redeem_body, start_body, with_body,
};
use crate::Service;

/// Says how many operations to run, and from which seed, in place of what fits in a test.
const OPERATIONS_VARIABLE: &str = "FLYDEX_ISOLATION_OPERATIONS";
const SEED_VARIABLE: &str = "FLYDEX_ISOLATION_SEED";
/// What fits in some seconds.
const OPERATIONS: u64 = 600;
/// Pairs after which B looks at its account.
const LOOK_PAIRS: u64 = 100;
/// Pairs after which everything begins anew.
const WORLD_PAIRS_MAX: u64 = 5_000;
/// What B looks at. Sessions roll when they are used, so they are not among it.
const LISTS: [&str; 7] = [
    "/api/machines",
    "/api/devices",
    "/api/members",
    "/api/invitations",
    "/api/accounts",
    "/api/audit/policy",
    "/api/audit?limit=100",
];
/// Values shorter than this stand somewhere by chance.
const TELLING_BYTES_MIN: usize = 20;
/// 32 bytes in base64url: a key, or the name of one.
const KEY_LETTERS: usize = 43;

#[tokio::test]
async fn two_accounts_learn_nothing_of_each_other_and_do_nothing_to_each_other() {
    let variable =
        |name: &str, otherwise: u64| std::env::var(name).ok().map_or(otherwise, |text| text.parse().expect("a number"));
    let (operations, seed) = (variable(OPERATIONS_VARIABLE, OPERATIONS), variable(SEED_VARIABLE, 1));
    let mut chance = StdRng::seed_from_u64(seed);
    let mut done = 0;
    while done < operations {
        let mut both = Both::assemble(chance.random()).await;
        let before = both.look().await;
        for pair in 1..=WORLD_PAIRS_MAX {
            if let Some(finding) = both.pair().await {
                panic!("pair {pair}: {finding}\n  again: cargo xtask fuzz isolation --seed {seed}");
            }
            done += 2;
            if pair % LOOK_PAIRS == 0 || done >= operations {
                assert_eq!(both.look().await, before, "B's account changed by pair {pair} of seed {seed}");
            }
            if done >= operations {
                break;
            }
        }
    }
}

#[tokio::test]
async fn an_answer_that_tells_what_exists_is_found() {
    let mut both = Both::assemble(1).await;
    both.tells_what_exists = true;
    let mut found = false;
    for _ in 0..OPERATIONS {
        found |= both.pair().await.is_some_and(|finding| finding.contains("tell what exists"));
    }
    assert!(found);
}

#[tokio::test]
async fn what_looks_once_more_for_what_exists_is_found() {
    let mut both = Both::assemble(1).await;
    both.looks_twice = true;
    let mut found = false;
    for _ in 0..OPERATIONS {
        found |= both.pair().await.is_some_and(|finding| finding.contains("statements tell what exists"));
    }
    assert!(found);
}

/// Two accounts at one server.
struct Both {
    world: World,
    chance: StdRng,
    a: Phone,
    desk: Desk,
    b: Phone,
    operations: Vec<Operation>,
    components: Value,
    /// A's values by the names of their fields.
    ours: BTreeMap<String, Value>,
    /// B's values by the names of their fields.
    theirs: BTreeMap<String, Vec<String>>,
    twins: BTreeMap<String, String>,
    /// Answers as if a check told the two apart.
    tells_what_exists: bool,
    /// Counts as if what exists took another look.
    looks_twice: bool,
}

/// One method of one route.
#[derive(Clone)]
struct Operation {
    method: Method,
    path: String,
    body: Option<Value>,
    proofs: Vec<String>,
}

/// Where a value goes.
enum Place {
    Path,
    Body(Vec<String>),
}

impl Both {
    async fn assemble(seed: u64) -> Self {
        let world = World::start().await;
        let a = world.owner().await;
        let desk = world.pair(&a).await;
        let b = world.user(None, Role::Owner).await;
        let of_b = world.pair(&b).await;
        let pending = world.desk().await;
        assert!(world.redeem(&b, &pending).await.status.is_success());
        let label = json!({ "label": "what-nobody-but-b-may-read" });
        let of_machine = format!("/api/machines/{}", of_b.machine_id);
        let renamed = world.page(Some(&b.cookie), Method::PATCH, &of_machine, Some(label)).await;
        assert!(renamed.status.is_success());
        let description: Value = serde_json::from_str(&Service::openapi_json()).expect("JSON");
        let mut both = Self {
            chance: StdRng::seed_from_u64(seed),
            operations: operations(&description),
            components: description["components"]["schemas"].clone(),
            ours: BTreeMap::new(),
            theirs: BTreeMap::new(),
            twins: BTreeMap::new(),
            tells_what_exists: false,
            looks_twice: false,
            world,
            a,
            desk,
            b,
        };
        both.introduce(&of_b, &pending).await;
        both
    }

    /// Notes what each account's messages hold.
    async fn introduce(&mut self, of_b: &Desk, pending: &Desk) {
        let now = self.world.now();
        for body in [
            start_body(&self.desk.machine_key, &self.desk.keys, now),
            redeem_body(&self.a, self.desk.keys.redeem.expose()),
            json!({ "machine_id": self.desk.machine_id, "account_id": self.a.account_id, "region": "eu",
                    "device_id": PublicKey::of(&self.a.device_key).device_id(), "status": "refused" }),
        ] {
            for (name, value) in body.as_object().expect("an object") {
                self.ours.insert(name.clone(), value.clone());
            }
        }
        for list in LISTS.into_iter().chain(["/api/sessions", "/api/session"]) {
            let answer = self.world.page(Some(&self.b.cookie), Method::GET, list, None).await;
            let theirs = &mut self.theirs;
            walk(&answer.body, "", &mut |name, text| note(theirs, name, text));
        }
        for desk in [of_b, pending] {
            for (name, text) in [
                ("machine_id", &desk.machine_id),
                ("local_connect_id", &desk.local_connect_id),
                ("claim_id", &desk.claim_id),
            ] {
                note(&mut self.theirs, name, text);
            }
        }
        let device_key = PublicKey::of(&self.b.device_key);
        let key = serde_json::to_value(EncodedKey(device_key)).expect("a key");
        walk(&key, "device_key", &mut |name, text| note(&mut self.theirs, name, text));
        // Whoever asks for a ticket for a key has that device from then on: its id is the id of its twin, too.
        let twin = PublicKey::of(&ed25519_dalek::SigningKey::from_bytes(&[0x77; 32]));
        self.twins.insert(encode(device_key.as_bytes()), encode(twin.as_bytes()));
        self.twins.insert(device_key.device_id().to_string(), twin.device_id().to_string());
    }

    /// Tries a value of B and its twin in one place.
    async fn pair(&mut self) -> Option<String> {
        let operation = self.operations[self.chance.random_range(..self.operations.len())].clone();
        let body = operation.body.as_ref().map(|schema| self.fill(schema, ""));
        let mut places: Vec<Place> = operation.path.contains("{id}").then_some(Place::Path).into_iter().collect();
        if let Some(body) = &body {
            fields(body, &mut Vec::new(), &mut |path| places.push(Place::Body(path.to_vec())));
        }
        if places.is_empty() {
            return None;
        }
        let place = places.swap_remove(self.chance.random_range(..places.len()));
        let value = self.value_for(&operation, &place)?;
        let twin = self.twin(&value);
        let (of_value, statements) = self.counted(&operation, body.clone(), &place, &value).await;
        let (of_twin, statements_of_twin) = self.counted(&operation, body, &place, &twin).await;
        let told = format!("{} {} with {value}", operation.method, operation.path);
        for (answer, put) in [(&of_value, &value), (&of_twin, &twin)] {
            let text = format!("{} {:?}", answer.body, answer.headers);
            let telling = self.theirs.values().flatten().filter(|theirs| *theirs != put);
            if let Some(leak) = telling.into_iter().find(|theirs| text.contains(theirs.as_str())) {
                return Some(format!("{told}: A saw {leak} of B"));
            }
        }
        let looks = |answer: &Answer, put: &str| {
            let text = if answer.status.is_success() { String::new() } else { answer.body.to_string() };
            (answer.status, text.replace(put, "what was put there"), answer.headers.len())
        };
        let mut seen = looks(&of_value, &value);
        if self.tells_what_exists && seen.0.as_u16() == 404 {
            seen.0 = http::StatusCode::FORBIDDEN;
        }
        if seen != looks(&of_twin, &twin) {
            return Some(format!("{told}: answers tell what exists\n  {of_value:?}\n  {of_twin:?}"));
        }
        let looked_twice = u64::from(self.looks_twice && seen.0.as_u16() == 404);
        let unlike = !seen.0.is_success() && statements + looked_twice != statements_of_twin;
        unlike.then(|| format!("{told}: {statements} statements tell what exists from {statements_of_twin}"))
    }

    /// The answer, and how many statements it took.
    async fn counted(&mut self, operation: &Operation, body: Option<Value>, place: &Place, put: &str) -> (Answer, u64) {
        let request = self.prepare(operation, body, place, put).await;
        counting_statements(self.world.send(request)).await
    }

    /// A value of B for a place, by the place's name; sometimes another.
    fn value_for(&mut self, operation: &Operation, place: &Place) -> Option<String> {
        let name = match place {
            // The path names what its collection holds: `/api/machines/{id}` a machine.
            Place::Path => {
                let part = operation.path.split('/').nth(2).unwrap_or_default();
                format!("{}_id", part.trim_end_matches('s').replace('-', "_").replace("member", "user"))
            }
            Place::Body(path) => path.last()?.clone(),
        };
        let mut choice = self.theirs.get(&name).cloned().unwrap_or_default();
        if choice.is_empty() || self.chance.random_range(..8_u32) == 0 {
            choice = self.theirs.values().flatten().cloned().collect();
        }
        (!choice.is_empty()).then(|| choice.swap_remove(self.chance.random_range(..choice.len())))
    }

    /// Something alike that nobody has.
    fn twin(&mut self, value: &str) -> String {
        if let Some(twin) = self.twins.get(value) {
            return twin.clone();
        }
        if value.len() == KEY_LETTERS {
            // A key that is none would be told from one that is.
            let mut seed = [0; 32];
            self.chance.fill(&mut seed);
            let twin = encode(PublicKey::of(&ed25519_dalek::SigningKey::from_bytes(&seed)).as_bytes());
            self.twins.insert(value.to_owned(), twin.clone());
            return twin;
        }
        let kept = |letter: char| !letter.is_ascii_alphanumeric();
        let twin: String = value
            .chars()
            .enumerate()
            .map(|(index, letter)| {
                // The version of a UUID stays, and so does the end of base64url, where not every letter is allowed.
                if kept(letter) || index == 14 || index == 19 || index + 1 == value.len() {
                    return letter;
                }
                let letters: &[u8] = if letter.is_ascii_hexdigit() && !letter.is_ascii_uppercase() {
                    b"0123456789abcdef"
                } else {
                    b"ABCDEFGHIJKLMNOPQRSTUVWXYZ"
                };
                char::from(letters[self.chance.random_range(..letters.len())])
            })
            .collect();
        self.twins.insert(value.to_owned(), twin.clone());
        twin
    }

    async fn prepare(
        &mut self,
        operation: &Operation,
        mut body: Option<Value>,
        place: &Place,
        put: &str,
    ) -> Request<Body> {
        // Rates come back, and no two requests are of one moment.
        self.world.advance(Duration::from_secs(5));
        // What wants a fresh proof is tried as well, and not refused for the want of one.
        self.world.fresh(&self.a).await;
        let mut id = self.own_id(&operation.path);
        match place {
            Place::Path => put.clone_into(&mut id),
            Place::Body(path) => {
                let body = body.as_mut().expect("a body");
                let field = path.iter().fold(body, |value, name| &mut value[name.as_str()]);
                *field = json!(put);
            }
        }
        let path = operation.path.replace("{id}", &id);
        self.request(operation, &path, body)
    }

    fn request(&self, operation: &Operation, path: &str, body: Option<Value>) -> Request<Body> {
        let takes = |proof: &str| operation.proofs.iter().any(|one| one == proof);
        let method = operation.method.clone();
        if takes("machine_credential") {
            let credential = self.desk.credential.as_deref().unwrap_or_default();
            return machine_request(&self.desk.machine_key, credential, method, path, body, self.world.now());
        }
        if takes("local_connect") && !takes("cookie") {
            let bearer = format!("Bearer {}", self.desk.token);
            return with_body(Request::builder().method(method).uri(path).header(header::AUTHORIZATION, bearer), body);
        }
        page_request(Some(&self.a.cookie), method, path, body)
    }

    fn own_id(&self, path: &str) -> String {
        match path.split('/').nth(2).unwrap_or_default() {
            "claims" => self.desk.claim_id.clone(),
            "local-connect" => self.desk.local_connect_id.clone(),
            "devices" => PublicKey::of(&self.a.device_key).device_id().to_string(),
            "accounts" => self.a.account_id.to_string(),
            _ => self.desk.machine_id.clone(),
        }
    }

    /// A body by its description, with A's values in it.
    fn fill(&self, schema: &Value, name: &str) -> Value {
        if let Some(reference) = schema["$ref"].as_str() {
            let inner = reference.rsplit('/').next().unwrap_or_default();
            return match self.ours.get(name) {
                Some(ours) if !name.is_empty() => ours.clone(),
                _ => self.fill(&self.components[inner], name),
            };
        }
        for choices in ["oneOf", "anyOf", "allOf"] {
            let some = |choice: &&Value| choice["type"] != "null";
            if let Some(choice) = schema[choices].as_array().and_then(|choices| choices.iter().find(some)) {
                return self.fill(choice, name);
            }
        }
        if let Some(ours) = self.ours.get(name) {
            return ours.clone();
        }
        if let Some(first) = schema["enum"].as_array().and_then(|values| values.first()) {
            return first.clone();
        }
        let kind = schema["type"].as_str().or_else(|| schema["type"][0].as_str()).unwrap_or_default();
        match kind {
            "object" => {
                let mut object = Map::new();
                for (name, inner) in schema["properties"].as_object().into_iter().flatten() {
                    object.insert(name.clone(), self.fill(inner, name));
                }
                Value::Object(object)
            }
            "array" => json!([self.fill(&schema["items"], name)]),
            "integer" => json!(self.world.now()),
            "boolean" => json!(false),
            _ => json!("AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"),
        }
    }

    /// What B's account is.
    async fn look(&self) -> Vec<Value> {
        let mut seen = Vec::new();
        for list in LISTS {
            let answer = self.world.page(Some(&self.b.cookie), Method::GET, list, None).await;
            assert!(answer.status.is_success(), "{list}: {answer:?}");
            seen.push(answer.body);
        }
        seen
    }
}

fn operations(description: &Value) -> Vec<Operation> {
    let mut operations = Vec::new();
    for (path, item) in description["paths"].as_object().expect("paths") {
        for (method, operation) in item.as_object().expect("an item") {
            let schema = &operation["requestBody"]["content"]["application/json"]["schema"];
            let proofs = operation["security"].as_array().into_iter().flatten();
            operations.push(Operation {
                method: method.to_uppercase().parse().expect("a method"),
                path: path.clone(),
                body: (!schema.is_null()).then(|| schema.clone()),
                proofs: proofs.flat_map(|choice| choice.as_object().expect("a choice").keys().cloned()).collect(),
            });
        }
    }
    operations
}

/// Notes a value that cannot stand somewhere by chance. What proves something is no name: it is left out.
fn note(values: &mut BTreeMap<String, Vec<String>>, name: &str, text: &str) {
    let proves = ["token", "credential", "secret", "certificate", "url", "link"].iter().any(|word| name.contains(word));
    if !proves && text.len() >= TELLING_BYTES_MIN {
        let known = values.entry(name.to_owned()).or_default();
        if !known.iter().any(|one| one == text) {
            known.push(text.to_owned());
        }
    }
}

/// Shows every text with the name of its field.
fn walk(value: &Value, name: &str, seen: &mut impl FnMut(&str, &str)) {
    match value {
        Value::String(text) => seen(name, text),
        Value::Array(list) => list.iter().for_each(|inner| walk(inner, name, seen)),
        Value::Object(object) => object.iter().for_each(|(name, inner)| walk(inner, name, seen)),
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

/// Shows the path of every text in objects.
fn fields(value: &Value, at: &mut Vec<String>, seen: &mut impl FnMut(&[String])) {
    match value {
        Value::String(_) => seen(at),
        Value::Object(object) => {
            for (name, inner) in object {
                at.push(name.clone());
                fields(inner, at, seen);
                at.pop();
            }
        }
        Value::Array(_) | Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}
