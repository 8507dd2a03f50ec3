-- What the payment provider told of a customer: names of its own and the state of a subscription, nothing of cards,
-- names or addresses. The account is absent until the provider says who paid.
CREATE TABLE billing_customers (
    customer_id     TEXT PRIMARY KEY NOT NULL,
    account_id      BYTEA UNIQUE REFERENCES accounts (account_id) ON DELETE CASCADE,
    -- Absent until the provider told of one.
    subscription_id TEXT,
    price_id        TEXT,
    state           TEXT,
    since           BIGINT NOT NULL,
    -- When the provider said so, and what orders words of one second.
    stamp_at        BIGINT NOT NULL,
    stamp_order     BIGINT NOT NULL
);

-- Events that were taken, so that none counts twice.
CREATE TABLE billing_events (
    event_id TEXT PRIMARY KEY NOT NULL,
    at       BIGINT NOT NULL
);
CREATE INDEX billing_events_by_time ON billing_events (at);
