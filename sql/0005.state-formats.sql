-- Each table of the job's durable state names the format of its rows. Rows from before this migration have format 1.
ALTER TABLE batch_ledger ADD COLUMN IF NOT EXISTS format smallint NOT NULL DEFAULT 1;

ALTER TABLE job_state_snapshot ADD COLUMN IF NOT EXISTS format smallint NOT NULL DEFAULT 1;

ALTER TABLE job_state_delta ADD COLUMN IF NOT EXISTS format smallint NOT NULL DEFAULT 1;

-- State by partition; NULL: the payload has all partitions.
ALTER TABLE job_state_snapshot ADD COLUMN IF NOT EXISTS partition integer;

ALTER TABLE job_state_delta ADD COLUMN IF NOT EXISTS partition integer;

-- Identity of the records before an offset: {"<partition>": {"epoch": leader epoch, "generation": number of spans lost
-- before, "fingerprint": SHA-256 of the record before the offset, in hexadecimal}}; NULL: not known.
ALTER TABLE batch_ledger ADD COLUMN IF NOT EXISTS positions jsonb;
