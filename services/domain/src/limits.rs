//! Every bound of the system: name, unit and reason, in one place (INV-BOUND).

mod abuse;
mod account;
mod audit;
mod billing;
mod desk;
mod gateway;
mod keys;
mod ownership;
mod region;
mod reports;
mod sign_in;
mod sql;

use std::time::Duration;

pub use self::abuse::*;
pub use self::account::*;
pub use self::audit::*;
pub use self::billing::*;
pub use self::desk::*;
pub use self::gateway::*;
pub use self::keys::*;
pub use self::ownership::*;
pub use self::region::*;
pub use self::reports::*;
pub use self::sign_in::*;
pub use self::sql::*;

// === Frames ===

/// Frames of the control lane, in bytes: hellos with credentials fit, nothing else is large.
pub const CONTROL_FRAME_BYTES_MAX: usize = 16 * 1024;
/// Frames of the command lane, in bytes: the largest command plus its header and signatures.
pub const COMMAND_FRAME_BYTES_MAX: usize = COMMAND_BODY_BYTES_MAX + 16 * 1024;
/// Frames of the event lane, in bytes: one coalesced delta or one finished item; larger items are cut.
pub const EVENT_FRAME_BYTES_MAX: usize = EVENT_BODY_BYTES_MAX + 4 * 1024;
/// Frames of the bulk lane, in bytes: 16 KiB of content, so that nothing waits long behind one.
pub const BULK_FRAME_BYTES_MAX: usize = BULK_CHUNK_BYTES_MAX + 1024;
/// Content of one bulk frame, in bytes.
pub const BULK_CHUNK_BYTES_MAX: usize = 16 * 1024;
/// Content of one event, in bytes.
pub const EVENT_BODY_BYTES_MAX: usize = 128 * 1024;
/// Content of one command, in bytes: a long prompt with a pasted log.
pub const COMMAND_BODY_BYTES_MAX: usize = 128 * 1024;
/// A result that travels inside a receipt, in bytes; a larger one travels as bulk.
pub const RECEIPT_RESULT_BYTES_MAX: usize = 32 * 1024;
/// One page or snapshot on the bulk lane, in bytes: a phone on a slow network shows it within seconds.
pub const PAGE_BYTES_MAX: usize = 256 * 1024;
/// Bytes that a WebSocket writer may leave unsent before it waits, so that control overtakes bulk.
pub const UNSENT_BYTES_MAX: usize = 64 * 1024;
/// Bytes queued for one connection over all lanes; past it the connection ends with `slow_consumer`.
pub const CONNECTION_QUEUE_BYTES_MAX: usize = 4 * 1024 * 1024;
/// Share of the control lane in it, in bytes: hundreds of pings and status changes.
pub const CONTROL_QUEUE_BYTES_MAX: usize = 256 * 1024;
/// Share of the command lane in it, in bytes: seven of the largest commands, or thirty of the largest receipts.
pub const COMMAND_QUEUE_BYTES_MAX: usize = 1024 * 1024;
/// Share of the event lane in it, in bytes: the event window of several watched machines.
pub const EVENT_QUEUE_BYTES_MAX: usize = 1792 * 1024;
/// Share of the bulk lane in it, in bytes: the bulk window of several pages.
pub const BULK_QUEUE_BYTES_MAX: usize = 1024 * 1024;
/// What a queued frame is charged beside its bytes, so that many tiny frames are bounded too.
pub const QUEUED_FRAME_OVERHEAD_BYTES: usize = 64;
/// Bytes that may overtake a waiting frame of a less urgent lane, so that a page arrives beside endless events.
pub const LANE_OVERTAKEN_BYTES_MAX: usize = 128 * 1024;

// === Sessions and links ===

