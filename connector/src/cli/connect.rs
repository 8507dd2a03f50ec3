//! `flydex connect`: pairs, then runs.

use std::path::Path;

use flydex_domain::error::ErrorCode;
use flydex_domain::limits::LABEL_CHARS_MAX;
use flydex_domain::scope::Role;
use flydex_domain::time::UnixMillis;
use flydex_runtime::lifecycle::Shutdown;
use tokio::sync::watch;
use zeroize::Zeroizing;

use super::args::ConnectArguments;
use super::parts::{self, Front};
use super::run::{STOP_GRACE, Serving};
use super::{Context, Problem};
use crate::api::Api;
use crate::credential::serial;
use crate::helper::Readiness;
use crate::pair::desk::{Desk, Paired};
use crate::pair::{Pairing, PairingRequest, printable};
use crate::record::{self, PairedRecord, Settings};
use crate::regions::ServerOrigin;
use crate::release::{self, Told};
use crate::rotation;

/// Pairs this machine, then keeps it connected.
pub(super) async fn connect(context: Context, arguments: ConnectArguments) -> Result<(), Problem> {
    let lock = context.state.lock()?;
    context.state.check_files()?;
    let before = PairedRecord::load(&context.state)?;
    if let Some(before) = &before {
        rotation::settled_key(&context.state, before)?;
    }
    if release::tell(&context.state, &context.clock).await? == Told::Later {
        context.screen.line("the last account has not heard yet that this computer left it; it is told later");
    }
    let (origin, extra_pem) = server(&arguments, before.as_ref())?;
    if !origin.is_encrypted() {
        context
            .screen
            .line(&format!("{origin} is on this computer and not encrypted; that is fine for a try-out only"));
    }
    let (api, trusted_pem) = Api::trusting(origin.clone(), extra_pem.clone(), context.clock.clone()).await?;
    if trusted_pem != extra_pem {
        context.screen.line("trusting the server's own certificate, since it runs on this computer");
    }
    let key = context.state.machine_key(|| Zeroizing::new(context.entropy.bytes()))?;
    let shutdown = Shutdown::new();
    parts::end_on_signals(&shutdown);
    let (mut desk, port) = Desk::new(context.screen.clone());
    parts::read_answers(&port);
    let (readiness, _) = watch::channel(Readiness::Pairing);
    let front = Front::open(&context, arguments.run.port, origin, port, &readiness, &shutdown).await;

    let machine_label = arguments.label.clone().map_or_else(host_name, |label| printable(&label));
    let request = PairingRequest {
        machine_key: &key,
        machine_label: machine_label.clone(),
        role: arguments.role,
        credential: credential_for(before.as_ref(), api.origin()),
    };
    let soft = shutdown.soft();
    let paired = tokio::select! {
        biased; // a pairing that is done is kept, even when the stop comes with it
        paired = desk.pair_afresh(|| Pairing::start(api.clone(), request.clone(), context.clock.clone(), &context.entropy)) => paired?,
        () = soft.cancelled() => {
            shutdown.drain(STOP_GRACE).await;
            return Err(Problem::new(ErrorCode::PairingRefused, "stopped before anything was paired", "run flydex connect again"));
        }
    };
    let record = keep(&context, &api, &paired, machine_label, trusted_pem).await?;
    context.screen.line(&format!("paired with account \"{}\"", record.account_name));
    let first = Some(paired.pairing);
    Box::pin(Serving { context, record, key, api, desk, front, readiness, shutdown, first, lock }.serve()).await
}

/// Writes down what pairing gave: first the account, which clears the keys of another one, then the device.
async fn keep(
    context: &Context,
    api: &Api,
    paired: &Paired,
    machine_label: String,
    trusted_pem: Option<String>,
) -> Result<PairedRecord, Problem> {
    // A record that cannot be read is of no machine that goes on.
    let same = PairedRecord::load(&context.state).ok().flatten();
    let same = same
        .filter(|before| before.origin == api.origin().as_str() && before.machine_id == paired.enrolment.machine_id);
    let record = PairedRecord {
        origin: api.origin().as_str().to_owned(),
        account_id: paired.enrolment.account_id,
        account_name: paired.proposal.account_name.clone(),
        machine_id: paired.enrolment.machine_id,
        machine_label,
        credential: paired.enrolment.credential.clone(),
        token_keys: paired.enrolment.token_keys.clone(),
        regions: api.regions().await?,
        trusted_pem,
        key_counter: same.as_ref().map_or(0, |before| before.key_counter),
        key_since: same.as_ref().and_then(|before| before.key_since),
        cuts_heard_with: same.as_ref().map_or(0, |before| before.cuts_heard_with),
    };
    // A machine that starts over lists no device that could have been cut.
    let record = if same.is_none() { PairedRecord { cuts_heard_with: serial(&record), ..record } } else { record };
    record.replace(&context.state)?;
    let now = UnixMillis(context.clock.unix_millis());
    let (role, label): (Role, &str) = (paired.proposal.role(), &paired.proposal.device_label);
    if Settings::load(&context.state)?.refuse_browser_keys {
        context.screen.line("the account is set; this computer obeys no browser, so that device is not enrolled");
    } else {
        record::enrol(&context.state, paired.proposal.device_key(), role, label, now)?;
    }
    Ok(record)
}

/// The machine id and account are kept only with the server that gave them.
fn credential_for(before: Option<&PairedRecord>, origin: &ServerOrigin) -> Option<crate::api::SecretText> {
    before.filter(|record| record.origin == origin.as_str()).map(|record| record.credential.clone())
}

pub(super) fn server(
    arguments: &ConnectArguments,
    before: Option<&PairedRecord>,
) -> Result<(ServerOrigin, Option<String>), Problem> {
    let paired = before.map(|record| record.origin.clone());
    let Some(text) = arguments.server.clone().or(paired) else {
        let next = "flydex connect --server https://… (the address of your FlyDex server)";
        return Err(Problem::new(ErrorCode::NotPaired, "no server was named", next));
    };
    let origin: ServerOrigin = text.parse()?;
    let kept = before.filter(|record| record.origin == origin.as_str()).and_then(|record| record.trusted_pem.clone());
    let named = arguments.ca.as_deref().map(read_certificate).transpose()?;
    Ok((origin, named.or(kept)))
}

/// Reads a certificate that the person at the desk names.
pub(crate) fn read_certificate(path: &Path) -> Result<String, Problem> {
    std::fs::read_to_string(path).map_err(|_| {
        let cause = format!("cannot read a certificate from {}", path.display());
        Problem::new(ErrorCode::UntrustedAddress, &cause, "give a file in PEM that you can read")
    })
}

fn host_name() -> String {
    let name = printable(&rustix::system::uname().nodename().to_string_lossy());
    let name: String = name.chars().take(LABEL_CHARS_MAX).collect();
    if name.is_empty() { "computer".to_owned() } else { name }
}
