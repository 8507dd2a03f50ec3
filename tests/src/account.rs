//! Accounts as an operator makes them: straight in the database.

use flydex_domain::encoding::sha256;
use flydex_domain::id::{AccountId, UserId};
use flydex_domain::limits::SIGN_IN_LINK_LIFETIME;
use flydex_domain::scope::Role;
use flydex_domain::time::UnixMillis;
use flydex_loadtest::account::encode;
use flydex_runtime::clock::Clock;
use flydex_store::sql::{Account, Sql, User};
use uuid::Uuid;

/// Makes an account with an owner, and returns the one-time link that signs the owner in at that origin.
///
/// # Errors
/// When the database does not take it.
pub async fn create(sql: Sql, origin: &str) -> anyhow::Result<String> {
    let now = UnixMillis(Clock::system().unix_millis());
    let account_id = AccountId::from_uuid(Uuid::new_v4());
    let user = User { account_id, user_id: UserId::from_uuid(Uuid::new_v4()), role: Role::Owner };
    let token = sha256(Uuid::new_v4().as_bytes());
    let mut tx = sql.write().await?;
    tx.create_account(&Account { account_id, name: "load".to_owned() }, now).await?;
    tx.create_user(&user, now).await?;
    let scope = user.principal().scope();
    tx.create_link(scope, &user, &sha256(&token), now, now.plus(SIGN_IN_LINK_LIFETIME)).await?;
    tx.commit().await?;
    sql.close().await;
    Ok(format!("{origin}/sign-in#{}", encode(&token)))
}
