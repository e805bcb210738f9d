package storetest

import (
	"bytes"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/isekai-gateway/isekai/store"
)

func newConsumer(name string) *store.Consumer { return &store.Consumer{Name: name, Enabled: true} }

// newKey returns a key of which everything is made of n.
func newKey(consumer int64, n byte) *store.APIKey {
	return &store.APIKey{ID: string(bytes.Repeat([]byte{'a' + n}, 16)), ConsumerID: consumer, Enabled: true, Hash: bytes.Repeat([]byte{n}, 32)}
}

func newToken(name string, n byte) *store.AdminToken {
	return &store.AdminToken{ID: string(bytes.Repeat([]byte{'a' + n}, 16)), Name: name, Role: store.RoleRead, Hash: bytes.Repeat([]byte{n}, 32)}
}

// changed returns what the last revision changed, and checks that it is the next.
func changed(t *testing.T, s store.Store, since *int64) []store.CredentialChange {
	t.Helper()
	c := must[*store.Changes](t)(s.Changes(t.Context(), *since))
	if c.Revision != *since+1 {
		t.Errorf("revision %d, want %d", c.Revision, *since+1)
	}
	*since = c.Revision
	slices.SortFunc(c.Credentials, func(a, b store.CredentialChange) int {
		return bytes.Compare([]byte(a.Kind+" "+store.CredentialKind(a.ID)), []byte(b.Kind+" "+store.CredentialKind(b.ID)))
	})
	return c.Credentials
}

func testConsumers(t *testing.T, open Opener) {
	s, at := open(t), int64(0)
	want := newConsumer("shop")
	want.ConsumerSpec = store.ConsumerSpec{
		Labels: map[string]string{"tier": "gold"}, Groups: []string{"web", "mobile"}, RateLimit: 10, Window: 3600,
	}
	got := must[*store.Consumer](t)(s.CreateConsumer(t.Context(), want, admin))
	ignore := cmpopts.IgnoreFields(store.Consumer{}, "ID", "Revision", "CreatedAt", "UpdatedAt")
	if diff := cmp.Diff(want, got, ignore); diff != "" {
		t.Error(diff)
	}
	if got.ID != 1 || got.Revision != 1 || !isRecentUTC(got.CreatedAt) || got.CreatedAt != got.UpdatedAt {
		t.Errorf("created %+v", got)
	}
	of := []store.CredentialChange{{Kind: store.KindConsumer, ID: "1"}}
	if diff := cmp.Diff(of, changed(t, s, &at)); diff != "" {
		t.Error(diff)
	}
	if again := must[*store.Consumer](t)(s.Consumer(t.Context(), 1)); !cmp.Equal(got, again) {
		t.Error(cmp.Diff(got, again))
	}

	_, err := s.CreateConsumer(t.Context(), newConsumer("shop"), admin)
	wantError(t, err, store.ErrNameTaken)
	edit := *got
	edit.Name, edit.Enabled, edit.ConsumerSpec = "store", false, store.ConsumerSpec{}
	_, err = s.UpdateConsumer(t.Context(), &edit, 77, admin)
	wantError(t, err, store.ErrStale)
	updated := must[*store.Consumer](t)(s.UpdateConsumer(t.Context(), &edit, got.Revision, admin))
	if diff := cmp.Diff(&edit, updated, ignore, cmpopts.EquateEmpty()); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff(of, changed(t, s, &at)); diff != "" {
		t.Error(diff)
	}

	for i := range 3 {
		must[*store.Consumer](t)(s.CreateConsumer(t.Context(), newConsumer(fmt.Sprint("c", i)), admin))
	}
	page := must[[]*store.Consumer](t)(s.Consumers(t.Context(), "", 1, 2))
	if len(page) != 2 || page[0].Name != "c0" || page[1].Name != "c1" {
		t.Fatalf("page %v", page)
	}
	second := page[0].ID
	if named := must[[]*store.Consumer](t)(s.Consumers(t.Context(), "c1", 0, 2)); len(named) != 1 || named[0].Name != "c1" {
		t.Errorf("by name: %v", named)
	}
	wantError(t, s.DeleteConsumer(t.Context(), second, 1, admin), store.ErrStale)
	if err := s.DeleteConsumer(t.Context(), second, page[0].Revision, admin); err != nil {
		t.Fatal(err)
	}
	wantError(t, s.DeleteConsumer(t.Context(), second, 0, admin), store.ErrNotFound)
	_, err = s.Consumer(t.Context(), second)
	wantError(t, err, store.ErrNotFound)
	_, err = s.UpdateConsumer(t.Context(), page[0], 0, admin)
	wantError(t, err, store.ErrNotFound)
	must[*store.Consumer](t)(s.CreateConsumer(t.Context(), newConsumer(page[0].Name), admin)) // the name is free again
	for _, id := range []int64{0, -1, 99, 1 << 40} {
		_, err := s.Consumer(t.Context(), id)
		wantError(t, err, store.ErrNotFound)
	}
}

