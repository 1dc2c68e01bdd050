-- meet --
-- A destination that nobody has heard of yet is in order.
INSERT INTO destination (name) VALUES (%(name)s) ON CONFLICT (name) DO NOTHING;

-- enter --
-- Whether something may be sent there now; no row: not now. Holds the row, so that those who want to send take turns.
SELECT breaker FROM destination
 WHERE name = %(name)s
   AND coalesce(closed_until <= clock_timestamp(), true)
   AND (breaker = 'closed' OR probe_at <= clock_timestamp())
   FOR NO KEY UPDATE;

-- probe --
-- One delivery is tried; until its sender falls silent nothing else is.
UPDATE destination
   SET breaker = 'probing', probe_at = clock_timestamp() + make_interval(secs => %(lease_s)s)
 WHERE name = %(name)s;

-- extend_probe --
-- The one who tries lives.
UPDATE destination SET probe_at = clock_timestamp() + make_interval(secs => %(lease_s)s)
 WHERE name = %(name)s AND breaker = 'probing';

-- answered --
-- It is there: everything may go. Was it away before?
WITH before AS (
    SELECT name, breaker FROM destination WHERE name = %(name)s FOR NO KEY UPDATE
)
UPDATE destination
   SET since = CASE WHEN before.breaker = 'closed' THEN since ELSE now() END, answered_at = now(),
       breaker = 'closed', failures = 0, reason = '', probe_at = NULL
  FROM before
 WHERE destination.name = before.name
RETURNING before.breaker <> 'closed';

-- lock --
-- For an update that depends on what is there.
SELECT breaker, failures FROM destination WHERE name = %(name)s FOR NO KEY UPDATE;

-- failed --
-- Nothing came of an attempt. pause_s: nothing is tried for so long; NULL: it is given another chance at once.
UPDATE destination
   SET since = CASE WHEN breaker = 'closed' AND %(pause_s)s::float8 IS NOT NULL THEN now() ELSE since END,
       breaker = CASE WHEN %(pause_s)s::float8 IS NULL THEN 'closed' ELSE 'open' END,
       probe_at = clock_timestamp() + make_interval(secs => %(pause_s)s::float8),
       failures = failures + 1, reason = %(reason)s
 WHERE name = %(name)s;

-- close_until --
-- Outside of its working hours.
INSERT INTO destination (name, closed_until) VALUES (%(name)s, %(until)s)
ON CONFLICT (name) DO UPDATE SET closed_until = excluded.closed_until;

-- try_now --
-- The administrator says so, or the rules have changed: forget pauses and working hours.
UPDATE destination SET closed_until = NULL, probe_at = CASE WHEN breaker = 'closed' THEN NULL ELSE now() END
 WHERE %(name)s::text IS NULL OR name = %(name)s OR starts_with(name, %(name)s || ':');

-- refuse --
-- It was seen to refuse a SOP Class.
INSERT INTO destination_refusal (destination, sop_class_uid, reason)
VALUES (%(name)s, %(sop_class_uid)s, %(reason)s)
ON CONFLICT (destination, sop_class_uid) DO UPDATE SET reason = excluded.reason, noticed_at = now();

-- refusals --
-- What was seen to be refused, by all or by one, not longer ago than max_age_s.
SELECT destination, sop_class_uid, reason, noticed_at FROM destination_refusal
 WHERE (%(name)s::text IS NULL OR destination = %(name)s)
   AND noticed_at > now() - make_interval(secs => %(max_age_s)s)
 ORDER BY destination, sop_class_uid;

-- forget --
-- Refusals are to be seen anew.
DELETE FROM destination_refusal
 WHERE %(name)s::text IS NULL OR destination = %(name)s OR starts_with(destination, %(name)s || ':');

-- all --
-- Every destination that something was ever sent to.
SELECT name, breaker, failures, reason, since, probe_at, answered_at,
       CASE WHEN closed_until > now() THEN closed_until END AS closed_until
  FROM destination
 ORDER BY name;
