-- +goose Up

-- Certificates, their keys and what else Caddy keeps in its storage, which replicas
-- share. This file is also run by certstore, on databases that have nothing else of
-- Isekai, or not yet; so it may be run again.
CREATE TABLE IF NOT EXISTS certificates_storage (
    -- A path of segments between slashes. Their order is that of the bytes, so that
    -- what begins with a path is one range.
    key      text COLLATE "C" PRIMARY KEY CHECK (octet_length(key) BETWEEN 1 AND 1024),
    value    bytea       NOT NULL CHECK (octet_length(value) <= 1048832),
    -- Which key the value is sealed with. NULL: it is in the clear.
    sealed   bytea,
    modified timestamptz NOT NULL DEFAULT clock_timestamp()
);

-- The locks that replicas hold while they obtain a certificate. One whose lease has
-- expired may be taken by others.
CREATE TABLE IF NOT EXISTS storage_locks (
    name    text COLLATE "C" PRIMARY KEY CHECK (octet_length(name) BETWEEN 1 AND 1024),
    -- Who holds it: only who knows the token can renew or release the lock.
    token   uuid        NOT NULL,
    expires timestamptz NOT NULL
);
