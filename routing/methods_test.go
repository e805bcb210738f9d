package routing_test

import (
	"strings"
	"testing"

	"github.com/isekai-gateway/isekai/routing"
)

func TestParseMethods(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]string{
		"GET":                                    "GET",
		"get":                                    "GET",
		"POST, get ,\tput":                       "GET,POST,PUT",
		"GET,get":                                "GET",
		"*":                                      "*",
		" * ":                                    "*",
		"PROPFIND,GET,PURGE":                     "GET,PROPFIND,PURGE",
		"purge,PURGE":                            "PURGE",
		"M-SEARCH":                               "M-SEARCH",
		"DELETE,GET,HEAD,OPTIONS,PATCH,POST,PUT": "DELETE,GET,HEAD,OPTIONS,PATCH,POST,PUT",
	} {
		if got, err := routing.ParseMethods(in); err != nil || got.String() != want {
			t.Errorf("ParseMethods(%q) = %q, %v; want %q", in, got, err, want)
		}
	}
	for in, want := range map[string]string{
		"":                                 "must name a method",
		"GET,":                             "must name a method",
		",":                                "must name a method",
		"GET,*":                            "must stand alone",
		"*,*":                              "must stand alone",
		"TRACE":                            "never served",
		"get,Trace":                        "never served",
		"CONNECT":                          "never served",
		"GET POST":                         "is no method",
		"GE(T":                             "is no method",
		"GÉT":                              "is no method",
		strings.Repeat("GET,", 33) + "GET": "more than 32",
	} {
		if got, err := routing.ParseMethods(in); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("ParseMethods(%q) = %q, %v; want an error with %q", in, got, err, want)
		}
	}
}

func TestMethodSetOverlaps(t *testing.T) {
	t.Parallel()
	tests := []struct {
		a, b string
		want bool
	}{
		{"GET", "GET", true},
		{"GET", "POST", false},
		{"GET,POST", "POST,PUT", true},
		{"GET", "HEAD", false},
		{"*", "*", true},
		{"*", "GET", false},
		{"PURGE", "purge", true},
		{"PURGE", "BAN", false},
		{"*", "PURGE", false},
	}
	for _, tt := range tests {
		a, errA := routing.ParseMethods(tt.a)
		b, errB := routing.ParseMethods(tt.b)
		if errA != nil || errB != nil {
			t.Fatal(errA, errB)
		}
		if a.Overlaps(b) != tt.want || b.Overlaps(a) != tt.want {
			t.Errorf("%s overlaps %s: %v and %v, want %v", a, b, a.Overlaps(b), b.Overlaps(a), tt.want)
		}
	}
}
