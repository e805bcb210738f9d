package auth_test

import (
	"encoding/base64"
	"net/http"
	"strings"
	"testing"

	"golang.org/x/crypto/bcrypt"

	"github.com/isekai-gateway/isekai/auth"
	"github.com/isekai-gateway/isekai/store"
)

var accounts = map[string]auth.Account{
	"bob": {Password: hash("secret"), Groups: []string{"staff"}},
	"eve": {Password: hash(strings.Repeat("x", 72))},
}

func hash(password string) string {
	h, err := bcrypt.GenerateFromPassword([]byte(password), bcrypt.MinCost)
	if err != nil {
		panic(err)
	}
	return string(h)
}

func basic(name, password string) string {
	return "Basic " + base64.StdEncoding.EncodeToString([]byte(name+":"+password))
}

func TestBasic(t *testing.T) {
	t.Parallel()
	v := newVerifier(t, auth.Config{Basic: accounts}, auth.Options{})
	policy, err := v.Policy(&store.Auth{Any: []string{"basic"}})
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		value string
		want  int
	}{
		{basic("bob", "secret"), 200},
		{basic("bob", "secret"), 200},
		{strings.Replace(basic("bob", "secret"), "Basic", "bAsIc", 1), 200},
		{basic("eve", strings.Repeat("x", 72)), 200},
		{basic("eve", strings.Repeat("x", 73)), 401}, // bcrypt would not see the difference
		{basic("bob", ""), 401},
		{basic("Bob", "secret"), 401},
		{basic("", ""), 401},
		{"Basic", 401},
		{"Basic ###", 401},
		{"Basic " + base64.StdEncoding.EncodeToString([]byte("bob")), 401},
	} {
		r, repl := newRequest("/", "Authorization", c.value)
		id, err := policy.Authenticate(r, repl)
		if got := status(make(http.Header), err); got != c.want {
			t.Errorf("%s: status %d, want %d", c.value, got, c.want)
		}
		if err == nil && id.Caller() != "basic:bob" && id.Caller() != "basic:eve" {
			t.Errorf("%s is %s", c.value, id.Caller())
		}
	}
}

// TestGuessing has a client try passwords: after ten wrong ones, none is looked at,
// not even the right one, except of those who have signed in before.
func TestGuessing(t *testing.T) {
	t.Parallel()
	v := newVerifier(t, auth.Config{Basic: accounts}, auth.Options{})
	policy, err := v.Policy(&store.Auth{Any: []string{"basic"}})
	if err != nil {
		t.Fatal(err)
	}
	try := func(value string) (int, http.Header) {
		r, repl := newRequest("/", "Authorization", value)
		_, err := policy.Authenticate(r, repl)
		h := make(http.Header)
		return status(h, err), h
	}
	if got, _ := try(basic("bob", "secret")); got != 200 {
		t.Fatalf("status %d", got)
	}
	for n := range 10 {
		name := []string{"bob", "eve", "nobody"}[n%3]
		if got, _ := try(basic(name, "wrong")); got != 401 {
			t.Errorf("guess %d: status %d", n+1, got)
		}
	}
	got, h := try(basic("eve", strings.Repeat("x", 72)))
	if got != 429 || h.Get("Retry-After") == "" {
		t.Errorf("status %d, header %v after too many guesses", got, h)
	}
	if got, _ := try(basic("bob", "secret")); got != 200 {
		t.Errorf("status %d for who has signed in before", got)
	}
}

func TestBasicRefusesOtherHashes(t *testing.T) {
	t.Parallel()
	for name, account := range map[string]auth.Account{
		"plain":  {Password: "secret"},
		"empty":  {},
		"costly": {Password: "$2a$15$" + strings.Repeat("a", 53)},
	} {
		if _, err := auth.New(auth.Config{Basic: map[string]auth.Account{"bob": account}}, auth.Options{}); err == nil {
			t.Errorf("%s: no error", name)
		} else if account.Password != "" && strings.Contains(err.Error(), account.Password) {
			t.Errorf("%s: the error shows it: %v", name, err)
		}
	}
}
