-- Storage Commitment that we ask for (DICOM PS3.4 Annex J): whether the archives keep what they were sent.

-- One transaction. What an archive says of one that timed out is believed still.
CREATE TABLE commitment_request (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    transaction_uid text NOT NULL UNIQUE,
    destination text NOT NULL,
    state text NOT NULL
        CHECK (state IN ('waiting', 'asking', 'requested', 'committed', 'failed', 'timed_out')),
    created_at timestamptz NOT NULL DEFAULT now(),
    -- associations on which it was tried
    attempts integer NOT NULL DEFAULT 0,
    not_before timestamptz NOT NULL DEFAULT now(),
    lease_until timestamptz,
    rung_at timestamptz,
    requested_at timestamptz,
    -- an archive that has said nothing by then is asked again, in a new transaction
    ends_at timestamptz,
    answered_at timestamptz,
    status integer,
    reason text NOT NULL DEFAULT ''
);
CREATE INDEX commitment_request_unfinished ON commitment_request (destination, state)
    WHERE state IN ('waiting', 'asking', 'requested');

-- The deliveries that a transaction is about, and what the archive said: 0 (committed) or a Failure Reason.
CREATE TABLE commitment_request_delivery (
    request_id bigint NOT NULL REFERENCES commitment_request ON DELETE CASCADE,
    delivery_id bigint NOT NULL REFERENCES delivery ON DELETE CASCADE,
    failure_reason integer,
    PRIMARY KEY (request_id, delivery_id)
);
CREATE INDEX commitment_request_delivery_by_delivery ON commitment_request_delivery (delivery_id);

-- Where a delivery stands that its archive is to commit.
CREATE TABLE delivery_commitment (
    delivery_id bigint PRIMARY KEY REFERENCES delivery ON DELETE CASCADE,
    state text NOT NULL DEFAULT 'wanted' CHECK (state IN ('wanted', 'asked', 'sent_again', 'committed', 'failed')),
    -- the last one
    request_id bigint REFERENCES commitment_request ON DELETE SET NULL,
    requests integer NOT NULL DEFAULT 0,
    sent_again integer NOT NULL DEFAULT 0,
    not_before timestamptz NOT NULL,
    rung_at timestamptz,
    failure_reason integer,
    reason text NOT NULL DEFAULT '',
    committed_at timestamptz,
    CHECK ((state = 'committed') = (committed_at IS NOT NULL)),
    CHECK (state <> 'asked' OR request_id IS NOT NULL)
);
CREATE INDEX delivery_commitment_wanted ON delivery_commitment (not_before) WHERE state = 'wanted';
