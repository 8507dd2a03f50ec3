//! What kind of command a body is for, and what of it the journal may keep.

use bytes::Bytes;
use flydex_agent_proto::v1 as agent;
use flydex_agent_proto::v1::command_body::Kind as Body;
use flydex_agent_proto::v1::command_result::Kind as ResultKind;
use flydex_domain::command::{CommandKind, Outcome};
use prost::Message as _;

use crate::codex::ThreadId;

/// What of a result the journal may keep: ids, codes and times, and no text of a person.
pub(super) fn kept(kind: CommandKind, outcome: Outcome, result: &Bytes) -> Vec<u8> {
    match kind {
        CommandKind::StartThread
        | CommandKind::StartTurn
        | CommandKind::Steer
        | CommandKind::Review
        | CommandKind::EndorseDevice
            if outcome == Outcome::Executed =>
        {
            result.to_vec()
        }
        CommandKind::AnswerApproval => with_label(result, |closed| closed.device_label.clear()).to_vec(),
        CommandKind::StartThread
        | CommandKind::StartTurn
        | CommandKind::Steer
        | CommandKind::Review
        | CommandKind::EndorseDevice
        | CommandKind::Attach
        | CommandKind::ListThreads
        | CommandKind::ReadThread
        | CommandKind::ListModels
        | CommandKind::WatchThread
        | CommandKind::UnwatchThread
        | CommandKind::Interrupt
        | CommandKind::RenameThread
        | CommandKind::ArchiveThread
        | CommandKind::UnarchiveThread
        | CommandKind::AnswerQuestion
        | CommandKind::ListDevices
        | CommandKind::PinPasskey => Vec::new(),
    }
}

/// The result of an answer to an approval, with the name of the device that was first changed.
pub(super) fn with_label(result: &Bytes, change: impl FnOnce(&mut agent::ApprovalClosed)) -> Bytes {
    let Ok(mut result) = agent::CommandResult::decode(result.clone()) else { return Bytes::new() };
    let closed = match &mut result.kind {
        Some(ResultKind::ApprovalSettled(settled)) => settled.closed.as_mut(),
        Some(ResultKind::Refusal(refusal)) => refusal.approval.as_mut(),
        Some(
            ResultKind::Attached(_)
            | ResultKind::ThreadPage(_)
            | ResultKind::HistoryPage(_)
            | ResultKind::ModelList(_)
            | ResultKind::ThreadWatched(_)
            | ResultKind::ThreadStarted(_)
            | ResultKind::TurnAccepted(_)
            | ResultKind::DeviceList(_)
            | ResultKind::DeviceEndorsed(_),
        )
        | None => None,
    };
    match closed {
        Some(closed) => {
            change(closed);
            result.encode_to_vec().into()
        }
        None => Bytes::new(),
    }
}

/// The kind that a body is for.
pub(super) fn kind_of(body: &Body) -> CommandKind {
    match body {
        Body::Attach(_) => CommandKind::Attach,
        Body::ListThreads(_) => CommandKind::ListThreads,
        Body::ReadThread(_) => CommandKind::ReadThread,
        Body::ListModels(_) => CommandKind::ListModels,
        Body::WatchThread(_) => CommandKind::WatchThread,
        Body::UnwatchThread(_) => CommandKind::UnwatchThread,
        Body::StartThread(_) => CommandKind::StartThread,
        Body::StartTurn(_) => CommandKind::StartTurn,
        Body::Steer(_) => CommandKind::Steer,
        Body::Interrupt(_) => CommandKind::Interrupt,
        Body::RenameThread(_) => CommandKind::RenameThread,
        Body::ArchiveThread(_) => CommandKind::ArchiveThread,
        Body::UnarchiveThread(_) => CommandKind::UnarchiveThread,
        Body::Review(_) => CommandKind::Review,
        Body::AnswerApproval(_) => CommandKind::AnswerApproval,
        Body::AnswerQuestion(_) => CommandKind::AnswerQuestion,
        Body::ListDevices(_) => CommandKind::ListDevices,
        Body::EndorseDevice(_) => CommandKind::EndorseDevice,
        Body::PinPasskey(_) => CommandKind::PinPasskey,
    }
}

/// The thread in which a prompt would show, for proof after a crash.
pub(super) fn thread_of(body: &Body) -> String {
    // The journal holds no text of a device, so only what is an id is kept.
    let proper = |text: &str| text.parse::<ThreadId>().map(|thread_id| thread_id.to_string()).unwrap_or_default();
    match body {
        Body::StartTurn(start) => proper(&start.thread_id),
        Body::Steer(steer) => proper(&steer.thread_id),
        Body::Attach(_)
        | Body::ListThreads(_)
        | Body::ReadThread(_)
        | Body::ListModels(_)
        | Body::WatchThread(_)
        | Body::UnwatchThread(_)
        | Body::StartThread(_)
        | Body::Interrupt(_)
        | Body::RenameThread(_)
        | Body::ArchiveThread(_)
        | Body::UnarchiveThread(_)
        | Body::Review(_)
        | Body::AnswerApproval(_)
        | Body::AnswerQuestion(_)
        | Body::ListDevices(_)
        | Body::EndorseDevice(_)
        | Body::PinPasskey(_) => String::new(),
    }
}