func testBadConsumers(t *testing.T, open Opener) {
	s := open(t)
	for name, c := range map[string]*store.Consumer{
		"NUL in the name":         newConsumer("a\x00"),
		"no UTF-8":                newConsumer("a\xff"),
		"characters":              newConsumer("a b"),
		"empty":                   newConsumer(""),
		"NUL in a label":          {Name: "a", ConsumerSpec: store.ConsumerSpec{Labels: map[string]string{"a": "\x00"}}},
		"NUL in a group":          {Name: "a", ConsumerSpec: store.ConsumerSpec{Groups: []string{"\x00"}}},
		"a name that is too long": newConsumer(string(bytes.Repeat([]byte{'a'}, 101))),
	} {
		if _, err := s.CreateConsumer(t.Context(), c, admin); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
	if revision := must[int64](t)(s.Revision(t.Context())); revision != 0 {
		t.Errorf("revision %d", revision)
	}
}

func testKeys(t *testing.T, open Opener) {
	s := open(t)
	owner := must[*store.Consumer](t)(s.CreateConsumer(t.Context(), newConsumer("shop"), admin))
	other := must[*store.Consumer](t)(s.CreateConsumer(t.Context(), newConsumer("other"), admin))
	at := int64(2)
	_, err := s.CreateKey(t.Context(), newKey(99, 0), admin)
	wantError(t, err, store.ErrNotFound)

	want := newKey(owner.ID, 1)
	ends := time.Date(2030, 1, 2, 3, 4, 5, 678_901_000, time.UTC)
	want.Name, want.ExpiresAt = "laptop", &ends
	created := must[*store.APIKey](t)(s.CreateKey(t.Context(), want, admin))
	of := []store.CredentialChange{{Kind: store.KindAPIKey, ID: want.ID}}
	if diff := cmp.Diff(of, changed(t, s, &at)); diff != "" {
		t.Error(diff)
	}
	list := must[[]*store.APIKey](t)(s.Keys(t.Context(), owner.ID))
	if diff := cmp.Diff([]*store.APIKey{created}, list); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff(want, created, cmpopts.IgnoreFields(store.APIKey{}, "Revision", "CreatedAt", "UpdatedAt")); diff != "" {
		t.Error(diff)
	}
	if got := must[[]*store.APIKey](t)(s.Keys(t.Context(), other.ID)); len(got) != 0 {
		t.Errorf("keys of another: %v", got)
	}
	found := must[*store.Credential](t)(s.Credential(t.Context(), want.ID))
	if diff := cmp.Diff(&store.Credential{Key: *created, Consumer: *owner}, found); diff != "" {
		t.Error(diff)
	}

	edit := *created
	edit.Name, edit.ExpiresAt, edit.Enabled, edit.Hash = "", nil, false, nil
	updated := must[*store.APIKey](t)(s.UpdateKey(t.Context(), &edit, admin))
	if updated.Enabled || updated.ExpiresAt != nil || updated.Name != "" || !bytes.Equal(updated.Hash, want.Hash) {
		t.Errorf("updated %+v", updated)
	}
	if diff := cmp.Diff(of, changed(t, s, &at)); diff != "" {
		t.Error(diff)
	}
	_, err = s.UpdateKey(t.Context(), &edit, admin)
	wantError(t, err, store.ErrStale)
	if list := must[[]*store.APIKey](t)(s.Keys(t.Context(), owner.ID)); !cmp.Equal(list, []*store.APIKey{updated}) {
		t.Errorf("a stale update has changed something: %s", cmp.Diff(updated, list[0]))
	}
	edit.Revision, edit.Enabled = 0, true
	if updated = must[*store.APIKey](t)(s.UpdateKey(t.Context(), &edit, admin)); !updated.Enabled {
		t.Errorf("updated, whatever it was at: %+v", updated)
	}
	changed(t, s, &at)
	edit.ConsumerID = other.ID
	_, err = s.UpdateKey(t.Context(), &edit, admin)
	wantError(t, err, store.ErrNotFound)
	wantError(t, s.DeleteKey(t.Context(), other.ID, want.ID, admin), store.ErrNotFound)
	if err := s.DeleteKey(t.Context(), owner.ID, want.ID, admin); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(of, changed(t, s, &at)); diff != "" {
		t.Error(diff)
	}
	for _, id := range []string{want.ID, "", "a\x00", "\xff", "nobody"} {
		_, err = s.Credential(t.Context(), id)
		wantError(t, err, store.ErrNotFound)
		wantError(t, s.DeleteKey(t.Context(), owner.ID, id, admin), store.ErrNotFound)
		_, err = s.UpdateKey(t.Context(), &store.APIKey{ID: id, ConsumerID: owner.ID}, admin)
		wantError(t, err, store.ErrNotFound)
	}

	// A consumer takes its keys along.
	must[*store.APIKey](t)(s.CreateKey(t.Context(), newKey(owner.ID, 2), admin))
	changed(t, s, &at)
	if err := s.DeleteConsumer(t.Context(), owner.ID, 0, admin); err != nil {
		t.Fatal(err)
	}
	of = []store.CredentialChange{{Kind: store.KindAPIKey, ID: newKey(0, 2).ID}, {Kind: store.KindConsumer, ID: "1"}}
	if diff := cmp.Diff(of, changed(t, s, &at)); diff != "" {
		t.Error(diff)
	}
	_, err = s.Credential(t.Context(), newKey(0, 2).ID)
	wantError(t, err, store.ErrNotFound)
}

func testTooManyKeys(t *testing.T, open Opener) {
	s := open(t)
	owner := must[*store.Consumer](t)(s.CreateConsumer(t.Context(), newConsumer("shop"), admin))
	for i := range store.MaxKeys {
		k := newKey(owner.ID, 0)
		k.ID = fmt.Sprintf("aaaaaaaaaaaaa%c%c%c", 'a'+i/26, 'a'+i%26, 'a')
		must[*store.APIKey](t)(s.CreateKey(t.Context(), k, admin))
	}
	_, err := s.CreateKey(t.Context(), newKey(owner.ID, 5), admin)
	wantError(t, err, store.ErrTooMany)
}

func testTokens(t *testing.T, open Opener) {
	s, at := open(t), int64(0)
	want := newToken("ci", 1)
	created := must[*store.AdminToken](t)(s.CreateToken(t.Context(), want, admin))
	of := []store.CredentialChange{{Kind: store.KindAdminToken, ID: want.ID}}
	if diff := cmp.Diff(of, changed(t, s, &at)); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff(want, created, cmpopts.IgnoreFields(store.AdminToken{}, "Revision", "CreatedAt")); diff != "" {
		t.Error(diff)
	}
	_, err := s.CreateToken(t.Context(), newToken("ci", 2), admin)
	wantError(t, err, store.ErrNameTaken)
	must[*store.AdminToken](t)(s.CreateToken(t.Context(), newToken("cd", 2), admin))
	changed(t, s, &at)
	if list := must[[]*store.AdminToken](t)(s.Tokens(t.Context())); len(list) != 2 || !cmp.Equal(list[0], created) {
		t.Errorf("tokens %v", list)
	}
	if found := must[*store.AdminToken](t)(s.Token(t.Context(), want.ID)); !cmp.Equal(found, created) {
		t.Error(cmp.Diff(created, found))
	}
	if err := s.DeleteToken(t.Context(), want.ID, admin); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(of, changed(t, s, &at)); diff != "" {
		t.Error(diff)
	}
	wantError(t, s.DeleteToken(t.Context(), want.ID, admin), store.ErrNotFound)
	_, err = s.Token(t.Context(), want.ID)
	wantError(t, err, store.ErrNotFound)
}

func testUses(t *testing.T, open Opener) {
	s := open(t)
	owner := must[*store.Consumer](t)(s.CreateConsumer(t.Context(), newConsumer("shop"), admin))
	key := must[*store.APIKey](t)(s.CreateKey(t.Context(), newKey(owner.ID, 1), admin))
	revision := must[int64](t)(s.Revision(t.Context()))
	noon := time.Date(2026, 1, 2, 12, 0, 0, 0, time.UTC)
	for _, at := range []time.Time{noon, noon.Add(time.Minute), noon.Add(-time.Hour)} {
		if err := s.Used(t.Context(), store.KindAPIKey, map[string]time.Time{key.ID: at, "unknown": at}); err != nil {
			t.Fatal(err)
		}
	}
	keys := must[[]*store.APIKey](t)(s.Keys(t.Context(), owner.ID))
	if want := noon.Add(time.Minute); keys[0].LastUsedAt == nil || !keys[0].LastUsedAt.Equal(want) {
		t.Errorf("last used at %v, want %v", keys[0].LastUsedAt, want)
	}
	if now := must[int64](t)(s.Revision(t.Context())); now != revision {
		t.Errorf("a use is a revision: %d, was %d", now, revision)
	}
}

func testSeedAfterToken(t *testing.T, open Opener) {
	s := open(t)
	must[*store.AdminToken](t)(s.CreateToken(t.Context(), newToken("first", 1), admin))
	seeded := must[bool](t)(s.Seed(t.Context(), []*store.Route{store.NewRoute("/a", "http://x")}, admin))
	if !seeded {
		t.Error("a token keeps routes from being seeded")
	}
}

func testLiveCredentials(t *testing.T, open Opener) {
	s := open(t)
	owner := must[*store.Consumer](t)(s.CreateConsumer(t.Context(), newConsumer("shop"), admin))
	gone := must[*store.Consumer](t)(s.CreateConsumer(t.Context(), newConsumer("gone"), admin))
	var keys []*store.APIKey
	for n := range byte(4) {
		keys = append(keys, must[*store.APIKey](t)(s.CreateKey(t.Context(), newKey(owner.ID, n), admin)))
	}
	must[*store.APIKey](t)(s.CreateKey(t.Context(), newKey(gone.ID, 9), admin))
	if err := s.DeleteConsumer(t.Context(), gone.ID, 0, admin); err != nil {
		t.Fatal(err)
	}
	if err := s.DeleteKey(t.Context(), owner.ID, keys[0].ID, admin); err != nil {
		t.Fatal(err)
	}
	noon := time.Date(2026, 1, 2, 12, 0, 0, 0, time.UTC)
	if err := s.Used(t.Context(), store.KindAPIKey, map[string]time.Time{keys[3].ID: noon, keys[2].ID: noon.Add(-time.Hour)}); err != nil {
		t.Fatal(err)
	}
	for limit, want := range map[int][]*store.APIKey{10: {keys[3], keys[2], keys[1]}, 2: {keys[3], keys[2]}} {
		var wanted []*store.Credential
		for _, key := range want {
			wanted = append(wanted, must[*store.Credential](t)(s.Credential(t.Context(), key.ID)))
		}
		if diff := cmp.Diff(wanted, must[[]*store.Credential](t)(s.LiveCredentials(t.Context(), limit))); diff != "" {
			t.Errorf("at most %d: %s", limit, diff)
		}
	}
}
