-- +goose Up

-- Writes the history of all rows that a statement has changed, as isekai_routes_record
-- does for one: row by row it was most of what a change of many routes took.
-- +goose StatementBegin
CREATE FUNCTION isekai_routes_record_all() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER AS $$
BEGIN
    IF TG_OP = 'INSERT' THEN
        INSERT INTO revisions AS r (revision, route_id, op, actor, source, after)
        SELECT n.revision, n.id, 'create', n.updated_by, n.updated_from, to_jsonb(n)
        FROM new_rows AS n WHERE n.deleted_at IS NULL
        ON CONFLICT (revision, route_id) DO UPDATE SET
            op = CASE WHEN r.before IS NULL THEN 'create' ELSE 'update' END,
            actor = excluded.actor, source = excluded.source, after = excluded.after;
        RETURN NULL;
    END IF;
    INSERT INTO revisions AS r (revision, route_id, op, actor, source, before, after)
    SELECT n.revision, n.id,
           CASE WHEN n.deleted_at IS NOT NULL THEN 'delete' WHEN o.deleted_at IS NOT NULL THEN 'create' ELSE 'update' END,
           n.updated_by, n.updated_from,
           CASE WHEN o.deleted_at IS NULL THEN to_jsonb(o) END, CASE WHEN n.deleted_at IS NULL THEN to_jsonb(n) END
    FROM new_rows AS n JOIN old_rows AS o ON o.id = n.id
    WHERE o.deleted_at IS NULL OR n.deleted_at IS NULL
    -- The transaction has changed the route before: what counts is the whole.
    ON CONFLICT (revision, route_id) DO UPDATE SET
        op = CASE WHEN excluded.after IS NULL THEN 'delete' WHEN r.before IS NULL THEN 'create' ELSE 'update' END,
        actor = excluded.actor, source = excluded.source, after = excluded.after;
    RETURN NULL;
END
$$;
-- +goose StatementEnd

-- +goose StatementBegin
DO $$
BEGIN
    EXECUTE format('ALTER FUNCTION isekai_routes_record_all() SET search_path = %I, pg_temp', current_schema());
END
$$;
-- +goose StatementEnd

DROP TRIGGER routes_3_record ON routes;
CREATE TRIGGER routes_3_record_insert AFTER INSERT ON routes
    REFERENCING NEW TABLE AS new_rows
    FOR EACH STATEMENT EXECUTE FUNCTION isekai_routes_record_all();
CREATE TRIGGER routes_3_record_update AFTER UPDATE ON routes
    REFERENCING OLD TABLE AS old_rows NEW TABLE AS new_rows
    FOR EACH STATEMENT EXECUTE FUNCTION isekai_routes_record_all();
