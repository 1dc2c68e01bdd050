-- create --
-- Each result to each destination once.
INSERT INTO delivery (result_id, destination, state, reason, rung_at)
SELECT result_id, destination, state, reason, now()
  FROM unnest(%(result_ids)s::bigint[], %(destinations)s::text[], %(states)s::text[], %(reasons)s::text[])
       WITH ORDINALITY AS new (result_id, destination, state, reason, turn)
 ORDER BY turn
ON CONFLICT (result_id, destination) DO NOTHING
RETURNING destination, state;

-- associations --
-- How many batches are on their way to a destination. A statement of its own after the one that waits for its turn, so
-- that it sees what those before it did.
SELECT count(DISTINCT coalesce(batch::text, '')) FROM delivery
 WHERE destination = %(destination)s AND state = 'sending' AND lease_until >= clock_timestamp();

-- claim_batch --
-- Take what may be sent to a destination now: what is due (waiting, and its time has come, or its sender fell silent)
-- and has nothing of the same study before it that is not. Studies whose first object has failed least often go first,
-- so that one that breaks every association does not stand before all others; then those for which somebody waits
-- (jobs of an urgent queue); then the oldest.
WITH unfinished AS (
    SELECT delivery.id, result.study_instance_uid, job_id, place, delivery.attempts,
           CASE delivery.state WHEN 'waiting' THEN not_before <= now() ELSE delivery.lease_until < clock_timestamp() END
           AS is_due, queue = ANY(%(urgent)s) AS is_urgent
      FROM delivery JOIN result ON result.id = result_id JOIN job ON job.id = job_id
     WHERE destination = %(destination)s AND delivery.state IN ('waiting', 'sending')
), in_order AS (
    SELECT id, study_instance_uid, job_id, place, bool_and(is_due) OVER in_study AS is_free,
           first_value(attempts) OVER in_study AS failures, min(id) OVER (PARTITION BY study_instance_uid) AS oldest,
           bool_or(is_urgent) OVER (PARTITION BY study_instance_uid) AS is_urgent
      FROM unfinished
    WINDOW in_study AS (PARTITION BY study_instance_uid ORDER BY job_id, place, id)
), chosen AS MATERIALIZED (
    SELECT id, row_number() OVER (ORDER BY failures, is_urgent DESC, oldest, job_id, place, id) AS turn
      FROM in_order WHERE is_free
     ORDER BY turn
     LIMIT %(limit)s
), taken AS (
    UPDATE delivery
       SET state = 'sending', attempts = attempts + 1, batch = %(batch)s,
           lease_until = clock_timestamp() + make_interval(secs => %(lease_s)s)
     WHERE id IN (SELECT id FROM chosen)
       AND (state = 'waiting' OR (state = 'sending' AND lease_until < clock_timestamp()))
    RETURNING id, result_id, destination, state, attempts, not_before, status, reason, created_at, delivered_at
)
SELECT taken.*, job_id, study_instance_uid, sop_instance_uid, sop_class_uid, transfer_syntax_uid, path, kind
  FROM taken JOIN result ON result.id = taken.result_id JOIN chosen ON chosen.id = taken.id
 ORDER BY turn;

-- urgent --
-- Does something wait here, and may be sent, for which somebody waits?
WITH unfinished AS (
    SELECT result.study_instance_uid, job_id, place, delivery.id, delivery.state = 'waiting' AND not_before <= now()
           AS is_due, queue = ANY(%(urgent)s) AS is_urgent
      FROM delivery JOIN result ON result.id = result_id JOIN job ON job.id = job_id
     WHERE destination = %(destination)s AND delivery.state IN ('waiting', 'sending')
), in_order AS (
    SELECT is_urgent, bool_and(is_due) OVER (PARTITION BY study_instance_uid ORDER BY job_id, place, id) AS is_free
      FROM unfinished
)
SELECT EXISTS (SELECT FROM in_order WHERE is_free AND is_urgent);

-- extend --
-- The sender lives: move the leases on.
UPDATE delivery SET lease_until = clock_timestamp() + make_interval(secs => %(lease_s)s)
 WHERE id = ANY(%(ids)s) AND state = 'sending';

