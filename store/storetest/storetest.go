// Package storetest holds the tests that every store.Store must pass.
package storetest

import (
	"errors"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/isekai-gateway/isekai/store"
)

// Opener returns an empty, migrated store that is closed when the test ends. If
// it is called again in one test it returns another store.
type Opener = func(t *testing.T) store.Store

var admin = store.Author{Actor: "admin", Source: "192.0.2.1"}

// Run runs all tests, each on a store of its own.
func Run(t *testing.T, open Opener) {
	for _, test := range []struct {
		name string
		run  func(t *testing.T, open Opener)
	}{
		{"Empty", testEmpty},
		{"Migrate again", testMigrateAgain},
		{"Create", testCreate},
		{"Create keeps every field", testCreateKeepsEveryField},
		{"Create ignores what the store assigns", testCreateIgnoresAssigned},
		{"Update", testUpdate},
		{"Update of what is not there", testUpdateNotFound},
		{"Delete", testDelete},
		{"Stale", testStale},
		{"Two writers of one route", testTwoWriters},
		{"Conflicts", testConflicts},
		{"Conflict by equal columns", testConflictByColumns},
		{"Conflict on update", testConflictOnUpdate},
		{"No conflict with the deleted", testNoConflictWithDeleted},
		{"Bad values", testBadValues},
		{"Odd values", testOddValues},
		{"A failed write leaves no trace", testFailedWrite},
		{"Changes", testChanges},
		{"Changes need a load", testChangesResync},
		{"Reads are snapshots", testSnapshots},
		{"Numbers commit in order", testConcurrentWriters},
		{"Seed", testSeed},
		{"Seed once", testSeedOnce},
		{"Seed never again", testSeedNeverAgain},
		{"Seed is whole or not", testSeedIsAtomic},
		{"Seed after a token", testSeedAfterToken},
		{"Consumers", testConsumers},
		{"Bad consumers", testBadConsumers},
		{"Keys", testKeys},
		{"Too many keys", testTooManyKeys},
		{"Live credentials", testLiveCredentials},
		{"Tokens", testTokens},
		{"Uses", testUses},
		{"Statistics", testStatistics},
		{"Last hits", testLastHits},
		{"Logs", testLogs},
		{"Batches of logs sent again", testLogBatches},
		{"Many logs", testManyLogs},
		{"Texts of logs", testLogTexts},
		{"Filters of logs", testLogFilters},
		{"Pages of logs", testLogPages},
		{"Retention of logs", testLogRetention},
		{"Replicas", testReplicas},
		{"History", testHistory},
		{"History pages", testHistoryPages},
		{"Many edits", testApply},
		{"Edits of a moved store", testApplyStale},
		{"Edits are whole or not", testApplyIsAtomic},
		{"Routes change places", testApplySwaps},
		{"Ten thousand routes", testApplyMany},
		{"Past", testPast},
		{"Revisions", testRevisions},
		{"Filters of revisions", testRevisionFilters},
		{"Pruned history", testPruneHistory},
		{"Cancelled context", testCancelled},
		{"Closed", testClosed},
		{"Stats", testStats},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			test.run(t, open)
		})
	}
}

// must fails the test at an error, and else returns the value.
func must[T any](t *testing.T) func(value T, err error) T {
	return func(value T, err error) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return value
	}
}

func wantError(t *testing.T, err, want error) {
	t.Helper()
	if !errors.Is(err, want) {
		t.Errorf("got error %v, want %v", err, want)
	}
}

func create(t *testing.T, s store.Store, route *store.Route) *store.Route {
	t.Helper()
	return must[*store.Route](t)(s.Create(t.Context(), route, admin))
}

func ids(routes []*store.Route) []int64 {
	list := make([]int64, len(routes))
	for i, r := range routes {
		list[i] = r.ID
	}
	return list
}

// diff compares routes by all that they say: PostgreSQL may write a plugin's
// JSON in another order, and nobody can foretell a time.
func diff(want, got any) string {
	return cmp.Diff(want, got, cmpopts.EquateEmpty(), rawJSON)
}

// diffContent also leaves out what the store assigns.
func diffContent(want, got any) string {
	return cmp.Diff(want, got, cmpopts.EquateEmpty(), rawJSON,
		cmpopts.IgnoreFields(store.Route{}, "ID", "Revision", "CreatedAt", "UpdatedAt"))
}

func isRecentUTC(at time.Time) bool {
	return at.Location() == time.UTC && at.Nanosecond()%1000 == 0 &&
		time.Since(at) < time.Hour && time.Until(at) < time.Hour
}

// changes takes the routes apart, for tests that are about them.
func changes(c *store.Changes, err error) ([]*store.Route, int64, error) {
	if err != nil {
		return nil, 0, err
	}
	return c.Routes, c.Revision, nil
}
