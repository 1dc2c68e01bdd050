-- add_parents --
-- Make the study, the series and the association's part in the study exist; what exists stays as it is. A new study
-- is due at once. A statement of its own: whoever loses the race to insert waits here, and sees the row afterwards.
WITH new_study AS (
    INSERT INTO study (study_instance_uid, description, first_received_at, last_received_at, look_again_at)
    VALUES (%(study_instance_uid)s, %(study_description)s, coalesce(%(received_at)s, now()),
            coalesce(%(received_at)s, now()), CASE WHEN %(is_ours)s THEN NULL ELSE clock_timestamp() END)
    ON CONFLICT DO NOTHING
), new_series AS (
    INSERT INTO series (study_instance_uid, series_instance_uid, modality, header)
    VALUES (%(study_instance_uid)s, %(series_instance_uid)s, %(modality)s, %(header)s)
    ON CONFLICT DO NOTHING
)
INSERT INTO study_association (study_instance_uid, association_id)
SELECT %(study_instance_uid)s, %(association_id)s::text WHERE %(association_id)s::text IS NOT NULL
ON CONFLICT DO NOTHING;

-- add_instance --
-- Decide the race: the first with this SOP Instance UID is new, the same bytes again are the same, other bytes are a
-- conflict and are kept beside. The two unique indexes decide, so two senders at one time get different answers.
WITH first AS (
    INSERT INTO instance (sop_instance_uid, sha256, sop_class_uid, series_instance_uid, study_instance_uid,
                          transfer_syntax_uid, path, size_bytes, attributes, association_id, received_at,
                          is_conflict, is_ours)
    VALUES (%(sop_instance_uid)s, %(sha256)s, %(sop_class_uid)s, %(series_instance_uid)s, %(study_instance_uid)s,
            %(transfer_syntax_uid)s, %(path)s, %(size_bytes)s, %(attributes)s, %(association_id)s,
            coalesce(%(received_at)s, now()), false, %(is_ours)s)
    ON CONFLICT DO NOTHING
    RETURNING 1
), other AS (
    INSERT INTO instance (sop_instance_uid, sha256, sop_class_uid, series_instance_uid, study_instance_uid,
                          transfer_syntax_uid, path, size_bytes, attributes, association_id, received_at,
                          is_conflict, is_ours)
    SELECT %(sop_instance_uid)s, %(sha256)s, %(sop_class_uid)s, %(series_instance_uid)s, %(study_instance_uid)s,
           %(transfer_syntax_uid)s, %(path)s, %(size_bytes)s, %(attributes)s, %(association_id)s,
           coalesce(%(received_at)s, now()), true, %(is_ours)s
     WHERE NOT EXISTS (SELECT FROM first)
    ON CONFLICT DO NOTHING
    RETURNING 1
)
SELECT CASE WHEN EXISTS (SELECT FROM first) THEN 'new'
            WHEN EXISTS (SELECT FROM other) THEN 'conflict'
            ELSE 'same' END;

-- arrived --
-- Something new of a study: move its time, fill what was empty, and wake it unless it is our own result coming back.
WITH filled AS (
    UPDATE series SET header = %(header)s, modality = CASE WHEN modality = '' THEN %(modality)s ELSE modality END
     WHERE study_instance_uid = %(study_instance_uid)s AND series_instance_uid = %(series_instance_uid)s
       AND header = '{}'::jsonb AND %(header)s::jsonb <> '{}'::jsonb
)
UPDATE study
   SET last_received_at = greatest(last_received_at, coalesce(%(received_at)s, now())),
       first_received_at = least(first_received_at, coalesce(%(received_at)s, now())),
       description = CASE WHEN description = '' THEN %(study_description)s ELSE description END,
       look_again_at = CASE WHEN %(is_ours)s THEN look_again_at ELSE clock_timestamp() END
 WHERE study_instance_uid = %(study_instance_uid)s;

-- for_study --
-- Every Instance of a study, conflicts and our own included, in order of arrival.
SELECT sop_instance_uid, sop_class_uid, series_instance_uid, study_instance_uid, transfer_syntax_uid, path, sha256,
       size_bytes, attributes, association_id, received_at, is_conflict, is_ours
  FROM instance
 WHERE study_instance_uid = %(study_instance_uid)s
 ORDER BY received_at, sop_instance_uid, is_conflict;

-- by_sop_uid --
-- What is stored under one SOP Instance UID: the first, then conflicting ones.
SELECT sop_instance_uid, sop_class_uid, series_instance_uid, study_instance_uid, transfer_syntax_uid, path, sha256,
       size_bytes, attributes, association_id, received_at, is_conflict, is_ours
  FROM instance
 WHERE sop_instance_uid = %(sop_instance_uid)s
 ORDER BY is_conflict, received_at, sha256;

-- series_for_study --
-- The series of a study with their sample headers and verdicts.
SELECT series_instance_uid, study_instance_uid, modality, header, kind, reason
  FROM series
 WHERE study_instance_uid = %(study_instance_uid)s
 ORDER BY series_instance_uid;

-- set_series_kind --
-- Keep the verdict of recognition; writes only when it changed.
UPDATE series SET kind = %(kind)s, reason = %(reason)s
 WHERE study_instance_uid = %(study_instance_uid)s AND series_instance_uid = %(series_instance_uid)s
   AND (kind, reason) IS DISTINCT FROM (%(kind)s::text, %(reason)s::text);

-- has_header --
-- Is there a sample header of this series?
SELECT EXISTS (
    SELECT FROM series
     WHERE study_instance_uid = %(study_instance_uid)s AND series_instance_uid = %(series_instance_uid)s
       AND header <> '{}'::jsonb);

-- count --
-- All Instances, conflicts included.
SELECT count(*) FROM instance;

-- sop_uids --
-- The SOP Instance UIDs stored of a study.
SELECT DISTINCT sop_instance_uid FROM instance WHERE study_instance_uid = %(study_instance_uid)s;
