-- node_id --
-- The identity of this node, made once with the schema; results' UIDs derive from it.
SELECT node_id FROM node;
