-- add --
-- Something happened.
INSERT INTO event (study_instance_uid, kind, text, details)
VALUES (%(study_instance_uid)s, %(kind)s, %(text)s, %(details)s);

-- for_study --
-- The story of one study, in order.
SELECT id, at, study_instance_uid, kind, text, details
  FROM event
 WHERE study_instance_uid = %(study_instance_uid)s
 ORDER BY id;

-- recent --
-- What happened last, newest first.
SELECT id, at, study_instance_uid, kind, text, details FROM event ORDER BY id DESC LIMIT %(limit)s;
