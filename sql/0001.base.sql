-- The tables of the numbers, of the job's ledger and of the job's own working state.
--
-- Every statement may run twice: an interrupted migrate is simply run again. stream_id columns are COLLATE "C": in a
-- UTF-8 database that orders by code point on every machine and in every locale. The API's paging, the ties of its
-- rankings and the oracle rely on that order. Default privileges set the reading role's rights, at the creation of
-- roles and database.

-- One row for each stream and minute window [window_start, window_start + 1 min). donations_usd is in US dollars.
-- The fill factor leaves room to update the rows of the current minute in place.
CREATE TABLE IF NOT EXISTS stream_metrics_minute (
  window_start   timestamptz      NOT NULL,
  stream_id      text COLLATE "C" NOT NULL,
  chat_messages  bigint           NOT NULL,
  donations      bigint           NOT NULL,
  donations_usd  numeric(30, 2)   NOT NULL,
  joins          bigint           NOT NULL,
  leaves         bigint           NOT NULL,
  unique_viewers bigint           NOT NULL,
  active_viewers bigint           NOT NULL,
  PRIMARY KEY (window_start, stream_id)
) WITH (fillfactor = 90);

-- One stream's history, and the newest window of each stream.
CREATE INDEX IF NOT EXISTS stream_metrics_minute_by_stream
  ON stream_metrics_minute (stream_id, window_start DESC);

-- The event clock: one row, NULL until the first event.
CREATE TABLE IF NOT EXISTS event_clock (
  "only" boolean PRIMARY KEY DEFAULT true CHECK ("only"),
  clock  timestamptz
) WITH (fillfactor = 50);

INSERT INTO event_clock DEFAULT VALUES ON CONFLICT DO NOTHING;

-- One row for each stream. own_clock is set for streams whose id begins with __ and for no others.
CREATE TABLE IF NOT EXISTS stream_presence (
  stream_id      text COLLATE "C" PRIMARY KEY,
  active_viewers bigint           NOT NULL,
  own_clock      timestamptz,
  last_event     timestamptz      NOT NULL
) WITH (fillfactor = 70);

-- The clock is joined in here, so that a move of it does not rewrite the row of every stream.
CREATE OR REPLACE VIEW stream_state AS
SELECT p.stream_id, p.active_viewers, GREATEST(c.clock, p.own_clock) AS updated_at
FROM stream_presence AS p CROSS JOIN event_clock AS c;

-- One row for each committed batch, written in the transaction that wrote the batch's rows.
-- offsets: {"<partition>": next offset}; clocks: {"<partition>": microseconds since the epoch};
-- dead_letters: {"<reason>": count}.
CREATE TABLE IF NOT EXISTS batch_ledger (
  seq          bigint      GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  query_id     uuid        NOT NULL,
  batch_id     bigint      NOT NULL,
  committed_at timestamptz NOT NULL DEFAULT now(),
  topic_id     text,
  offsets      jsonb       NOT NULL DEFAULT '{}',
  clocks       jsonb       NOT NULL DEFAULT '{}',
  event_clock  timestamptz,
  accepted     bigint      NOT NULL DEFAULT 0,
  duplicates   bigint      NOT NULL DEFAULT 0,
  dead_letters jsonb       NOT NULL DEFAULT '{}',
  rows_written bigint      NOT NULL DEFAULT 0,
  UNIQUE (query_id, batch_id)
);

-- The job's working state: a snapshot, and the changes of each batch since.
CREATE TABLE IF NOT EXISTS job_state_snapshot (
  seq     bigint PRIMARY KEY,
  payload bytea
);

CREATE TABLE IF NOT EXISTS job_state_delta (
  seq     bigint PRIMARY KEY,
  payload bytea
);

-- The payloads are compressed already; a second compression by PostgreSQL would only cost time.
ALTER TABLE job_state_snapshot ALTER COLUMN payload SET STORAGE EXTERNAL;

ALTER TABLE job_state_delta ALTER COLUMN payload SET STORAGE EXTERNAL;
