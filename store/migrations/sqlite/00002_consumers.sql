-- +goose Up

-- Who calls routes, the keys by which they are known, and the tokens that open the
-- admin API on a site. Rows are marked deleted like routes, so that the history can
-- name them.
CREATE TABLE consumers (
    id           INTEGER PRIMARY KEY AUTOINCREMENT CHECK (id BETWEEN 1 AND 2147483647),
    name         TEXT    NOT NULL CHECK (length(name) BETWEEN 1 AND 100 AND name NOT GLOB '*[^-A-Za-z0-9_.@:]*'),
    enabled      INTEGER NOT NULL DEFAULT 1 CHECK (enabled IN (0, 1)),
    spec         TEXT    NOT NULL DEFAULT '{}' CHECK (json_valid(spec)),
    revision     INTEGER NOT NULL DEFAULT 0,
    created_at   TEXT    NOT NULL DEFAULT (strftime('%Y-%m-%d %H:%M:%f+00:00', 'now')) CHECK (julianday(created_at) IS NOT NULL AND created_at LIKE '____-__-__%'),
    updated_at   TEXT    NOT NULL DEFAULT (strftime('%Y-%m-%d %H:%M:%f+00:00', 'now')) CHECK (julianday(updated_at) IS NOT NULL AND updated_at LIKE '____-__-__%'),
    updated_by   TEXT    NOT NULL DEFAULT '',
    updated_from TEXT    NOT NULL DEFAULT '',
    deleted_at   TEXT    CHECK (deleted_at IS NULL OR julianday(deleted_at) IS NOT NULL AND deleted_at LIKE '____-__-__%')
) STRICT;

CREATE UNIQUE INDEX consumers_live_name ON consumers (name) WHERE deleted_at IS NULL;

CREATE TABLE api_keys (
    id           TEXT    PRIMARY KEY NOT NULL CHECK (length(id) = 16 AND id NOT GLOB '*[^a-z2-7]*'),
    consumer_id  INTEGER NOT NULL REFERENCES consumers (id),
    name         TEXT    NOT NULL DEFAULT '',
    hash         BLOB    NOT NULL CHECK (length(hash) = 32),
    enabled      INTEGER NOT NULL DEFAULT 1 CHECK (enabled IN (0, 1)),
    expires_at   TEXT    CHECK (expires_at IS NULL OR julianday(expires_at) IS NOT NULL AND expires_at LIKE '____-__-__%'),
    revision     INTEGER NOT NULL DEFAULT 0,
    created_at   TEXT    NOT NULL DEFAULT (strftime('%Y-%m-%d %H:%M:%f+00:00', 'now')) CHECK (julianday(created_at) IS NOT NULL AND created_at LIKE '____-__-__%'),
    updated_at   TEXT    NOT NULL DEFAULT (strftime('%Y-%m-%d %H:%M:%f+00:00', 'now')) CHECK (julianday(updated_at) IS NOT NULL AND updated_at LIKE '____-__-__%'),
    updated_by   TEXT    NOT NULL DEFAULT '',
    updated_from TEXT    NOT NULL DEFAULT '',
    deleted_at   TEXT    CHECK (deleted_at IS NULL OR julianday(deleted_at) IS NOT NULL AND deleted_at LIKE '____-__-__%')
) STRICT;

CREATE INDEX api_keys_consumer ON api_keys (consumer_id) WHERE deleted_at IS NULL;

CREATE TABLE admin_tokens (
    id           TEXT    PRIMARY KEY NOT NULL CHECK (length(id) = 16 AND id NOT GLOB '*[^a-z2-7]*'),
    name         TEXT    NOT NULL CHECK (length(name) BETWEEN 1 AND 100 AND name NOT GLOB '*[^-A-Za-z0-9_.@:]*'),
    role         TEXT    NOT NULL CHECK (role IN ('read', 'write', 'admin')),
    hash         BLOB    NOT NULL CHECK (length(hash) = 32),
    expires_at   TEXT    CHECK (expires_at IS NULL OR julianday(expires_at) IS NOT NULL AND expires_at LIKE '____-__-__%'),
    revision     INTEGER NOT NULL DEFAULT 0,
    created_at   TEXT    NOT NULL DEFAULT (strftime('%Y-%m-%d %H:%M:%f+00:00', 'now')) CHECK (julianday(created_at) IS NOT NULL AND created_at LIKE '____-__-__%'),
    updated_at   TEXT    NOT NULL DEFAULT (strftime('%Y-%m-%d %H:%M:%f+00:00', 'now')) CHECK (julianday(updated_at) IS NOT NULL AND updated_at LIKE '____-__-__%'),
    updated_by   TEXT    NOT NULL DEFAULT '',
    updated_from TEXT    NOT NULL DEFAULT '',
    deleted_at   TEXT    CHECK (deleted_at IS NULL OR julianday(deleted_at) IS NOT NULL AND deleted_at LIKE '____-__-__%')
) STRICT;

