-- +goose Up

-- STRICT and the checks give SQLite the types of PostgreSQL, so that a row
-- written by hand can always be read.
CREATE TABLE routes (
    id           INTEGER PRIMARY KEY AUTOINCREMENT CHECK (id BETWEEN 1 AND 2147483647),
    path         TEXT    NOT NULL,
    target_url   TEXT    NOT NULL,
    method       TEXT    NOT NULL DEFAULT 'GET',
    enabled      INTEGER NOT NULL DEFAULT 1 CHECK (enabled IN (0, 1)),
    rate_limit   INTEGER DEFAULT 0 CHECK (rate_limit BETWEEN -2147483648 AND 2147483647),
    timeout      INTEGER DEFAULT 30 CHECK (timeout BETWEEN -2147483648 AND 2147483647),
    created_at   TEXT    NOT NULL DEFAULT (strftime('%Y-%m-%d %H:%M:%f+00:00', 'now')) CHECK (julianday(created_at) IS NOT NULL AND created_at LIKE '____-__-__%'),
    updated_at   TEXT    NOT NULL DEFAULT (strftime('%Y-%m-%d %H:%M:%f+00:00', 'now')) CHECK (julianday(updated_at) IS NOT NULL AND updated_at LIKE '____-__-__%'),
    name         TEXT    NOT NULL DEFAULT '',
    host         TEXT    NOT NULL DEFAULT '',
    priority     INTEGER NOT NULL DEFAULT 0 CHECK (priority BETWEEN -2147483648 AND 2147483647),
    spec         TEXT    NOT NULL DEFAULT '{}' CHECK (json_valid(spec)),
    match_key    TEXT    NOT NULL DEFAULT '',
    revision     INTEGER NOT NULL DEFAULT 0,
    updated_by   TEXT    NOT NULL DEFAULT '',
    updated_from TEXT    NOT NULL DEFAULT '',
    deleted_at   TEXT    CHECK (deleted_at IS NULL OR julianday(deleted_at) IS NOT NULL AND deleted_at LIKE '____-__-__%')
) STRICT;

CREATE UNIQUE INDEX routes_live_match ON routes
    (host, path, method, priority, coalesce(spec -> '$.headers', '{}'), coalesce(spec -> '$.query', '{}'))
    WHERE deleted_at IS NULL;

CREATE INDEX routes_match_key ON routes (match_key) WHERE deleted_at IS NULL;

-- The number of the last change, and who is writing: 0 plain SQL, 1 the gateway,
-- 2 a trigger on behalf of plain SQL. Outside of a transaction always 0.
CREATE TABLE revision_counter (
    id       INTEGER PRIMARY KEY DEFAULT 1 CHECK (id = 1),
    revision INTEGER NOT NULL,
    writer   INTEGER NOT NULL DEFAULT 0
) STRICT;
INSERT INTO revision_counter (revision) VALUES (0);

-- What each revision did to each route. A number without rows here is a change
-- that cannot be told route by route: readers must load everything.
CREATE TABLE revisions (
    revision   INTEGER NOT NULL,
    route_id   INTEGER NOT NULL,
    op         TEXT    NOT NULL CHECK (op IN ('create', 'update', 'delete')),
    actor      TEXT    NOT NULL,
    source     TEXT    NOT NULL,
    before     TEXT,
    after      TEXT,
    created_at TEXT    NOT NULL,
    PRIMARY KEY (revision, route_id)
) STRICT;

CREATE INDEX revisions_route ON revisions (route_id, revision);

CREATE TABLE request_logs (
    id            INTEGER PRIMARY KEY AUTOINCREMENT,
    route_id      INTEGER REFERENCES routes (id),
    method        TEXT    NOT NULL,
    path          TEXT    NOT NULL,
    status_code   INTEGER NOT NULL,
    response_time INTEGER NOT NULL,
    client_ip     TEXT    NOT NULL DEFAULT '',
    user_agent    TEXT    NOT NULL DEFAULT '',
    created_at    TEXT    NOT NULL DEFAULT (strftime('%Y-%m-%d %H:%M:%f+00:00', 'now')),
    host          TEXT    NOT NULL DEFAULT '',
    duration_us   INTEGER NOT NULL DEFAULT 0,
    upstream      TEXT    NOT NULL DEFAULT '',
    bytes_in      INTEGER NOT NULL DEFAULT 0,
    bytes_out     INTEGER NOT NULL DEFAULT 0,
    request_id    TEXT    NOT NULL DEFAULT '',
    trace_id      TEXT    NOT NULL DEFAULT '',
    consumer      TEXT    NOT NULL DEFAULT '',
    error         TEXT    NOT NULL DEFAULT ''
) STRICT;

CREATE INDEX request_logs_created ON request_logs (created_at);
CREATE INDEX request_logs_route ON request_logs (route_id, created_at);

-- The rows of routes as JSON, as the history keeps them.
CREATE VIEW routes_json AS
SELECT id, revision, updated_by, updated_from, updated_at, json_object(
    'id', id, 'path', path, 'target_url', target_url, 'method', method,
    'enabled', json(iif(enabled, 'true', 'false')), 'rate_limit', rate_limit, 'timeout', timeout,
    'created_at', created_at, 'updated_at', updated_at, 'name', name, 'host', host, 'priority', priority,
    'spec', json(spec), 'match_key', match_key, 'revision', revision,
    'updated_by', updated_by, 'updated_from', updated_from, 'deleted_at', deleted_at) AS document
FROM routes;

