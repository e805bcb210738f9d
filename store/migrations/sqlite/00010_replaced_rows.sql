-- +goose Up

-- REPLACE, and INSERT OR REPLACE, take the rows that are in the way out of a table
-- without its triggers, unless whoever writes has switched recursive_triggers on. So that
-- these do not stay in memory for ever, a number is left out of the history, and readers
-- load everything. An upsert that finds a row does the same, since triggers come before it.

-- +goose StatementBegin
CREATE TRIGGER routes_in_the_way BEFORE INSERT ON routes
WHEN (SELECT writer FROM revision_counter) = 0 AND NEW.deleted_at IS NULL AND CASE WHEN json_valid(NEW.spec) THEN EXISTS (
    SELECT 1 FROM routes
    WHERE deleted_at IS NULL AND host = NEW.host AND path = NEW.path AND method = NEW.method AND priority = NEW.priority
        AND coalesce(spec -> '$.headers', '{}') = coalesce(NEW.spec -> '$.headers', '{}')
        AND coalesce(spec -> '$.query', '{}') = coalesce(NEW.spec -> '$.query', '{}')) END
BEGIN
    UPDATE revision_counter SET revision = revision + 1;
END;
-- +goose StatementEnd

-- +goose StatementBegin
CREATE TRIGGER consumers_in_the_way BEFORE INSERT ON consumers
WHEN (SELECT writer FROM revision_counter) = 0 AND NEW.deleted_at IS NULL
    AND EXISTS (SELECT 1 FROM consumers WHERE deleted_at IS NULL AND name = NEW.name)
BEGIN
    UPDATE revision_counter SET revision = revision + 1;
END;
-- +goose StatementEnd

-- +goose StatementBegin
CREATE TRIGGER admin_tokens_in_the_way BEFORE INSERT ON admin_tokens
WHEN (SELECT writer FROM revision_counter) = 0 AND NEW.deleted_at IS NULL
    AND EXISTS (SELECT 1 FROM admin_tokens WHERE deleted_at IS NULL AND name = NEW.name)
BEGIN
    UPDATE revision_counter SET revision = revision + 1;
END;
-- +goose StatementEnd

-- The id can also be written by the name rowid.
DROP TRIGGER routes_keep_id;

-- +goose StatementBegin
CREATE TRIGGER routes_keep_id BEFORE UPDATE ON routes
WHEN NEW.id <> OLD.id
BEGIN
    SELECT RAISE(ABORT, 'the id of a route cannot be changed');
END;
-- +goose StatementEnd

DROP TRIGGER consumers_keep_id;

-- +goose StatementBegin
CREATE TRIGGER consumers_keep_id BEFORE UPDATE ON consumers
WHEN NEW.id <> OLD.id
BEGIN
    SELECT RAISE(ABORT, 'the id cannot be changed');
END;
-- +goose StatementEnd
