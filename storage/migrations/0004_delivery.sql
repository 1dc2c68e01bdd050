-- Deliveries by what a destination takes: the kind of every result, what may go instead, and how each destination is.

-- A key of dicom_node/encoding/package.py, and its place in the order in which the objects of one job are sent.
ALTER TABLE result ADD COLUMN kind text NOT NULL DEFAULT '', ADD COLUMN place integer NOT NULL DEFAULT 0;
UPDATE result SET kind = CASE sop_class_uid WHEN '1.2.840.10008.5.1.4.1.1.66.4' THEN 'seg'
                                            WHEN '1.2.840.10008.5.1.4.1.1.88.34' THEN 'sr' ELSE '' END;

-- spare: kept in case the destination refuses what it would replace; replaced: it did.
ALTER TABLE delivery DROP CONSTRAINT delivery_state_check;
ALTER TABLE delivery ADD CONSTRAINT delivery_state_check
    CHECK (state IN ('spare', 'waiting', 'sending', 'done', 'parked', 'replaced'));
ALTER TABLE delivery ADD COLUMN created_at timestamptz NOT NULL DEFAULT now();
-- whose association it is on, so that associations can be counted
ALTER TABLE delivery ADD COLUMN batch uuid;
CREATE INDEX delivery_parked ON delivery (destination) WHERE state = 'parked';

-- How a destination is, seen by all workers together: a circuit breaker, and its working hours.
CREATE TABLE destination (
    name text PRIMARY KEY,
    -- closed: all is well; open: it is away, nothing is tried before probe_at; probing: one delivery is being tried
    breaker text NOT NULL DEFAULT 'closed' CHECK (breaker IN ('closed', 'open', 'probing')),
    failures integer NOT NULL DEFAULT 0,
    reason text NOT NULL DEFAULT '',
    since timestamptz NOT NULL DEFAULT now(),
    -- open: when to try; probing: when the one who tries is given up
    probe_at timestamptz,
    -- outside of its working hours
    closed_until timestamptz,
    answered_at timestamptz,
    CHECK ((breaker = 'closed') = (probe_at IS NULL))
);

-- SOP Classes that a destination was seen to refuse.
CREATE TABLE destination_refusal (
    destination text NOT NULL,
    sop_class_uid text NOT NULL,
    reason text NOT NULL,
    noticed_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (destination, sop_class_uid)
);