CREATE UNIQUE INDEX admin_tokens_live_name ON admin_tokens (name) WHERE deleted_at IS NULL;

-- When keys and tokens were last accepted. A table of its own, so that a use is no
-- change of the key.
CREATE TABLE credential_uses (
    kind    TEXT NOT NULL CHECK (kind IN ('api_key', 'admin_token')),
    id      TEXT NOT NULL,
    used_at TEXT NOT NULL,
    PRIMARY KEY (kind, id)
) STRICT;

-- What each revision did to each of these rows; hashes of secrets are left out.
CREATE TABLE credential_revisions (
    revision   INTEGER NOT NULL,
    kind       TEXT    NOT NULL CHECK (kind IN ('consumer', 'api_key', 'admin_token')),
    object_id  TEXT    NOT NULL,
    op         TEXT    NOT NULL CHECK (op IN ('create', 'update', 'delete')),
    actor      TEXT    NOT NULL,
    source     TEXT    NOT NULL,
    before     TEXT,
    after      TEXT,
    created_at TEXT    NOT NULL,
    PRIMARY KEY (revision, kind, object_id)
) STRICT;

-- Every trigger below works for the gateway, which has taken the number and signed
-- the row, and for plain SQL, for which it does both first.

-- +goose StatementBegin
CREATE TRIGGER consumers_insert AFTER INSERT ON consumers
WHEN (SELECT writer FROM revision_counter) <> 2 AND NEW.deleted_at IS NULL
BEGIN
    UPDATE revision_counter SET revision = revision + 1, writer = 2 WHERE writer = 0;
    UPDATE consumers SET
        revision = (SELECT revision FROM revision_counter),
        updated_at = strftime('%Y-%m-%d %H:%M:%f+00:00', 'now'), updated_by = 'sql', updated_from = ''
    WHERE id = NEW.id AND (SELECT writer FROM revision_counter) = 2;
    INSERT INTO credential_revisions (revision, kind, object_id, op, actor, source, after, created_at)
    SELECT revision, 'consumer', id, 'create', updated_by, updated_from, json_object(
            'id', id, 'name', name, 'enabled', json(iif(enabled, 'true', 'false')), 'spec', json(spec),
            'revision', revision, 'created_at', created_at, 'updated_at', updated_at, 'updated_by', updated_by,
            'updated_from', updated_from), updated_at
    FROM consumers WHERE id = NEW.id;
    UPDATE revision_counter SET writer = 0 WHERE writer = 2;
END;
-- +goose StatementEnd

-- +goose StatementBegin
CREATE TRIGGER consumers_update AFTER UPDATE ON consumers
WHEN (SELECT writer FROM revision_counter) <> 2 AND NOT (OLD.deleted_at IS NOT NULL AND NEW.deleted_at IS NOT NULL)
BEGIN
    UPDATE revision_counter SET revision = revision + 1, writer = 2 WHERE writer = 0;
    UPDATE consumers SET
        revision = (SELECT revision FROM revision_counter),
        updated_at = strftime('%Y-%m-%d %H:%M:%f+00:00', 'now'), updated_by = 'sql', updated_from = ''
    WHERE id = NEW.id AND (SELECT writer FROM revision_counter) = 2;
    INSERT INTO credential_revisions (revision, kind, object_id, op, actor, source, before, after, created_at)
    SELECT revision, 'consumer', id,
        CASE WHEN NEW.deleted_at IS NOT NULL THEN 'delete' WHEN OLD.deleted_at IS NOT NULL THEN 'create' ELSE 'update' END,
        updated_by, updated_from,
        CASE WHEN OLD.deleted_at IS NULL THEN json_object(
            'id', OLD.id, 'name', OLD.name, 'enabled', json(iif(OLD.enabled, 'true', 'false')),
            'spec', json(OLD.spec), 'revision', OLD.revision, 'created_at', OLD.created_at,
            'updated_at', OLD.updated_at, 'updated_by', OLD.updated_by, 'updated_from', OLD.updated_from) END,
        CASE WHEN NEW.deleted_at IS NULL THEN json_object(
            'id', id, 'name', name, 'enabled', json(iif(enabled, 'true', 'false')), 'spec', json(spec),
            'revision', revision, 'created_at', created_at, 'updated_at', updated_at, 'updated_by', updated_by,
            'updated_from', updated_from) END, updated_at
    FROM consumers WHERE id = NEW.id;
    UPDATE revision_counter SET writer = 0 WHERE writer = 2;
