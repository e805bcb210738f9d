package ondemand

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestFailures(t *testing.T) {
	t.Parallel()
	var f Failures
	at := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	if _, ok := f.Get("a"); ok {
		t.Error("a failure out of nothing")
	}
	f.Forget("a")
	f.Add("a", Failure{Message: "first"})
	second := Failure{Message: "second", Time: at, Renewal: true}
	f.Add("a", second)
	got, ok := f.Get("a")
	if diff := cmp.Diff(second, got); diff != "" || !ok {
		t.Error(diff)
	}
	for i := range maxFailures {
		f.Add(fmt.Sprint(i), Failure{Message: strings.Repeat("é", maxMessage)})
	}
	if _, ok := f.Get("a"); ok || len(f.byName) != maxFailures || f.latest.Len() != maxFailures {
		t.Errorf("%d failures are remembered", len(f.byName))
	}
	if got, ok := f.Get("1"); !ok || len(got.Message) != maxMessage+len("...") {
		t.Errorf("a message of %d bytes is remembered", len(got.Message))
	}
	f.Forget("1")
	if _, ok := f.Get("1"); ok {
		t.Error("what was forgotten is there")
	}
}
