-- +goose Up

-- Who writes the request log, and the last batch of each. It is written with the batch,
-- so that one whose answer was lost is not written again.
CREATE TABLE request_log_writers (
    id         TEXT    PRIMARY KEY NOT NULL,
    batch      INTEGER NOT NULL,
    written_at TEXT    NOT NULL
) STRICT;
