-- Which associations are in the audit trail (DICOM PS3.15 A.5.3.7). Those that ended before there was one are not told.

ALTER TABLE association ADD COLUMN is_audited boolean NOT NULL DEFAULT false;
UPDATE association SET is_audited = true WHERE state <> 'open';
CREATE INDEX association_not_audited ON association (association_id) WHERE NOT is_audited;