-- delivered --
-- It arrived; true whoever else tried meanwhile.
UPDATE delivery
   SET state = 'done', status = %(status)s, reason = %(reason)s, delivered_at = now(), lease_until = NULL, batch = NULL
 WHERE id = %(id)s AND state <> 'done';

-- retry_later --
-- It did not arrive: try again from a time on. Not if another sender was faster.
UPDATE delivery
   SET state = 'waiting', status = %(status)s, reason = %(reason)s, not_before = %(not_before)s,
       lease_until = NULL, batch = NULL
 WHERE id = %(id)s AND state = 'sending';

-- give_back --
-- They were not tried: as if they had not been taken. An empty reason leaves the one that is there.
UPDATE delivery
   SET state = 'waiting', attempts = greatest(attempts - 1, 0), lease_until = NULL, batch = NULL,
       reason = CASE WHEN %(reason)s = '' THEN reason ELSE %(reason)s END
 WHERE id = ANY(%(ids)s) AND state = 'sending';

-- park --
-- It does not arrive, and trying again makes no sense: left to the administrator.
UPDATE delivery
   SET state = 'parked', status = %(status)s, reason = %(reason)s, lease_until = NULL, batch = NULL
 WHERE id = %(id)s AND state IN ('waiting', 'sending');

-- replace --
-- Something else goes instead.
UPDATE delivery
   SET state = 'replaced', status = %(status)s, reason = %(reason)s, lease_until = NULL, batch = NULL
 WHERE id = %(id)s AND state IN ('waiting', 'sending');

-- use_spares --
-- What was kept in case goes now.
UPDATE delivery SET state = 'waiting', not_before = now(), rung_at = NULL WHERE id = ANY(%(ids)s) AND state = 'spare';

-- of_job --
-- Everything of a job for one destination, spares too.
SELECT delivery.id, result_id, job_id, study_instance_uid, destination, state, attempts, not_before, status, reason,
       delivery.created_at, delivered_at, sop_instance_uid, sop_class_uid, transfer_syntax_uid, path, kind
  FROM delivery JOIN result ON result.id = result_id
 WHERE job_id = %(job_id)s AND destination = %(destination)s
 ORDER BY place, delivery.id;

-- unpark --
-- The administrator says: again. All of a destination and of replies by it, or all there is.
UPDATE delivery SET state = 'waiting', attempts = 0, not_before = now(), rung_at = NULL
 WHERE state = 'parked'
   AND (%(destination)s::text IS NULL OR destination = %(destination)s
        OR starts_with(destination, %(destination)s || ':'))
RETURNING destination;

-- due_destinations --
-- Destinations with something due that nobody was told about since it became due, or not for a while. Nothing is due
-- while the destination is away or closed.
WITH due AS (
    SELECT delivery.id, destination, rung_at,
           greatest(CASE WHEN state = 'waiting' THEN not_before ELSE lease_until END, probe_at, closed_until) AS due_at
      FROM delivery LEFT JOIN destination AS there ON there.name = destination
     WHERE state IN ('waiting', 'sending')
       AND greatest(CASE WHEN state = 'waiting' THEN not_before ELSE lease_until END, probe_at, closed_until) <= now()
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
       delivery.created_at, delivered_at, sop_instance_uid, sop_class_uid, transfer_syntax_uid, path, kind
  FROM delivery JOIN result ON result.id = result_id
 WHERE study_instance_uid = %(study_instance_uid)s AND state <> 'spare'
 ORDER BY delivery.id;

-- listed --
-- Deliveries in one of these states, the newest first.
SELECT delivery.id, result_id, job_id, study_instance_uid, destination, state, attempts, not_before, status, reason,
       delivery.created_at, delivered_at, sop_instance_uid, sop_class_uid, transfer_syntax_uid, path, kind
  FROM delivery JOIN result ON result.id = result_id
 WHERE state = ANY(%(states)s)
 ORDER BY delivery.id DESC
 LIMIT %(limit)s;

-- unfinished --
-- How many are still to be delivered (parked ones are not waited for).
SELECT count(*) FROM delivery WHERE state IN ('waiting', 'sending');

-- counts_by_destination --
-- How many deliveries to each destination there are in each state; replies of one destination are counted together.
SELECT split_part(destination, ':', 1) AS name, state, count(*) FROM delivery
 WHERE state <> 'spare'
 GROUP BY name, state ORDER BY name, state;
