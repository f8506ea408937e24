-- The newest windows of the whole table, newest first and by stream inside a window, without internal streams (ids that
-- begin with __). The API's lists over windows read them in this order.
CREATE INDEX IF NOT EXISTS stream_metrics_minute_ordinary
  ON stream_metrics_minute (window_start DESC, stream_id)
  WHERE left(stream_id, 2) <> '__';
