-- A machine whose key two computers hold is quarantined until it is paired again. Credentials up to the serial do
-- not hold, then and afterwards.
ALTER TABLE machines ADD COLUMN quarantined_at BIGINT;
ALTER TABLE machines ADD COLUMN quarantined_serial BIGINT NOT NULL DEFAULT 0;

-- What a connector said of itself when it was last paired; absent where that was before it was kept.
ALTER TABLE machines ADD COLUMN connector_version TEXT;
ALTER TABLE local_connects ADD COLUMN connector_version TEXT;
