-- The node's first schema. Forward only: later changes are later files.

CREATE TABLE node (
    only_row boolean PRIMARY KEY DEFAULT true CHECK (only_row),
    node_id uuid NOT NULL DEFAULT gen_random_uuid(),
    created_at timestamptz NOT NULL DEFAULT now()
);
INSERT INTO node DEFAULT VALUES;

CREATE TABLE configuration (
    version integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    document text NOT NULL,
    imported_at timestamptz NOT NULL DEFAULT now(),
    imported_by text NOT NULL DEFAULT ''
);

CREATE TABLE association (
    association_id text PRIMARY KEY,
    receiver text NOT NULL,
    calling_ae_title text NOT NULL,
    called_ae_title text NOT NULL,
    peer_host text NOT NULL,
    opened_at timestamptz NOT NULL,
    closed_at timestamptz,
    state text NOT NULL DEFAULT 'open' CHECK (state IN ('open', 'released', 'aborted', 'lost')),
    stored integer NOT NULL DEFAULT 0
);
CREATE INDEX association_open ON association (receiver) WHERE state = 'open';

CREATE TABLE study (
    study_instance_uid text PRIMARY KEY,
    description text NOT NULL DEFAULT '',
    first_received_at timestamptz NOT NULL,
    last_received_at timestamptz NOT NULL,
    state text NOT NULL DEFAULT 'collecting'
        CHECK (state IN ('collecting', 'waiting', 'ready', 'overdue', 'unrouted')),
    reason text NOT NULL DEFAULT '',
    -- what the scheduler must look at: everything that is due, oldest first
    look_again_at timestamptz
);
CREATE INDEX study_due ON study (look_again_at) WHERE look_again_at IS NOT NULL;
CREATE INDEX study_recent ON study (last_received_at DESC);

CREATE TABLE series (
    series_instance_uid text NOT NULL,
    study_instance_uid text NOT NULL REFERENCES study,
    modality text NOT NULL DEFAULT '',
    header jsonb NOT NULL DEFAULT '{}',
    kind text NOT NULL DEFAULT '',
    reason text NOT NULL DEFAULT '',
    PRIMARY KEY (study_instance_uid, series_instance_uid)
);

CREATE TABLE instance (
    sop_instance_uid text NOT NULL,
    sha256 text NOT NULL,
    sop_class_uid text NOT NULL,
    series_instance_uid text NOT NULL,
    study_instance_uid text NOT NULL,
    transfer_syntax_uid text NOT NULL,
    path text NOT NULL,
    size_bytes bigint NOT NULL,
    attributes jsonb NOT NULL DEFAULT '{}',
    association_id text REFERENCES association,
    received_at timestamptz NOT NULL,
    is_conflict boolean NOT NULL DEFAULT false,
    is_ours boolean NOT NULL DEFAULT false,
    PRIMARY KEY (sop_instance_uid, sha256),
    FOREIGN KEY (study_instance_uid, series_instance_uid) REFERENCES series
);
CREATE UNIQUE INDEX instance_first ON instance (sop_instance_uid) WHERE NOT is_conflict;
CREATE INDEX instance_study ON instance (study_instance_uid);

-- Which associations brought something of a study, so that "none open from that sender" can be asked.
CREATE TABLE study_association (
    study_instance_uid text NOT NULL REFERENCES study,
    association_id text NOT NULL REFERENCES association,
    PRIMARY KEY (study_instance_uid, association_id)
);
CREATE INDEX study_association_by_association ON study_association (association_id);

CREATE TABLE job (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    study_instance_uid text NOT NULL REFERENCES study,
    pipeline text NOT NULL,
    fingerprint text NOT NULL,
    rule text NOT NULL,
    inputs jsonb NOT NULL,
    send_to text[] NOT NULL,
    queue text NOT NULL,
    state text NOT NULL DEFAULT 'waiting'
        CHECK (state IN ('waiting', 'running', 'done', 'refused', 'failed', 'superseded')),
    reason text NOT NULL DEFAULT '',
    attempts integer NOT NULL DEFAULT 0,
    created_at timestamptz NOT NULL DEFAULT now(),
    started_at timestamptz,
    finished_at timestamptz,
    lease_owner text,
    lease_until timestamptz,
    rung_at timestamptz,
    result jsonb,
    report_refusal boolean NOT NULL DEFAULT false,
    UNIQUE (study_instance_uid, pipeline, fingerprint),
    CHECK ((state = 'running') = (lease_owner IS NOT NULL))
);
CREATE INDEX job_unfinished ON job (state) WHERE state IN ('waiting', 'running');

CREATE TABLE result (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    job_id bigint NOT NULL REFERENCES job,
    study_instance_uid text NOT NULL REFERENCES study,
    sop_instance_uid text NOT NULL UNIQUE,
    sop_class_uid text NOT NULL,
    transfer_syntax_uid text NOT NULL,
    path text NOT NULL,
    sha256 text NOT NULL,
    size_bytes bigint NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX result_job ON result (job_id);

CREATE TABLE delivery (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    result_id bigint NOT NULL REFERENCES result,
    destination text NOT NULL,
    state text NOT NULL DEFAULT 'waiting' CHECK (state IN ('waiting', 'sending', 'done', 'parked')),
    attempts integer NOT NULL DEFAULT 0,
    not_before timestamptz NOT NULL DEFAULT now(),
    lease_until timestamptz,
    rung_at timestamptz,
    status integer,
    reason text NOT NULL DEFAULT '',
    delivered_at timestamptz,
    UNIQUE (result_id, destination)
);
CREATE INDEX delivery_unfinished ON delivery (destination, not_before) WHERE state IN ('waiting', 'sending');

-- Transactional outbox: a row is written with the state that it announces and becomes a Celery message afterwards.
CREATE TABLE outbox (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    queue text NOT NULL,
    task text NOT NULL,
    argument text NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now()
);

CREATE TABLE event (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    at timestamptz NOT NULL DEFAULT now(),
    study_instance_uid text,
    kind text NOT NULL,
    text text NOT NULL,
    details jsonb NOT NULL DEFAULT '{}'
);
CREATE INDEX event_study ON event (study_instance_uid, id);
