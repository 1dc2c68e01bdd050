-- Storage Commitment (DICOM PS3.4 Annex J): who asked whether which objects are safe, what was found, and whether the
-- answer reached the one who asked.

CREATE TABLE commitment (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    transaction_uid text NOT NULL,
    calling_ae_title text NOT NULL,
    called_ae_title text NOT NULL,
    peer_host text NOT NULL,
    -- the transaction's last request: one that comes again takes the row over and is answered again
    request_id text NOT NULL UNIQUE,
    receiver text NOT NULL,
    asked_at timestamptz NOT NULL,
    -- whether the association of the request still waits for the answer
    is_awaited boolean NOT NULL DEFAULT true,
    sop_class_uids text[] NOT NULL,
    sop_instance_uids text[] NOT NULL,
    -- per reference 0 (committed) or a Failure Reason (PS3.3 C.14.1.1); NULL until judged
    failure_reasons integer[],
    state text NOT NULL DEFAULT 'asked'
        CHECK (state IN ('asked', 'offered', 'waiting', 'sending', 'done', 'parked')),
    attempts integer NOT NULL DEFAULT 0,
    not_before timestamptz NOT NULL DEFAULT now(),
    lease_until timestamptz,
    rung_at timestamptz,
    status integer,
    reason text NOT NULL DEFAULT '',
    answered_at timestamptz,
    UNIQUE (calling_ae_title, transaction_uid),
    CHECK (cardinality(sop_class_uids) = cardinality(sop_instance_uids)),
    CHECK (cardinality(failure_reasons) = cardinality(sop_instance_uids)),
    CHECK (state = 'asked' OR failure_reasons IS NOT NULL)
);
CREATE INDEX commitment_unfinished ON commitment (state, calling_ae_title) WHERE state NOT IN ('done', 'parked');

-- What a transaction says of each study, for the study's story.
CREATE TABLE commitment_study (
    commitment_id bigint NOT NULL REFERENCES commitment ON DELETE CASCADE,
    study_instance_uid text NOT NULL REFERENCES study,
    committed integer NOT NULL,
    failed integer NOT NULL,
    PRIMARY KEY (commitment_id, study_instance_uid)
);
CREATE INDEX commitment_study_by_study ON commitment_study (study_instance_uid);

-- Which objects are in quarantine: their events name them.
CREATE INDEX event_quarantined ON event ((details ->> 'sop_instance_uid')) WHERE kind = 'quarantine';
