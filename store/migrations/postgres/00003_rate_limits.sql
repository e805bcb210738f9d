-- +goose Up

-- The counters of rate limits that replicas share. They are worth no write-ahead
-- log: a crash empties the table, and every key begins afresh. This file is also
-- run by ratelimit/postgres, on databases that have nothing else of Isekai; so it
-- may be run again.
CREATE UNLOGGED TABLE IF NOT EXISTS rate_limit_counters (
    -- A hash of whom the counter belongs to.
    key      bytea  PRIMARY KEY,
    -- When the current window began, in ms since the Unix epoch.
    start    bigint NOT NULL,
    -- What was charged in it, and in the one before.
    current  bigint NOT NULL,
    previous bigint NOT NULL,
    -- When nothing of it counts any more.
    expires  bigint NOT NULL
) WITH (
    -- Updates in place need room on the page.
    fillfactor = 50,
    autovacuum_vacuum_scale_factor = 0.05,
    autovacuum_vacuum_cost_delay = 0
);

-- The same in all of a window, so that updates stay in place. IF NOT EXISTS would lock
-- the table before it looks, and with the calls of other replicas end in deadlocks.
-- +goose StatementBegin
DO $$
BEGIN
    IF to_regclass('rate_limit_counters_expires') IS NULL THEN
        CREATE INDEX rate_limit_counters_expires ON rate_limit_counters (expires);
    END IF;
END
$$;
-- +goose StatementEnd

-- isekai_rate_limit_take charges costs to keys if all of them fit, and returns what
-- there was before. Keys must be in ascending order, in which they are locked. A
-- cost of 0 only asks. The clock is read under the locks, so that nobody who waited
-- brings an old time; at replaces it in tests.
-- +goose StatementBegin
CREATE OR REPLACE FUNCTION isekai_rate_limit_take(
    keys bytea[], windows bigint[], limits bigint[], costs bigint[], at bigint,
    OUT times bigint[], OUT previous bigint[], OUT current bigint[], OUT fits boolean[]
)
LANGUAGE plpgsql AS $$
DECLARE
    starts bigint[];
    s bigint;
    c bigint;
    p bigint;
    clock bigint;
    t bigint;
    begun bigint;
    allowed boolean := true;
BEGIN
    FOR i IN 1 .. cardinality(keys) LOOP
        LOOP
            IF costs[i] > 0 THEN
                SELECT r.start, r.current, r.previous INTO s, c, p
                FROM rate_limit_counters r WHERE r.key = keys[i] FOR UPDATE;
            ELSE
                SELECT r.start, r.current, r.previous INTO s, c, p
                FROM rate_limit_counters r WHERE r.key = keys[i];
            END IF;
            EXIT WHEN FOUND;
            s := 0; c := 0; p := 0;
            EXIT WHEN costs[i] = 0;
            INSERT INTO rate_limit_counters (key, start, current, previous, expires)
            VALUES (keys[i], 0, 0, 0, 0) ON CONFLICT DO NOTHING;
            EXIT WHEN FOUND;
            -- Another one has inserted it, and may have charged it since.
        END LOOP;
        starts[i] := s; current[i] := c; previous[i] := p;
    END LOOP;

    clock := coalesce(at, floor(extract(epoch FROM clock_timestamp()) * 1000)::bigint);
    FOR i IN 1 .. cardinality(keys) LOOP
        t := clock;
        IF starts[i] > t AND starts[i] - t <= windows[i] THEN
            t := starts[i]; -- the clock went back: time stands still
        END IF;
        begun := t - t % windows[i];
        IF starts[i] = begun THEN
            NULL;
        ELSIF starts[i] = begun - windows[i] THEN
            previous[i] := current[i]; current[i] := 0;
        ELSE
            previous[i] := 0; current[i] := 0;
        END IF;
        starts[i] := begun;
        times[i] := t;
        -- Rounded up: when in doubt, a unit still counts.
        fits[i] := current[i] + (previous[i] * (windows[i] - t % windows[i]) + windows[i] - 1) / windows[i]
                   + costs[i] <= limits[i];
        allowed := allowed AND fits[i];
    END LOOP;
    IF NOT allowed THEN
        RETURN;
    END IF;
    FOR i IN 1 .. cardinality(keys) LOOP
        IF costs[i] > 0 THEN
            UPDATE rate_limit_counters r
            SET start = starts[i], current = isekai_rate_limit_take.current[i] + costs[i],
                previous = isekai_rate_limit_take.previous[i], expires = starts[i] + 2 * windows[i]
            WHERE r.key = keys[i];
        END IF;
    END LOOP;
END
$$;
-- +goose StatementEnd
