//! The hot paths of codec and gate, against the work that nothing can avoid.

use std::hint::black_box;
use std::time::Duration;

use bytes::Bytes;
use ed25519_dalek::SigningKey;
use flydex_agent_proto::v1 as agent;
use flydex_domain::command::{CommandKind, SignedCommand, command_transcript};
use flydex_domain::id::{AccountId, BootId, MachineId};
use flydex_domain::key::PublicKey;
use flydex_domain::time::UnixMillis;
use flydex_proto::codec::{Lane, decode_body, encode_message, split_message};
use flydex_proto::v1;
use flydex_runtime::clock::Clock;
use uuid::Uuid;

use super::{Figure, nanos_since};
use crate::account::PairedMachine;
use crate::device::{Device, Target, body};

/// Content of the event that is coded: one coalesced delta.
const EVENT_BYTES: usize = 1024;

/// Measures coding one event frame against copying it, and checking one command against one bare verification.
///
/// # Errors
/// When a sample is out of the histogram's bounds.
pub fn run(rounds: u32) -> anyhow::Result<Vec<Figure>> {
    Ok(vec![codec(rounds)?, command(rounds)?])
}

fn codec(rounds: u32) -> anyhow::Result<Figure> {
    let clock = Clock::system();
    let mut figure = Figure::new("event frame: encode, split, decode", "copy of the same bytes")?;
    let event = v1::Event { stream_id: 3, seq: 900, body: Bytes::from(vec![7; EVENT_BYTES]) };
    let frame = encode_message(Lane::Events, &event)?;
    for _ in 0..rounds {
        let start = clock.instant();
        black_box(Bytes::copy_from_slice(black_box(&frame)));
        figure.floor.record(nanos_since(start))?;

        let start = clock.instant();
        let frame = encode_message(Lane::Events, black_box(&event))?;
        let (_, body) = split_message(frame)?;
        black_box(decode_body::<v1::Event>(body)?);
        figure.times.record(nanos_since(start))?;
    }
    Ok(figure)
}

fn command(rounds: u32) -> anyhow::Result<Figure> {
    let clock = Clock::system();
    let mut figure = Figure::new("command: parse, verify, hash", "bare Ed25519 verification")?;
    let device = Device::new();
    let machine = PairedMachine {
        account_id: AccountId::from_uuid(Uuid::nil()),
        machine_id: MachineId::from_uuid(Uuid::nil()),
        machine_key: PublicKey::of(&SigningKey::from_bytes(&[1; 32])),
    };
    let target = Target { machine: &machine, boot_id: BootId::from_bytes([0; 16]), session_id: None, answer: None };
    let content =
        body(agent::command_body::Kind::StartTurn(agent::StartTurn { text: "go on".repeat(40), ..Default::default() }));
    let mut header = device.header(&target, CommandKind::StartTurn, &content, UnixMillis(1));
    header.lifetime = Duration::from_secs(60);
    let wire = device.sign(&header, content);
    let key = device.public_key();
    let signature = device.sign_transcript(command_transcript(&wire.header));
    for _ in 0..rounds {
        let start = clock.instant();
        black_box(key.verify(command_transcript(black_box(&wire.header)), &signature)?);
        figure.floor.record(nanos_since(start))?;

        let start = clock.instant();
        let command = SignedCommand::try_from(black_box(wire.clone()))?;
        command.verify(&key).map_err(|code| anyhow::anyhow!("refused: {code}"))?;
        black_box(command.hash());
        figure.times.record(nanos_since(start))?;
    }
    Ok(figure)
}
