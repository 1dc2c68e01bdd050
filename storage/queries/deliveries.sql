-- create --
-- Every result to every destination, once.
INSERT INTO delivery (result_id, destination, rung_at)
SELECT r, d, now()
  FROM unnest(%(result_ids)s::bigint[]) WITH ORDINALITY AS results (r, place),
       unnest(%(destinations)s::text[]) AS destinations (d)
 ORDER BY d, place
ON CONFLICT (result_id, destination) DO NOTHING
RETURNING destination;

-- claim_batch --
-- Take what is due for a destination: waiting ones whose time has come, and those whose sender fell silent.
WITH batch AS MATERIALIZED (
    SELECT id FROM delivery
     WHERE destination = %(destination)s
       AND ((state = 'waiting' AND not_before <= now()) OR (state = 'sending' AND lease_until < now()))
     ORDER BY id
     LIMIT %(limit)s
       FOR NO KEY UPDATE SKIP LOCKED
), taken AS (
    UPDATE delivery
       SET state = 'sending', attempts = attempts + 1,
           lease_until = clock_timestamp() + make_interval(secs => %(lease_s)s)
     WHERE id IN (SELECT id FROM batch)
    RETURNING id, result_id, destination, state, attempts, not_before, status, reason, delivered_at
)
SELECT taken.*, job_id, study_instance_uid, sop_instance_uid, sop_class_uid, transfer_syntax_uid, path
  FROM taken JOIN result ON result.id = taken.result_id
 ORDER BY taken.id;

-- extend --
-- The sender lives: move the leases on.
UPDATE delivery SET lease_until = clock_timestamp() + make_interval(secs => %(lease_s)s)
 WHERE id = ANY(%(ids)s) AND state = 'sending';

-- delivered --
-- It arrived; true whoever else tried meanwhile.
UPDATE delivery
   SET state = 'done', status = %(status)s, reason = '', delivered_at = now(), lease_until = NULL
 WHERE id = %(id)s AND state <> 'done';

-- retry_later --
-- It did not arrive: try again from a time on. Not if another sender was faster.
UPDATE delivery
   SET state = 'waiting', status = %(status)s, reason = %(reason)s, not_before = %(not_before)s, lease_until = NULL
 WHERE id = %(id)s AND state = 'sending';

-- park --
-- It does not arrive, and trying again makes no sense: left to the administrator.
UPDATE delivery
   SET state = 'parked', status = %(status)s, reason = %(reason)s, lease_until = NULL
 WHERE id = %(id)s AND state IN ('waiting', 'sending');

-- unpark --
-- The administrator says: again.
UPDATE delivery SET state = 'waiting', attempts = 0, not_before = now(), rung_at = NULL
 WHERE destination = %(destination)s AND state = 'parked';

-- due_destinations --
-- Destinations with something due that nobody was told about since it became due, or not for a while.
WITH due AS (
    SELECT id, destination, rung_at,
           CASE WHEN state = 'waiting' THEN not_before ELSE lease_until END AS due_at
      FROM delivery
     WHERE (state = 'waiting' AND not_before <= now()) OR (state = 'sending' AND lease_until < now())
), silent AS (
    SELECT destination FROM due
     GROUP BY destination
    HAVING coalesce(max(rung_at) < now() - make_interval(secs => %(ring_again_s)s), true)
        OR bool_or(rung_at IS NULL OR rung_at < due_at)
), rung AS (
    UPDATE delivery SET rung_at = now()
     WHERE id IN (SELECT id FROM due WHERE destination IN (SELECT destination FROM silent))
)
SELECT destination FROM silent ORDER BY destination;

-- for_study --
-- The deliveries of a study's results.
SELECT delivery.id, result_id, job_id, study_instance_uid, destination, state, attempts, not_before, status, reason,
       delivered_at, sop_instance_uid, sop_class_uid, transfer_syntax_uid, path
  FROM delivery JOIN result ON result.id = result_id
 WHERE study_instance_uid = %(study_instance_uid)s
 ORDER BY delivery.id;

-- unfinished --
-- How many are still to be delivered (parked ones are not waited for).
SELECT count(*) FROM delivery WHERE state IN ('waiting', 'sending');

-- counts_by_destination --
-- How many deliveries to each destination there are in each state.
SELECT destination, state, count(*) FROM delivery GROUP BY destination, state ORDER BY destination, state;
