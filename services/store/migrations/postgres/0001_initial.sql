-- Ids and hashes are bytes, times are milliseconds since the Unix epoch, secrets are SHA-256 only.

CREATE TABLE settings (
    name  TEXT PRIMARY KEY NOT NULL,
    value BYTEA NOT NULL
);

CREATE TABLE accounts (
    account_id   BYTEA PRIMARY KEY NOT NULL,
    name         TEXT NOT NULL,
    created_at   BIGINT NOT NULL,
    -- The head of the account's audit chain.
    audit_number BIGINT NOT NULL,
    audit_hash   BYTEA NOT NULL
);

CREATE TABLE users (
    user_id    BYTEA PRIMARY KEY NOT NULL,
    account_id BYTEA NOT NULL REFERENCES accounts (account_id) ON DELETE CASCADE,
    role       TEXT NOT NULL,
    created_at BIGINT NOT NULL,
    UNIQUE (account_id, user_id)
);

CREATE TABLE account_sessions (
    account_session_id BYTEA PRIMARY KEY NOT NULL,
    account_id         BYTEA NOT NULL,
    user_id            BYTEA NOT NULL,
    token_sha256       BYTEA NOT NULL UNIQUE,
    -- Every grant that this session gets carries this id, so that ending the session revokes them all.
    grant_id           BYTEA NOT NULL,
    created_at         BIGINT NOT NULL,
    seen_at            BIGINT NOT NULL,
    expires_at         BIGINT NOT NULL,
    FOREIGN KEY (account_id, user_id) REFERENCES users (account_id, user_id) ON DELETE CASCADE
);
CREATE INDEX account_sessions_of_user ON account_sessions (account_id, user_id);
CREATE INDEX account_sessions_by_end ON account_sessions (expires_at);

CREATE TABLE sign_in_links (
    token_sha256 BYTEA PRIMARY KEY NOT NULL,
    -- Both absent: the link that makes the first account, or signs its owner in again.
    account_id   BYTEA,
    user_id      BYTEA,
    created_at   BIGINT NOT NULL,
    expires_at   BIGINT NOT NULL,
    FOREIGN KEY (account_id, user_id) REFERENCES users (account_id, user_id) ON DELETE CASCADE
);

CREATE TABLE devices (
    account_id BYTEA NOT NULL,
    device_id  BYTEA NOT NULL,
    user_id    BYTEA NOT NULL,
    algorithm  TEXT NOT NULL,
    public_key BYTEA NOT NULL,
    label      TEXT NOT NULL,
    created_at BIGINT NOT NULL,
    revoked_at BIGINT,
    PRIMARY KEY (account_id, device_id),
    FOREIGN KEY (account_id, user_id) REFERENCES users (account_id, user_id) ON DELETE CASCADE
);

CREATE TABLE machines (
    machine_id           BYTEA PRIMARY KEY NOT NULL,
    account_id           BYTEA NOT NULL REFERENCES accounts (account_id) ON DELETE CASCADE,
    label                TEXT NOT NULL,
    region               TEXT NOT NULL,
    created_at           BIGINT NOT NULL,
    revoked_at           BIGINT,
    -- The newest credential that was issued, and the newest that came back.
    credential_serial    BIGINT NOT NULL,
    credential_issued_at BIGINT NOT NULL,
    UNIQUE (account_id, machine_id)
);

CREATE TABLE machine_keys (
    account_id BYTEA NOT NULL,
    machine_id BYTEA NOT NULL,
    algorithm  TEXT NOT NULL,
    public_key BYTEA NOT NULL,
    created_at BIGINT NOT NULL,
    retired_at BIGINT,
    PRIMARY KEY (account_id, machine_id, public_key),
    FOREIGN KEY (account_id, machine_id) REFERENCES machines (account_id, machine_id) ON DELETE CASCADE
);

CREATE TABLE local_connects (
    local_connect_id   BYTEA PRIMARY KEY NOT NULL,
    token_sha256       BYTEA NOT NULL,
    revision           BIGINT NOT NULL,
    stage              TEXT NOT NULL,
    code               TEXT,
    created_at         BIGINT NOT NULL,
    ends_at            BIGINT NOT NULL,
    machine_id         BYTEA NOT NULL,
    machine_algorithm  TEXT NOT NULL,
    machine_key        BYTEA NOT NULL,
    machine_label      TEXT NOT NULL,
    role               TEXT NOT NULL,
    -- The account of a machine that is already paired and shows its credential.
    pinned_account_id  BYTEA,
    -- From the redeem on.
    account_id         BYTEA,
    user_id            BYTEA,
    account_session_id BYTEA,
    device_algorithm   TEXT,
    device_key         BYTEA,
    device_label       TEXT,
    device_mac         BYTEA,
    machine_mac        BYTEA,
    FOREIGN KEY (account_id, user_id) REFERENCES users (account_id, user_id) ON DELETE CASCADE
);
CREATE INDEX local_connects_by_end ON local_connects (ends_at);

CREATE TABLE claims (
    claim_id         BYTEA PRIMARY KEY NOT NULL,
    local_connect_id BYTEA NOT NULL UNIQUE REFERENCES local_connects (local_connect_id) ON DELETE CASCADE,
    redeem_sha256    BYTEA NOT NULL,
    expires_at       BIGINT NOT NULL,
    wrong_tries      BIGINT NOT NULL
);

CREATE TABLE revocations (
    number     BIGINT PRIMARY KEY NOT NULL,
    account_id BYTEA NOT NULL,
    kind       TEXT NOT NULL,
    subject    BYTEA NOT NULL,
    at         BIGINT NOT NULL
);

CREATE TABLE audit (
    account_id    BYTEA NOT NULL REFERENCES accounts (account_id) ON DELETE CASCADE,
    number        BIGINT NOT NULL,
    audit_id      BYTEA NOT NULL,
    kind          TEXT NOT NULL,
    at            BIGINT NOT NULL,
    deferred      BIGINT NOT NULL,
    user_id       BYTEA,
    machine_id    BYTEA,
    device_id     BYTEA,
    approval_id   BYTEA,
    generation    BYTEA,
    command_id    BYTEA,
    command_hash  BYTEA,
    decision      TEXT,
    outcome       TEXT,
    code          TEXT,
    address_hash  BYTEA,
    previous_hash BYTEA NOT NULL,
    hash          BYTEA NOT NULL,
    PRIMARY KEY (account_id, number),
    UNIQUE (account_id, audit_id)
);
CREATE INDEX audit_by_command ON audit (account_id, command_id);

CREATE FUNCTION audit_is_never_changed() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'the audit is append-only';
END
$$;
CREATE TRIGGER audit_is_never_changed BEFORE UPDATE ON audit
FOR EACH ROW EXECUTE FUNCTION audit_is_never_changed();