END;
-- +goose StatementEnd

-- +goose StatementBegin
CREATE TRIGGER consumers_keep_id BEFORE UPDATE OF id ON consumers
WHEN NEW.id <> OLD.id
BEGIN
    SELECT RAISE(ABORT, 'the id cannot be changed');
END;
-- +goose StatementEnd

-- +goose StatementBegin
CREATE TRIGGER consumers_soft_delete BEFORE DELETE ON consumers
BEGIN
    UPDATE consumers SET deleted_at = strftime('%Y-%m-%d %H:%M:%f+00:00', 'now') WHERE id = OLD.id AND deleted_at IS NULL;
    SELECT RAISE(IGNORE);
END;
-- +goose StatementEnd

-- +goose StatementBegin
CREATE TRIGGER api_keys_insert AFTER INSERT ON api_keys
WHEN (SELECT writer FROM revision_counter) <> 2 AND NEW.deleted_at IS NULL
BEGIN
    UPDATE revision_counter SET revision = revision + 1, writer = 2 WHERE writer = 0;
    UPDATE api_keys SET
        revision = (SELECT revision FROM revision_counter),
        updated_at = strftime('%Y-%m-%d %H:%M:%f+00:00', 'now'), updated_by = 'sql', updated_from = ''
    WHERE id = NEW.id AND (SELECT writer FROM revision_counter) = 2;
    INSERT INTO credential_revisions (revision, kind, object_id, op, actor, source, after, created_at)
    SELECT revision, 'api_key', id, 'create', updated_by, updated_from, json_object(
            'id', id, 'consumer_id', consumer_id, 'name', name, 'enabled', json(iif(enabled, 'true', 'false')),
            'expires_at', expires_at, 'revision', revision, 'created_at', created_at, 'updated_at', updated_at,
            'updated_by', updated_by, 'updated_from', updated_from), updated_at
    FROM api_keys WHERE id = NEW.id;
    UPDATE revision_counter SET writer = 0 WHERE writer = 2;
END;
-- +goose StatementEnd

-- +goose StatementBegin
CREATE TRIGGER api_keys_update AFTER UPDATE ON api_keys
WHEN (SELECT writer FROM revision_counter) <> 2 AND NOT (OLD.deleted_at IS NOT NULL AND NEW.deleted_at IS NOT NULL)
BEGIN
    UPDATE revision_counter SET revision = revision + 1, writer = 2 WHERE writer = 0;
    UPDATE api_keys SET
        revision = (SELECT revision FROM revision_counter),
        updated_at = strftime('%Y-%m-%d %H:%M:%f+00:00', 'now'), updated_by = 'sql', updated_from = ''
    WHERE id = NEW.id AND (SELECT writer FROM revision_counter) = 2;
    INSERT INTO credential_revisions (revision, kind, object_id, op, actor, source, before, after, created_at)
    SELECT revision, 'api_key', id,
        CASE WHEN NEW.deleted_at IS NOT NULL THEN 'delete' WHEN OLD.deleted_at IS NOT NULL THEN 'create' ELSE 'update' END,
        updated_by, updated_from,
        CASE WHEN OLD.deleted_at IS NULL THEN json_object(
            'id', OLD.id, 'consumer_id', OLD.consumer_id, 'name', OLD.name,
            'enabled', json(iif(OLD.enabled, 'true', 'false')), 'expires_at', OLD.expires_at,
            'revision', OLD.revision, 'created_at', OLD.created_at, 'updated_at', OLD.updated_at,
            'updated_by', OLD.updated_by, 'updated_from', OLD.updated_from) END,
        CASE WHEN NEW.deleted_at IS NULL THEN json_object(
            'id', id, 'consumer_id', consumer_id, 'name', name, 'enabled', json(iif(enabled, 'true', 'false')),
            'expires_at', expires_at, 'revision', revision, 'created_at', created_at, 'updated_at', updated_at,
            'updated_by', updated_by, 'updated_from', updated_from) END, updated_at
    FROM api_keys WHERE id = NEW.id;
    UPDATE revision_counter SET writer = 0 WHERE writer = 2;
END;
-- +goose StatementEnd

