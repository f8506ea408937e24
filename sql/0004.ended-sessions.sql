-- Log-ins of the API that a person ended. The cookie of a log-in is signed and would stay valid until expires_at. Only
-- the role streampulse_sessions may write here; the API's reader assumes it for a log-out.
CREATE TABLE IF NOT EXISTS api_ended_sessions (
  id         text        PRIMARY KEY,
  expires_at timestamptz NOT NULL
);
GRANT SELECT, INSERT, DELETE ON api_ended_sessions TO streampulse_sessions;