/// Time a peer has to finish the hello, so that half-open connections cost little.
pub const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// Interval of pings on a link and a session.
pub const PING_INTERVAL: Duration = Duration::from_secs(4);
/// Silence after which a link or session is dead: two pings.
pub const PEER_SILENCE_MAX: Duration = Duration::from_secs(8);
/// Machines that one session may have open.
pub const SESSION_MACHINES_MAX: usize = 64;
/// Sessions that one machine serves at once.
pub const MACHINE_SESSIONS_MAX: usize = 64;
/// Streams that one session may watch on one machine.
pub const SESSION_STREAMS_MAX: usize = 16;
/// Event bytes a session may have unacknowledged at the actor: the window a device opens with.
pub const EVENT_WINDOW_BYTES: u32 = 256 * 1024;
/// Bulk bytes that the connector may send to a session beyond what the device has credited.
pub const BULK_WINDOW_BYTES: u32 = 256 * 1024;
/// Sessions and links in their handshake at one gateway: signatures cost CPU, and the rest must not starve.
pub const GATEWAY_HANDSHAKES_MAX: usize = 1024;
/// Sessions that one gateway serves.
pub const GATEWAY_SESSIONS_MAX: usize = 50_000;
/// Links that one gateway serves.
pub const GATEWAY_LINKS_MAX: usize = 50_000;
/// Time within which the connector falls back from QUIC to WebSocket where UDP is blocked.
pub const QUIC_FALLBACK_AFTER: Duration = Duration::from_secs(2);
/// Interval at which a connector on WebSocket probes QUIC again.
pub const QUIC_PROBE_INTERVAL: Duration = Duration::from_secs(300);
/// First wait before a reconnect; it doubles, with jitter, up to [`RECONNECT_WAIT_MAX`].
pub const RECONNECT_WAIT_MIN: Duration = Duration::from_millis(250);
/// Time after which a link counts as one that served, so that reconnects begin with the first wait again.
pub const LINK_SERVED_AFTER: Duration = Duration::from_secs(10);
/// Longest wait before a reconnect.
pub const RECONNECT_WAIT_MAX: Duration = Duration::from_secs(30);
/// How far above the highest seen epoch an owner may mint: no honest history skips this many owners.
pub const EPOCH_JUMP_MAX: u64 = 1_000_000;

/// Of these, handshakes from one network address (one /64 of IPv6), so that no single place takes them all. Loopback
/// is exempt: a proxy on the same computer speaks for many.
pub const ADDRESS_HANDSHAKES_MAX: usize = 256;
/// Time a peer has to take the last frame and the close before its socket is dropped; and to say why it closes once it
/// takes or sends no more.
pub const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);
/// How long before its credential ends a link is told to open another: renewals that failed so far have time to succeed.
pub const CREDENTIAL_END_NOTICE: Duration = Duration::from_secs(3600);
/// How long before its grant ends a session is told to come back with a new one.
pub const GRANT_END_NOTICE: Duration = Duration::from_secs(60);
/// What a WebSocket reads at a time, in bytes: an idle session costs this much, and frames are mostly small.
pub const WEBSOCKET_READ_BYTES: usize = 4 * 1024;
/// Unread bytes that a peer may have under way on one QUIC lane: the largest frame and the next.
pub const QUIC_LANE_WINDOW_BYTES: u32 = 256 * 1024;
/// Unread bytes that a peer may have under way on one QUIC link.
pub const QUIC_LINK_WINDOW_BYTES: u32 = 1024 * 1024;
/// Bytes sent on one QUIC link and not yet acknowledged: a fast line with 100 ms of delay stays full.
pub const QUIC_SEND_WINDOW_BYTES: u64 = 1024 * 1024;
/// QUIC connections that wait to be accepted; past it first packets are dropped without a word, and come again.
pub const QUIC_INCOMING_MAX: usize = 1024;
/// Silence after which QUIC itself gives a link up, should the link's own heartbeat not have ended it.
pub const QUIC_IDLE_TIMEOUT: Duration = Duration::from_secs(16);
/// Version texts that a connector reports of itself and of Codex, in bytes.
pub const VERSION_TEXT_BYTES_MAX: usize = 64;
/// Header of a command, in bytes: its fixed fields take about 250.
pub const COMMAND_HEADER_BYTES_MAX: usize = 1024;
/// A signed receipt, in bytes: its result and a kilobyte of fixed fields, and room to grow.
pub const RECEIPT_BYTES_MAX: usize = RECEIPT_RESULT_BYTES_MAX + 8 * 1024;
/// Room that a command needs beside header and body, in bytes: signature, audit receipt, ids and wrapping.
pub const COMMAND_EXTRA_BYTES_MAX: usize = 8 * 1024;
/// An identifier inside a frame, in bytes: the longest takes 32.
pub const ID_BYTES_MAX: usize = 64;
/// Advice to a peer that may try again as it is.
pub const RETRY_AFTER: Duration = Duration::from_secs(1);
/// Machines that a session may open at once without waiting, and again after it has closed them.
pub const SESSION_OPENS_BURST: u32 = 128;
/// Time after which a session may open one machine more: each open costs the owner a signature.
pub const SESSION_OPEN_REFILL: Duration = Duration::from_millis(100);
/// Revocations that a gateway remembers against tokens that were signed before them; the oldest go first.
pub const REVOCATIONS_KEPT_MAX: usize = 65_536;

