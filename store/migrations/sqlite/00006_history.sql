-- +goose Up

-- For filters by time, and for retention.
CREATE INDEX revisions_created ON revisions (created_at);
CREATE INDEX credential_revisions_created ON credential_revisions (created_at);

-- As before, but for a route that the gateway writes twice in one transaction: when
-- routes change places, those in the way are marked deleted first and come back with
-- their new values. What counts is the whole.
DROP TRIGGER routes_update_by_gateway;

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
    FROM routes_json WHERE id = NEW.id
    ON CONFLICT (revision, route_id) DO UPDATE SET
        op = CASE WHEN excluded.after IS NULL THEN 'delete' WHEN before IS NULL THEN 'create' ELSE 'update' END,
        actor = excluded.actor, source = excluded.source, after = excluded.after;
END;
-- +goose StatementEnd
