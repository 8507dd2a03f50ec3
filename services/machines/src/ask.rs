//! What the actors ask of the directory, each question in a task of its own that sends the answer back.
//!
//! An actor may have stopped meanwhile; then nobody wants the answer.

use std::sync::Arc;

use flydex_domain::id::LinkId;
use flydex_domain::limits::DIRECTORY_ANSWER_WAIT;
use flydex_domain::machine::message::{Answer, Input};
use flydex_domain::placement::{Acquisition, LinkRecord};
use flydex_domain::scope::MachineKey;
use flydex_store::directory::{self, Acquire, Acquired, DirectoryError};

use crate::handle::MachineHandle;
use crate::host::Context;

pub(crate) async fn acquire(context: Arc<Context>, handle: MachineHandle, asked: Acquire) {
    let answer = match in_time(context.directory.acquire(asked)).await {
        Ok(Acquired::Decided(Acquisition::Owned(epoch))) => Answer::Owned(epoch),
        Ok(Acquired::Decided(Acquisition::Held(record))) => Answer::Held(record.holder),
        Ok(Acquired::Settling(wait)) => Answer::Settling(wait),
        Err(DirectoryError::Unavailable) => Answer::Unavailable,
        Err(error @ (DirectoryError::Full | DirectoryError::Format | DirectoryError::FromTheFuture)) => {
            Answer::Refused(error.code())
        }
    };
    let _ = handle.send_own(Input::Acquired(answer));
}

pub(crate) async fn find(context: Arc<Context>, handle: MachineHandle, machine: MachineKey) {
    match in_time(context.directory.find(machine)).await {
        Ok(record) => {
            let _ = handle.send_own(Input::Found(record));
        }
        // The next look is due anyway.
        Err(error) => tracing::debug!(error.code = error.code().name(), "owner was not found"),
    }
}

pub(crate) async fn set_link(
    context: Arc<Context>,
    handle: MachineHandle,
    machine: MachineKey,
    link_id: LinkId,
    record: LinkRecord,
) {
    match in_time(context.directory.set_link(machine, context.incarnation, record)).await {
        Ok(placed) => {
            let _ = handle.send_own(Input::LinkPlaced { link_id, placed });
        }
        // An assertion names the link.
        Err(_) => handle.assert_later(&context),
    }
}

/// Lets an ownership go. A record that stays is harmless: its holder will have no lease.
pub(crate) async fn release(context: &Context, machine: MachineKey) {
    if let Err(error) = in_time(context.directory.release(machine, context.incarnation)).await {
        tracing::debug!(error.code = error.code().name(), "ownership was not released");
    }
}

/// The directory's answer; one that takes too long is none.
pub(crate) async fn in_time<T>(answer: directory::Answer<'_, T>) -> Result<T, DirectoryError> {
    tokio::time::timeout(DIRECTORY_ANSWER_WAIT, answer).await.unwrap_or(Err(DirectoryError::Unavailable))
}