// === Gateway and node ===

/// Long-lived streams from one gateway to one node; machines are hashed onto them.
pub const NODE_STREAMS: usize = 4;
/// Bytes queued for one such stream.
pub const NODE_STREAM_SEND_BYTES_MAX: usize = 8 * 1024 * 1024;
/// Of these, bytes of one account: one that sends more than the node takes leaves the rest to others.
pub const NODE_STREAM_ACCOUNT_BYTES_MAX: usize = NODE_STREAM_SEND_BYTES_MAX / 4;
/// Bytes that one account sends on such a stream before the next has its turn.
pub const NODE_STREAM_TURN_BYTES: usize = 16 * 1024;
/// First wait before a broken stream to a node is opened again; it doubles up to [`NODE_REOPEN_WAIT_MAX`].
pub const NODE_REOPEN_WAIT_MIN: Duration = Duration::from_millis(50);
/// Longest wait before a broken stream to a node is opened again: a node that returns is found at once.
pub const NODE_REOPEN_WAIT_MAX: Duration = Duration::from_secs(2);
/// Time a frame waits for room on the way to a node; then its sender is told `overloaded`.
pub const NODE_SEND_TIMEOUT: Duration = Duration::from_secs(1);
/// Time a node has to take a connection, and a stream on it.
pub const NODE_CONNECT_TIMEOUT: Duration = Duration::from_secs(1);
/// Interval of HTTP/2 pings to a node.
pub const NODE_KEEPALIVE_INTERVAL: Duration = Duration::from_millis(500);
/// Time a node has to answer one: with the interval, a frozen node is given up after 1.5 s.
pub const NODE_KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(1);
/// Bytes under way on one stream between gateway and node.
pub const NODE_STREAM_WINDOW_BYTES: u32 = 1024 * 1024;
/// Bytes under way on one connection between gateway and node.
pub const NODE_CONNECTION_WINDOW_BYTES: u32 = 8 * 1024 * 1024;
/// Machines whose node a gateway remembers: one for each link and session that it serves.
pub const PLACES_MAX: usize = GATEWAY_LINKS_MAX + GATEWAY_SESSIONS_MAX;
/// How long it remembers one without asking the directory again.
pub const PLACE_KEPT: Duration = Duration::from_secs(60);
/// How old the view of the nodes may be where a hand-over depends on it: many machines move in one such time, and the
/// directory is asked once.
pub const MEMBERS_FRESH_FOR: Duration = Duration::from_millis(50);
/// How often an open is sent on to another node; then its sender is told `moving`.
pub const FORWARDS_MAX: u8 = 2;
/// Time after which an open counts as one that held, so that the next forward is the first again.
pub const FORWARDS_COUNTED_FOR: Duration = Duration::from_secs(10);
/// Least advice with `moving`.
pub const MOVING_RETRY_AFTER_MIN: Duration = Duration::from_millis(50);
/// Most advice with `moving`; between the two it is drawn, so that not everybody comes back at once.
pub const MOVING_RETRY_AFTER_MAX: Duration = Duration::from_millis(250);
/// Links of a lost node are placed again spread over this time.
pub const LINK_REPLACE_SPREAD: Duration = Duration::from_millis(50);
/// Links that one gateway places again at the same moment.
pub const LINK_REPLACINGS_MAX: usize = DIRECTORY_REQUESTS_MAX;
/// How long a link is kept for which no node is found: longer, and its connector had better look elsewhere.
pub const LINK_UNPLACED_MAX: Duration = Duration::from_secs(5);

