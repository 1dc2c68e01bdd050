-- lock_study --
-- Requests for one study come one after the other, so that of two only the later one stays waiting.
SELECT FROM study WHERE study_instance_uid = %(study_instance_uid)s FOR NO KEY UPDATE;

-- request --
-- A job for these inputs unless there is one, whatever answered it. Asked for once more on purpose: unless one waits.
-- A part of an exam is answered only while nothing else of the study is on its way through the pipeline.
INSERT INTO job (study_instance_uid, pipeline, fingerprint, rule, inputs, send_to, queue, report_refusal, partial,
                 created_at, rung_at)
SELECT %(study_instance_uid)s, %(pipeline)s, %(fingerprint)s, %(rule)s, %(inputs)s, %(send_to)s, %(queue)s,
       %(report_refusal)s, %(partial)s, clock_timestamp(), now()
 WHERE NOT EXISTS (
    SELECT FROM job
     WHERE study_instance_uid = %(study_instance_uid)s AND pipeline = %(pipeline)s AND fingerprint = %(fingerprint)s
       AND CASE WHEN %(again)s THEN state = 'waiting' ELSE state <> 'superseded' END)
   AND (%(partial)s::text = '' OR NOT EXISTS (
    SELECT FROM job
     WHERE study_instance_uid = %(study_instance_uid)s AND pipeline = %(pipeline)s
       AND state IN ('waiting', 'running')))
ON CONFLICT (study_instance_uid, pipeline, fingerprint, edition) WHERE state NOT IN ('superseded', 'failed')
DO NOTHING
RETURNING id, study_instance_uid, pipeline, fingerprint, rule, inputs, send_to, queue, state, reason, attempts,
          created_at, started_at, finished_at, lease_owner, lease_until, result, report_refusal, edition,
          predecessor_id, partial;

-- supersede --
-- Jobs of the same study and pipeline that still wait with other inputs will not run.
UPDATE job SET state = 'superseded', reason = %(reason)s, finished_at = now()
 WHERE study_instance_uid = %(study_instance_uid)s AND pipeline = %(pipeline)s AND state = 'waiting'
   AND id <> %(id)s;

-- ring --
-- Announce one waiting job.
INSERT INTO outbox (queue, task, argument)
SELECT queue, 'run_job', id::text FROM job WHERE id = %(id)s AND state = 'waiting';

-- lock_study_of --
-- Claims for one study come one after the other, so that of two jobs one sees that the other runs.
SELECT FROM study
 WHERE study_instance_uid = (SELECT study_instance_uid FROM job WHERE id = %(id)s)
   FOR NO KEY UPDATE;

-- yield_to_newer --
-- A job that comes back to waiting when a later one has been asked for is not needed any more.
UPDATE job SET state = 'superseded', reason = 'job ' || newest.id || ' has newer inputs', finished_at = now()
  FROM (SELECT max(newer.id) AS id
          FROM job older JOIN job newer USING (study_instance_uid, pipeline)
         WHERE older.id = %(id)s AND newer.id > older.id
           AND newer.state IN ('waiting', 'running', 'done', 'refused')) AS newest
 WHERE job.id = %(id)s AND job.state = 'waiting' AND newest.id IS NOT NULL;

-- claim --
-- Take the job for this worker; no row: another worker has it, it is over, or an earlier run of the pipeline on the
-- study still goes on, whose end announces this one. So what a run follows has ended when it begins, and a second
-- attempt follows the same one.
UPDATE job
   SET state = 'running', attempts = attempts + 1, started_at = now(), reason = '',
       lease_owner = %(owner)s, lease_until = clock_timestamp() + make_interval(secs => %(lease_s)s),
       predecessor_id = (
           SELECT max(earlier.id) FROM job earlier
            WHERE earlier.study_instance_uid = job.study_instance_uid AND earlier.pipeline = job.pipeline
              AND earlier.id < job.id AND earlier.state IN ('done', 'refused'))
 WHERE id = %(id)s AND state = 'waiting'
   AND NOT EXISTS (
       SELECT FROM job other
        WHERE other.study_instance_uid = job.study_instance_uid AND other.pipeline = job.pipeline
          AND other.state = 'running')
RETURNING id, study_instance_uid, pipeline, fingerprint, rule, inputs, send_to, queue, state, reason, attempts,
          created_at, started_at, finished_at, lease_owner, lease_until, result, report_refusal, edition,
          predecessor_id, partial;

-- note_edition --
-- What is about to answer this worker's job; no row: these inputs have been answered by it already.
UPDATE job SET edition = %(edition)s
 WHERE id = %(id)s AND state = 'running' AND lease_owner = %(owner)s
   AND NOT EXISTS (
       SELECT FROM job other
        WHERE other.study_instance_uid = job.study_instance_uid AND other.pipeline = job.pipeline
          AND other.fingerprint = job.fingerprint AND other.edition = %(edition)s AND other.id <> job.id
          AND other.state NOT IN ('superseded', 'failed'))
RETURNING id;

-- ring_next --
-- One run has ended: announce the job that waits for it.
INSERT INTO outbox (queue, task, argument)
SELECT waiting.queue, 'run_job', waiting.id::text
  FROM job ended JOIN job waiting USING (study_instance_uid, pipeline)
 WHERE ended.id = %(id)s AND waiting.state = 'waiting'
 ORDER BY waiting.id;

