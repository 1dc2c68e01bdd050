-- add --
-- Announce something with the change that it announces.
INSERT INTO outbox (queue, task, argument) VALUES (%(queue)s, %(task)s, %(argument)s);

-- take --
-- The oldest rows that nobody else is sending; they stay locked until this transaction ends.
SELECT id, queue, task, argument FROM outbox ORDER BY id LIMIT %(limit)s FOR UPDATE SKIP LOCKED;

-- delete --
-- These became messages.
DELETE FROM outbox WHERE id = ANY(%(ids)s);
