-- Ids and hashes are bytes, times are milliseconds since the Unix epoch, secrets are SHA-256 only.

CREATE TABLE settings (
    name  TEXT PRIMARY KEY NOT NULL,
    value BLOB NOT NULL
) STRICT;

CREATE TABLE accounts (
    account_id   BLOB PRIMARY KEY NOT NULL,
    name         TEXT NOT NULL,
    created_at   INTEGER NOT NULL,
    -- The head of the account's audit chain.
    audit_number INTEGER NOT NULL,
    audit_hash   BLOB NOT NULL
) STRICT;

CREATE TABLE users (
    user_id    BLOB PRIMARY KEY NOT NULL,
    account_id BLOB NOT NULL REFERENCES accounts (account_id) ON DELETE CASCADE,
    role       TEXT NOT NULL,
    created_at INTEGER NOT NULL,
    UNIQUE (account_id, user_id)
) STRICT;

CREATE TABLE account_sessions (
    account_session_id BLOB PRIMARY KEY NOT NULL,
    account_id         BLOB NOT NULL,
    user_id            BLOB NOT NULL,
    token_sha256       BLOB NOT NULL UNIQUE,
    -- Every grant that this session gets carries this id, so that ending the session revokes them all.
    grant_id           BLOB NOT NULL,
    created_at         INTEGER NOT NULL,
    seen_at            INTEGER NOT NULL,
    expires_at         INTEGER NOT NULL,
    FOREIGN KEY (account_id, user_id) REFERENCES users (account_id, user_id) ON DELETE CASCADE
) STRICT;
CREATE INDEX account_sessions_of_user ON account_sessions (account_id, user_id);
CREATE INDEX account_sessions_by_end ON account_sessions (expires_at);

CREATE TABLE sign_in_links (
    token_sha256 BLOB PRIMARY KEY NOT NULL,
    -- Both absent: the link that makes the first account, or signs its owner in again.
    account_id   BLOB,
    user_id      BLOB,
    created_at   INTEGER NOT NULL,
    expires_at   INTEGER NOT NULL,
    FOREIGN KEY (account_id, user_id) REFERENCES users (account_id, user_id) ON DELETE CASCADE
) STRICT;

CREATE TABLE devices (
    account_id BLOB NOT NULL,
    device_id  BLOB NOT NULL,
    user_id    BLOB NOT NULL,
    algorithm  TEXT NOT NULL,
    public_key BLOB NOT NULL,
    label      TEXT NOT NULL,
    created_at INTEGER NOT NULL,
    revoked_at INTEGER,
    PRIMARY KEY (account_id, device_id),
    FOREIGN KEY (account_id, user_id) REFERENCES users (account_id, user_id) ON DELETE CASCADE
) STRICT;

CREATE TABLE machines (
    machine_id           BLOB PRIMARY KEY NOT NULL,
    account_id           BLOB NOT NULL REFERENCES accounts (account_id) ON DELETE CASCADE,
    label                TEXT NOT NULL,
    region               TEXT NOT NULL,
    created_at           INTEGER NOT NULL,
    revoked_at           INTEGER,
    -- The newest credential that was issued, and the newest that came back.
    credential_serial    INTEGER NOT NULL,
    credential_issued_at INTEGER NOT NULL,
    UNIQUE (account_id, machine_id)
) STRICT;

CREATE TABLE machine_keys (
    account_id BLOB NOT NULL,
    machine_id BLOB NOT NULL,
    algorithm  TEXT NOT NULL,
    public_key BLOB NOT NULL,
    created_at INTEGER NOT NULL,
    retired_at INTEGER,
    PRIMARY KEY (account_id, machine_id, public_key),
    FOREIGN KEY (account_id, machine_id) REFERENCES machines (account_id, machine_id) ON DELETE CASCADE
) STRICT;

CREATE TABLE local_connects (
    local_connect_id   BLOB PRIMARY KEY NOT NULL,
    token_sha256       BLOB NOT NULL,
    revision           INTEGER NOT NULL,
    stage              TEXT NOT NULL,
    code               TEXT,
    created_at         INTEGER NOT NULL,
    ends_at            INTEGER NOT NULL,
    machine_id         BLOB NOT NULL,
    machine_algorithm  TEXT NOT NULL,
    machine_key        BLOB NOT NULL,
    machine_label      TEXT NOT NULL,
    role               TEXT NOT NULL,
    -- The account of a machine that is already paired and shows its credential.
    pinned_account_id  BLOB,
    -- From the redeem on.
    account_id         BLOB,
    user_id            BLOB,
    account_session_id BLOB,
    device_algorithm   TEXT,
    device_key         BLOB,
    device_label       TEXT,
    device_mac         BLOB,
    machine_mac        BLOB,
    FOREIGN KEY (account_id, user_id) REFERENCES users (account_id, user_id) ON DELETE CASCADE
) STRICT;
CREATE INDEX local_connects_by_end ON local_connects (ends_at);

CREATE TABLE claims (
    claim_id         BLOB PRIMARY KEY NOT NULL,
    local_connect_id BLOB NOT NULL UNIQUE REFERENCES local_connects (local_connect_id) ON DELETE CASCADE,
    redeem_sha256    BLOB NOT NULL,
    expires_at       INTEGER NOT NULL,
    wrong_tries      INTEGER NOT NULL
) STRICT;

CREATE TABLE revocations (
    number     INTEGER PRIMARY KEY NOT NULL,
    account_id BLOB NOT NULL,
    kind       TEXT NOT NULL,
    subject    BLOB NOT NULL,
    at         INTEGER NOT NULL
) STRICT;

CREATE TABLE audit (
    account_id    BLOB NOT NULL REFERENCES accounts (account_id) ON DELETE CASCADE,
    number        INTEGER NOT NULL,
    audit_id      BLOB NOT NULL,
    kind          TEXT NOT NULL,
    at            INTEGER NOT NULL,
    deferred      INTEGER NOT NULL,
    user_id       BLOB,
    machine_id    BLOB,
    device_id     BLOB,
    approval_id   BLOB,
    generation    BLOB,
    command_id    BLOB,
    command_hash  BLOB,
    decision      TEXT,
    outcome       TEXT,
    code          TEXT,
    address_hash  BLOB,
    previous_hash BLOB NOT NULL,
    hash          BLOB NOT NULL,
    PRIMARY KEY (account_id, number),
    UNIQUE (account_id, audit_id)
) STRICT;
CREATE INDEX audit_by_command ON audit (account_id, command_id);

CREATE TRIGGER audit_is_never_changed BEFORE UPDATE ON audit
BEGIN
    SELECT RAISE (ABORT, 'the audit is append-only');
END;
