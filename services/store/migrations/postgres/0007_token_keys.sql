-- The keys that control signs with. One is told from when it was made, signs from a time on, and is taken until another;
-- its seed goes when it is not taken any more, and its public half stays, so that old credentials can be renewed.
CREATE TABLE token_keys (
    key_id         TEXT PRIMARY KEY NOT NULL,
    public_key     BYTEA NOT NULL,
    seed           BYTEA,
    made_at        BIGINT NOT NULL,
    signs_from     BIGINT NOT NULL,
    verifies_until BIGINT
);