// === Directory ===

/// How often a node renews its lease in the directory.
pub const LEASE_RENEW_INTERVAL: Duration = Duration::from_millis(500);
/// Silence after which another node may take a node's machines: three renewals missed.
pub const LEASE_SUSPECT_AFTER: Duration = Duration::from_millis(1500);
/// Silence after which a lease is gone.
pub const LEASE_DEAD_AFTER: Duration = Duration::from_secs(10);
/// How far a connector's link counter may jump in one link. The counter follows the clock in seconds, so that a clock
/// that is set for the first time makes it jump by the time since 1970; nothing honest makes it jump by 270 years.
pub const LINK_COUNTER_JUMP_MAX: u64 = 1 << 33;
/// Time one request to the directory may take; longer, and the answer is not worth waiting for.
pub const DIRECTORY_REQUEST_TIMEOUT: Duration = Duration::from_millis(500);
/// Time to open a connection to the directory.
pub const DIRECTORY_CONNECT_TIMEOUT: Duration = Duration::from_secs(1);
/// First wait before a lost connection to the directory is opened again; it doubles up to
/// [`DIRECTORY_RECONNECT_WAIT_MAX`].
pub const DIRECTORY_RECONNECT_WAIT_MIN: Duration = Duration::from_millis(50);
/// Longest wait before a lost connection to the directory is opened again.
pub const DIRECTORY_RECONNECT_WAIT_MAX: Duration = Duration::from_secs(1);
/// Requests to the directory under way in one process; past it they wait their turn within the timeout.
pub const DIRECTORY_REQUESTS_MAX: usize = 256;
/// How long an owner record that nobody touches is kept: housekeeping only, for the connector has the epoch.
pub const OWNER_RECORD_KEPT: Duration = Duration::from_secs(14 * 24 * 3600);
/// Time that a node waits for the directory before it goes on without it.
pub const DIRECTORY_ANSWER_WAIT: Duration = Duration::from_secs(1);
/// Owner records that are re-asserted in one request after the directory has lost its memory.
pub const REASSERT_BATCH: usize = 500;
/// Owner records that one node re-asserts in a second, so that the directory still answers everybody else.
pub const REASSERT_PER_SECOND_MAX: u32 = 20_000;
/// Nodes of one region.
pub const MEMBERS_MAX: usize = 1_000;

// === Actors ===

/// Bytes queued for one machine actor; past it senders get `overloaded`.
pub const ACTOR_MAILBOX_BYTES_MAX: usize = 2 * 1024 * 1024;
/// Messages queued for one machine actor.
pub const ACTOR_MAILBOX_MESSAGES_MAX: usize = 4096;
/// Time a call to an actor may take.
pub const ACTOR_CALL_TIMEOUT: Duration = Duration::from_secs(5);
/// Commands that an actor remembers per machine to answer repeats quickly; the connector's journal is final.
pub const ACTOR_LEDGER_ENTRIES_MAX: usize = 4096;
/// Receipts that an actor keeps per machine, in bytes; the oldest go first.
pub const ACTOR_LEDGER_BYTES_MAX: usize = 1024 * 1024;
/// Time a forwarded command may go without a receipt before its place is free again: twice Codex's own time.
pub const ACTOR_COMMAND_WAIT: Duration = Duration::from_secs(60);
/// Advice to a command that found the machine or its approval busy.
pub const ACTOR_BUSY_RETRY_AFTER: Duration = Duration::from_secs(1);
/// Interval at which a node looks for actors with something due.
pub const ACTOR_TICK_INTERVAL: Duration = Duration::from_millis(500);
/// Actors of one node.
pub const NODE_MACHINES_MAX: usize = 200_000;
/// Bytes that wait in a node for one stream of a gateway; past it the stream ends, for the gateway is stuck.
pub const NODE_REPLY_QUEUE_BYTES_MAX: usize = 32 * 1024 * 1024;
/// Frames that wait in a node for one stream of a gateway.
pub const NODE_REPLY_QUEUE_FRAMES_MAX: usize = 32 * 1024;
/// Revocations that a node keeps; older ones are covered by a floor under everything issued before them.
pub const NODE_REVOCATIONS_MAX: usize = 100_000;
/// Streams of gateways that a node carries: [`NODE_STREAMS`] of each gateway, and the new ones of a rolling update.
pub const NODE_GATEWAY_STREAMS_MAX: usize = 1024;
/// Machines that an in-process directory has on record; released ones are forgotten first.
pub const DIRECTORY_MACHINES_MAX: usize = 1_000_000;
/// Spent tickets that an in-process directory remembers until they expire.
pub const DIRECTORY_TICKETS_MAX: usize = 1_000_000;
/// Commands under way at one machine: accepted and without a receipt.
pub const MACHINE_COMMANDS_IN_FLIGHT_MAX: usize = 64;
/// Time an actor without sessions and without a link stays in memory.
pub const ACTOR_IDLE_AFTER: Duration = Duration::from_secs(120);

