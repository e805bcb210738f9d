-- +goose Up

-- What a route's log settings ask for beside the usual: the query, and some of the
-- header fields as an object of texts.
ALTER TABLE request_logs ADD COLUMN query TEXT NOT NULL DEFAULT '';
ALTER TABLE request_logs ADD COLUMN headers TEXT NOT NULL DEFAULT '{}';

-- One request by its id, what a consumer did, and what failed, among many rows.
CREATE INDEX request_logs_request ON request_logs (request_id);
CREATE INDEX request_logs_consumer ON request_logs (consumer, created_at, id) WHERE consumer <> '';
CREATE INDEX request_logs_failed ON request_logs (created_at, id) WHERE status_code >= 500;

-- What one replica counted in a minute or an hour, as the package stats has it.
CREATE TABLE request_stats (
    id       INTEGER PRIMARY KEY AUTOINCREMENT,
    replica  TEXT    NOT NULL,
    period   INTEGER NOT NULL,
    start    TEXT    NOT NULL,
    document BLOB    NOT NULL,
    UNIQUE (replica, period, start)
) STRICT;

-- When a route was last asked for, however long ago.
CREATE TABLE route_hits (
    route_id INTEGER PRIMARY KEY REFERENCES routes (id),
    last_hit TEXT    NOT NULL
) STRICT;
