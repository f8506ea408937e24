-- When the driver began to read a batch, and when its records were decoded, by the driver's clock; NULL: not known.
ALTER TABLE batch_ledger ADD COLUMN IF NOT EXISTS begun_at timestamptz;

ALTER TABLE batch_ledger ADD COLUMN IF NOT EXISTS decoded_at timestamptz;

-- Dead letters of the last 30 days, counted by five minutes of their commit. stream_id is the letter's key as text,
-- producer the header client.id of its record; empty: there is none. A bucket has a bounded number of groups; letters
-- beyond that have the stream_id '(others)' and no producer.
CREATE TABLE IF NOT EXISTS dead_letter_groups (
  bucket    timestamptz      NOT NULL,
  reason    text             NOT NULL,
  stream_id text COLLATE "C" NOT NULL,
  producer  text COLLATE "C" NOT NULL,
  letters   bigint           NOT NULL,
  newest    timestamptz      NOT NULL,
  PRIMARY KEY (bucket, reason, stream_id, producer)
);

-- Dead letters that were sent again, by the record that each letter is of. new_partition and new_offset are where the
-- replay stands in the topic; NULL: it was interrupted before Kafka's acknowledgement.
CREATE TABLE IF NOT EXISTS replayed_letters (
  topic_id      text        NOT NULL,
  partition     integer     NOT NULL,
  generation    integer     NOT NULL,
  "offset"      bigint      NOT NULL,
  replayed_by   text        NOT NULL,
  replayed_at   timestamptz NOT NULL DEFAULT now(),
  predicted     text        NOT NULL,
  new_partition integer,
  new_offset    bigint,
  PRIMARY KEY (topic_id, partition, generation, "offset")
);