-- +goose StatementBegin
CREATE TRIGGER routes_insert_by_gateway AFTER INSERT ON routes
WHEN (SELECT writer FROM revision_counter) = 1
BEGIN
    INSERT INTO revisions (revision, route_id, op, actor, source, after, created_at)
    SELECT revision, id, 'create', updated_by, updated_from, document, updated_at FROM routes_json WHERE id = NEW.id;
END;
-- +goose StatementEnd

-- +goose StatementBegin
CREATE TRIGGER routes_insert_by_sql AFTER INSERT ON routes
WHEN (SELECT writer FROM revision_counter) = 0 AND NEW.deleted_at IS NULL
BEGIN
    UPDATE revision_counter SET revision = revision + 1, writer = 2;
    UPDATE routes SET
        revision = (SELECT revision FROM revision_counter),
        updated_at = strftime('%Y-%m-%d %H:%M:%f+00:00', 'now'), updated_by = 'sql', updated_from = ''
    WHERE id = NEW.id;
    INSERT INTO revisions (revision, route_id, op, actor, source, after, created_at)
    SELECT revision, id, 'create', updated_by, updated_from, document, updated_at FROM routes_json WHERE id = NEW.id;
    UPDATE revision_counter SET writer = 0;
END;
-- +goose StatementEnd

-- +goose StatementBegin
CREATE TRIGGER routes_update_by_gateway AFTER UPDATE ON routes
WHEN (SELECT writer FROM revision_counter) = 1
BEGIN
    INSERT INTO revisions (revision, route_id, op, actor, source, before, after, created_at)
    SELECT revision, id,
        CASE WHEN NEW.deleted_at IS NOT NULL THEN 'delete' WHEN OLD.deleted_at IS NOT NULL THEN 'create' ELSE 'update' END,
        updated_by, updated_from,
        CASE WHEN OLD.deleted_at IS NULL THEN json_object(
            'id', OLD.id, 'path', OLD.path, 'target_url', OLD.target_url, 'method', OLD.method,
            'enabled', json(iif(OLD.enabled, 'true', 'false')), 'rate_limit', OLD.rate_limit, 'timeout', OLD.timeout,
            'created_at', OLD.created_at, 'updated_at', OLD.updated_at, 'name', OLD.name, 'host', OLD.host,
            'priority', OLD.priority, 'spec', json(OLD.spec), 'match_key', OLD.match_key, 'revision', OLD.revision,
            'updated_by', OLD.updated_by, 'updated_from', OLD.updated_from, 'deleted_at', OLD.deleted_at) END,
        CASE WHEN NEW.deleted_at IS NULL THEN document END,
        updated_at
    FROM routes_json WHERE id = NEW.id;
END;
-- +goose StatementEnd

-- +goose StatementBegin
CREATE TRIGGER routes_update_by_sql AFTER UPDATE ON routes
WHEN (SELECT writer FROM revision_counter) = 0 AND NOT (OLD.deleted_at IS NOT NULL AND NEW.deleted_at IS NOT NULL)
BEGIN
    UPDATE revision_counter SET revision = revision + 1, writer = 2;
    UPDATE routes SET
        revision = (SELECT revision FROM revision_counter),
        updated_at = strftime('%Y-%m-%d %H:%M:%f+00:00', 'now'), updated_by = 'sql', updated_from = '',
        match_key = iif(NEW.match_key = OLD.match_key
            AND (NEW.host, NEW.path, NEW.method, NEW.priority, NEW.spec)
                IS NOT (OLD.host, OLD.path, OLD.method, OLD.priority, OLD.spec), '', NEW.match_key)
    WHERE id = NEW.id;
    INSERT INTO revisions (revision, route_id, op, actor, source, before, after, created_at)
    SELECT revision, id,
        CASE WHEN NEW.deleted_at IS NOT NULL THEN 'delete' WHEN OLD.deleted_at IS NOT NULL THEN 'create' ELSE 'update' END,
        updated_by, updated_from,
        CASE WHEN OLD.deleted_at IS NULL THEN json_object(
            'id', OLD.id, 'path', OLD.path, 'target_url', OLD.target_url, 'method', OLD.method,
            'enabled', json(iif(OLD.enabled, 'true', 'false')), 'rate_limit', OLD.rate_limit, 'timeout', OLD.timeout,
            'created_at', OLD.created_at, 'updated_at', OLD.updated_at, 'name', OLD.name, 'host', OLD.host,
            'priority', OLD.priority, 'spec', json(OLD.spec), 'match_key', OLD.match_key, 'revision', OLD.revision,
            'updated_by', OLD.updated_by, 'updated_from', OLD.updated_from, 'deleted_at', OLD.deleted_at) END,
        CASE WHEN NEW.deleted_at IS NULL THEN document END,
        updated_at
    FROM routes_json WHERE id = NEW.id;
    UPDATE revision_counter SET writer = 0;
END;
-- +goose StatementEnd

-- +goose StatementBegin
CREATE TRIGGER routes_keep_id BEFORE UPDATE OF id ON routes
WHEN NEW.id <> OLD.id
BEGIN
    SELECT RAISE(ABORT, 'the id of a route cannot be changed');
END;
-- +goose StatementEnd

-- A deleted route stays, so that the request log keeps it. The update brings its
-- own trigger; the deletion of the row itself is then passed over.
-- +goose StatementBegin
CREATE TRIGGER routes_soft_delete BEFORE DELETE ON routes
BEGIN
    UPDATE routes SET deleted_at = strftime('%Y-%m-%d %H:%M:%f+00:00', 'now') WHERE id = OLD.id AND deleted_at IS NULL;
    SELECT RAISE(IGNORE);
END;
-- +goose StatementEnd
