-- Regions that an operator empties: their machines are told to go to others.
CREATE TABLE region_drains (
    region TEXT PRIMARY KEY NOT NULL,
    since  INTEGER NOT NULL
);

-- When a former key was given up for good: the one that followed on it had been used. Absent while both are taken.
ALTER TABLE machine_keys ADD COLUMN given_up_at INTEGER;
