//! Opening a link where there are two regions to choose from: the first has a head start, and the first welcome wins.
//!
//! Both may be dialled at once, but only one is greeted at a time, since a greeting is what counts as a link.

use std::pin::pin;
use std::time::Duration;

use flydex_domain::limits::{HANDSHAKE_TIMEOUT, REGION_WELCOME_WAIT};

use super::Running;
use super::error::DialError;
use super::open::Dialler;
use super::survey::{Plan, Survey};
use crate::paired::RegionEndpoint;

pub(super) async fn open(
    dialler: &Dialler,
    survey: &Survey,
    plan: &Plan,
    head_start: Duration,
) -> Result<Running, DialError> {
    let Plan { first, second } = plan;
    let Some(second) = second else {
        return judged(survey, first, dialler.open(first, HANDSHAKE_TIMEOUT).await);
    };
    let mut ahead = pin!(dialler.open(first, REGION_WELCOME_WAIT));
    if let Ok(opened) = tokio::time::timeout(head_start, &mut ahead).await {
        return match judged(survey, first, opened) {
            Err(error) if error.blames_region() => {
                turn_to(dialler, survey, second).await.map_err(|other| telling(error, other))
            }
            settled => settled,
        };
    }
    tracing::info!(region = %second.region, "the region does not answer; another is dialled as well");
    let mut behind = pin!(dialler.open(second, HANDSHAKE_TIMEOUT));
    tokio::select! {
        biased; // a tie goes to the region that is preferred
        opened = &mut ahead => match judged(survey, first, opened) {
            Err(error) if error.blames_region() => {
                judged(survey, second, behind.await).map_err(|other| telling(error, other))
            }
            settled => settled,
        },
        opened = &mut behind => match judged(survey, second, opened) {
            Ok(link) => {
                survey.outrun(&first.region);
                Ok(link)
            }
            Err(other) => judged(survey, first, ahead.await).map_err(|error| telling(error, other)),
        },
    }
}

async fn turn_to(dialler: &Dialler, survey: &Survey, second: &RegionEndpoint) -> Result<Running, DialError> {
    tracing::info!(region = %second.region, "the region is lost; turning to another");
    judged(survey, second, dialler.open(second, HANDSHAKE_TIMEOUT).await)
}

fn judged(
    survey: &Survey,
    endpoint: &RegionEndpoint,
    opened: Result<Running, DialError>,
) -> Result<Running, DialError> {
    if opened.as_ref().is_err_and(DialError::blames_region) {
        survey.failed(&endpoint.region);
    }
    opened
}

/// A region that said no tells more than one that said nothing.
fn telling(error: DialError, other: DialError) -> DialError {
    match (&error, &other) {
        (DialError::Unreachable(_) | DialError::Timeout, DialError::Refused { .. }) => other,
        _ => error,
    }
}
