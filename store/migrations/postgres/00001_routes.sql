-- +goose Up

CREATE TABLE routes (
    id           serial      PRIMARY KEY,
    path         text        NOT NULL,
    target_url   text        NOT NULL,
    method       text        NOT NULL DEFAULT 'GET',
    enabled      boolean     NOT NULL DEFAULT true,
    rate_limit   integer     DEFAULT 0,
    timeout      integer     DEFAULT 30,
    created_at   timestamptz NOT NULL DEFAULT now(),
    updated_at   timestamptz NOT NULL DEFAULT now(),
    name         text        NOT NULL DEFAULT '',
    host         text        NOT NULL DEFAULT '',
    priority     integer     NOT NULL DEFAULT 0,
    spec         jsonb       NOT NULL DEFAULT '{}',
    match_key    text        NOT NULL DEFAULT '',
    revision     bigint      NOT NULL DEFAULT 0,
    updated_by   text        NOT NULL DEFAULT '',
    updated_from text        NOT NULL DEFAULT '',
    deleted_at   timestamptz,
    -- Neither infinity nor a year that JSON has no form for.
    CHECK (created_at BETWEEN '0001-01-01 00:00+00' AND '9999-12-31 00:00+00'),
    CHECK (updated_at BETWEEN '0001-01-01 00:00+00' AND '9999-12-31 00:00+00'),
    CHECK (deleted_at BETWEEN '0001-01-01 00:00+00' AND '9999-12-31 00:00+00')
);

CREATE UNIQUE INDEX routes_live_match ON routes
    (host, path, method, priority, coalesce(spec -> 'headers', '{}'), coalesce(spec -> 'query', '{}'))
    WHERE deleted_at IS NULL;

-- A hash, since a match key may be longer than a B-tree entry.
CREATE INDEX routes_match_key ON routes USING hash (match_key) WHERE deleted_at IS NULL;

-- The number of the last change, in one row whose lock lines up all writers, so
-- that numbers commit in order.
CREATE TABLE revision_counter (
    id       integer PRIMARY KEY DEFAULT 1 CHECK (id = 1),
    revision bigint  NOT NULL
);
INSERT INTO revision_counter (revision) VALUES (0);

-- What each revision did to each route. A number without rows here is a change
-- that cannot be told route by route: readers must load everything.
CREATE TABLE revisions (
    revision   bigint      NOT NULL,
    route_id   integer     NOT NULL,
    op         text        NOT NULL CHECK (op IN ('create', 'update', 'delete')),
    actor      text        NOT NULL,
    source     text        NOT NULL,
    before     jsonb,
    after      jsonb,
    created_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (revision, route_id)
);

CREATE INDEX revisions_route ON revisions (route_id, revision);

CREATE TABLE request_logs (
    id            bigint      GENERATED ALWAYS AS IDENTITY,
    route_id      integer     REFERENCES routes (id),
    method        text        NOT NULL,
    path          text        NOT NULL,
    status_code   integer     NOT NULL,
    response_time integer     NOT NULL,
    client_ip     text        NOT NULL DEFAULT '',
    user_agent    text        NOT NULL DEFAULT '',
    created_at    timestamptz NOT NULL DEFAULT now(),
    host          text        NOT NULL DEFAULT '',
    duration_us   bigint      NOT NULL DEFAULT 0,
    upstream      text        NOT NULL DEFAULT '',
    bytes_in      bigint      NOT NULL DEFAULT 0,
    bytes_out     bigint      NOT NULL DEFAULT 0,
    request_id    text        NOT NULL DEFAULT '',
    trace_id      text        NOT NULL DEFAULT '',
    consumer      text        NOT NULL DEFAULT '',
    error         text        NOT NULL DEFAULT '',
    PRIMARY KEY (created_at, id)
) PARTITION BY RANGE (created_at);

-- Takes what no day's partition does, so that an insert always has a place.
CREATE TABLE request_logs_default PARTITION OF request_logs DEFAULT;

CREATE INDEX request_logs_route ON request_logs (route_id, created_at);

-- isekai_next_revision gives the transaction its number, the same one however
-- often it is asked, and announces it at commit.
-- +goose StatementBegin
CREATE FUNCTION isekai_next_revision() RETURNS bigint
LANGUAGE plpgsql SECURITY DEFINER AS $$
DECLARE
    number bigint := nullif(current_setting('isekai.revision', true), '')::bigint;
BEGIN
    IF number IS NULL THEN
        UPDATE revision_counter SET revision = revision + 1 RETURNING revision INTO STRICT number;
        PERFORM set_config('isekai.revision', number::text, true);
        PERFORM pg_notify('isekai_routes', number::text);
    END IF;
    RETURN number;
END
$$;
-- +goose StatementEnd

-- Every writer locks the counter before any route. Without this, plain SQL
-- would lock them the other way round, and could deadlock with the gateway.
-- +goose StatementBegin
CREATE FUNCTION isekai_routes_line_up() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER AS $$
BEGIN
    PERFORM 1 FROM revision_counter FOR UPDATE;
    RETURN NULL;
END
$$;
-- +goose StatementEnd

