-- +goose Up

-- What a route's log settings ask for beside the usual: the query, and some of the
-- header fields as an object of texts.
ALTER TABLE request_logs
    ADD COLUMN query   text  NOT NULL DEFAULT '',
    ADD COLUMN headers jsonb NOT NULL DEFAULT '{}';

-- One request by its id, what a consumer did, and what failed, among many millions of
-- rows. The rows that these leave out are the many, so that they cost little to keep.
CREATE INDEX request_logs_request ON request_logs (request_id);
CREATE INDEX request_logs_consumer ON request_logs (consumer, created_at, id) WHERE consumer <> '';
CREATE INDEX request_logs_failed ON request_logs (created_at, id) WHERE status_code >= 500;

-- What one replica counted in a minute or an hour, as the package stats has it.
CREATE TABLE request_stats (
    id       bigint      GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    replica  text        NOT NULL,
    period   integer     NOT NULL,
    start    timestamptz NOT NULL,
    document bytea       NOT NULL,
    UNIQUE (replica, period, start)
);

-- When a route was last asked for, however long ago.
CREATE TABLE route_hits (
    route_id integer     PRIMARY KEY REFERENCES routes (id),
    last_hit timestamptz NOT NULL
);
