-- asked --
-- Remember a request. The transaction's later request takes the row over; the same one told twice changes nothing.
INSERT INTO commitment (transaction_uid, calling_ae_title, called_ae_title, peer_host, request_id, receiver, asked_at,
                        sop_class_uids, sop_instance_uids)
VALUES (%(transaction_uid)s, %(calling_ae_title)s, %(called_ae_title)s, %(peer_host)s, %(request_id)s, %(receiver)s,
        %(asked_at)s, %(sop_class_uids)s, %(sop_instance_uids)s)
ON CONFLICT (calling_ae_title, transaction_uid) DO UPDATE
   SET called_ae_title = excluded.called_ae_title, peer_host = excluded.peer_host, request_id = excluded.request_id,
       receiver = excluded.receiver, asked_at = excluded.asked_at, is_awaited = true,
       sop_class_uids = excluded.sop_class_uids, sop_instance_uids = excluded.sop_instance_uids,
       failure_reasons = NULL, state = 'asked', attempts = 0, not_before = now(), lease_until = NULL, rung_at = NULL,
       status = NULL, reason = '', answered_at = NULL
 WHERE commitment.asked_at < excluded.asked_at;

-- unjudged --
-- Requests whose references were not looked up yet, oldest first.
SELECT id, transaction_uid, calling_ae_title, called_ae_title, peer_host, request_id, is_awaited, asked_at,
       sop_class_uids, sop_instance_uids, failure_reasons, state, attempts, status, reason, answered_at
  FROM commitment
 WHERE state = 'asked'
 ORDER BY asked_at, id
 LIMIT %(limit)s;

-- get --
-- One transaction.
SELECT id, transaction_uid, calling_ae_title, called_ae_title, peer_host, request_id, is_awaited, asked_at,
       sop_class_uids, sop_instance_uids, failure_reasons, state, attempts, status, reason, answered_at
  FROM commitment
 WHERE id = %(id)s;

-- known --
-- What is indexed of some SOP Instances: the first under each UID; whether others are in conflict with it; whether one
-- that came later, or the only one, is in quarantine. No row: nothing was ever received under the UID.
SELECT wanted.uid AS sop_instance_uid, first.sop_class_uid, first.study_instance_uid, first.path, first.size_bytes,
       EXISTS (SELECT FROM instance AS other
                WHERE other.sop_instance_uid = wanted.uid AND other.is_conflict) AS is_conflict,
       quarantined.found AS is_quarantined
  FROM unnest(%(uids)s::text[]) AS wanted (uid)
  LEFT JOIN instance AS first ON first.sop_instance_uid = wanted.uid AND NOT first.is_conflict
 CROSS JOIN LATERAL (
       SELECT EXISTS (SELECT FROM event
                       WHERE kind = 'quarantine' AND details ->> 'sop_instance_uid' = wanted.uid
                         AND (first.received_at IS NULL
                              OR (details ->> 'received_at')::timestamptz > first.received_at)) AS found
       ) AS quarantined
 WHERE first.sop_instance_uid IS NOT NULL OR quarantined.found;

-- judge --
-- Keep the verdicts. Where the association still waits the answer is offered to it, else it goes on a new one. No row:
-- the transaction was asked again meanwhile, or its association has just ended.
UPDATE commitment
   SET failure_reasons = %(failure_reasons)s, not_before = now(), reason = '',
       state = CASE WHEN is_awaited THEN 'offered' ELSE 'waiting' END
 WHERE id = %(id)s AND request_id = %(request_id)s AND state = 'asked'
RETURNING state;

-- forget_studies --
-- Verdicts of an earlier request of this transaction are no longer told.
DELETE FROM commitment_study WHERE commitment_id = %(id)s;

-- add_study --
-- What the transaction says of one study.
INSERT INTO commitment_study (commitment_id, study_instance_uid, committed, failed)
VALUES (%(id)s, %(study_instance_uid)s, %(committed)s, %(failed)s);

-- offered --
-- Answers that wait to be taken by an open association.
SELECT id, transaction_uid, calling_ae_title, called_ae_title, peer_host, request_id, is_awaited, asked_at,
       sop_class_uids, sop_instance_uids, failure_reasons, state, attempts, status, reason, answered_at
  FROM commitment
 WHERE state = 'offered'
 ORDER BY asked_at, id;

-- offered_requests --
-- The requests of these.
SELECT request_id FROM commitment WHERE state = 'offered';

-- not_awaited --
-- The association of this request cannot take the answer any more: it goes on a new one.
UPDATE commitment
   SET is_awaited = false, state = CASE WHEN state = 'offered' THEN 'waiting' ELSE state END,
       reason = %(reason)s, not_before = now()
 WHERE request_id = %(request_id)s AND state IN ('asked', 'offered') AND is_awaited;