// === Commands ===

/// Longest lifetime that a device may give a command.
pub const COMMAND_LIFETIME_MAX: Duration = Duration::from_secs(600);
/// Skew between a device's clock and the machine's that is forgiven.
pub const COMMAND_SKEW_MAX: Duration = Duration::from_secs(60);
/// How long the connector's journal keeps an outcome.
pub const JOURNAL_RETENTION: Duration = Duration::from_secs(30 * 24 * 3600);
/// Size of the connector's journal, in bytes; the oldest outcomes go first.
pub const JOURNAL_BYTES_MAX: u64 = 64 * 1024 * 1024;
/// One record of the journal, in bytes: ids and hashes only.
pub const JOURNAL_RECORD_BYTES_MAX: usize = 1024;
/// Writes that wait for the journal: effects are bounded by those in flight, refusals by the relay's pace.
pub const JOURNAL_QUEUE_MAX: usize = 4096;
/// Records of one commit of the journal.
pub const JOURNAL_COMMIT_RECORDS_MAX: usize = 512;
/// Interval at which the journal forgets what is old, since each time rewrites it.
pub const JOURNAL_EVICT_INTERVAL: Duration = Duration::from_secs(3600);
/// Wait before a journal that could not be written is tried again.
pub const JOURNAL_RETRY_AFTER: Duration = Duration::from_secs(5);
/// Audit records that wait at a machine for control, in bytes: some thirty thousand.
pub const SPOOL_BYTES_MAX: u64 = 16 * 1024 * 1024;
/// Read commands that the connector remembers in memory against repeats.
pub const READ_DEDUP_ENTRIES_MAX: usize = 8192;
/// Devices on one machine's list, tombstones not counted.
pub const DEVICE_LIST_MAX: usize = 64;
/// Longest time ahead that an endorsement may end, by the machine's clock: a person scans a screen and presses once.
pub const ENDORSEMENT_LIFETIME_MAX: Duration = Duration::from_secs(600);
/// Time after its enrolment in which a device may pin a passkey: the person is still there.
pub const PASSKEY_PIN_WINDOW: Duration = Duration::from_secs(600);
/// The id of a passkey, in bytes (WebAuthn level 3, section 4).
pub const PASSKEY_CREDENTIAL_BYTES_MAX: usize = 1023;
/// What an authenticator says of itself in an assertion, in bytes: 37, and extensions.
pub const PASSKEY_AUTHENTICATOR_DATA_BYTES_MAX: usize = 1024;
/// What a browser says of an assertion, in bytes: about 200, and what later browsers add.
pub const PASSKEY_CLIENT_DATA_BYTES_MAX: usize = 2048;
/// The signature of an assertion, in bytes: P-256 in DER takes at most 72.
pub const PASSKEY_SIGNATURE_BYTES_MAX: usize = 80;
/// Removed devices that a list of devices names to a phone, the newest first.
pub const DEVICE_TOMBSTONES_SHOWN_MAX: usize = 64;
/// Tombstones that a machine keeps for removed devices.
pub const DEVICE_TOMBSTONES_MAX: usize = 1024;

// === Approvals ===

