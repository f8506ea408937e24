-- Every topic that the tables were ever counted from, by its id: a re-created topic has a new one. The ledger cannot
-- tell, since its older rows are removed.
CREATE TABLE IF NOT EXISTS topics_read (
  topic_id   text        PRIMARY KEY,
  first_read timestamptz NOT NULL DEFAULT now()
);

INSERT INTO topics_read (topic_id, first_read)
SELECT topic_id, min(committed_at) FROM batch_ledger WHERE topic_id IS NOT NULL GROUP BY topic_id
ON CONFLICT DO NOTHING;
