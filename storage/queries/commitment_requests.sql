-- want --
-- A delivery has arrived that its archive is to commit. One that was sent again is wanted again; what is committed stays.
INSERT INTO delivery_commitment (delivery_id, not_before)
VALUES (%(delivery_id)s, now() + make_interval(secs => %(after_s)s))
ON CONFLICT (delivery_id) DO UPDATE
   SET state = 'wanted', not_before = excluded.not_before, rung_at = NULL, reason = ''
 WHERE delivery_commitment.state IN ('sent_again', 'failed');

-- wanted --
-- Deliveries about which an archive is to be asked now: once one is due, also those that will be in a moment.
SELECT delivery.id
  FROM delivery_commitment JOIN delivery ON delivery.id = delivery_id
 WHERE delivery_commitment.state = 'wanted' AND delivery.destination = %(destination)s
   AND delivery_commitment.not_before <= now() + make_interval(secs => %(together_s)s)
   AND EXISTS (SELECT FROM delivery_commitment AS due JOIN delivery AS there ON there.id = due.delivery_id
                WHERE due.state = 'wanted' AND due.not_before <= now() AND there.destination = %(destination)s)
 ORDER BY delivery.id
 LIMIT %(limit)s
   FOR NO KEY UPDATE OF delivery_commitment SKIP LOCKED;

-- open --
-- A new transaction, in the hands of the caller.
INSERT INTO commitment_request (transaction_uid, destination, state, attempts, lease_until)
VALUES (%(transaction_uid)s, %(destination)s, 'asking', 1, clock_timestamp() + make_interval(secs => %(lease_s)s))
RETURNING id;

-- include --
-- What it is about.
INSERT INTO commitment_request_delivery (request_id, delivery_id)
SELECT %(request_id)s, unnest(%(delivery_ids)s::bigint[]);

-- mark_asked --
-- These are asked about now.
UPDATE delivery_commitment
   SET state = 'asked', request_id = %(request_id)s, requests = requests + 1
 WHERE delivery_id = ANY(%(delivery_ids)s);

-- take_waiting --
-- Transactions that did not reach the archive, and are due again.
UPDATE commitment_request
   SET state = 'asking', attempts = attempts + 1,
       lease_until = clock_timestamp() + make_interval(secs => %(lease_s)s)
 WHERE id IN (SELECT id FROM commitment_request
               WHERE destination = %(destination)s AND state = 'waiting' AND not_before <= now()
               ORDER BY id LIMIT %(limit)s FOR NO KEY UPDATE SKIP LOCKED)
RETURNING id;

-- asking --
-- Transactions with what they are about.
SELECT commitment_request.id, transaction_uid, commitment_request.destination, commitment_request.state,
       commitment_request.attempts, commitment_request.status, commitment_request.reason,
       array_agg(result.sop_class_uid ORDER BY delivery.id) AS sop_class_uids,
       array_agg(result.sop_instance_uid ORDER BY delivery.id) AS sop_instance_uids
  FROM commitment_request
  JOIN commitment_request_delivery ON request_id = commitment_request.id
  JOIN delivery ON delivery.id = delivery_id
  JOIN result ON result.id = result_id
 WHERE commitment_request.id = ANY(%(ids)s)
 GROUP BY commitment_request.id
 ORDER BY commitment_request.id;

-- extend --
-- The one who asks lives: move the leases on.
UPDATE commitment_request SET lease_until = clock_timestamp() + make_interval(secs => %(lease_s)s)
 WHERE id = ANY(%(ids)s) AND state = 'asking';

-- requested --
-- The archive took the request. Not if its answer was faster.
UPDATE commitment_request
   SET state = 'requested', status = %(status)s, reason = '', lease_until = NULL, requested_at = now(),
       ends_at = now() + make_interval(secs => %(within_s)s)
 WHERE id = %(id)s AND state = 'asking';

-- ask_later --
-- The archive knows nothing of the transaction: the same one again from a time on.
UPDATE commitment_request
   SET state = 'waiting', status = %(status)s, reason = %(reason)s, not_before = %(not_before)s, lease_until = NULL
 WHERE id = %(id)s AND state = 'asking';

-- close --
-- The end of a transaction without an answer.
UPDATE commitment_request
   SET state = %(state)s, status = coalesce(%(status)s, status), reason = %(reason)s, lease_until = NULL
 WHERE id = %(id)s AND state IN ('waiting', 'asking', 'requested')
RETURNING id;

-- overdue --
-- Transactions whose archive said nothing in time, and those whose worker fell silent.
SELECT id, state FROM commitment_request
 WHERE (state = 'requested' AND ends_at < now()) OR (state = 'asking' AND lease_until < now())
 ORDER BY id LIMIT 100;

-- want_again --
-- The deliveries of a transaction that brought no answer: ask again in a new one, while there is patience.
UPDATE delivery_commitment
   SET state = CASE WHEN requests < %(max_requests)s THEN 'wanted' ELSE 'failed' END,
       not_before = %(not_before)s, rung_at = NULL, reason = %(reason)s
 WHERE request_id = %(id)s AND state = 'asked'
RETURNING delivery_id, state;

-- fail --
-- The deliveries of a transaction that the archive will never take.
UPDATE delivery_commitment SET state = 'failed', reason = %(reason)s
 WHERE request_id = %(id)s AND state = 'asked'
RETURNING delivery_id, state;

-- by_transaction --
-- The transaction of a report, locked: two reports of one come one after the other.
SELECT id, destination, state FROM commitment_request
 WHERE transaction_uid = %(transaction_uid)s
   FOR NO KEY UPDATE;

