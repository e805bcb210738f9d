package store

import (
	"context"
	"fmt"
	"io/fs"
	"time"

	"github.com/pressly/goose/v3"

	"github.com/isekai-gateway/isekai/store/migrations"
)

const (
	// migrateTimeout bounds Migrate, with the wait for other processes that
	// migrate, if the caller's context does not.
	migrateTimeout = 5 * time.Minute

	// Not goose's own name, since a database may be shared with others.
	migrationsTable = "isekai_migrations"
)

// Migrate implements Store.
func (s *sqlStore) Migrate(ctx context.Context) error {
	// A database that does not answer must not cost the patience of a migration.
	if err := s.Ping(ctx); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, migrateTimeout)
	defer cancel()
	return s.explain(ctx, "migrating the store", s.migrate(ctx))
}

func (s *sqlStore) migrate(ctx context.Context) error {
	unlock, err := s.lockMigrations(ctx)
	if err != nil {
		return err
	}
	defer unlock()
	files, err := fs.Sub(migrations.Files(), s.name)
	if err != nil {
		return err
	}
	provider, err := goose.NewProvider(s.goose, s.writer, files,
		goose.WithTableName(migrationsTable),
		goose.WithDisableGlobalRegistry(true),
		goose.WithLogger(goose.NopLogger()))
	if err != nil {
		return fmt.Errorf("reading the migrations: %w", err)
	}
	if _, err := provider.Up(ctx); err != nil {
		return err
	}
	// A newer program may have migrated further. That is no error: migrations only add,
	// so that programs of both versions work while one replaces the other.
	current, known, err := provider.GetVersions(ctx)
	if err != nil {
		return fmt.Errorf("reading the schema's version: %w", err)
	}
	s.schema.Store(current)
	s.schemaKnown.Store(known)
	return nil
}
