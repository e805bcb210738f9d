-- +goose Up

-- When the last revision was committed, by this server's clock: from it a gateway
-- tells how long a change has taken to reach it. It is set at the commit, so that a
-- transaction that took long before does not count.
ALTER TABLE revision_counter ADD COLUMN changed_at timestamptz NOT NULL DEFAULT now();

-- +goose StatementBegin
CREATE FUNCTION isekai_revision_committed() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER AS $$
BEGIN
    UPDATE revision_counter SET changed_at = clock_timestamp();
    RETURN NULL;
END
$$;
-- +goose StatementEnd

-- +goose StatementBegin
DO $$
BEGIN
    EXECUTE format('ALTER FUNCTION isekai_revision_committed() SET search_path = %I, pg_temp', current_schema());
END
$$;
-- +goose StatementEnd

CREATE CONSTRAINT TRIGGER revision_counter_committed AFTER UPDATE OF revision ON revision_counter
    DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION isekai_revision_committed();

-- The gateways that serve from this database, and how far each has come. Rows are
-- updated all the time, so pages have room for the next version of each.
CREATE TABLE replicas (
    id               uuid        PRIMARY KEY,
    address          text        NOT NULL,
    pid              integer     NOT NULL,
    version          text        NOT NULL,
    applied_revision bigint      NOT NULL,
    failed_routes    jsonb       NOT NULL DEFAULT '[]',
    started_at       timestamptz NOT NULL,
    heartbeat_at     timestamptz NOT NULL DEFAULT now()
) WITH (fillfactor = 50);
