-- The statement by which a machine's key followed on the one before, as JSON; absent for its first key.
ALTER TABLE machine_keys ADD COLUMN rotation TEXT;
CREATE INDEX machine_keys_by_key ON machine_keys (public_key);
