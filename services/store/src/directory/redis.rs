//! A directory in Redis, one for each region: alone or under Sentinel (not Redis Cluster: the scripts name keys that
//! they find).
//!
//! ```text
//! fd:life                     HASH   v, id (random), born (ms)
//! fd:nodes                    SET    incarnations
//! fd:node:{incarnation}       HASH   v, rec (JSON of NodeRecord), beat, heard (ms)            expires with the lease
//! fd:machine:{account}/{id}   HASH   v, holder, ec, ei (epoch), lc, lg (link)                 expires after weeks
//! fd:ticket:{id}              STRING                                                          expires with the ticket
//! ```
//!
//! Incarnations are hex, so that their text has the order of their bytes. `v` is the format; a record of another one is
//! left alone and answered with [`DirectoryError::Format`]. Each change is one script, so it happens as a whole.
//! Nothing about a person or what they do is kept here: ids, epochs, addresses of our own processes.

mod connection;
mod reply;

use std::sync::LazyLock;
use std::time::Duration;

use ::redis::{Pipeline, Script, ScriptInvocation, Value};
use flydex_domain::id::{Incarnation, TicketId};
use flydex_domain::limits::{LEASE_DEAD_AFTER, LINK_COUNTER_JUMP_MAX, MEMBERS_MAX, OWNER_RECORD_KEPT, TOKEN_SKEW_MAX};
use flydex_domain::placement::{LinkPlacement, LinkRecord, NodeRecord, OwnerRecord, Reassertion};
use flydex_domain::scope::MachineKey;
use flydex_domain::time::UnixMillis;
use uuid::Uuid;

pub use self::connection::{Endpoint, Keeper, MalformedEndpoint};
use self::reply::{hex, millis};
use super::{Acquire, Acquired, Answer, Cause, Directory, DirectoryError, Holding, Members, Renewal, exact};

/// The format of the records.
const FORMAT: &str = "1";
const LIFE: &str = "fd:life";
const NODES: &str = "fd:nodes";
const LEASE_PREFIX: &str = "fd:node:";

static RENEW: LazyLock<Script> = LazyLock::new(|| Script::new(include_str!("redis/scripts/renew.lua")));
static MEMBERS: LazyLock<Script> = LazyLock::new(|| Script::new(include_str!("redis/scripts/members.lua")));
static ACQUIRE: LazyLock<Script> = LazyLock::new(|| Script::new(include_str!("redis/scripts/acquire.lua")));
static REASSERT: LazyLock<Script> = LazyLock::new(|| Script::new(include_str!("redis/scripts/reassert.lua")));
static RELEASE: LazyLock<Script> = LazyLock::new(|| Script::new(include_str!("redis/scripts/release.lua")));
static SET_LINK: LazyLock<Script> = LazyLock::new(|| Script::new(include_str!("redis/scripts/set_link.lua")));

/// Records in Redis.
#[derive(Clone, Debug)]
pub struct RedisDirectory {
    keeper: Keeper,
    lease_dead_after: Duration,
}

impl RedisDirectory {
    /// A directory over a connection that is kept up elsewhere; see [`Keeper`].
    #[must_use]
    pub const fn new(keeper: Keeper) -> Self {
        Self::with_lease(keeper, LEASE_DEAD_AFTER)
    }

    /// A directory whose leases end after another time, for tests that wait for it.
    #[must_use]
    pub const fn with_lease(keeper: Keeper, lease_dead_after: Duration) -> Self {
        Self { keeper, lease_dead_after }
    }

    async fn run(&self, call: &ScriptInvocation<'_>) -> Result<Value, DirectoryError> {
        self.keeper.request(async |mut connection| call.invoke_async(&mut connection).await).await
    }
}

