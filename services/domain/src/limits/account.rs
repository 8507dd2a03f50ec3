//! Bounds of who is in an account.

use std::time::Duration;

/// Life of an invitation: time for a colleague who is away for a week.
pub const INVITATION_LIFETIME: Duration = Duration::from_secs(7 * 24 * 3600);
/// Open invitations of one account.
pub const INVITATIONS_OPEN_MAX: i64 = 32;
/// Members of one account, on a server that sells no seats.
pub const ACCOUNT_MEMBERS_MAX: i64 = 1024;
/// Accounts that one person is a member of: the list of them is shown whole.
pub const PERSON_ACCOUNTS_MAX: i64 = 64;
