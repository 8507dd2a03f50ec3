//! `flydex keys`: the key of this computer, and its change.

use std::sync::Arc;

use flydex_domain::error::ErrorCode;
use flydex_domain::key::PublicKey;

use super::args::{KeysArguments, KeysCommand};
use super::{Context, Problem};
use crate::api::Api;
use crate::control::{self, ControlError, Request};
use crate::credential::Keyring;
use crate::record::PairedRecord;
use crate::regions::ServerOrigin;
use crate::rotation;

/// Shows the key, or changes it.
pub(super) async fn keys(context: &Context, arguments: KeysArguments) -> Result<(), Problem> {
    match arguments.command {
        KeysCommand::Show => show(context),
        KeysCommand::Rotate => Box::pin(rotate(context)).await,
    }
}

fn show(context: &Context) -> Result<(), Problem> {
    let not_paired = || Problem::of_code(ErrorCode::NotPaired);
    let record = PairedRecord::load(&context.state)?.ok_or_else(not_paired)?;
    let key = context.state.existing_machine_key()?.ok_or_else(not_paired)?;
    let changes = match record.key_counter {
        0 => "the first of this machine".to_owned(),
        count => format!("number {} of this machine", count + 1),
    };
    context.screen.line(&format!("{}\t{changes}", PublicKey::of(&key).device_id()));
    Ok(())
}

async fn rotate(context: &Context) -> Result<(), Problem> {
    match control::ask(&context.state, &Request::RotateKey).await {
        Ok(_) => {}
        Err(ControlError::NotRunning) => {
            let _lock = context.state.lock()?;
            let not_paired = || Problem::of_code(ErrorCode::NotPaired);
            let record = PairedRecord::load(&context.state)?.ok_or_else(not_paired)?;
            let key = rotation::settled_key(&context.state, &record)?.ok_or_else(not_paired)?;
            let origin: ServerOrigin = record.origin.parse()?;
            let api = Api::new(origin.clone(), record.trusted_pem.as_deref(), context.clock.clone())?;
            let keyring = Keyring::new(context.state.clone(), record, Arc::new(key), origin, context.clock.clone());
            keyring.rotate(&api, &context.entropy).await.map_err(|error| Problem::of_code(error.code()))?;
        }
        Err(error) => return Err(error.into()),
    }
    context.screen.line("this computer has a new key; devices follow to it by the old one's signature");
    Ok(())
}
