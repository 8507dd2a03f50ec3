//! The desk.

use std::time::Duration;

/// A file in the connector's folder that is read whole, in bytes: a full device list is far smaller.
pub const STATE_FILE_BYTES_MAX: u64 = 1024 * 1024;
/// An answer of the control plane that the connector reads, in bytes.
pub const API_ANSWER_BYTES_MAX: usize = 256 * 1024;
/// The loopback port of the connector's helper: one fixed place for local pages to look.
pub const HELPER_PORT: u16 = 48163;
/// Body of a request to the helper, in bytes: two short fields.
pub const HELPER_BODY_BYTES_MAX: usize = 4 * 1024;
/// Time one request to the helper may take.
pub const HELPER_TIMEOUT: Duration = Duration::from_secs(10);
/// Requests that the helper serves at once; further ones wait in the listener's own queue.
pub const HELPER_REQUESTS_IN_FLIGHT_MAX: usize = 16;
/// One request or answer on the connector's control socket, in bytes: a full device list and its tombstones fit.
pub const CONTROL_LINE_BYTES_MAX: usize = 512 * 1024;
/// Time that a server has to hear that a machine leaves its account, before it is told at another time.
pub const RELEASE_TIMEOUT: Duration = Duration::from_secs(5);
/// Time the running connector has to answer on its control socket.
pub const CONTROL_TIMEOUT: Duration = Duration::from_secs(5);
/// Connections that the control socket serves at once.
pub const CONTROL_CONNECTIONS_MAX: usize = 8;
/// Answers of the desk that wait to be read: a person gives one at a time.
pub const DESK_ANSWERS_MAX: usize = 4;
/// Requests of the desk that wait for the core: one a connection of the control socket, and one of the page.
pub const DESK_REQUESTS_MAX: usize = CONTROL_CONNECTIONS_MAX + 1;
/// Wait between two looks at a pairing whose proof is about to arrive.
pub const PAIRING_POLL_INTERVAL: Duration = Duration::from_millis(250);
/// Longest wait between two tries to renew a credential.
pub const CREDENTIAL_RETRY_MAX: Duration = Duration::from_secs(300);
/// Skew between the machine's clock and the server's past which signed requests are refused.
pub const MACHINE_REQUEST_SKEW_MAX: Duration = Duration::from_secs(60);
/// Records that one audit upload carries.
pub const AUDIT_UPLOAD_RECORDS_MAX: usize = 100;
/// Times that a yes of the desk is sent to the relay, which takes repeats of it as one.
pub const PAIRING_CONFIRM_TRIES_MAX: u32 = 3;
/// Wait between them: the claim lives two minutes, and a person waits.
pub const PAIRING_CONFIRM_WAIT: Duration = Duration::from_secs(1);