-- receiver_started --
-- A receiver started again: the associations of its earlier life cannot take answers any more.
UPDATE commitment
   SET is_awaited = false, state = CASE WHEN state = 'offered' THEN 'waiting' ELSE state END,
       reason = 'the receiver stopped', not_before = now()
 WHERE receiver = %(receiver)s AND asked_at < %(started_at)s AND state IN ('asked', 'offered') AND is_awaited
RETURNING request_id;

-- give_up_offers --
-- An association that took no answer for so long, and whose receiver says nothing: the answer goes on a new one.
UPDATE commitment
   SET is_awaited = false, state = 'waiting', reason = 'the receiver fell silent', not_before = now()
 WHERE state = 'offered' AND asked_at < now() - make_interval(secs => %(older_than_s)s)
RETURNING request_id;

-- claim_batch --
-- Take answers that are due for one AE title: waiting ones whose time has come, and those whose sender fell silent.
WITH batch AS MATERIALIZED (
    SELECT id FROM commitment
     WHERE calling_ae_title = %(calling_ae_title)s
       AND ((state = 'waiting' AND not_before <= now()) OR (state = 'sending' AND lease_until < now()))
     ORDER BY asked_at, id
     LIMIT %(limit)s
       FOR NO KEY UPDATE SKIP LOCKED
)
UPDATE commitment
   SET state = 'sending', attempts = attempts + 1,
       lease_until = clock_timestamp() + make_interval(secs => %(lease_s)s)
 WHERE id IN (SELECT id FROM batch)
RETURNING id, transaction_uid, calling_ae_title, called_ae_title, peer_host, request_id, is_awaited, asked_at,
          sop_class_uids, sop_instance_uids, failure_reasons, state, attempts, status, reason, answered_at;

-- extend --
-- The sender lives: move the leases on.
UPDATE commitment SET lease_until = clock_timestamp() + make_interval(secs => %(lease_s)s)
 WHERE request_id = ANY(%(request_ids)s) AND state = 'sending';

-- answered --
-- The one who asked has the answer; true whoever else tried meanwhile. No row: it was known, or asked again.
UPDATE commitment
   SET state = 'done', status = %(status)s, reason = '', answered_at = now(), lease_until = NULL
 WHERE request_id = %(request_id)s AND state NOT IN ('asked', 'done')
RETURNING id, transaction_uid, calling_ae_title, called_ae_title, peer_host, request_id, is_awaited, asked_at,
          sop_class_uids, sop_instance_uids, failure_reasons, state, attempts, status, reason, answered_at;

-- retry_later --
-- The answer did not arrive: try again from a time on. Not if another sender was faster.
UPDATE commitment
   SET state = 'waiting', status = %(status)s, reason = %(reason)s, not_before = %(not_before)s, lease_until = NULL
 WHERE request_id = %(request_id)s AND state = 'sending';

-- park --
-- The answer does not arrive and is not tried again, until it is asked for again or the administrator says so.
UPDATE commitment
   SET state = 'parked', status = %(status)s, reason = %(reason)s, lease_until = NULL
 WHERE request_id = %(request_id)s AND state = 'sending';

-- unpark --
-- Try what is parked for an AE title again.
UPDATE commitment SET state = 'waiting', attempts = 0, not_before = now(), rung_at = NULL
 WHERE calling_ae_title = %(calling_ae_title)s AND state = 'parked';

-- due_senders --
-- AE titles with an answer due that nobody was told about since it became due, or not for a while.
WITH due AS (
    SELECT id, calling_ae_title, rung_at,
           CASE WHEN state = 'waiting' THEN not_before ELSE lease_until END AS due_at
      FROM commitment
     WHERE (state = 'waiting' AND not_before <= now()) OR (state = 'sending' AND lease_until < now())
), silent AS (
    SELECT calling_ae_title FROM due
     GROUP BY calling_ae_title
    HAVING coalesce(max(rung_at) < now() - make_interval(secs => %(ring_again_s)s), true)
        OR bool_or(rung_at IS NULL OR rung_at < due_at)
), rung AS (
    UPDATE commitment SET rung_at = now()
     WHERE id IN (SELECT id FROM due WHERE calling_ae_title IN (SELECT calling_ae_title FROM silent))
)
SELECT calling_ae_title FROM silent ORDER BY calling_ae_title;

-- studies_of --
-- What a transaction says of each study.
SELECT study_instance_uid, committed, failed FROM commitment_study
 WHERE commitment_id = %(id)s
 ORDER BY study_instance_uid;

-- for_study --
-- The transactions that were about objects of a study, in the order they were asked.
SELECT transaction_uid, calling_ae_title, asked_at, state, attempts, reason, answered_at,
       commitment_study.committed, commitment_study.failed
  FROM commitment JOIN commitment_study ON commitment_id = commitment.id
 WHERE study_instance_uid = %(study_instance_uid)s
 ORDER BY asked_at, id;

-- counts --
-- How many transactions there are in each state.
SELECT state, count(*) FROM commitment GROUP BY state;