-- heartbeat --
-- The worker lives: move the lease on, if it is still this worker's.
UPDATE job SET lease_until = clock_timestamp() + make_interval(secs => %(lease_s)s)
 WHERE id = %(id)s AND state = 'running' AND lease_owner = %(owner)s;

-- is_outdone --
-- A part of an exam needs no answer any more when a job with all of it waits already.
SELECT EXISTS (
    SELECT FROM job early JOIN job newer USING (study_instance_uid, pipeline)
     WHERE early.id = %(id)s AND early.partial <> '' AND newer.id > early.id AND newer.state = 'waiting');

-- finish --
-- End the job, if it is still this worker's; no row: the lease was lost, somebody else decides.
UPDATE job
   SET state = %(state)s, reason = %(reason)s, result = %(result)s, finished_at = now(),
       lease_owner = NULL, lease_until = NULL
 WHERE id = %(id)s AND state = 'running' AND lease_owner = %(owner)s;

-- release --
-- Give the job back, if it is still this worker's; an attempt that was not the job's fault is not counted.
UPDATE job
   SET state = 'waiting', reason = %(reason)s, rung_at = now(), lease_owner = NULL, lease_until = NULL,
       attempts = CASE WHEN %(count_attempt)s THEN attempts ELSE greatest(attempts - 1, 0) END
 WHERE id = %(id)s AND state = 'running' AND lease_owner = %(owner)s;

-- overdue --
-- Workers that fell silent lose their jobs: back to waiting with a new message, or parked when the attempts are
-- used up.
WITH expired AS (
    SELECT id FROM job
     WHERE state = 'running' AND lease_until < clock_timestamp()
     ORDER BY id
       FOR NO KEY UPDATE SKIP LOCKED
), changed AS (
    UPDATE job
       SET state = CASE WHEN attempts < %(max_attempts)s THEN 'waiting' ELSE 'failed' END,
           reason = CASE WHEN attempts < %(max_attempts)s
                         THEN 'the worker fell silent in attempt ' || attempts || '; waiting for another one'
                         ELSE 'parked: the worker fell silent in each of ' || attempts || ' attempts' END,
           finished_at = CASE WHEN attempts < %(max_attempts)s THEN NULL ELSE now() END,
           rung_at = now(), lease_owner = NULL, lease_until = NULL
     WHERE id IN (SELECT id FROM expired)
    RETURNING id, study_instance_uid, pipeline, fingerprint, rule, inputs, send_to, queue, state, reason, attempts,
              created_at, started_at, finished_at, lease_owner, lease_until, result, report_refusal, edition,
          predecessor_id, partial
), rung AS (
    INSERT INTO outbox (queue, task, argument)
    SELECT queue, 'run_job', id::text FROM changed WHERE state = 'waiting' ORDER BY changed.id
)
SELECT * FROM changed ORDER BY id;

-- ring_again --
-- A message may have been lost with the broker: announce once more the oldest waiting jobs of each queue. Only the
-- oldest, or a long queue would double its messages again and again; when they have run, others are the oldest.
WITH oldest AS (
    SELECT id, rung_at, created_at, row_number() OVER (PARTITION BY queue ORDER BY created_at, id) AS place
      FROM job
     WHERE state = 'waiting'
), silent AS (
    SELECT job.id FROM job JOIN oldest USING (id)
     WHERE oldest.place <= %(per_queue)s AND job.state = 'waiting'
       AND coalesce(job.rung_at, job.created_at) < now() - make_interval(secs => %(ring_again_s)s)
     ORDER BY job.id
       FOR NO KEY UPDATE OF job SKIP LOCKED
), rung AS (
    UPDATE job SET rung_at = now() WHERE id IN (SELECT id FROM silent)
    RETURNING id, queue
)
INSERT INTO outbox (queue, task, argument)
SELECT told.queue, 'run_job', told.id::text
  FROM (SELECT id, queue FROM rung
         UNION ALL
        SELECT id, listener
          FROM rung JOIN unnest(%(queues)s::text[], %(listeners)s::text[]) AS listens (queue, listener) USING (queue)
       ) AS told
 ORDER BY told.id, told.queue;

-- get --
-- One job.
SELECT id, study_instance_uid, pipeline, fingerprint, rule, inputs, send_to, queue, state, reason, attempts,
       created_at, started_at, finished_at, lease_owner, lease_until, result, report_refusal, edition,
          predecessor_id, partial
  FROM job
 WHERE id = %(id)s;

-- for_study --
-- The jobs of a study in order of their making.
SELECT id, study_instance_uid, pipeline, fingerprint, rule, inputs, send_to, queue, state, reason, attempts,
       created_at, started_at, finished_at, lease_owner, lease_until, result, report_refusal, edition,
          predecessor_id, partial
  FROM job
 WHERE study_instance_uid = %(study_instance_uid)s
 ORDER BY id;

-- counts_by_pipeline --
-- How many jobs of each pipeline there are in each state.
SELECT pipeline, state, count(*) FROM job GROUP BY pipeline, state ORDER BY pipeline, state;

-- longest_silence --
-- For how long the running job that was heard of least has been silent, in seconds; a heartbeat sets its lease anew.
SELECT greatest(0, coalesce(max(extract(epoch FROM now() - lease_until)) + %(lease_s)s, 0))::float8
  FROM job
 WHERE state = 'running';

-- counts --
-- How many jobs there are in each state.
SELECT state, count(*) FROM job GROUP BY state;
