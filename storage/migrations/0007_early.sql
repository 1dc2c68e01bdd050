-- A job may answer a part of an exam while the rest is on its way.

-- in words, what it covers ("2 of 4 slices ..."); empty: all that is there
ALTER TABLE job ADD COLUMN partial text NOT NULL DEFAULT '';