/// How long an approval waits for a remote answer before it is renewed under another id.
pub const APPROVAL_LIFETIME: Duration = Duration::from_secs(600);
/// Time within which Codex confirms an answer; after it the outcome is unknown.
pub const APPROVAL_CONFIRM_TIMEOUT: Duration = Duration::from_secs(10);
/// Open approvals of one machine; further ones wait for the desk.
pub const APPROVALS_OPEN_MAX: usize = 128;
/// One approval with everything it shows, in bytes: it travels as one event.
pub const APPROVAL_BYTES_MAX: usize = EVENT_BODY_BYTES_MAX - 4 * 1024;
/// Ended approvals that a machine remembers, to tell a late answer who was first.
pub const APPROVALS_CLOSED_MAX: usize = 256;
/// Time control has to record an accept before the machine defers the audit.
pub const AUDIT_WAIT: Duration = Duration::from_secs(1);

// === Streams ===

/// Event bytes that the connector keeps of one stream for resuming.
pub const RING_BYTES_MAX: usize = 1024 * 1024;
/// Event bytes that the connector keeps over all streams.
pub const RINGS_TOTAL_BYTES_MAX: usize = 64 * 1024 * 1024;
/// What a kept event is charged beside its bytes, so that many tiny events are bounded too.
pub const RING_EVENT_OVERHEAD_BYTES: usize = 64;
/// Time a thread is still followed after its last watcher left, so that a phone that comes back resumes.
pub const WATCH_LINGER: Duration = Duration::from_secs(120);
/// Threads that one connector follows at once.
pub const WATCHED_THREADS_MAX: usize = 64;
/// Large answers that one connector has under way, in bytes.
pub const BULK_TRANSFERS_BYTES_MAX: usize = 8 * 1024 * 1024;
/// Messages that wait for the connector's core from each side; past it the sender waits.
pub const CORE_QUEUE_MAX: usize = 256;
/// Messages that a link's reader may be ahead of the link; past it the gateway is read no further.
pub const LINK_INCOMING_MAX: usize = 64;
/// Room in a machine's snapshot for everything but approvals and questions, in bytes.
pub const SNAPSHOT_REST_BYTES: usize = 32 * 1024;
/// Room beside snapshot and introduction in the receipt of a device that is introduced, in bytes.
pub const INTRODUCED_REST_BYTES: usize = 1024;
/// Interval at which the connector's core looks at deadlines.
pub const CORE_TICK: Duration = Duration::from_millis(500);
/// Time over which text deltas of one item are joined into one event.
pub const DELTA_COALESCE_AFTER: Duration = Duration::from_millis(40);
/// Text that is joined into one event at most, in bytes.
pub const DELTA_COALESCE_BYTES_MAX: usize = 16 * 1024;

// === Pairing and sign-in ===

