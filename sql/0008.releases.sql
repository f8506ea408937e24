-- Releases that passed every gate of a deploy and the smoke test. What cannot be undone, such as another format of the
-- job's state, happens only for a release that has a row.
CREATE TABLE IF NOT EXISTS releases (
  name      text        PRIMARY KEY,
  marked_at timestamptz NOT NULL DEFAULT now()
);
