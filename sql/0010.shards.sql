-- Several drivers of the job, the shards, count one topic. Each has its rows of these tables, by the number of its shard.
-- In batch_ledger, shards is how many there were. The newest row of all says how many there are now.
ALTER TABLE batch_ledger ADD COLUMN IF NOT EXISTS shard smallint NOT NULL DEFAULT 0;

ALTER TABLE batch_ledger ADD COLUMN IF NOT EXISTS shards smallint NOT NULL DEFAULT 1;

CREATE INDEX IF NOT EXISTS batch_ledger_by_shard ON batch_ledger (shard, seq);

ALTER TABLE job_state_snapshot ADD COLUMN IF NOT EXISTS shard smallint NOT NULL DEFAULT 0;

ALTER TABLE job_state_delta ADD COLUMN IF NOT EXISTS shard smallint NOT NULL DEFAULT 0;

ALTER TABLE stream_presence ADD COLUMN IF NOT EXISTS shard smallint NOT NULL DEFAULT 0;

-- The event clock has a row for each shard: the one that its newest ledger row used. The newest of them is the clock.
ALTER TABLE event_clock ADD COLUMN IF NOT EXISTS shard smallint NOT NULL DEFAULT 0;

ALTER TABLE event_clock DROP CONSTRAINT IF EXISTS event_clock_pkey;

ALTER TABLE event_clock ADD PRIMARY KEY (shard);

CREATE OR REPLACE VIEW stream_state AS
SELECT p.stream_id, p.active_viewers, GREATEST(c.clock, p.own_clock) AS updated_at
FROM stream_presence AS p JOIN event_clock AS c USING (shard);

-- The newest row of each shard.
CREATE OR REPLACE VIEW newest_batches AS
SELECT newest.*
FROM (SELECT shards FROM batch_ledger ORDER BY seq DESC LIMIT 1) AS present,
  generate_series(0, present.shards - 1) AS number,
  LATERAL (SELECT * FROM batch_ledger WHERE shard = number ORDER BY seq DESC LIMIT 1) AS newest;

-- How far the topic is counted: one row, none while the ledger is empty. A shard that has not committed since the topic
-- was made again has no offsets in it. seq and committed_at are those of the newest row.
CREATE OR REPLACE VIEW counted_up_to AS
WITH topic AS (SELECT topic_id FROM newest_batches WHERE topic_id IS NOT NULL ORDER BY seq DESC LIMIT 1),
ours AS (SELECT * FROM newest_batches WHERE topic_id IS NOT DISTINCT FROM (SELECT topic_id FROM topic))
SELECT max(seq) AS seq, (SELECT topic_id FROM topic) AS topic_id, max(committed_at) AS committed_at,
  max(event_clock) AS event_clock, max(shards) AS shards,
  coalesce((SELECT jsonb_object_agg(key, value) FROM ours, jsonb_each(offsets)), '{}') AS offsets,
  coalesce((SELECT jsonb_object_agg(key, value) FROM ours, jsonb_each(clocks)), '{}') AS clocks
FROM newest_batches HAVING count(*) > 0;