/// Codes that one `flydex connect` draws, one after the other, while nobody scans them.
pub const PAIRING_CODES_MAX: u32 = 5;
/// Life of a claim.
pub const CLAIM_LIFETIME: Duration = Duration::from_secs(120);
/// Wrong tries that end a claim.
pub const CLAIM_WRONG_TRIES_MAX: u32 = 5;
/// Life of a local-connect after its claim was redeemed: time for the person at the desk.
pub const LOCAL_CONNECT_LIFETIME: Duration = Duration::from_secs(600);
/// Life of a one-time owner or sign-in link.
pub const SIGN_IN_LINK_LIFETIME: Duration = Duration::from_secs(3600);
/// Rolling life of an account session.
pub const ACCOUNT_SESSION_LIFETIME: Duration = Duration::from_secs(14 * 24 * 3600);
/// Life of a ticket.
pub const TICKET_LIFETIME: Duration = Duration::from_secs(60);
/// Life of a grant.
pub const GRANT_LIFETIME: Duration = Duration::from_secs(24 * 3600);
/// Time within which a renewal that lost its answer gets the same credential again; a later repeat is a clone.
pub const CREDENTIAL_RETRY_WINDOW: Duration = Duration::from_secs(600);
/// Life of an audit receipt: the longest life of the command that it goes with.
pub const AUDIT_RECEIPT_LIFETIME: Duration = COMMAND_LIFETIME_MAX;
/// Time after which a used account session's end is moved on, so that not every read writes.
pub const ACCOUNT_SESSION_ROLL_AFTER: Duration = Duration::from_secs(3600);
/// Account sessions of one user; the oldest ends when another begins.
pub const USER_SESSIONS_MAX: i64 = 64;
/// Unused sign-in links of one account.
pub const SIGN_IN_LINKS_OPEN_MAX: i64 = 16;
/// Machines of one account.
pub const ACCOUNT_MACHINES_MAX: i64 = 1024;
/// Devices of one account, revoked ones included: their keys must stay refused.
pub const ACCOUNT_DEVICES_MAX: i64 = 4096;
/// Pairings in progress over all accounts.
pub const LOCAL_CONNECTS_OPEN_MAX: i64 = 10_000;
/// How long a pairing that ended can still be asked about.
pub const LOCAL_CONNECT_KEPT_AFTER: Duration = Duration::from_secs(600);
/// Long polls that wait at once in one process.
pub const LONG_POLLS_MAX: usize = 2048;
/// Long polls that wait on one pairing: one of each side, and each side's last one that it gave up.
pub const LONG_POLLS_PER_PAIRING_MAX: usize = 4;
/// Revocations that a subscriber may lag behind before it must read the log again.
pub const REVOCATION_QUEUE_MAX: usize = 1024;
/// Age past which a revocation ends nothing any more: every token that it could end is past its own end.
pub const REVOCATION_HORIZON: Duration = Duration::from_secs(25 * 3600);
/// Interval at which control looks for revocations that nobody announced, well within the 2 s they may take.
pub const REVOCATION_POLL_INTERVAL: Duration = Duration::from_millis(500);
/// Gateways and nodes that follow one control process.
pub const FOLLOWERS_MAX: usize = 1024;
/// Messages that wait for one of them; the log is read only as fast as they go.
pub const FOLLOW_QUEUE_MESSAGES: usize = 64;
/// Silence after which a follower asks another control process: three heartbeats missed.
pub const FOLLOW_SILENCE_MAX: Duration = Duration::from_secs(3);
/// First wait before a broken stream of revocations is opened again; it doubles, and each is spread at random.
pub const FOLLOW_RETRY_WAIT_MIN: Duration = Duration::from_millis(100);
/// Longest such wait: what was revoked meanwhile is late by that much once control is back.
pub const FOLLOW_RETRY_WAIT_MAX: Duration = Duration::from_secs(5);
/// Age of the newest news from control past which gateways and nodes let nobody new in.
pub const REVOCATION_STALENESS_MAX: Duration = Duration::from_secs(3600);
/// Interval at which rows past their end are removed.
pub const HOUSEKEEPING_INTERVAL: Duration = Duration::from_secs(300);
/// Addresses that the rate limits remember; past it unknown addresses are told to wait.
pub const RATE_ADDRESSES_MAX: usize = 65_536;
/// Sign-ins per minute and address.
pub const SIGN_IN_RATE_PER_MINUTE: u32 = 20;
/// Claims and their steps per minute and address.
pub const CLAIM_RATE_PER_MINUTE: u32 = 60;
/// Pairings begun per minute and address.
pub const LOCAL_CONNECT_RATE_PER_MINUTE: u32 = 20;
/// Accounts that the rate limits remember; past it unknown accounts are told to wait.
pub const RATE_ACCOUNTS_MAX: usize = 65_536;
/// Tickets per minute and account: each of a large team's devices may come back in one minute, and again.
pub const ACCOUNT_TICKET_RATE_PER_MINUTE: u32 = 1_200;
/// Audit intents per minute and account: people answer approvals by hand, and each is a durable write.
pub const ACCOUNT_INTENT_RATE_PER_MINUTE: u32 = 600;
/// Life of a machine credential; it is renewed at half-life.
pub const CREDENTIAL_LIFETIME: Duration = Duration::from_secs(24 * 3600);
/// Skew between servers' clocks that is forgiven on tokens.
pub const TOKEN_SKEW_MAX: Duration = Duration::from_secs(30);

// === Codex ===

