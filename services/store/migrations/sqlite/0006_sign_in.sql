-- How a session's person proved who they are, and when they last did so anew. Sessions from before are by a link.
ALTER TABLE account_sessions ADD COLUMN method TEXT NOT NULL DEFAULT 'link';
ALTER TABLE account_sessions ADD COLUMN asserted_at INTEGER;
-- When the sign-in was that it goes back to: switching accounts begins another session and proves nobody anew. Absent:
-- when it began.
ALTER TABLE account_sessions ADD COLUMN signed_in_at INTEGER;

-- A way in is added in one account and serves its user's person in all of theirs.
CREATE TABLE passkeys (
    passkey_id    BLOB PRIMARY KEY NOT NULL,
    account_id    BLOB NOT NULL,
    user_id       BLOB NOT NULL,
    -- The authenticator's name for it; no two users share one.
    credential_id BLOB NOT NULL UNIQUE,
    -- Its public key, counter and flags, in the form of the WebAuthn library.
    credential    TEXT NOT NULL,
    label         TEXT NOT NULL,
    created_at    INTEGER NOT NULL,
    used_at       INTEGER,
    FOREIGN KEY (account_id, user_id) REFERENCES users (account_id, user_id) ON DELETE CASCADE
) STRICT;
CREATE INDEX passkeys_of_user ON passkeys (account_id, user_id);

CREATE TABLE recovery_codes (
    -- The part of a code that its row is found by; no secret.
    selector    BLOB PRIMARY KEY NOT NULL,
    account_id  BLOB NOT NULL,
    user_id     BLOB NOT NULL,
    code_sha256 BLOB NOT NULL,
    created_at  INTEGER NOT NULL,
    FOREIGN KEY (account_id, user_id) REFERENCES users (account_id, user_id) ON DELETE CASCADE
) STRICT;
CREATE INDEX recovery_codes_of_user ON recovery_codes (account_id, user_id);

CREATE TABLE identities (
    identity_id BLOB PRIMARY KEY NOT NULL,
    account_id  BLOB NOT NULL,
    user_id     BLOB NOT NULL,
    -- What the provider calls itself and the user. Nothing else of them is kept, no name and no address.
    issuer      TEXT NOT NULL,
    subject     TEXT NOT NULL,
    created_at  INTEGER NOT NULL,
    used_at     INTEGER,
    UNIQUE (issuer, subject),
    FOREIGN KEY (account_id, user_id) REFERENCES users (account_id, user_id) ON DELETE CASCADE
) STRICT;
CREATE INDEX identities_of_user ON identities (account_id, user_id);

-- The first of two steps of a passkey or of a sign-in at a provider: used once, by the browser that began it.
CREATE TABLE attempts (
    token_sha256       BLOB PRIMARY KEY NOT NULL,
    kind               TEXT NOT NULL,
    -- The session that began it; absent: nobody was signed in.
    account_session_id BLOB,
    -- The challenge and what else the second step is checked against.
    state              TEXT NOT NULL,
    created_at         INTEGER NOT NULL,
    expires_at         INTEGER NOT NULL
) STRICT;
CREATE INDEX attempts_by_end ON attempts (expires_at);
