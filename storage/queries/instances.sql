-- add_parents --
-- Make the studies, the series and the associations' part in the studies exist; what exists stays as it is. A new study
-- is due at once. A statement of its own: whoever loses the race to insert waits here, and sees the row afterwards.
WITH given AS (
    SELECT study_instance_uid, series_instance_uid, association_id, coalesce(received_at, now()) AS received_at,
           is_ours, modality, header, study_description, number
      FROM unnest(%(study_instance_uids)b::text[], %(series_instance_uids)b::text[], %(association_ids)b::text[],
                  %(received_ats)s::timestamptz[], %(are_ours)s::boolean[], %(modalities)b::text[],
                  %(headers)b::text[], %(study_descriptions)b::text[])
           WITH ORDINALITY AS row (study_instance_uid, series_instance_uid, association_id, received_at, is_ours,
                                   modality, header, study_description, number)
), new_study AS (
    INSERT INTO study (study_instance_uid, description, first_received_at, last_received_at, look_again_at)
    SELECT study_instance_uid,
           coalesce((array_agg(study_description ORDER BY number) FILTER (WHERE study_description <> ''))[1], ''),
           min(received_at), max(received_at), CASE WHEN bool_and(is_ours) THEN NULL ELSE clock_timestamp() END
      FROM given
     GROUP BY study_instance_uid
     ORDER BY study_instance_uid
    ON CONFLICT DO NOTHING
), new_series AS (
    INSERT INTO series (study_instance_uid, series_instance_uid, modality, header)
    SELECT DISTINCT ON (study_instance_uid, series_instance_uid)
           study_instance_uid, series_instance_uid, modality, header::jsonb
      FROM given
     ORDER BY study_instance_uid, series_instance_uid, header = '{}', number
    ON CONFLICT DO NOTHING
)
INSERT INTO study_association (study_instance_uid, association_id)
SELECT DISTINCT study_instance_uid, association_id FROM given WHERE association_id IS NOT NULL ORDER BY 1, 2
ON CONFLICT DO NOTHING;

-- add_instances --
-- Decide the races: the first with its SOP Instance UID is new, the same bytes again are the same, other bytes are a
-- conflict and are kept beside. The two unique indexes decide, so two senders at one time get different answers. No SOP
-- Instance UID may be given twice. Rows that are the same as before are not in the answer.
WITH given AS (
    SELECT sop_instance_uid, sha256, sop_class_uid, series_instance_uid, study_instance_uid, transfer_syntax_uid, path,
           size_bytes, attributes::jsonb AS attributes, association_id, coalesce(received_at, now()) AS received_at,
           is_ours
      FROM unnest(%(sop_instance_uids)b::text[], %(sha256s)b::text[], %(sop_class_uids)b::text[],
                  %(series_instance_uids)b::text[], %(study_instance_uids)b::text[], %(transfer_syntax_uids)b::text[],
                  %(paths)b::text[], %(sizes_bytes)s::bigint[], %(attributes)b::text[], %(association_ids)b::text[],
                  %(received_ats)s::timestamptz[], %(are_ours)s::boolean[])
        AS row (sop_instance_uid, sha256, sop_class_uid, series_instance_uid, study_instance_uid, transfer_syntax_uid,
                path, size_bytes, attributes, association_id, received_at, is_ours)
     ORDER BY sop_instance_uid
), first AS (
    INSERT INTO instance (sop_instance_uid, sha256, sop_class_uid, series_instance_uid, study_instance_uid,
                          transfer_syntax_uid, path, size_bytes, attributes, association_id, received_at,
                          is_ours, is_conflict)
    SELECT given.*, false FROM given
    ON CONFLICT DO NOTHING
    RETURNING sop_instance_uid
), other AS (
    INSERT INTO instance (sop_instance_uid, sha256, sop_class_uid, series_instance_uid, study_instance_uid,
                          transfer_syntax_uid, path, size_bytes, attributes, association_id, received_at,
                          is_ours, is_conflict)
    SELECT given.*, true FROM given
     WHERE NOT EXISTS (SELECT FROM first WHERE first.sop_instance_uid = given.sop_instance_uid)
    ON CONFLICT DO NOTHING
    RETURNING sop_instance_uid
)
SELECT sop_instance_uid, 'new' FROM first UNION ALL SELECT sop_instance_uid, 'conflict' FROM other;

-- arrived --
-- Something new of some studies: move their time, fill what was empty, and wake them unless it is our own result coming
-- back.
WITH given AS (
    SELECT study_instance_uid, series_instance_uid, coalesce(received_at, now()) AS received_at, is_ours, modality,
           header, study_description, number
      FROM unnest(%(study_instance_uids)b::text[], %(series_instance_uids)b::text[], %(received_ats)s::timestamptz[],
                  %(are_ours)s::boolean[], %(modalities)b::text[], %(headers)b::text[],
                  %(study_descriptions)b::text[])
           WITH ORDINALITY AS row (study_instance_uid, series_instance_uid, received_at, is_ours, modality, header,
                                   study_description, number)
), described AS (
    SELECT DISTINCT ON (study_instance_uid, series_instance_uid)
           study_instance_uid, series_instance_uid, modality, header::jsonb AS header
      FROM given
     WHERE header <> '{}'
     ORDER BY study_instance_uid, series_instance_uid, number
), filled AS (
    UPDATE series SET header = described.header,
                      modality = CASE WHEN series.modality = '' THEN described.modality ELSE series.modality END
      FROM described
     WHERE series.study_instance_uid = described.study_instance_uid
       AND series.series_instance_uid = described.series_instance_uid AND series.header = '{}'::jsonb
), news AS (
    SELECT study_instance_uid, min(received_at) AS first, max(received_at) AS last, bool_and(is_ours) AS is_ours,
           coalesce((array_agg(study_description ORDER BY number) FILTER (WHERE study_description <> ''))[1], '')
           AS description
      FROM given
     GROUP BY study_instance_uid
)
UPDATE study
   SET last_received_at = greatest(last_received_at, news.last),
       first_received_at = least(first_received_at, news.first),
       description = CASE WHEN study.description = '' THEN news.description ELSE study.description END,
       look_again_at = CASE WHEN news.is_ours THEN look_again_at ELSE clock_timestamp() END
  FROM news
 WHERE study.study_instance_uid = news.study_instance_uid;

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
