-- Spans of offsets in which the log differs from what the job read. first_offset is the first such offset, next_offset
-- the offset that the job had reached. kind lost: the broker lost the records after the job had read them; each such
-- span begins a new generation of its partition's offsets. kind unread: the records were removed before the job read
-- them. epoch is the leader epoch of the position, clock the partition's clock there; NULL: not known.
CREATE TABLE IF NOT EXISTS lost_spans (
  seq          bigint      GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  topic_id     text        NOT NULL,
  partition    integer     NOT NULL,
  kind         text        NOT NULL CHECK (kind IN ('lost', 'unread')),
  first_offset bigint      NOT NULL,
  next_offset  bigint      NOT NULL,
  epoch        integer,
  clock        timestamptz,
  noted_at     timestamptz NOT NULL DEFAULT now()
);

-- The column positions of batch_ledger has, besides what migration 0005 names, "record": the offset of the record that
-- the fingerprint is of.

-- Records that do not count although the log holds them, by the offsets first_offset to last_offset of a generation.
-- reason is future or invalid. A pending entry has no effect until a recount with it replaces the tables.
CREATE TABLE IF NOT EXISTS excluded_records (
  topic_id     text        NOT NULL,
  partition    integer     NOT NULL,
  generation   integer     NOT NULL,
  first_offset bigint      NOT NULL,
  last_offset  bigint      NOT NULL CHECK (last_offset >= first_offset),
  reason       text        NOT NULL,
  pending      boolean     NOT NULL DEFAULT false,
  excluded_by  text        NOT NULL,
  excluded_at  timestamptz NOT NULL DEFAULT now(),
  PRIMARY KEY (topic_id, partition, generation, first_offset)
);
