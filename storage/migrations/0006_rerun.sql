-- Runs of one pipeline on one study follow each other. A job knows what answered it (its edition: pipeline version and
-- bundles), so that the same images may be answered once more by another edition, and which run it follows.

ALTER TABLE job DROP CONSTRAINT job_study_instance_uid_pipeline_fingerprint_key;

-- empty until a worker begins; 'unknown' for what ended before there was this column
ALTER TABLE job ADD COLUMN edition text NOT NULL DEFAULT '';
UPDATE job SET edition = 'unknown' WHERE state IN ('done', 'refused', 'failed');
CREATE UNIQUE INDEX job_once ON job (study_instance_uid, pipeline, fingerprint, edition)
 WHERE state NOT IN ('superseded', 'failed');

-- the last run before this one that ended done or refused
ALTER TABLE job ADD COLUMN predecessor_id bigint REFERENCES job;
UPDATE job SET predecessor_id = (
    SELECT max(earlier.id) FROM job earlier
     WHERE earlier.study_instance_uid = job.study_instance_uid AND earlier.pipeline = job.pipeline
       AND earlier.id < job.id AND earlier.state IN ('done', 'refused'))
 WHERE state IN ('running', 'done', 'refused');
