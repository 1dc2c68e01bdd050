-- add --
-- Keep another version of the administrator's file.
INSERT INTO configuration (document, imported_by)
VALUES (%(document)s, %(imported_by)s)
RETURNING version, document, imported_at, imported_by;

-- current --
-- The version in force.
SELECT version, document, imported_at, imported_by FROM configuration ORDER BY version DESC LIMIT 1;

-- history --
-- All versions, newest first.
SELECT version, document, imported_at, imported_by FROM configuration ORDER BY version DESC;
