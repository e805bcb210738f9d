package proxy

import (
	"net/http"
	"net/http/httptest"
	"testing"
)

// TestUntracedCallsCostNothing counts what a try does about traces when there are
// none.
func TestUntracedCallsCostNothing(t *testing.T) {
	r, call := httptest.NewRequest(http.MethodGet, "/", nil), new(Call)
	n := testing.AllocsPerRun(100, func() {
		if call.trace(r) != r {
			t.Error("the request is another")
		}
		call.answered(http.StatusOK, nil)
		call.endSpan()
	})
	if n != 0 {
		t.Errorf("there are %v allocations", n)
	}
}
