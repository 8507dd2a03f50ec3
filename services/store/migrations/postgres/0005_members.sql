-- A user is what one person is in one account; a person may be a member of several. Absent: a person of their own,
-- named by the user's id.
ALTER TABLE users ADD COLUMN person_id BYTEA;

-- What the account's owners call the member; absent for who made the account.
ALTER TABLE users ADD COLUMN label TEXT;

-- No member any more. The row stays: the keys of the member's devices stay refused, and the audit names the member.
ALTER TABLE users ADD COLUMN removed_at BIGINT;
CREATE UNIQUE INDEX users_of_person ON users (COALESCE(person_id, user_id), account_id) WHERE removed_at IS NULL;

CREATE TABLE invitations (
    invitation_id BYTEA PRIMARY KEY NOT NULL,
    account_id    BYTEA NOT NULL,
    token_sha256  BYTEA NOT NULL UNIQUE,
    role          TEXT NOT NULL,
    label         TEXT NOT NULL,
    -- Who made it: it holds as long as they are an owner.
    user_id       BYTEA NOT NULL,
    created_at    BIGINT NOT NULL,
    expires_at    BIGINT NOT NULL,
    FOREIGN KEY (account_id, user_id) REFERENCES users (account_id, user_id) ON DELETE CASCADE
);
CREATE INDEX invitations_of_account ON invitations (account_id);
CREATE INDEX invitations_by_end ON invitations (expires_at);

-- Beside a device: the role that it keeps at most; absent: it is removed. A program that does not know this column
-- removes it.
ALTER TABLE revocations ADD COLUMN keeps TEXT;
