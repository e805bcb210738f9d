-- +goose Up

-- Who writes the request log, and the last batch of each. It is written with the batch,
-- so that one whose answer was lost is not written again. Rows are updated all the time,
-- so pages have room for the next version of each.
CREATE TABLE request_log_writers (
    id         uuid        PRIMARY KEY,
    batch      bigint      NOT NULL,
    written_at timestamptz NOT NULL DEFAULT clock_timestamp()
) WITH (fillfactor = 50);