-- +goose StatementBegin
CREATE TRIGGER api_keys_keep_id BEFORE UPDATE OF id ON api_keys
WHEN NEW.id <> OLD.id
BEGIN
    SELECT RAISE(ABORT, 'the id cannot be changed');
END;
-- +goose StatementEnd

-- +goose StatementBegin
CREATE TRIGGER api_keys_soft_delete BEFORE DELETE ON api_keys
BEGIN
    UPDATE api_keys SET deleted_at = strftime('%Y-%m-%d %H:%M:%f+00:00', 'now') WHERE id = OLD.id AND deleted_at IS NULL;
    SELECT RAISE(IGNORE);
END;
-- +goose StatementEnd

-- +goose StatementBegin
CREATE TRIGGER admin_tokens_insert AFTER INSERT ON admin_tokens
WHEN (SELECT writer FROM revision_counter) <> 2 AND NEW.deleted_at IS NULL
BEGIN
    UPDATE revision_counter SET revision = revision + 1, writer = 2 WHERE writer = 0;
    UPDATE admin_tokens SET
        revision = (SELECT revision FROM revision_counter),
        updated_at = strftime('%Y-%m-%d %H:%M:%f+00:00', 'now'), updated_by = 'sql', updated_from = ''
    WHERE id = NEW.id AND (SELECT writer FROM revision_counter) = 2;
    INSERT INTO credential_revisions (revision, kind, object_id, op, actor, source, after, created_at)
    SELECT revision, 'admin_token', id, 'create', updated_by, updated_from, json_object(
            'id', id, 'name', name, 'role', role, 'expires_at', expires_at, 'revision', revision,
            'created_at', created_at, 'updated_at', updated_at, 'updated_by', updated_by,
            'updated_from', updated_from), updated_at
    FROM admin_tokens WHERE id = NEW.id;
    UPDATE revision_counter SET writer = 0 WHERE writer = 2;
END;
-- +goose StatementEnd

-- +goose StatementBegin
CREATE TRIGGER admin_tokens_update AFTER UPDATE ON admin_tokens
WHEN (SELECT writer FROM revision_counter) <> 2 AND NOT (OLD.deleted_at IS NOT NULL AND NEW.deleted_at IS NOT NULL)
BEGIN
    UPDATE revision_counter SET revision = revision + 1, writer = 2 WHERE writer = 0;
    UPDATE admin_tokens SET
        revision = (SELECT revision FROM revision_counter),
        updated_at = strftime('%Y-%m-%d %H:%M:%f+00:00', 'now'), updated_by = 'sql', updated_from = ''
    WHERE id = NEW.id AND (SELECT writer FROM revision_counter) = 2;
    INSERT INTO credential_revisions (revision, kind, object_id, op, actor, source, before, after, created_at)
    SELECT revision, 'admin_token', id,
        CASE WHEN NEW.deleted_at IS NOT NULL THEN 'delete' WHEN OLD.deleted_at IS NOT NULL THEN 'create' ELSE 'update' END,
        updated_by, updated_from,
        CASE WHEN OLD.deleted_at IS NULL THEN json_object(
            'id', OLD.id, 'name', OLD.name, 'role', OLD.role, 'expires_at', OLD.expires_at, 'revision', OLD.revision,
            'created_at', OLD.created_at, 'updated_at', OLD.updated_at, 'updated_by', OLD.updated_by,
            'updated_from', OLD.updated_from) END,
        CASE WHEN NEW.deleted_at IS NULL THEN json_object(
            'id', id, 'name', name, 'role', role, 'expires_at', expires_at, 'revision', revision,
            'created_at', created_at, 'updated_at', updated_at, 'updated_by', updated_by,
            'updated_from', updated_from) END, updated_at
    FROM admin_tokens WHERE id = NEW.id;
    UPDATE revision_counter SET writer = 0 WHERE writer = 2;
END;
-- +goose StatementEnd

-- +goose StatementBegin
CREATE TRIGGER admin_tokens_keep_id BEFORE UPDATE OF id ON admin_tokens
WHEN NEW.id <> OLD.id
BEGIN
    SELECT RAISE(ABORT, 'the id cannot be changed');
END;
-- +goose StatementEnd

-- +goose StatementBegin
CREATE TRIGGER admin_tokens_soft_delete BEFORE DELETE ON admin_tokens
BEGIN
    UPDATE admin_tokens SET deleted_at = strftime('%Y-%m-%d %H:%M:%f+00:00', 'now') WHERE id = OLD.id AND deleted_at IS NULL;
    SELECT RAISE(IGNORE);
END;
-- +goose StatementEnd