-- objects --
-- What a transaction is about, and where each stands.
SELECT delivery_id, sop_instance_uid, study_instance_uid, delivery_commitment.state,
       (delivery_commitment.request_id = %(id)s) IS TRUE AS is_latest, requests, sent_again
  FROM commitment_request_delivery
  JOIN delivery_commitment USING (delivery_id)
  JOIN delivery ON delivery.id = delivery_id
  JOIN result ON result.id = result_id
 WHERE commitment_request_delivery.request_id = %(id)s
 ORDER BY delivery_id
   FOR NO KEY UPDATE OF delivery_commitment;

-- note_reason --
-- What the archive said of one object.
UPDATE commitment_request_delivery SET failure_reason = %(failure_reason)s
 WHERE request_id = %(id)s AND delivery_id = %(delivery_id)s;

-- commit --
-- The archive keeps these.
UPDATE delivery_commitment
   SET state = 'committed', committed_at = now(), failure_reason = NULL, reason = ''
 WHERE delivery_id = ANY(%(delivery_ids)s) AND state <> 'committed';

-- turn --
-- The archive does not keep one: what is done about it.
UPDATE delivery_commitment
   SET state = %(state)s, failure_reason = %(failure_reason)s, reason = %(reason)s, rung_at = NULL,
       not_before = %(not_before)s,
       sent_again = sent_again + CASE WHEN %(state)s = 'sent_again' THEN 1 ELSE 0 END
 WHERE delivery_id = %(delivery_id)s;

-- send_again --
-- A delivery that the archive has lost, or never had.
UPDATE delivery
   SET state = 'waiting', attempts = 0, not_before = now(), rung_at = NULL, delivered_at = NULL, batch = NULL,
       reason = %(reason)s
 WHERE id = %(delivery_id)s AND state = 'done';

-- answered --
-- The archive has spoken.
UPDATE commitment_request
   SET state = %(state)s, answered_at = now(), lease_until = NULL, reason = ''
 WHERE id = %(id)s;

-- due_destinations --
-- Destinations with something to ask that nobody was told about since it became due, or not for a while.
WITH due AS (
    SELECT destination, delivery_commitment.rung_at, delivery_commitment.not_before
      FROM delivery_commitment JOIN delivery ON delivery.id = delivery_id
     WHERE delivery_commitment.state = 'wanted' AND delivery_commitment.not_before <= now()
     UNION ALL
    SELECT destination, rung_at, not_before FROM commitment_request WHERE state = 'waiting' AND not_before <= now()
), silent AS (
    SELECT destination FROM due
     GROUP BY destination
    HAVING coalesce(max(rung_at) < now() - make_interval(secs => %(ring_again_s)s), true)
        OR bool_or(rung_at IS NULL OR rung_at < not_before)
), rung_wanted AS (
    UPDATE delivery_commitment SET rung_at = now()
      FROM delivery
     WHERE delivery.id = delivery_id AND delivery_commitment.state = 'wanted'
       AND delivery_commitment.not_before <= now() AND destination IN (SELECT destination FROM silent)
), rung_waiting AS (
    UPDATE commitment_request SET rung_at = now()
     WHERE state = 'waiting' AND not_before <= now() AND destination IN (SELECT destination FROM silent)
)
SELECT destination FROM silent ORDER BY destination;

-- ask_again --
-- The administrator says: once more about everything that failed, of a destination and of replies by it, or of all.
UPDATE delivery_commitment
   SET state = 'wanted', requests = 0, sent_again = 0, not_before = now(), rung_at = NULL, reason = ''
  FROM delivery
 WHERE delivery.id = delivery_id AND delivery.state = 'done' AND delivery_commitment.state = 'failed'
   AND (%(destination)s::text IS NULL OR destination = %(destination)s
        OR starts_with(destination, %(destination)s || ':'));

-- studies_of --
-- The studies of some deliveries.
SELECT DISTINCT study_instance_uid FROM delivery JOIN result ON result.id = result_id
 WHERE delivery.id = ANY(%(delivery_ids)s)
 ORDER BY study_instance_uid;

-- for_study --
-- Where each delivery of a study stands that is to be committed.
SELECT delivery_id, delivery_commitment.state, requests, sent_again, failure_reason, delivery_commitment.reason,
       committed_at, transaction_uid, requested_at
  FROM delivery_commitment
  JOIN delivery ON delivery.id = delivery_id
  JOIN result ON result.id = result_id
  LEFT JOIN commitment_request ON commitment_request.id = request_id
 WHERE study_instance_uid = %(study_instance_uid)s
 ORDER BY delivery_id;

-- progress --
-- How far the results of some studies are at each destination.
SELECT study_instance_uid, destination, count(*) AS results,
       count(*) FILTER (WHERE delivery.state = 'done') AS delivered,
       count(*) FILTER (WHERE delivery.state = 'parked') AS parked,
       count(delivery_id) AS to_commit,
       count(*) FILTER (WHERE delivery_commitment.state = 'committed') AS committed,
       count(*) FILTER (WHERE delivery_commitment.state = 'failed') AS not_committed
  FROM delivery
  JOIN result ON result.id = result_id
  LEFT JOIN delivery_commitment ON delivery_id = delivery.id
 WHERE study_instance_uid = ANY(%(study_instance_uids)s) AND delivery.state NOT IN ('spare', 'replaced')
 GROUP BY study_instance_uid, destination
 ORDER BY study_instance_uid, destination;

-- counts --
-- How many deliveries that are to be committed there are at each destination in each state; replies of one destination
-- are counted together.
SELECT split_part(destination, ':', 1) AS name, delivery_commitment.state, count(*)
  FROM delivery_commitment JOIN delivery ON delivery.id = delivery_id
 GROUP BY name, delivery_commitment.state ORDER BY name, delivery_commitment.state;
