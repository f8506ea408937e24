-- The cookie of a log-in names the epoch in which the log-in began. A database that is made again has another epoch and no
-- ended log-ins, so log-ins of the database before it are refused.
CREATE TABLE IF NOT EXISTS api_session_epoch (
  one boolean PRIMARY KEY DEFAULT true CHECK (one),
  id  uuid    NOT NULL DEFAULT gen_random_uuid()
);

INSERT INTO api_session_epoch DEFAULT VALUES ON CONFLICT DO NOTHING;