-- Fills in what plain SQL leaves out. The gateway numbers a row itself, with the
-- number of its transaction; rows that come with any other number, copied from
-- another table for example, are changes like all others.
-- +goose StatementBegin
CREATE FUNCTION isekai_routes_before_write() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER AS $$
DECLARE
    number bigint := nullif(current_setting('isekai.revision', true), '')::bigint;
BEGIN
    IF TG_OP = 'UPDATE' THEN
        IF NEW.id <> OLD.id THEN
            RAISE EXCEPTION 'the id of a route cannot be changed' USING ERRCODE = 'check_violation';
        END IF;
        IF OLD.deleted_at IS NOT NULL AND NEW.deleted_at IS NOT NULL THEN
            RETURN NEW;
        END IF;
        IF NEW.revision = number AND NEW.revision <> OLD.revision THEN
            RETURN NEW;
        END IF;
        IF NEW.match_key = OLD.match_key
           AND (NEW.host, NEW.path, NEW.method, NEW.priority, NEW.spec)
               IS DISTINCT FROM (OLD.host, OLD.path, OLD.method, OLD.priority, OLD.spec) THEN
            NEW.match_key := '';
        END IF;
    ELSIF NEW.deleted_at IS NOT NULL OR NEW.revision = number THEN
        RETURN NEW;
    END IF;
    NEW.revision := isekai_next_revision();
    NEW.updated_at := now();
    NEW.updated_by := 'sql:' || session_user;
    NEW.updated_from := coalesce(host(inet_client_addr()), '');
    RETURN NEW;
END
$$;
-- +goose StatementEnd

-- Writes the history of every change, whoever makes it.
-- +goose StatementBegin
CREATE FUNCTION isekai_routes_record() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER AS $$
DECLARE
    was jsonb;
    is_now jsonb;
BEGIN
    IF TG_OP = 'UPDATE' AND OLD.deleted_at IS NULL THEN
        was := to_jsonb(OLD);
    END IF;
    IF NEW.deleted_at IS NULL THEN
        is_now := to_jsonb(NEW);
    END IF;
    IF was IS NULL AND is_now IS NULL THEN
        RETURN NULL;
    END IF;
    INSERT INTO revisions AS r (revision, route_id, op, actor, source, before, after)
    VALUES (NEW.revision, NEW.id,
            CASE WHEN is_now IS NULL THEN 'delete' WHEN was IS NULL THEN 'create' ELSE 'update' END,
            NEW.updated_by, NEW.updated_from, was, is_now)
    -- The transaction has changed the route before: what counts is the whole.
    ON CONFLICT (revision, route_id) DO UPDATE SET
        op = CASE WHEN excluded.after IS NULL THEN 'delete' WHEN r.before IS NULL THEN 'create' ELSE 'update' END,
        actor = excluded.actor, source = excluded.source, after = excluded.after;
    RETURN NULL;
END
$$;
-- +goose StatementEnd

-- A deleted route stays, so that the request log keeps it.
-- +goose StatementBegin
CREATE FUNCTION isekai_routes_soft_delete() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER AS $$
BEGIN
    UPDATE routes SET deleted_at = now() WHERE id = OLD.id AND deleted_at IS NULL;
    RETURN NULL;
END
$$;
-- +goose StatementEnd

-- Takes a number of its own that has no history, and leaves later statements of
-- the transaction to take another: readers see the gap and load everything.
-- +goose StatementBegin
CREATE FUNCTION isekai_routes_truncated() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER AS $$
BEGIN
    PERFORM set_config('isekai.revision', '', true);
    PERFORM isekai_next_revision();
    PERFORM set_config('isekai.revision', '', true);
    RETURN NULL;
END
$$;
-- +goose StatementEnd

-- The functions run with their owner's rights, so that nobody needs any on the
-- history; hence their names must not be looked up where a caller can put others.
-- +goose StatementBegin
DO $$
DECLARE
    f text;
BEGIN
    FOREACH f IN ARRAY ARRAY['isekai_next_revision', 'isekai_routes_line_up', 'isekai_routes_before_write',
                             'isekai_routes_record', 'isekai_routes_soft_delete', 'isekai_routes_truncated'] LOOP
        EXECUTE format('ALTER FUNCTION %I() SET search_path = %I, pg_temp', f, current_schema());
    END LOOP;
END
$$;
-- +goose StatementEnd

CREATE TRIGGER routes_1_line_up BEFORE INSERT OR UPDATE OR DELETE OR TRUNCATE ON routes
    FOR EACH STATEMENT EXECUTE FUNCTION isekai_routes_line_up();
CREATE TRIGGER routes_2_before_write BEFORE INSERT OR UPDATE ON routes
    FOR EACH ROW EXECUTE FUNCTION isekai_routes_before_write();
CREATE TRIGGER routes_2_soft_delete BEFORE DELETE ON routes
    FOR EACH ROW EXECUTE FUNCTION isekai_routes_soft_delete();
CREATE TRIGGER routes_3_record AFTER INSERT OR UPDATE ON routes
    FOR EACH ROW EXECUTE FUNCTION isekai_routes_record();
CREATE TRIGGER routes_3_truncated AFTER TRUNCATE ON routes
    FOR EACH STATEMENT EXECUTE FUNCTION isekai_routes_truncated();
