-- Whether an approval acts only with control's receipt: 1, or 0 where machines may record it first themselves. A program
-- that does not know this column signs credentials that say 0; the next one of a program that does is right again.
ALTER TABLE accounts ADD COLUMN strict_audit INTEGER NOT NULL DEFAULT 0;
