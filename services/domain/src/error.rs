//! The closed list of error codes.
//!
//! A code is what a peer sees: its number on the wire, its name in JSON, in metrics and as the file name of
//! its page in `docs/errors`. Each maps once to HTTP, gRPC and WebSocket, says where it comes from and whether
//! trying again may help. Numbers are never reused.

use std::fmt;

/// Which party a failure comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Origin {
    /// The browser sent something that cannot be done.
    Browser,
    /// The connector, or the machine it runs on.
    Connector,
    /// A gateway, a node or the control plane.
    Node,
    /// A database or a directory.
    Store,
    /// The local Codex.
    Codex,
}

/// Whether the same request may succeed later.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Retry {
    /// Not without a change of the request or of the state of the world by a person.
    Never,
    /// After a short wait, as it is.
    Later,
    /// After refreshing what the request was built on: a ticket, a boot, a snapshot.
    Refreshed,
}

macro_rules! error_codes {
    ($($(#[$doc:meta])* $variant:ident = $number:literal, $name:literal, $origin:ident, $retry:ident, $http:literal, $message:literal;)*) => {
        /// One failure that a peer or a user can be told about.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[repr(u16)]
        pub enum ErrorCode {
            $($(#[$doc])* $variant = $number,)*
        }

        impl ErrorCode {
            /// Every code, in the order of its number.
            pub const ALL: &'static [Self] = &[$(Self::$variant),*];

            /// The stable name: JSON, metric label and page in `docs/errors`.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)* }
            }

            /// Where the failure comes from.
            #[must_use]
            pub const fn origin(self) -> Origin {
                match self { $(Self::$variant => Origin::$origin,)* }
            }

            /// Whether trying again may help.
            #[must_use]
            pub const fn retry(self) -> Retry {
                match self { $(Self::$variant => Retry::$retry,)* }
            }

            /// The HTTP status that carries this code.
            #[must_use]
            pub const fn http_status(self) -> u16 {
                match self { $(Self::$variant => $http,)* }
            }

            /// What a user is told: the cause in one line, free of any detail of the request.
            #[must_use]
            pub const fn message(self) -> &'static str {
                match self { $(Self::$variant => $message,)* }
            }
        }
    };
}

error_codes! {
    /// A defect: the cause is in the log of the process that answered.
    Internal = 1000, "internal", Node, Later, 500, "something failed on our side";
    /// The request is not of the documented shape.
    BadRequest = 1001, "bad_request", Browser, Never, 400, "the request is malformed";
    /// A frame ended before its fields did.
    FrameTruncated = 1002, "frame_truncated", Browser, Never, 400, "a frame was cut short";
    /// A frame is over the limit of its lane.
    FrameTooLarge = 1003, "frame_too_large", Browser, Never, 413, "a frame is over its size limit";
    /// The peer speaks no version that this side speaks.
    UnsupportedVersion = 1004, "unsupported_version", Browser, Never, 426, "this version of the protocol is not spoken here; update FlyDex";
    /// A frame of a kind that is not allowed here or not known.
    UnexpectedFrame = 1005, "unexpected_frame", Browser, Never, 400, "a frame of that kind is not expected here";
    /// A bound was reached; nothing was taken.
    Overloaded = 1006, "overloaded", Node, Later, 503, "too busy right now; try again shortly";
    /// The caller exceeded its rate.
    RateLimited = 1007, "rate_limited", Browser, Later, 429, "too many requests; slow down";
    /// No answer within the deadline.
    DeadlineExceeded = 1008, "deadline_exceeded", Node, Later, 504, "no answer in time";
    /// The process is going away; connect again.
    GoingAway = 1009, "going_away", Node, Later, 503, "this server is restarting; reconnect";
    /// There is no such thing in your account.
    NotFound = 1010, "not_found", Browser, Never, 404, "not found";
    /// The database did not answer.
    StoreUnavailable = 1011, "store_unavailable", Store, Later, 503, "the database is not reachable";
    /// The peer read too slowly and was cut off.
    SlowConsumer = 1012, "slow_consumer", Browser, Later, 503, "the connection was too slow to keep up";
    /// A heartbeat went unanswered.
    PeerTimeout = 1013, "peer_timeout", Node, Later, 504, "the connection went silent";
    /// A state does not allow this step.
    Conflict = 1014, "conflict", Browser, Refreshed, 409, "that is not possible in the present state";
    /// The machine is moving to another node.
    Moving = 1015, "moving", Node, Later, 503, "the machine is moving to another node; try again";
    /// Keys and revocations are too old, for the control plane is out of reach: nobody new is let in.
    ControlUnreachable = 1016, "control_unreachable", Node, Later, 503, "the server cannot check right now who may come in; try again";

    /// No proof of identity was given, or it does not hold.
    Unauthenticated = 2000, "unauthenticated", Browser, Refreshed, 401, "sign in first";
    /// The role does not allow this.
    Forbidden = 2001, "forbidden", Browser, Never, 403, "your role does not allow this";
    /// The request comes from a page of another origin.
    OriginRefused = 2002, "origin_refused", Browser, Never, 403, "requests from that web origin are refused";
    /// The ticket does not verify.
    TicketInvalid = 2003, "ticket_invalid", Browser, Refreshed, 401, "the session ticket is not valid";
    /// The ticket is past its minute.
    TicketExpired = 2004, "ticket_expired", Browser, Refreshed, 401, "the session ticket has expired";
    /// The ticket was used before.
    TicketUsed = 2005, "ticket_used", Browser, Refreshed, 401, "the session ticket was already used";
    /// The ticket is for another region.
    TicketWrongRegion = 2006, "ticket_wrong_region", Browser, Refreshed, 401, "the session ticket is for another region";
    /// The signature that opens a session or link does not verify.
    ProofInvalid = 2007, "proof_invalid", Browser, Refreshed, 401, "the proof of the key does not verify";
    /// The grant does not verify or is past its day.
    GrantInvalid = 2008, "grant_invalid", Browser, Refreshed, 401, "the session grant is not valid";
    /// The machine credential does not verify or is past its day.
    CredentialInvalid = 2009, "credential_invalid", Connector, Refreshed, 401, "the machine credential is not valid";
    /// The machine was revoked in its account.
    MachineRevoked = 2010, "machine_revoked", Connector, Never, 403, "this machine was removed from its account; pair it again";
    /// The device was revoked.
    DeviceRevoked = 2011, "device_revoked", Browser, Never, 403, "this device was removed; pair it again";
    /// The owner or sign-in link is unknown, used or expired.
    SignInLinkInvalid = 2012, "sign_in_link_invalid", Browser, Never, 401, "the sign-in link is not valid any more; ask for a new one";
    /// A newer link of the same machine took over.
    LinkSuperseded = 2013, "link_superseded", Connector, Never, 409, "a newer connection of this machine took over";
    /// Two connectors use one machine key.
    MachineKeyCloned = 2014, "machine_key_cloned", Connector, Never, 403, "two computers use the same machine key; pair one of them again";
    /// A link whose epoch or counter is impossible.
    EpochRefused = 2015, "epoch_refused", Connector, Never, 409, "the ownership number is not plausible";
    /// TLS ends on the way, so a link cannot be bound to its connection, and the desk wants it bound.
    ChannelNotBound = 2016, "channel_not_bound", Connector, Never, 403, "something on the way ends TLS, and this computer takes only links that are bound to their connection";
    /// The machine is pinned to another region.
    MachineWrongRegion = 2017, "machine_wrong_region", Connector, Refreshed, 403, "this computer may be connected in another region only";
    /// The action needs a proof of the person that is minutes old.
    FreshAssertionRequired = 2030, "fresh_assertion_required", Browser, Refreshed, 403, "confirm that it is you, then try again";
    /// The attempt is unknown, used, too old, or began in another browser.
    AttemptInvalid = 2031, "attempt_invalid", Browser, Refreshed, 401, "this attempt is over or began in another browser; start again";
    /// The passkey is not known here, or its signature does not verify.
    PasskeyRefused = 2032, "passkey_refused", Browser, Never, 401, "this passkey is not accepted";
    /// The passkey's counter went back: two authenticators hold its key.
    PasskeyCloned = 2033, "passkey_cloned", Browser, Never, 403, "this passkey may have been copied; remove it and add another";
    /// The recovery code is unknown or was used.
    RecoveryCodeInvalid = 2034, "recovery_code_invalid", Browser, Never, 401, "the recovery code is not valid";
    /// Nothing else would let the user in.
    LastWayIn = 2035, "last_way_in", Browser, Never, 409, "this is the only way into the account; make recovery codes or add another way first";
    /// What the identity provider sent does not verify.
    IdentityRefused = 2036, "identity_refused", Browser, Refreshed, 401, "the sign-in at the identity provider could not be verified; start again";
    /// Nobody here is linked with that identity.
    IdentityUnknown = 2037, "identity_unknown", Browser, Never, 403, "nobody here is linked with that identity; sign in another way and link it";
    /// The identity provider does not answer.
    IdentityProviderUnreachable = 2038, "identity_provider_unreachable", Node, Later, 503, "the identity provider does not answer; try again";

    /// There is no such claim, or the secret does not fit it.
    ClaimInvalid = 3000, "claim_invalid", Browser, Never, 404, "this pairing code is not valid";
    /// The claim is past its two minutes.
    ClaimExpired = 3001, "claim_expired", Browser, Never, 410, "this pairing code has expired; draw a new one on the computer";
    /// The claim was used.
    ClaimUsed = 3002, "claim_used", Browser, Never, 409, "this pairing code was already used; draw a new one on the computer";
    /// The desk said no.
    PairingRefused = 3003, "pairing_refused", Connector, Never, 403, "the computer refused this pairing";
    /// A pairing MAC does not verify: the relay or the code was tampered with.
    PairingTampered = 3004, "pairing_tampered", Browser, Never, 400, "the pairing could not be verified; do not continue";
    /// The pairing was cancelled or has failed before.
    PairingEnded = 3005, "pairing_ended", Connector, Never, 410, "this pairing has ended; start a new one";
    /// The device list of the machine is full.
    DeviceListFull = 3006, "device_list_full", Connector, Never, 409, "this computer has too many devices; remove one first";

    /// An endorsement names another version of the device list than the present one.
    DeviceListStale = 3010, "device_list_stale", Browser, Refreshed, 409, "the computer's list of devices has changed; look at it and endorse again";
    /// An endorsement or the code that it was read from is past its minutes.
    EndorsementExpired = 3011, "endorsement_expired", Browser, Never, 410, "this code has expired; show a new one on the new device";
    /// The desk lets nobody but itself enrol devices.
    EnrolmentAtDeskOnly = 3012, "enrolment_at_desk_only", Connector, Never, 403, "this computer takes new devices at its own keyboard only";
    /// The desk obeys no key that a browser holds.
    BrowserKeysRefused = 3013, "browser_keys_refused", Connector, Never, 403, "this computer obeys no browser";
    /// The time in which a device may pin its passkey is over, or it has one.
    PasskeyNotPinnable = 3014, "passkey_not_pinnable", Connector, Never, 409, "a passkey is taken only right after the device was enrolled at the computer; enrol it again";

    /// No connector is connected for the machine.
    MachineOffline = 4000, "machine_offline", Connector, Later, 503, "the computer is not connected";
    /// The signature on the command does not verify.
    SignatureInvalid = 4001, "signature_invalid", Browser, Never, 401, "the command's signature does not verify";
    /// The machine does not know the device key.
    DeviceNotEnrolled = 4002, "device_not_enrolled", Browser, Never, 403, "this device is not enrolled at the computer; pair it";
    /// The device's role does not allow this kind of command.
    RoleInsufficient = 4003, "role_insufficient", Browser, Never, 403, "this device may not do that on the computer";
    /// The command's lifetime is over by the machine's clock.
    CommandExpired = 4004, "command_expired", Browser, Refreshed, 410, "the command expired before it arrived";
    /// The command was signed for the future by the machine's clock.
    CommandNotYetValid = 4005, "command_not_yet_valid", Browser, Refreshed, 400, "the device's clock is ahead of the computer's";
    /// The id was used before for another command.
    CommandIdReused = 4006, "command_id_reused", Browser, Never, 409, "the command's id was already used";
    /// The command was signed for an earlier life of the connector.
    WrongBoot = 4007, "wrong_boot", Browser, Refreshed, 409, "the computer's connector restarted; look before you send again";
    /// The command names another machine.
    WrongMachine = 4008, "wrong_machine", Browser, Never, 403, "the command is for another computer";
    /// The command names another account.
    WrongAccount = 4009, "wrong_account", Browser, Never, 403, "the command is for another account";
    /// The session has not attached, or as another device.
    NotAdmitted = 4010, "not_admitted", Browser, Refreshed, 403, "this session is not admitted by the computer";
    /// The lifetime is over the maximum.
    LifetimeTooLong = 4011, "lifetime_too_long", Browser, Never, 400, "the command's lifetime is too long";
    /// The body does not match the signed hash.
    BodyMismatch = 4012, "body_mismatch", Browser, Never, 400, "the command's content does not match its signature";
    /// The outcome is not known: it was sent before a crash or forgotten since.
    OutcomeUnknown = 4013, "outcome_unknown", Connector, Never, 409, "it is not known whether the command took effect; look before you send it again";
    /// The desk paused remote control.
    RemotePaused = 4014, "remote_paused", Connector, Later, 403, "remote control is paused at the computer";
    /// The journal cannot be written; only stopping commands work.
    JournalUnavailable = 4015, "journal_unavailable", Connector, Later, 503, "the computer cannot write its command journal (disk full?); only stop and decline work";
    /// Too many commands are under way at the machine.
    MachineBusy = 4016, "machine_busy", Connector, Later, 503, "the computer has too many commands under way";

    /// There is no such open approval.
    ApprovalNotFound = 5000, "approval_not_found", Connector, Refreshed, 404, "this approval is not open";
    /// The approval is past its deadline.
    ApprovalExpired = 5001, "approval_expired", Connector, Refreshed, 410, "this approval has expired";
    /// Someone answered first.
    AlreadyAnswered = 5002, "already_answered", Connector, Never, 409, "this approval was already answered";
    /// The device answered something else than what is open.
    DigestMismatch = 5003, "digest_mismatch", Connector, Refreshed, 409, "what was approved is not what is asked";
    /// The approval belongs to an earlier life of Codex.
    GenerationMismatch = 5004, "generation_mismatch", Connector, Refreshed, 409, "Codex restarted; this approval no longer exists";
    /// Codex withdrew the question.
    ApprovalWithdrawn = 5005, "approval_withdrawn", Codex, Never, 410, "Codex no longer asks this";
    /// That decision is not offered for this approval.
    DecisionNotOffered = 5006, "decision_not_offered", Connector, Never, 403, "that answer is not allowed here";
    /// The approval may only be answered at the desk.
    DeskOnly = 5007, "desk_only", Connector, Never, 403, "this can only be answered at the computer";
    /// A strict account and no audit receipt.
    AuditUnavailable = 5008, "audit_unavailable", Node, Later, 503, "the audit is not reachable and the account's policy is strict";
    /// The machine wants a passkey for this, and the device pinned none.
    PasskeyMissing = 5009, "passkey_missing", Browser, Never, 403, "the computer wants a passkey for this, and knows none of this device";
    /// The assertion of the passkey is absent or does not verify at the machine.
    PasskeyInvalid = 5010, "passkey_invalid", Browser, Refreshed, 403, "the computer could not verify the passkey";

    /// No Codex is installed, or it does not start.
    CodexNotFound = 6000, "codex_not_found", Codex, Never, 503, "no Codex was found on the computer";
    /// Codex is starting or restarting.
    CodexUnavailable = 6001, "codex_unavailable", Codex, Later, 503, "Codex is not ready";
    /// Codex is older than the oldest version that FlyDex speaks.
    CodexTooOld = 6002, "codex_too_old", Codex, Never, 503, "the computer's Codex is too old; update it";
    /// Codex is newer than FlyDex knows; reading works, writing does not.
    CodexTooNew = 6003, "codex_too_new", Codex, Never, 503, "the computer's Codex is newer than its FlyDex; update FlyDex to send";
    /// Codex refused the request.
    CodexRefused = 6004, "codex_refused", Codex, Refreshed, 409, "Codex refused the request";
    /// Codex is overloaded.
    CodexOverloaded = 6005, "codex_overloaded", Codex, Later, 503, "Codex is overloaded; try again shortly";
    /// There is no such thread on the machine.
    ThreadNotFound = 6006, "thread_not_found", Codex, Refreshed, 404, "there is no such thread";
    /// Another process on the machine has the thread open.
    ThreadOpenElsewhere = 6007, "thread_open_elsewhere", Codex, Later, 409, "the thread is open in another program on the computer; it can only be read";
    /// The thread runs without approvals and with full access.
    ThreadPolicyRefused = 6008, "thread_policy_refused", Connector, Never, 403, "the thread runs without approvals and with full access; the computer does not allow that remotely";
    /// A steer or interrupt without a running turn.
    TurnNotRunning = 6009, "turn_not_running", Codex, Refreshed, 409, "no turn is running";
    /// Another turn is running than the one that was meant.
    TurnMismatch = 6010, "turn_mismatch", Codex, Refreshed, 409, "another turn is running";
    /// A start while a turn is running.
    TurnRunning = 6011, "turn_running", Codex, Refreshed, 409, "a turn is running; steer or interrupt it";
    /// The working directory is not on the machine's list.
    DirectoryNotAllowed = 6012, "directory_not_allowed", Connector, Never, 403, "that folder is not on the computer's list";
    /// The prompt is over the limit.
    PromptTooLarge = 6013, "prompt_too_large", Browser, Never, 413, "the message is too long";
    /// The prompt is empty.
    PromptEmpty = 6014, "prompt_empty", Browser, Never, 400, "the message is empty";
    /// What was asked for does not fit any page.
    PageTooLarge = 6015, "page_too_large", Connector, Never, 413, "this part of the history is too large to show";
    /// A cursor of a page that is no longer known; reading begins anew.
    CursorExpired = 6016, "cursor_expired", Connector, Refreshed, 410, "this place in the list is no longer known; reload";

    /// A local page that is not the connector's own asked.
    LocalOriginRefused = 7000, "local_origin_refused", Browser, Never, 403, "this local page may not talk to FlyDex";
    /// The helper's port is taken.
    LocalPortTaken = 7001, "local_port_taken", Connector, Never, 503, "port 48163 is taken by another program";
    /// Another connector runs for this user.
    AlreadyRunning = 7002, "already_running", Connector, Never, 409, "FlyDex already runs for this user";
    /// The machine is not paired.
    NotPaired = 7003, "not_paired", Connector, Never, 409, "this computer is not paired; run flydex connect";
    /// The server's address has no trusted name.
    UntrustedAddress = 7004, "untrusted_address", Node, Never, 400, "that address has no trusted name; use https with a certificate";
    /// The connector's own folder cannot be used: exposed, damaged, or the disk refuses.
    StateUnusable = 7005, "state_unusable", Connector, Never, 503, "FlyDex cannot use its own folder on the computer";
    /// The server does not answer: no network, wrong address, or it is down.
    ServerUnreachable = 7006, "server_unreachable", Node, Later, 503, "the FlyDex server cannot be reached";

    /// The invitation is unknown, used, taken back or expired.
    InvitationInvalid = 8000, "invitation_invalid", Browser, Never, 404, "the invitation is not valid any more; ask for a new one";
    /// The account would be left without an owner.
    LastOwner = 8001, "last_owner", Browser, Never, 409, "an account needs an owner; make somebody else owner first";
    /// The person is a member already.
    AlreadyMember = 8002, "already_member", Browser, Never, 409, "you are a member of this account already";
    /// The plan has no room for another machine.
    MachineLimit = 8003, "machine_limit", Browser, Never, 409, "your plan has no room for another computer; remove one or choose a larger plan";
    /// The plan has no room for another member.
    SeatLimit = 8004, "seat_limit", Browser, Never, 409, "your plan has no room for another member; take an invitation back, remove a member or choose a larger plan";
    /// A payment is late, and its grace is over.
    PaymentDue = 8005, "payment_due", Browser, Never, 409, "a payment is due; nothing can be added until it is made";
    /// An event of the payment provider is not signed, or not lately.
    WebhookRefused = 8006, "webhook_refused", Node, Never, 400, "the event is not signed as it should be, or is too old";
}

impl ErrorCode {
    /// The number on the wire.
    #[must_use]
    pub const fn number(self) -> u16 {
        self as u16
    }

    /// The code with that number.
    #[must_use]
    pub fn from_number(number: u32) -> Option<Self> {
        Self::ALL.iter().copied().find(|code| u32::from(code.number()) == number)
    }

    /// The code with that stable name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|code| code.name() == name)
    }

    /// The WebSocket or QUIC close code: the number shifted into the private range of RFC 6455.
    #[must_use]
    pub const fn close_code(self) -> u16 {
        // RFC 6455 leaves 4000-4999 to applications; codes have at most 100 numbers in each of 8 thousands.
        let number = self.number();
        4000 + (number / 1000 - 1) * 100 + number % 1000
    }

    /// The code that a peer closed a WebSocket or a QUIC connection with.
    #[must_use]
    pub fn from_close_code(close_code: u16) -> Option<Self> {
        Self::ALL.iter().copied().find(|code| code.close_code() == close_code)
    }

    /// The gRPC status code (`google.rpc.Code`) that carries this code between processes.
    #[must_use]
    pub const fn grpc_code(self) -> i32 {
        match self.http_status() {
            400 | 413 | 426 => 3,
            401 => 16,
            403 => 7,
            404 => 5,
            409 | 410 => 9,
            429 => 8,
            503 => 14,
            504 => 4,
            _ => 13,
        }
    }
}

impl fmt::Display for ErrorCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn names_numbers_and_close_codes_are_unique() {
        let names: BTreeSet<_> = ErrorCode::ALL.iter().map(|code| code.name()).collect();
        let numbers: BTreeSet<_> = ErrorCode::ALL.iter().map(|code| code.number()).collect();
        let close_codes: BTreeSet<_> = ErrorCode::ALL.iter().map(|code| code.close_code()).collect();
        assert_eq!(names.len(), ErrorCode::ALL.len());
        assert_eq!(numbers.len(), ErrorCode::ALL.len());
        assert_eq!(close_codes.len(), ErrorCode::ALL.len());
        assert!(close_codes.iter().all(|code| (4000..5000).contains(code)));
    }

    #[test]
    fn a_number_leads_back_to_its_code_and_an_unknown_one_to_none() {
        for code in ErrorCode::ALL {
            assert_eq!(ErrorCode::from_number(u32::from(code.number())), Some(*code));
            assert_eq!(ErrorCode::from_close_code(code.close_code()), Some(*code));
        }
        assert_eq!(ErrorCode::from_number(9999), None);
        assert_eq!(ErrorCode::from_close_code(1000), None);
    }
}
