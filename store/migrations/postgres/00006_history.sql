-- +goose Up

-- For filters by time, and for retention.
CREATE INDEX revisions_created ON revisions (created_at);
CREATE INDEX credential_revisions_created ON credential_revisions (created_at);

-- As before, but for a route that the gateway writes twice in one transaction: when
-- routes change places, those in the way are marked deleted first and come back with
-- their new values. The row then has the number already, and is signed.
-- +goose StatementBegin
CREATE OR REPLACE FUNCTION isekai_routes_before_write() RETURNS trigger
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
        IF NEW.revision = number AND (NEW.revision <> OLD.revision OR OLD.deleted_at IS NOT NULL) THEN
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

-- Replacing a function takes its settings away.
-- +goose StatementBegin
DO $$
BEGIN
    EXECUTE format('ALTER FUNCTION isekai_routes_before_write() SET search_path = %I, pg_temp', current_schema());
END
$$;
-- +goose StatementEnd
