-- add --
-- Keep a result object; the same object again (same UID, same bytes) gives the row that is there.
INSERT INTO result (job_id, study_instance_uid, sop_instance_uid, sop_class_uid, transfer_syntax_uid, path, sha256,
                    size_bytes, kind, place)
VALUES (%(job_id)s, %(study_instance_uid)s, %(sop_instance_uid)s, %(sop_class_uid)s, %(transfer_syntax_uid)s,
        %(path)s, %(sha256)s, %(size_bytes)s, %(kind)s, %(place)s)
ON CONFLICT (sop_instance_uid) DO UPDATE SET sha256 = result.sha256 WHERE result.sha256 = excluded.sha256
RETURNING id, job_id, study_instance_uid, sop_instance_uid, sop_class_uid, transfer_syntax_uid, path, sha256,
          size_bytes, kind, place;

-- for_job --
-- The results of one job.
SELECT id, job_id, study_instance_uid, sop_instance_uid, sop_class_uid, transfer_syntax_uid, path, sha256, size_bytes,
       kind, place
  FROM result
 WHERE job_id = %(job_id)s
 ORDER BY id;

-- for_study --
-- The results of one study.
SELECT id, job_id, study_instance_uid, sop_instance_uid, sop_class_uid, transfer_syntax_uid, path, sha256, size_bytes,
       kind, place
  FROM result
 WHERE study_instance_uid = %(study_instance_uid)s
 ORDER BY id;

-- by_sop_uid --
-- The result with this SOP Instance UID.
SELECT id, job_id, study_instance_uid, sop_instance_uid, sop_class_uid, transfer_syntax_uid, path, sha256, size_bytes,
       kind, place
  FROM result
 WHERE sop_instance_uid = %(sop_instance_uid)s;
