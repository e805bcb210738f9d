-- +goose Up

-- Who calls routes, the keys by which they are known, and the tokens that open the
-- admin API on a site. Rows are marked deleted like routes, so that the history can
-- name them.
CREATE TABLE consumers (
    id           serial      PRIMARY KEY,
    name         text        NOT NULL CHECK (name ~ '^[A-Za-z0-9_.@:-]{1,100}$'),
    enabled      boolean     NOT NULL DEFAULT true,
    spec         jsonb       NOT NULL DEFAULT '{}',
    revision     bigint      NOT NULL DEFAULT 0,
    created_at   timestamptz NOT NULL DEFAULT now(),
    updated_at   timestamptz NOT NULL DEFAULT now(),
    updated_by   text        NOT NULL DEFAULT '',
    updated_from text        NOT NULL DEFAULT '',
    deleted_at   timestamptz
);

CREATE UNIQUE INDEX consumers_live_name ON consumers (name) WHERE deleted_at IS NULL;

CREATE TABLE api_keys (
    id           text        PRIMARY KEY CHECK (id ~ '^[a-z2-7]{16}$'),
    consumer_id  integer     NOT NULL REFERENCES consumers (id),
    name         text        NOT NULL DEFAULT '',
    hash         bytea       NOT NULL CHECK (octet_length(hash) = 32),
    enabled      boolean     NOT NULL DEFAULT true,
    expires_at   timestamptz CHECK (expires_at BETWEEN '0001-01-01 00:00+00' AND '9999-12-31 00:00+00'),
    revision     bigint      NOT NULL DEFAULT 0,
    created_at   timestamptz NOT NULL DEFAULT now(),
    updated_at   timestamptz NOT NULL DEFAULT now(),
    updated_by   text        NOT NULL DEFAULT '',
    updated_from text        NOT NULL DEFAULT '',
    deleted_at   timestamptz
);

CREATE INDEX api_keys_consumer ON api_keys (consumer_id) WHERE deleted_at IS NULL;

CREATE TABLE admin_tokens (
    id           text        PRIMARY KEY CHECK (id ~ '^[a-z2-7]{16}$'),
    name         text        NOT NULL CHECK (name ~ '^[A-Za-z0-9_.@:-]{1,100}$'),
    role         text        NOT NULL CHECK (role IN ('read', 'write', 'admin')),
    hash         bytea       NOT NULL CHECK (octet_length(hash) = 32),
    expires_at   timestamptz CHECK (expires_at BETWEEN '0001-01-01 00:00+00' AND '9999-12-31 00:00+00'),
    revision     bigint      NOT NULL DEFAULT 0,
    created_at   timestamptz NOT NULL DEFAULT now(),
    updated_at   timestamptz NOT NULL DEFAULT now(),
    updated_by   text        NOT NULL DEFAULT '',
    updated_from text        NOT NULL DEFAULT '',
    deleted_at   timestamptz
);

CREATE UNIQUE INDEX admin_tokens_live_name ON admin_tokens (name) WHERE deleted_at IS NULL;

-- When keys and tokens were last accepted. A table of its own, so that a use is no
-- change of the key.
CREATE TABLE credential_uses (
    kind    text        NOT NULL CHECK (kind IN ('api_key', 'admin_token')),
    id      text        NOT NULL,
    used_at timestamptz NOT NULL,
    PRIMARY KEY (kind, id)
);

-- What each revision did to each of these rows; hashes of secrets are left out.
CREATE TABLE credential_revisions (
    revision   bigint      NOT NULL,
    kind       text        NOT NULL CHECK (kind IN ('consumer', 'api_key', 'admin_token')),
    object_id  text        NOT NULL,
    op         text        NOT NULL CHECK (op IN ('create', 'update', 'delete')),
    actor      text        NOT NULL,
    source     text        NOT NULL,
    before     jsonb,
    after      jsonb,
    created_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (revision, kind, object_id)
);

-- Fills in what plain SQL leaves out, as isekai_routes_before_write does.
-- +goose StatementBegin
CREATE FUNCTION isekai_credentials_before_write() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER AS $$
DECLARE
    number bigint := nullif(current_setting('isekai.revision', true), '')::bigint;
