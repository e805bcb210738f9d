-- +goose Up

-- When the last revision was written. NULL until the first one after this migration.
ALTER TABLE revision_counter ADD COLUMN changed_at TEXT;

-- +goose StatementBegin
CREATE TRIGGER revision_counter_changed AFTER UPDATE OF revision ON revision_counter
BEGIN
    UPDATE revision_counter SET changed_at = strftime('%Y-%m-%d %H:%M:%f+00:00', 'now');
END;
-- +goose StatementEnd

-- The gateways that serve from this database, and how far each has come.
CREATE TABLE replicas (
    id               TEXT    PRIMARY KEY NOT NULL,
    address          TEXT    NOT NULL,
    pid              INTEGER NOT NULL,
    version          TEXT    NOT NULL,
    applied_revision INTEGER NOT NULL,
    failed_routes    TEXT    NOT NULL DEFAULT '[]' CHECK (json_valid(failed_routes)),
    started_at       TEXT    NOT NULL,
    heartbeat_at     TEXT    NOT NULL
) STRICT;
