-- Where a machine is linked, as a node last reported it, and what orders the reports: the link's counter and its time.
-- Absent where no node has reported it.
ALTER TABLE machines ADD COLUMN link_region TEXT;
ALTER TABLE machines ADD COLUMN link_counter BIGINT NOT NULL DEFAULT 0;
ALTER TABLE machines ADD COLUMN linked_at BIGINT NOT NULL DEFAULT 0;

-- The only region that may serve it; absent: any.
ALTER TABLE machines ADD COLUMN region_pin TEXT;
