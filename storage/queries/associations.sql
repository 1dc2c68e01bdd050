-- opened --
-- Remember an association; told twice changes nothing.
INSERT INTO association (association_id, receiver, calling_ae_title, called_ae_title, peer_host,
                         opened_at, closed_at, state, stored)
VALUES (%(association_id)s, %(receiver)s, %(calling_ae_title)s, %(called_ae_title)s, %(peer_host)s,
        %(opened_at)s, %(closed_at)s, %(state)s, %(stored)s)
ON CONFLICT (association_id) DO NOTHING;

-- closed --
-- End an association and wake its studies: "none open from that sender" may have become true. One that was given
-- up as lost may still be told how it really ended; an end that is known is not changed.
WITH ended AS (
    UPDATE association
       SET state = %(state)s, closed_at = coalesce(%(closed_at)s, now()), stored = %(stored)s
     WHERE association_id = %(association_id)s AND state IN ('open', 'lost')
    RETURNING association_id
)
UPDATE study SET look_again_at = clock_timestamp()
 WHERE study_instance_uid IN (
       SELECT study_instance_uid FROM study_association JOIN ended USING (association_id));

-- mark_lost --
-- A receiver started again: whatever it had open died with it. Wakes the studies concerned.
WITH lost AS (
    UPDATE association SET state = 'lost', closed_at = now()
     WHERE receiver = %(receiver)s AND state = 'open'
    RETURNING association_id
), woken AS (
    UPDATE study SET look_again_at = clock_timestamp()
     WHERE study_instance_uid IN (
           SELECT study_instance_uid FROM study_association JOIN lost USING (association_id))
)
SELECT association_id FROM lost ORDER BY association_id;

-- get --
-- One association.
SELECT association_id, receiver, calling_ae_title, called_ae_title, peer_host, opened_at, closed_at, state, stored
  FROM association
 WHERE association_id = %(association_id)s;

-- open_for_study --
-- The associations still open that brought something of the study.
SELECT association_id, receiver, calling_ae_title, called_ae_title, peer_host, opened_at, closed_at, state, stored
  FROM association JOIN study_association USING (association_id)
 WHERE study_instance_uid = %(study_instance_uid)s AND state = 'open'
 ORDER BY opened_at, association_id;

-- for_study --
-- All associations that brought something of the study, in order of time.
SELECT association_id, receiver, calling_ae_title, called_ae_title, peer_host, opened_at, closed_at, state, stored
  FROM association JOIN study_association USING (association_id)
 WHERE study_instance_uid = %(study_instance_uid)s
 ORDER BY opened_at, association_id;

-- that_brought_last --
-- Of the associations that brought these Instances, the one that brought the last of them.
SELECT association_id, receiver, calling_ae_title, called_ae_title, peer_host, opened_at, closed_at, state, stored
  FROM instance JOIN association USING (association_id)
 WHERE study_instance_uid = %(study_instance_uid)s AND sop_instance_uid = ANY(%(sop_instance_uids)s)
   AND NOT is_conflict
 ORDER BY received_at DESC, opened_at DESC, association_id
 LIMIT 1;

-- brought --
-- What an association brought of each study: Instances it was first with, and those in conflict.
SELECT part.study_instance_uid,
       count(*) FILTER (WHERE NOT is_conflict) AS new, count(*) FILTER (WHERE is_conflict) AS conflicts
  FROM study_association AS part
  LEFT JOIN instance ON instance.study_instance_uid = part.study_instance_uid
                    AND instance.association_id = part.association_id
 WHERE part.association_id = %(association_id)s
 GROUP BY part.study_instance_uid
 ORDER BY part.study_instance_uid;

-- not_audited --
-- Associations that have ended and are not in the audit trail yet.
SELECT association_id, receiver, calling_ae_title, called_ae_title, peer_host, opened_at, closed_at, state, stored
  FROM association
 WHERE NOT is_audited AND state <> 'open'
 ORDER BY association_id
 LIMIT %(limit)s;

-- set_audited --
-- They are in the trail.
UPDATE association SET is_audited = true WHERE association_id = ANY(%(association_ids)s);

-- transferred --
-- What an association brought of each study, by SOP Class: Instances that it was the first with. A study of which
-- everything was here before has one row with no SOP Class. path: one file of the study.
SELECT part.study_instance_uid, coalesce(new.sop_class_uid, '') AS sop_class_uid, count(new.sop_instance_uid) AS instances,
       coalesce(min(new.path), (SELECT path FROM instance AS any_of_it
                                 WHERE any_of_it.study_instance_uid = part.study_instance_uid LIMIT 1)) AS path
  FROM study_association AS part
  LEFT JOIN instance AS new ON new.study_instance_uid = part.study_instance_uid
                           AND new.association_id = part.association_id
 WHERE part.association_id = %(association_id)s
 GROUP BY part.study_instance_uid, new.sop_class_uid
 ORDER BY part.study_instance_uid, new.sop_class_uid;
