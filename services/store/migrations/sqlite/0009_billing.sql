-- What the payment provider told of a customer: names of its own and the state of a subscription, nothing of cards,
-- names or addresses. The account is absent until the provider says who paid.
CREATE TABLE billing_customers (
    customer_id     TEXT PRIMARY KEY NOT NULL,
    account_id      BLOB UNIQUE REFERENCES accounts (account_id) ON DELETE CASCADE,
    -- Absent until the provider told of one.
    subscription_id TEXT,
    price_id        TEXT,
    state           TEXT,
    since           INTEGER NOT NULL,
    -- When the provider said so, and what orders words of one second.
    stamp_at        INTEGER NOT NULL,
    stamp_order     INTEGER NOT NULL
) STRICT;

-- Events that were taken, so that none counts twice.
CREATE TABLE billing_events (
    event_id TEXT PRIMARY KEY NOT NULL,
    at       INTEGER NOT NULL
) STRICT;
CREATE INDEX billing_events_by_time ON billing_events (at);
