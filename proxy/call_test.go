package proxy

import (
	"net/http"
	"net/http/httptest"
	"testing"
)

// TestUntracedCallsCostNothing counts what a try does about traces when there are
// none.
func TestUntracedCallsCostNothing(t *testing.T) {
	r, resp, call := httptest.NewRequest(http.MethodGet, "/", nil), new(http.Response), new(Call)
	n := testing.AllocsPerRun(100, func() {
		if call.trace(r) != r {
			t.Error("the request is another")
		}
		call.answered(resp, nil)
		call.endSpan()
	})
	if n != 0 {
		t.Errorf("there are %v allocations", n)
	}
}
