-- The newest windows of the whole table, newest first and by stream inside a window, without our own streams (those
-- whose id begins with __): what the API's lists over windows read, in the order in which they answer.
CREATE INDEX IF NOT EXISTS stream_metrics_minute_ordinary
  ON stream_metrics_minute (window_start DESC, stream_id)
  WHERE left(stream_id, 2) <> '__';
