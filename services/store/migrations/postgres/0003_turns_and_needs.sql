-- Who changes what several processes change takes its turn by a row here, so that numbers have no gaps.
CREATE TABLE turns (
    name  TEXT PRIMARY KEY NOT NULL,
    taken BIGINT NOT NULL
);
INSERT INTO turns (name, taken) VALUES ('server', 0), ('revocations', 0);

-- The oldest step that a program must know to run on this schema. A step that only adds leaves it; one that takes
-- away what older programs use sets it to the step from which on they did without.
CREATE TABLE schema_needs (
    step BIGINT NOT NULL
);
INSERT INTO schema_needs (step) VALUES (3);
