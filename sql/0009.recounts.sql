-- One row for each recount that was swapped in: its row of the ledger, and the offset after the last dead letter that had
-- been sent before. A letter from before that offset which is not due by the recount is overruled.
CREATE TABLE IF NOT EXISTS recounts (
  id          uuid        PRIMARY KEY,
  seq         bigint      NOT NULL,
  topic_id    text        NOT NULL,
  letters_end bigint      NOT NULL,
  swapped_at  timestamptz NOT NULL DEFAULT now()
);

-- Dead letters that are due by a recount and are not yet sent, in the order of id.
CREATE TABLE IF NOT EXISTS due_letters (
  id            bigint  GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  recount       uuid    NOT NULL,
  partition     integer NOT NULL,
  record_offset bigint  NOT NULL,
  reason        text    NOT NULL,
  detail        bytea   NOT NULL,
  key           bytea,
  value         bytea,
  producer      text    NOT NULL
);
