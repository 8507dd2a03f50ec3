//! Reading one page of a thread's history from Codex's pages of turns.

use std::sync::{Mutex, PoisonError};

use flydex_agent_proto::v1;
use flydex_domain::error::ErrorCode;
use flydex_domain::limits::PAGE_REQUESTS_MAX;

use super::api::{Refused, ThreadId};
use super::json::{list, text};
use super::methods::Method;
use super::pages::{Cursors, Filled, Page, Place, Rest};
use super::rpc::Client;
use super::{surface, translate};

/// Reads the page that begins at `cursor` of Codex and, where given, with `rest` of a turn.
///
/// New turns may have come before `rest` since its cursor was given: they are passed over.
pub(super) async fn read_page(
    client: &Client,
    cursors: &Mutex<Cursors>,
    thread_id: ThreadId,
    mut cursor: Option<String>,
    mut rest: Option<Rest>,
    bytes_max: u32,
) -> Result<v1::HistoryPage, Refused> {
    let give = |place| cursors.lock().unwrap_or_else(PoisonError::into_inner).give(place);
    let mut page = Page::new(bytes_max);
    for _ in 0..PAGE_REQUESTS_MAX {
        let params = surface::list_turns(thread_id, cursor.as_deref());
        let result = client.request(Method::ThreadTurnsList, params).await.map_err(|error| error.refused(false))?;
        for value in list(&result, "data") {
            if rest.as_ref().is_some_and(|rest| rest.turn_id != text(value, "id")) {
                continue;
            }
            let mut turn = translate::turn(value);
            if let Some(rest) = rest.take() {
                turn.items.truncate(rest.items);
            }
            if let Filled::Full(rest) = page.add(turn) {
                let place = Place::History { thread_id, cursor, rest: Some(rest) };
                return Ok(page.finish(thread_id, give(place)));
            }
        }
        match text(&result, "nextCursor") {
            "" if rest.is_some() => return Err(ErrorCode::CursorExpired.into()),
            "" => return Ok(page.finish(thread_id, String::new())),
            next => cursor = Some(next.to_owned()),
        }
    }
    let place = Place::History { thread_id, cursor, rest };
    Ok(page.finish(thread_id, give(place)))
}