impl Directory for RedisDirectory {
    fn renew(&self, record: NodeRecord, beat: u64) -> Answer<'_, Renewal> {
        Box::pin(async move {
            let incarnation = hex(record.incarnation);
            let text = reply::record_text(&record)?;
            let mut call = RENEW.key(format!("{LEASE_PREFIX}{incarnation}"));
            call.key(LIFE).key(NODES);
            call.arg(FORMAT).arg(incarnation).arg(text).arg(beat).arg(millis(self.lease_dead_after));
            call.arg(Uuid::new_v4().simple().to_string());
            reply::renewal(self.run(&call).await?)
        })
    }

    fn leave(&self, node: Incarnation) -> Answer<'_, ()> {
        Box::pin(async move {
            let incarnation = hex(node);
            let mut pipe = Pipeline::new();
            pipe.atomic().del(format!("{LEASE_PREFIX}{incarnation}")).srem(NODES, &incarnation);
            self.keeper.request(async |mut connection| pipe.query_async::<()>(&mut connection).await).await
        })
    }

    fn members(&self) -> Answer<'_, Members> {
        Box::pin(async move {
            let mut call = MEMBERS.key(NODES);
            call.key(LIFE).arg(FORMAT).arg(LEASE_PREFIX).arg(MEMBERS_MAX);
            reply::members(self.run(&call).await?)
        })
    }

    fn find(&self, machine: MachineKey) -> Answer<'_, Option<OwnerRecord>> {
        Box::pin(async move {
            let mut command = ::redis::cmd("HMGET");
            command.arg(machine_key(machine)).arg(&["v", "holder", "ec", "ei", "lc", "lg"]);
            let found: Vec<Option<String>> =
                self.keeper.request(async |mut connection| command.query_async(&mut connection).await).await?;
            reply::found(&found, FORMAT)
        })
    }

    fn acquire(&self, acquire: Acquire) -> Answer<'_, Acquired> {
        Box::pin(async move {
            let Acquire { machine, asker, floor, replacing, cause } = acquire;
            exact(floor.counter)?;
            let mut call = ACQUIRE.key(machine_key(machine));
            call.key(LIFE);
            call.arg(FORMAT).arg(hex(asker)).arg(floor.counter).arg(hex(floor.incarnation));
            call.arg(replacing.map(hex).unwrap_or_default());
            call.arg(match cause {
                Cause::Link => "link",
                Cause::Session => "session",
            });
            call.arg(LEASE_PREFIX).arg(millis(self.lease_dead_after)).arg(millis(OWNER_RECORD_KEPT));
            reply::acquired(self.run(&call).await?)
        })
    }

    fn reassert(&self, holdings: Vec<Holding>) -> Answer<'_, Vec<Reassertion>> {
        Box::pin(async move {
            let mut pipe = Pipeline::with_capacity(holdings.len() + 1);
            pipe.load_script(&REASSERT).ignore();
            for holding in &holdings {
                exact(holding.epoch.counter)?;
                let (counter, gateway) = holding
                    .link
                    .as_ref()
                    .map_or((String::new(), ""), |link| (link.counter.to_string(), link.gateway_id.as_str()));
                let mut call = REASSERT.key(machine_key(holding.machine));
                call.arg(FORMAT).arg(holding.epoch.counter).arg(hex(holding.epoch.incarnation));
                call.arg(counter).arg(gateway).arg(millis(OWNER_RECORD_KEPT));
                pipe.invoke_script(&call);
            }
            let answers: Vec<Value> =
                self.keeper.request(async |mut connection| pipe.query_async(&mut connection).await).await?;
            answers.into_iter().map(reply::reassertion).collect()
        })
    }

    fn release(&self, machine: MachineKey, holder: Incarnation) -> Answer<'_, ()> {
        Box::pin(async move {
            let mut call = RELEASE.key(machine_key(machine));
            call.arg(FORMAT).arg(hex(holder)).arg(millis(OWNER_RECORD_KEPT));
            self.run(&call).await.map(drop)
        })
    }

    fn set_link(&self, machine: MachineKey, holder: Incarnation, link: LinkRecord) -> Answer<'_, LinkPlacement> {
        Box::pin(async move {
            exact(link.counter)?;
            let mut call = SET_LINK.key(machine_key(machine));
            call.arg(FORMAT).arg(hex(holder)).arg(link.counter).arg(link.gateway_id.as_str());
            call.arg(LINK_COUNTER_JUMP_MAX).arg(millis(OWNER_RECORD_KEPT));
            reply::link_placement(self.run(&call).await?)
        })
    }

    fn spend_ticket(&self, ticket_id: TicketId, expires_at: UnixMillis, now: UnixMillis) -> Answer<'_, bool> {
        Box::pin(async move {
            // A verifier takes a ticket for this much longer, so it is remembered for as long.
            let until = expires_at.plus(TOKEN_SKEW_MAX);
            if until <= now {
                return Ok(false);
            }
            let mut command = ::redis::cmd("SET");
            command.arg(format!("fd:ticket:{ticket_id}")).arg("").arg("NX").arg("PX").arg(millis(until.since(now)));
            let set: Option<String> =
                self.keeper.request(async |mut connection| command.query_async(&mut connection).await).await?;
            Ok(set.is_some())
        })
    }
}

fn machine_key(machine: MachineKey) -> String {
    format!("fd:machine:{}/{}", machine.account_id(), machine.machine_id())
}