BEGIN
    IF TG_OP = 'UPDATE' THEN
        IF NEW.id <> OLD.id THEN
            RAISE EXCEPTION 'the id cannot be changed' USING ERRCODE = 'check_violation';
        END IF;
        IF OLD.deleted_at IS NOT NULL AND NEW.deleted_at IS NOT NULL THEN
            RETURN NEW;
        END IF;
        IF NEW.revision = number AND NEW.revision <> OLD.revision THEN
            RETURN NEW;
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

-- Writes the history of every change, whoever makes it. Its argument is the kind.
-- +goose StatementBegin
CREATE FUNCTION isekai_credentials_record() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER AS $$
DECLARE
    was jsonb;
    is_now jsonb;
BEGIN
    IF TG_OP = 'UPDATE' AND OLD.deleted_at IS NULL THEN
        was := to_jsonb(OLD) - 'hash';
    END IF;
    IF NEW.deleted_at IS NULL THEN
        is_now := to_jsonb(NEW) - 'hash';
    END IF;
    IF was IS NULL AND is_now IS NULL THEN
        RETURN NULL;
    END IF;
    INSERT INTO credential_revisions AS r (revision, kind, object_id, op, actor, source, before, after)
    VALUES (NEW.revision, TG_ARGV[0], NEW.id,
            CASE WHEN is_now IS NULL THEN 'delete' WHEN was IS NULL THEN 'create' ELSE 'update' END,
            NEW.updated_by, NEW.updated_from, was, is_now)
    ON CONFLICT (revision, kind, object_id) DO UPDATE SET
        op = CASE WHEN excluded.after IS NULL THEN 'delete' WHEN r.before IS NULL THEN 'create' ELSE 'update' END,
        actor = excluded.actor, source = excluded.source, after = excluded.after;
    RETURN NULL;
END
$$;
-- +goose StatementEnd

-- +goose StatementBegin
CREATE FUNCTION isekai_credentials_soft_delete() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER AS $$
BEGIN
    EXECUTE format('UPDATE %I SET deleted_at = now() WHERE id = $1 AND deleted_at IS NULL', TG_TABLE_NAME) USING OLD.id;
    RETURN NULL;
END
$$;
-- +goose StatementEnd

-- +goose StatementBegin
DO $$
DECLARE
    f text;
    t text;
BEGIN
    FOREACH f IN ARRAY ARRAY['isekai_credentials_before_write', 'isekai_credentials_record', 'isekai_credentials_soft_delete'] LOOP
        EXECUTE format('ALTER FUNCTION %I() SET search_path = %I, pg_temp', f, current_schema());
    END LOOP;
    FOREACH t IN ARRAY ARRAY['consumers', 'api_keys', 'admin_tokens'] LOOP
        EXECUTE format('CREATE TRIGGER %s_1_line_up BEFORE INSERT OR UPDATE OR DELETE OR TRUNCATE ON %I
            FOR EACH STATEMENT EXECUTE FUNCTION isekai_routes_line_up()', t, t);
        EXECUTE format('CREATE TRIGGER %s_2_before_write BEFORE INSERT OR UPDATE ON %I
            FOR EACH ROW EXECUTE FUNCTION isekai_credentials_before_write()', t, t);
        EXECUTE format('CREATE TRIGGER %s_2_soft_delete BEFORE DELETE ON %I
            FOR EACH ROW EXECUTE FUNCTION isekai_credentials_soft_delete()', t, t);
        EXECUTE format('CREATE TRIGGER %s_3_record AFTER INSERT OR UPDATE ON %I
            FOR EACH ROW EXECUTE FUNCTION isekai_credentials_record(%L)', t, t, rtrim(t, 's'));
        EXECUTE format('CREATE TRIGGER %s_3_truncated AFTER TRUNCATE ON %I
            FOR EACH STATEMENT EXECUTE FUNCTION isekai_routes_truncated()', t, t);
    END LOOP;
END
$$;
-- +goose StatementEnd
