package storetest

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/isekai-gateway/isekai/store"
)

func testReplicas(t *testing.T, open Opener) {
	s := open(t)
	one := &store.Replica{
		ID: "0190163d-8694-739b-aea5-966c26f8ad91", Address: "edge-1", PID: 7, Version: "v1", Revision: 0,
		StartedAt: time.Date(2030, 1, 2, 3, 4, 5, 0, time.UTC),
	}
	other := &store.Replica{
		ID: "0190163d-8694-739b-aea5-966c26f8ad92", Address: "edge-2", PID: 8, Version: "v1", Revision: 2,
		Failed: []store.FailedRoute{{ID: 1, Error: `bad "path"`}}, StartedAt: one.StartedAt.Add(time.Second),
	}
	create(t, s, store.NewRoute("/a", "http://a"))
	create(t, s, store.NewRoute("/b", "http://b"))
	for _, r := range []*store.Replica{other, one, one} {
		if err := s.ReportReplica(t.Context(), r); err != nil {
			t.Fatal(err)
		}
	}
	if _, at, err := s.Load(t.Context()); err != nil || at != 2 {
		t.Errorf("a report is a revision: at %d, %v", at, err)
	}

	list, revision, err := s.Replicas(t.Context())
	if err != nil || revision != 2 {
		t.Fatalf("revision %d, error %v", revision, err)
	}
	assigned := cmpopts.IgnoreFields(store.Replica{}, "HeartbeatAt", "Live", "Lag")
	if d := cmp.Diff([]*store.Replica{one, other}, list, assigned, cmpopts.EquateEmpty()); d != "" {
		t.Error(d)
	}
	for _, r := range list {
		if !r.Live || !isRecentUTC(r.HeartbeatAt) {
			t.Errorf("%+v has just reported", r)
		}
	}
	if list[0].Lag <= 0 || list[1].Lag != 0 {
		t.Errorf("lags %s and %s", list[0].Lag, list[1].Lag)
	}

	one.Revision, one.Failed = 2, other.Failed
	if err := s.ReportReplica(t.Context(), one); err != nil {
		t.Fatal(err)
	}
	list, err = s.LiveReplicas(t.Context())
	if d := cmp.Diff([]*store.Replica{one, other}, list, assigned); d != "" || err != nil {
		t.Error(d, err)
	}
	for range 2 {
		if err := s.ForgetReplica(t.Context(), one.ID); err != nil {
			t.Fatal(err)
		}
	}
	if list, err = s.LiveReplicas(t.Context()); err != nil || len(list) != 1 || list[0].ID != other.ID {
		t.Errorf("left are %+v, error %v", list, err)
	}
}
