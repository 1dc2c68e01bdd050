-- get --
-- One study with the number of its Instances (conflicts not counted).
SELECT study_instance_uid, description, first_received_at, last_received_at, state, reason, look_again_at,
       (SELECT count(*) FROM instance i
         WHERE i.study_instance_uid = study.study_instance_uid AND NOT i.is_conflict) AS instances
  FROM study
 WHERE study_instance_uid = %(study_instance_uid)s;

-- recent --
-- The studies in which something arrived last, newest first.
SELECT study_instance_uid, description, first_received_at, last_received_at, state, reason, look_again_at,
       (SELECT count(*) FROM instance i
         WHERE i.study_instance_uid = study.study_instance_uid AND NOT i.is_conflict) AS instances
  FROM study
 ORDER BY last_received_at DESC, study_instance_uid
 LIMIT %(limit)s;

-- due --
-- What the scheduler must look at now, oldest first; rows that another scheduler holds are left to it.
SELECT study_instance_uid, description, first_received_at, last_received_at, state, reason, look_again_at,
       (SELECT count(*) FROM instance i
         WHERE i.study_instance_uid = study.study_instance_uid AND NOT i.is_conflict) AS instances
  FROM study
 WHERE look_again_at <= clock_timestamp()
 ORDER BY look_again_at
 LIMIT %(limit)s
   FOR NO KEY UPDATE SKIP LOCKED;

-- set_state --
-- Keep the verdict. If the wake-up time is no longer the one that was read, something arrived meanwhile: it stays.
UPDATE study
   SET state = %(state)s, reason = %(reason)s,
       look_again_at = CASE WHEN look_again_at IS NOT DISTINCT FROM %(seen)s::timestamptz
                            THEN %(look_again_at)s::timestamptz
                            ELSE least(look_again_at, %(look_again_at)s::timestamptz) END
 WHERE study_instance_uid = %(study_instance_uid)s;

-- touch --
-- Wake one study.
UPDATE study SET look_again_at = clock_timestamp() WHERE study_instance_uid = %(study_instance_uid)s;

-- touch_all --
-- Wake every study in which something arrived since a time: the rules changed.
UPDATE study SET look_again_at = clock_timestamp() WHERE last_received_at >= %(since)s;

-- next_due_in --
-- Seconds until the next study is due (0 or less: now); no row: nothing is due at any time.
SELECT extract(epoch FROM min(look_again_at) - clock_timestamp())::float8
  FROM study
 WHERE look_again_at IS NOT NULL;
