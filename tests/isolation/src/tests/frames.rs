//! One table of every choice of every message between browser, gateway, node, connector and control: who may say it, what
//! stops what is not the sender's to say, and the test that attacks it. And one of every field: whether it names
//! something of an account. A choice, method or field without a row fails, and so does a row without one.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use crate::schema::Schema;

/// Who may say something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Sender {
    Device,
    Connector,
    Gateway,
    Node,
    Control,
}
use Sender::{Connector, Control, Device, Gateway, Node};

/// What stops it where it is not the sender's to say, and the tests that try.
type Check = (&'static str, &'static [&'static str]);

const FUZZ: &str = "two_accounts_learn_nothing_of_each_other_and_do_nothing_to_each_other";

const TICKET: Check = (
    "gateway: ticket and grant verify, are of one account, user and device, and the device proves its key",
    &[
        FUZZ,
        "a_forged_foreign_or_mismatched_ticket_or_grant_is_refused",
        "a_wrong_proof_is_refused_and_leaves_the_ticket_unspent",
    ],
);
const CREDENTIAL: Check = (
    "gateway: the credential verifies and the machine proves its key",
    &[FUZZ, "a_wrong_key_a_wrong_binding_and_a_replayed_nonce_are_refused"],
);
const OWN: Check = (
    "gateway: a machine is looked for under the account of the ticket alone",
    &[FUZZ, "a_foreign_machine_and_a_missing_one_are_opened_alike_under_the_own_account"],
);
const OPENED: Check = (
    "gateway: passed on for machines that the session has open alone",
    &[FUZZ, "a_session_reaches_only_the_machine_that_it_opened_and_only_as_itself"],
);
const LINKED: Check = (
    "gateway: passed on under the machine of the link's credential, whatever it says",
    &[FUZZ, "a_link_speaks_for_the_machine_of_its_credential_whatever_its_frames_say"],
);
const ANSWERED: Check = ("answered to the one who said it; it names nothing", &[FUZZ]);
const SERVED: Check = (
    "gateway: written on the one socket that it is about",
    &[FUZZ, "every_frame_of_a_device_is_answered_as_the_table_says"],
);
const LINK_SERVED: Check = (
    "gateway: written on the one link that it is about",
    &[FUZZ, "every_frame_of_a_connector_is_answered_as_the_table_says"],
);
const GRANT: Check = (
    "node: grant or credential verifies, and the machine's key takes the account of that",
    &[
        FUZZ,
        "a_grant_of_another_account_finds_no_machine_here",
        "a_credential_that_is_forged_or_of_another_machine_opens_no_link",
    ],
);
const MEMBER: Check = (
    "node: heard for a session or link that this very stream has open under that account and machine",
    &[
        FUZZ,
        "frames_that_swap_account_machine_session_or_link_do_nothing",
        "a_session_is_spoken_for_only_by_the_stream_that_opened_it",
        "a_link_is_spoken_for_only_by_the_stream_that_opened_it",
    ],
);
const GREETING: Check = (
    "node: gateway and region are those of the certificate",
    &["a_gateway_cannot_greet_under_the_name_of_another_or_from_another_region"],
);
const NODE_GREETING: Check = (
    "gateway: life and region are those of the node that was looked for",
    &["a_process_that_is_not_the_node_it_is_dialled_as_gets_no_frames"],
);
const ROUTED: Check = (
    "gateway: heard for a session or link of that account and machine that is open on this very stream",
    &[
        FUZZ,
        "a_node_cannot_hand_one_accounts_frames_to_a_session_of_another",
        "what_a_node_says_for_another_account_or_a_machine_that_is_not_open_is_dropped",
        "what_a_node_says_for_another_account_or_machine_is_dropped",
        "a_node_speaks_for_no_machine_that_is_open_at_another",
    ],
);
const ATTACHED: Check = (
    "node: heard for the machine of the link alone, from the link that counts, in the owner's epoch",
    &[FUZZ, "a_connector_reaches_no_session_of_another_account_or_machine", "frames_of_another_epoch_reach_no_session"],
);
const FENCED: Check = (
    "connector: heard in the epoch that it holds; what acts is signed by an enrolled device",
    &[FUZZ, "a_session_of_another_device_brings_nothing"],
);
const GATED: Check = (
    "node: the session's own machine; connector: signature, account, machine, device and life of the header",
    &[
        FUZZ,
        "what_is_not_proven_is_turned_away_and_never_signed",
        "a_signature_by_another_enrolled_device_is_not_this_devices",
    ],
);
const SESSION: Check = (
    "node: of a session that is open at this machine",
    &[FUZZ, "a_session_of_another_account_is_told_that_there_is_no_such_machine"],
);
const CONTROLS: Check = (
    "both: only control's certificate is followed; an entry cuts what has its account and its name",
    &[
        FUZZ,
        "a_revocation_in_another_account_touches_nothing",
        "a_revocation_of_another_account_changes_nothing",
        "who_is_at_the_address_must_have_the_certificate_of_a_node_of_the_region",
    ],
);
const FOLLOWS: Check = ("control: the certificate of a gateway or node", &["only_gateways_and_nodes_may_ask"]);
const REPORTS: Check = (
    "control: the certificate of a node of that region; a machine is moved under its own account",
    &[
        "a_report_of_another_region_or_role_or_one_that_is_too_long_or_malformed_is_refused_whole",
        "a_report_moves_no_machine_of_another_account_and_none_that_was_revoked",
        "a_report_that_swaps_the_ids_of_two_accounts_moves_nothing",
    ],
);

/// Every choice of every message, and every method.
#[rustfmt::skip]
const CHOICES: &[(&str, Sender, Check)] = &[
    ("SessionUp.hello",                Device,    TICKET),
    ("SessionUp.proof",                Device,    TICKET),
    ("SessionUp.open",                 Device,    OWN),
    ("SessionUp.close",                Device,    OPENED),
    ("SessionUp.to_machine",           Device,    OPENED),
    ("SessionUp.ping",                 Device,    ANSWERED),
    ("SessionDown.challenge",          Gateway,   SERVED),
    ("SessionDown.welcome",            Gateway,   SERVED),
    ("SessionDown.from_machine",       Gateway,   ROUTED),
    ("SessionDown.machine_closed",     Gateway,   ROUTED),
    ("SessionDown.pong",               Gateway,   SERVED),
    ("SessionDown.go_away",            Gateway,   SERVED),
    ("SessionDown.end",                Gateway,   SERVED),
    ("LinkUp.hello",                   Connector, CREDENTIAL),
    ("LinkUp.proof",                   Connector, CREDENTIAL),
    ("LinkUp.frame",                   Connector, LINKED),
    ("LinkUp.ping",                    Connector, ANSWERED),
    ("LinkUp.pong",                    Connector, ANSWERED),
    ("LinkDown.challenge",             Gateway,   LINK_SERVED),
    ("LinkDown.welcome",               Gateway,   LINK_SERVED),
    ("LinkDown.frame",                 Gateway,   ROUTED),
    ("LinkDown.ping",                  Gateway,   LINK_SERVED),
    ("LinkDown.pong",                  Gateway,   LINK_SERVED),
    ("LinkDown.go_away",               Gateway,   LINK_SERVED),
    ("LinkDown.end",                   Gateway,   ROUTED),
    ("ConnectorFrame.attached",        Connector, ATTACHED),
    ("ConnectorFrame.stale",           Connector, ATTACHED),
    ("ConnectorFrame.report",          Connector, ATTACHED),
    ("ConnectorFrame.to_session",      Connector, SESSION),
    ("ConnectorFrame.subscribed",      Connector, SESSION),
    ("ConnectorFrame.unsubscribed",    Connector, SESSION),
    ("ConnectorFrame.shared_event",    Connector, ATTACHED),
    ("ConnectorFrame.device_removed",  Connector, ATTACHED),
    ("OwnerFrame.attach",              Node,      FENCED),
    ("OwnerFrame.from_session",        Node,      FENCED),
    ("OwnerFrame.session_gone",        Node,      FENCED),
    ("OwnerFrame.remove_device",       Node,      FENCED),
    ("GatewayFrame.open_session",      Gateway,   GRANT),
    ("GatewayFrame.session_message",   Gateway,   MEMBER),
    ("GatewayFrame.close_session",     Gateway,   MEMBER),
    ("GatewayFrame.open_link",         Gateway,   GRANT),
    ("GatewayFrame.link_message",      Gateway,   MEMBER),
    ("GatewayFrame.close_link",        Gateway,   MEMBER),
    ("GatewayFrame.hello",             Gateway,   GREETING),
    ("NodeFrame.session_opened",       Node,      ROUTED),
    ("NodeFrame.to_session",           Node,      ROUTED),
    ("NodeFrame.end_session",          Node,      ROUTED),
    ("NodeFrame.link_opened",          Node,      ROUTED),
    ("NodeFrame.to_link",              Node,      ROUTED),
    ("NodeFrame.end_link",             Node,      ROUTED),
    ("NodeFrame.not_owner",            Node,      ROUTED),
    ("NodeFrame.hello",                Node,      NODE_GREETING),
    ("DeviceMessage.command",          Device,    GATED),
    ("DeviceMessage.event_credit",     Device,    OPENED),
    ("DeviceMessage.bulk_credit",      Device,    OPENED),
    ("DeviceMessage.probe",            Device,    OPENED),
    ("MachineMessage.status",          Node,      ROUTED),
    ("MachineMessage.progress",        Connector, SESSION),
    ("MachineMessage.receipt",         Connector, SESSION),
    ("MachineMessage.verdict",         Connector, SESSION),
    ("MachineMessage.event",           Connector, SESSION),
    ("MachineMessage.chunk",           Connector, SESSION),
    ("MachineMessage.probe_reply",     Connector, SESSION),
    ("MachineMessage.failure",         Connector, SESSION),
    ("MachineMessage.stream_end",      Connector, SESSION),
    ("StreamVerdict.resumed_from",     Connector, SESSION),
    ("StreamVerdict.gap_as_of",        Connector, SESSION),
    ("Followed.keys",                  Control,   CONTROLS),
    ("Followed.revocation",            Control,   CONTROLS),
    ("Followed.heartbeat",             Control,   CONTROLS),
    ("Followed.region_drain",          Control,   CONTROLS),
    ("RevocationRecord.user_id",       Control,   CONTROLS),
    ("RevocationRecord.grant_id",      Control,   CONTROLS),
    ("RevocationRecord.device_id",     Control,   CONTROLS),
    ("RevocationRecord.machine_id",    Control,   CONTROLS),
    ("RevocationRecord.quarantine",    Control,   CONTROLS),
    ("RevocationRecord.superseded",    Control,   CONTROLS),
    ("MachineHost/Exchange",           Gateway,   MEMBER),
    ("Internal/Follow",                Gateway,   FOLLOWS),
    ("Internal/ReportLinks",           Node,      REPORTS),
];

type Names = &'static [&'static str];

/// Every field that is no choice, by its message: those that name something of an account, those that prove who one is,
/// and those that only tell. What names or proves is what the fuzzer swaps.
#[rustfmt::skip]
const FIELDS: &[(&str, Names, Names, Names)] = &[
    // message            names                                        proves                      tells
    ("SessionHello",      &[],                                         &["ticket", "grant", "device_key"], &["version", "version_min", "capabilities", "client"]),
    ("SessionChallenge",  &["session_id"],                             &["nonce"],                 &["version", "gateway_id", "server_time_ms"]),
    ("SessionProof",      &[],                                         &["signature"],             &[]),
    ("SessionWelcome",    &["session_id"],                             &[],                        &["capabilities", "ping_interval_ms", "silence_max_ms", "event_window_bytes", "bulk_window_bytes"]),
    ("OpenMachine",       &["machine_id"],                             &[],                        &[]),
    ("CloseMachine",      &["machine_id"],                             &[],                        &[]),
    ("ToMachine",         &["machine_id"],                             &[],                        &["message"]),
    ("FromMachine",       &["machine_id"],                             &[],                        &["message"]),
    ("MachineClosed",     &["machine_id"],                             &[],                        &["code", "retry_after_ms"]),
    ("Ping",              &[],                                         &[],                        &["nonce"]),
    ("Pong",              &[],                                         &[],                        &["nonce", "server_time_ms"]),
    ("GoAway",            &[],                                         &[],                        &["reconnect_in_ms", "try_for_ms", "hint"]),
    ("SessionEnd",        &[],                                         &[],                        &["code", "retry_after_ms", "link_counter"]),
    ("LinkHello",         &["boot_id"],                                &["credential"],            &["version", "version_min", "capabilities", "link_counter", "connector_version"]),
    ("LinkChallenge",     &[],                                         &["nonce"],                 &["version", "gateway_id", "server_time_ms"]),
    ("LinkProof",         &[],                                         &["signature"],             &["channel_bound"]),
    ("LinkWelcome",       &["link_id"],                                &[],                        &["capabilities", "ping_interval_ms", "silence_max_ms"]),
    ("Epoch",             &[],                                         &["counter", "incarnation"], &[]),
    ("ConnectorFrame",    &[],                                         &["epoch"],                 &[]),
    ("OwnerFrame",        &[],                                         &["epoch"],                 &[]),
    ("AttachOwner",       &[],                                         &[],                        &[]),
    ("Attached",          &[],                                         &[],                        &["highest"]),
    ("Stale",             &[],                                         &[],                        &["highest"]),
    ("MachineReport",     &[],                                         &[],                        &["state", "code", "codex_version", "read_only", "paused"]),
    ("ToSession",         &["session_id"],                             &[],                        &["message"]),
    ("Subscribed",        &["session_id", "device_id"],                &[],                        &["verdict"]),
    ("Unsubscribed",      &["session_id"],                             &[],                        &["end"]),
    ("FromSession",       &["session_id", "device_id"],                &[],                        &["role", "message"]),
    ("SessionGone",       &["session_id"],                             &[],                        &[]),
    ("RemoveDevice",      &["device_id"],                              &[],                        &["keeps"]),
    ("DeviceRemoved",     &["device_id"],                              &[],                        &["keeps"]),
    ("GatewayFrame",      &["account_id", "machine_id"],               &[],                        &["deadline_ms"]),
    ("NodeFrame",         &["account_id", "machine_id"],               &[],                        &[]),
    ("GatewayHello",      &[],                                         &[],                        &["gateway_id", "region"]),
    ("NodeHello",         &[],                                         &[],                        &["incarnation", "node_id", "region"]),
    ("OpenSession",       &["session_id"],                             &["grant"],                 &["replacing"]),
    ("SessionOpened",     &["session_id"],                             &[],                        &[]),
    ("SessionMessage",    &["session_id"],                             &[],                        &["message"]),
    ("CloseSession",      &["session_id"],                             &[],                        &[]),
    ("NodeToSession",     &["session_id"],                             &[],                        &["message"]),
    ("EndSession",        &["session_id"],                             &[],                        &["code", "retry_after_ms"]),
    ("OpenLink",          &["link_id", "boot_id"],                     &["credential"],            &["link_counter", "transport", "connector_version", "channel_bound", "replacing"]),
    ("LinkOpened",        &["link_id"],                                &[],                        &[]),
    ("LinkMessage",       &["link_id"],                                &[],                        &["frame"]),
    ("CloseLink",         &["link_id"],                                &[],                        &[]),
    ("NodeToLink",        &["link_id"],                                &[],                        &["frame"]),
    ("EndLink",           &["link_id"],                                &[],                        &["code", "retry_after_ms", "link_counter"]),
    ("NotOwner",          &["subject_id"],                             &[],                        &["owner"]),
    ("FollowRequest",     &[],                                         &[],                        &["after_number"]),
    ("TokenKeys",         &[],                                         &[],                        &["keys"]),
    ("TokenKey",          &[],                                         &["key"],                   &["key_id"]),
    ("RevocationRecord",  &["account_id"],                             &[],                        &["number", "at_ms", "device_keeps"]),
    ("Quarantine",        &["machine_id"],                             &[],                        &["serial"]),
    ("Superseded",        &["machine_id"],                             &[],                        &["serial"]),
    ("Heartbeat",         &[],                                         &[],                        &["head_number", "at_ms"]),
    ("RegionDrain",       &[],                                         &[],                        &["drains"]),
    ("ReportLinksRequest", &[],                                        &[],                        &["region", "links"]),
    ("LinkReport",        &["account_id", "machine_id"],               &[],                        &["at_ms", "link_counter"]),
    ("ReportLinksResponse", &[],                                       &[],                        &[]),
    ("DeviceMessage",     &[],                                         &[],                        &["trace"]),
    ("MachineMessage",    &[],                                         &[],                        &["trace"]),
    ("EventCredit",       &[],                                         &[],                        &["bytes"]),
    ("BulkCredit",        &["command_id"],                             &[],                        &["bytes"]),
    ("Probe",             &[],                                         &[],                        &["nonce"]),
    ("ProbeReply",        &[],                                         &[],                        &["nonce", "machine_time_ms"]),
    ("MachineStatus",     &["boot_id"],                                &[],                        &["state", "code", "since_ms", "transport", "connector_version", "codex_version", "read_only", "paused", "channel_bound"]),
    ("Progress",          &["command_id"],                             &[],                        &["state"]),
    ("StreamVerdict",     &["command_id", "stream_id", "boot_id"],     &[],                        &[]),
    ("Event",             &["stream_id"],                              &[],                        &["seq", "body"]),
    ("StreamEnd",         &["stream_id"],                              &[],                        &["last_seq", "code"]),
    ("BulkChunk",         &["command_id"],                             &[],                        &["offset", "bytes"]),
    ("Failure",           &["command_id"],                             &[],                        &["code", "retry_after_ms"]),
    ("PublicKey",         &["key"],                                    &[],                        &["algorithm"]),
    ("TraceContext",      &["trace_id", "span_id"],                    &[],                        &["flags"]),
    ("Command",           &[],                                         &["signature", "audit_receipt", "assertion"], &["header", "body"]),
    ("PasskeyAssertion",  &["credential_id"],                          &["signature"],             &["authenticator_data", "client_data_json"]),
    ("CommandHeader",     &["command_id", "account_id", "machine_id", "device_id", "boot_id", "session_id"], &[], &["issued_at_ms", "lifetime_ms", "kind", "body_sha256", "answer"]),
    ("ApprovalAnswer",    &["approval_id", "generation"],              &[],                        &["decision"]),
    ("SignedReceipt",     &[],                                         &["signature"],             &["receipt"]),
    ("Receipt",           &["account_id", "machine_id", "device_id", "command_id", "command_hash", "boot_id", "generation"], &[], &["outcome", "code", "at_ms", "as_of", "result", "bulk"]),
    ("BulkDescriptor",    &[],                                         &[],                        &["total_bytes", "sha256"]),
    ("Position",          &["stream_id", "boot_id"],                   &[],                        &["seq"]),
];

#[test]
fn every_choice_and_method_has_a_row_and_every_row_one_of_them() -> anyhow::Result<()> {
    let schema = Schema::load()?;
    let described: BTreeSet<String> = schema.choices().into_iter().chain(schema.methods()).collect();
    let listed: BTreeSet<String> = CHOICES.iter().map(|(choice, ..)| (*choice).to_owned()).collect();
    assert_eq!(described, listed);
    assert_eq!(listed.len(), CHOICES.len(), "a row stands twice");
    Ok(())
}

#[test]
fn every_field_has_its_place_in_the_table_and_every_place_a_field() -> anyhow::Result<()> {
    let mut listed: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for (message, names, proves, tells) in FIELDS {
        let fields = names.iter().chain(*proves).chain(*tells).map(|field| (*field).to_owned());
        let before = listed.insert((*message).to_owned(), fields.collect());
        assert!(before.is_none(), "{message} stands twice");
        assert_eq!(
            listed[*message].len(),
            names.len() + proves.len() + tells.len(),
            "a field of {message} stands twice"
        );
    }
    let mut described = Schema::load()?.plain_fields();
    // Those with choices alone have rows above.
    described.retain(|message, fields| !fields.is_empty() || listed.contains_key(message));
    assert_eq!(described, listed);
    Ok(())
}

#[test]
fn what_a_connector_says_of_itself_is_not_taken_from_others_and_nobody_else_speaks_for_control() {
    for (choice, sender, _) in CHOICES {
        let (message, _) = choice.split_once(['.', '/']).expect("a message and a choice");
        let speakers: &[Sender] = match message {
            "SessionUp" | "DeviceMessage" => &[Device],
            "LinkUp" | "ConnectorFrame" | "StreamVerdict" => &[Connector],
            "SessionDown" | "LinkDown" | "GatewayFrame" | "MachineHost" => &[Gateway],
            "OwnerFrame" | "NodeFrame" => &[Node],
            "MachineMessage" => &[Connector, Node],
            "Followed" | "RevocationRecord" => &[Control],
            "Internal" => &[Gateway, Node],
            other => panic!("who says {other}?"),
        };
        assert!(speakers.contains(sender), "{choice} of {sender:?}");
    }
}

#[test]
fn every_row_names_what_stops_it_and_tests_that_exist() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let mut text = String::new();
    for folder in ["services", "tests", "connector", "proto"] {
        collect(&root.join(folder), &mut text);
    }
    for (choice, _, (check, attacks)) in CHOICES {
        assert!(!check.is_empty() && !attacks.is_empty(), "{choice}");
        for attack in *attacks {
            assert!(text.contains(&format!("fn {attack}(")), "{choice}: no test {attack}");
        }
    }
}

fn collect(folder: &Path, text: &mut String) {
    for entry in std::fs::read_dir(folder).expect("a folder").flatten() {
        let (path, name) = (entry.path(), entry.file_name());
        if path.is_dir() {
            if !["target", "node_modules", "dist", "generated"].iter().any(|other| name == *other) {
                collect(&path, text);
            }
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            text.push_str(&std::fs::read_to_string(&path).expect("the file was just listed"));
        }
    }
}
