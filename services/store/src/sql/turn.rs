//! Whose turn it is to change what several processes change.
//!
//! On SQLite a change is alone from its beginning. On PostgreSQL a change takes a row first, by updating it to what
//! it is: whoever comes later waits for that row, and each of its statements sees what was committed before it. So
//! there are no gaps in the numbers of an audit or of the revocation log, they are committed in their order, no
//! transaction is ever sent back to be tried again, and one that is stuck holds up its own account alone, until
//! PostgreSQL ends it.
//!
//! The order in which rows are taken is: a pairing, a sign-in link, an attempt or a passkey, its account, the server, the log of revocations. It is the same
//! everywhere, or two could wait for each other.

use flydex_domain::id::{ClaimId, LocalConnectId};
use flydex_domain::scope::AccountScope;

use super::query::{Query, query};
use super::{StoreError, Tx};

/// What is changed by one at a time, beside an account.
#[derive(Clone, Copy, Debug)]
pub(super) enum Turn {
    /// One pairing.
    LocalConnect(LocalConnectId),
    /// The pairing of a claim.
    Claim(ClaimId),
    /// What belongs to no account, and the rows that housekeeping removes from all of them.
    Server,
    /// The end of the revocation log.
    Revocations,
}

impl Tx {
    /// Waits until no other change of the account is open, unless this is a mere view. What is not there is nobody's
    /// turn.
    pub(super) async fn take_turn(&mut self, scope: AccountScope) -> Result<(), StoreError> {
        let account_id = scope.account_id();
        if !self.changes || self.turn == Some(account_id) {
            return Ok(());
        }
        query("UPDATE accounts SET audit_number = audit_number WHERE account_id = $1")
            .bind(account_id.as_bytes().as_slice())
            .execute(self)
            .await?;
        self.turn = Some(account_id);
        Ok(())
    }

    /// The same for what belongs to no account.
    pub(super) async fn take_turn_of(&mut self, turn: Turn) -> Result<(), StoreError> {
        if self.changes {
            statement(turn).execute(self).await?;
        }
        Ok(())
    }
}

fn statement(turn: Turn) -> Query {
    match turn {
        Turn::LocalConnect(id) => query("UPDATE local_connects SET revision = revision WHERE local_connect_id = $1")
            .bind(id.as_bytes().as_slice()),
        Turn::Claim(id) => query(
            "UPDATE local_connects SET revision = revision \
             WHERE local_connect_id = (SELECT local_connect_id FROM claims WHERE claim_id = $1)",
        )
        .bind(id.as_bytes().as_slice()),
        Turn::Server => query("UPDATE turns SET taken = taken + 1 WHERE name = 'server'"),
        Turn::Revocations => query("UPDATE turns SET taken = taken + 1 WHERE name = 'revocations'"),
    }
}
