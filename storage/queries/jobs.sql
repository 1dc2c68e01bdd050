-- lock_study --
-- Requests for one study come one after the other, so that of two only the later one stays waiting.
SELECT FROM study WHERE study_instance_uid = %(study_instance_uid)s FOR NO KEY UPDATE;

-- request --
-- A job for these inputs unless there is one; one that was superseded before it ran comes back to life.
INSERT INTO job (study_instance_uid, pipeline, fingerprint, rule, inputs, send_to, queue, report_refusal, rung_at)
VALUES (%(study_instance_uid)s, %(pipeline)s, %(fingerprint)s, %(rule)s, %(inputs)s, %(send_to)s, %(queue)s,
        %(report_refusal)s, now())
ON CONFLICT (study_instance_uid, pipeline, fingerprint) DO UPDATE
   SET state = 'waiting', reason = '', attempts = 0, created_at = now(), finished_at = NULL, rung_at = now(),
       rule = excluded.rule, inputs = excluded.inputs, send_to = excluded.send_to, queue = excluded.queue,
       report_refusal = excluded.report_refusal
 WHERE job.state = 'superseded'
RETURNING id, study_instance_uid, pipeline, fingerprint, rule, inputs, send_to, queue, state, reason, attempts,
          created_at, started_at, finished_at, lease_owner, lease_until, result, report_refusal;

-- supersede --
-- Jobs of the same study and pipeline that still wait with other inputs will not run.
UPDATE job SET state = 'superseded', reason = %(reason)s, finished_at = now()
 WHERE study_instance_uid = %(study_instance_uid)s AND pipeline = %(pipeline)s AND state = 'waiting'
   AND id <> %(id)s;

-- ring --
-- Announce one waiting job.
INSERT INTO outbox (queue, task, argument)
SELECT queue, 'run_job', id::text FROM job WHERE id = %(id)s AND state = 'waiting';

-- claim --
-- Take the job for this worker; no row: another worker has it, or it is over.
UPDATE job
   SET state = 'running', attempts = attempts + 1, started_at = now(), reason = '',
       lease_owner = %(owner)s, lease_until = clock_timestamp() + make_interval(secs => %(lease_s)s)
 WHERE id = %(id)s AND state = 'waiting'
RETURNING id, study_instance_uid, pipeline, fingerprint, rule, inputs, send_to, queue, state, reason, attempts,
          created_at, started_at, finished_at, lease_owner, lease_until, result, report_refusal;

-- heartbeat --
-- The worker lives: move the lease on, if it is still this worker's.
UPDATE job SET lease_until = clock_timestamp() + make_interval(secs => %(lease_s)s)
 WHERE id = %(id)s AND state = 'running' AND lease_owner = %(owner)s;

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
              created_at, started_at, finished_at, lease_owner, lease_until, result, report_refusal
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
SELECT queue, 'run_job', id::text FROM rung ORDER BY rung.id;

-- get --
-- One job.
SELECT id, study_instance_uid, pipeline, fingerprint, rule, inputs, send_to, queue, state, reason, attempts,
       created_at, started_at, finished_at, lease_owner, lease_until, result, report_refusal
  FROM job
 WHERE id = %(id)s;

-- for_study --
-- The jobs of a study in order of their making.
SELECT id, study_instance_uid, pipeline, fingerprint, rule, inputs, send_to, queue, state, reason, attempts,
       created_at, started_at, finished_at, lease_owner, lease_until, result, report_refusal
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