/// Requests that the connector has under way at Codex; Codex answers more with an overload error.
pub const CODEX_REQUESTS_IN_FLIGHT_MAX: usize = 16;
/// Time Codex has to answer a request.
pub const CODEX_REQUEST_TIMEOUT: Duration = Duration::from_secs(30);
/// A message from Codex, in bytes: its own histories reach tens of megabytes.
pub const CODEX_MESSAGE_BYTES_MAX: usize = 128 * 1024 * 1024;
/// Events of Codex that wait for the connector's core; past it Codex is read no further.
pub const CODEX_EVENTS_MAX: usize = 1024;
/// Questions of the core that wait for the reader of Codex.
pub const CODEX_ASKS_MAX: usize = 256;
/// Threads that are asked about in order with their events at once; part of [`CODEX_REQUESTS_IN_FLIGHT_MAX`].
pub const CODEX_FOLLOWS_IN_FLIGHT_MAX: usize = 4;
/// Messages to Codex that wait to be written: every request under way, and answers.
pub const CODEX_OUTBOUND_MAX: usize = 256;
/// Messages from Codex that were read and wait for their turn.
pub const CODEX_INBOUND_MAX: usize = 64;
/// Requests of Codex that are open at once; further ones wait for the desk.
pub const CODEX_ASKED_MAX: usize = 256;
/// Times that a request is tried again when Codex is overloaded.
pub const CODEX_OVERLOAD_RETRIES_MAX: u32 = 3;
/// First wait after an overload; it doubles.
pub const CODEX_OVERLOAD_WAIT: Duration = Duration::from_millis(150);
/// Time an app-server of our own has to end after its input closed.
pub const CODEX_EXIT_TIMEOUT: Duration = Duration::from_secs(3);
/// Interval at which a connector with an app-server of its own looks for the shared daemon.
pub const CODEX_DAEMON_LOOK_INTERVAL: Duration = Duration::from_secs(5);
/// Time after Codex resolved an accepted request in which a refusal by the desk would show.
pub const APPROVAL_CONTRADICTION_WAIT: Duration = Duration::from_secs(1);
/// Text of one item, in bytes: an item with its frame fits one event.
pub const ITEM_TEXT_BYTES_MAX: usize = 96 * 1024;
/// The diff of a turn, in bytes.
pub const TURN_DIFF_BYTES_MAX: usize = 64 * 1024;
/// What an approval shows, in bytes; a larger one is answered at the desk.
pub const APPROVAL_ACTION_BYTES_MAX: usize = 64 * 1024;
/// A short text of Codex that is shown in one line (a folder, a model, a tool), in bytes.
pub const LINE_BYTES_MAX: usize = 4 * 1024;
/// Turns that are asked of Codex for one page of history.
pub const PAGE_TURNS_MAX: u32 = 8;
/// Requests to Codex for one page of history.
pub const PAGE_REQUESTS_MAX: usize = 32;
/// Cursors of pages that the connector remembers; an older one is no longer good.
pub const PAGE_CURSORS_MAX: usize = 4096;
/// Models of one list.
pub const MODELS_MAX: usize = 128;
/// Questions of one request of Codex, and options of one question.
pub const QUESTION_PARTS_MAX: usize = 16;
/// Rows of one thread list page.
pub const THREAD_PAGE_ROWS_MAX: u32 = 50;
/// Preview text of a thread, in bytes, cut at a character.
pub const PREVIEW_BYTES_MAX: usize = 240;
/// Name of a thread, in characters.
pub const THREAD_NAME_CHARS_MAX: usize = 200;
/// A prompt, in bytes.
pub const PROMPT_BYTES_MAX: usize = 120 * 1024;

// === HTTP ===

/// Body of an API request, in bytes: all are small JSON objects.
pub const API_BODY_BYTES_MAX: usize = 64 * 1024;
/// Time an API request may take.
pub const API_TIMEOUT: Duration = Duration::from_secs(15);
/// Longest wait of a long poll on a local-connect.
pub const LONG_POLL_MAX: Duration = Duration::from_secs(10);
/// Rows of one page of an API list.
pub const API_PAGE_ROWS_MAX: u32 = 200;
/// Label of a machine or device, in characters.
pub const LABEL_CHARS_MAX: usize = 64;
