package pipeline

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/caddyserver/caddy/v2/modules/caddyhttp/caddyauth"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp/rewrite"
	"golang.org/x/crypto/bcrypt"

	"github.com/isekai-gateway/isekai/forwardauth"
	"github.com/isekai-gateway/isekai/store"
)

// outside are the placeholder namespaces through which a route could read the
// gateway's environment, files or host, or have a request's body held in memory,
// however long it is.
var outside = []string{"{env.", "{file.", "{system.", "{http.request.local", "{http.request.body", "{$"}

func checkText(errs *store.FieldErrors, field, text string) {
	for _, prefix := range outside {
		if strings.Contains(text, prefix) {
			errs.Add(field, fmt.Sprintf("must not use placeholders that begin with %q", prefix))
		}
	}
}

// settings looks at what a module can do beyond what its name says.
func (i *inspector) settings(field string, module any) {
	switch m := module.(type) {
	case *rewrite.Rewrite:
		if nestsBraces(m.URI) {
			// It puts the path in the place of its placeholder before it looks for
			// placeholders: "{{http.request.uri.path}}" reads what the path names.
			i.errs.Add(field+".uri", "must not have a placeholder within braces")
		}
	case *caddyauth.HTTPBasicAuth:
		if !hashesWithBcrypt(m.HashRaw) {
			return // a hash that the configuration allows, and answers for
		}
		for n, account := range m.AccountList {
			if err := checkPassword(account.Password); err != nil {
				i.errs.Add(fmt.Sprintf("%s.accounts[%d].password", field, n), err.Error())
			}
		}
	case *forwardauth.Config:
		for _, p := range m.Check(i.policy) {
			i.errs.Add(field+"."+p.Field, p.Err.Error())
		}
	}
}

// nestsBraces says whether a brace is opened before the one before is closed.
func nestsBraces(text string) bool {
	open := false
	for _, c := range text {
		switch {
		case c == '{' && open:
			return true
		case c == '{':
			open = true
		case c == '}':
			open = false
		}
	}
	return false
}

func hashesWithBcrypt(hash json.RawMessage) bool {
	var settings map[string]any
	if len(hash) == 0 || json.Unmarshal(hash, &settings) != nil {
		return true
	}
	return settings["algorithm"] == "bcrypt"
}

// maxBcryptCost bounds what a password may cost to check, which a stranger can
// have done by guessing: about a second of CPU time. It is the cost of the
// hashes that Caddy makes, and of the one that it checks for unknown users.
const maxBcryptCost = 14

func checkPassword(password string) error {
	hash := []byte(password)
	if !strings.HasPrefix(password, "$") {
		// Caddy's old form.
		decoded, err := base64.StdEncoding.DecodeString(password)
		if err != nil {
			return errors.New("must be a bcrypt hash: see caddy hash-password")
		}
		hash = decoded
	}
	cost, err := bcrypt.Cost(hash)
	switch {
	case err != nil || strings.ContainsAny(password, "{}"):
		return errors.New("must be a bcrypt hash: see caddy hash-password")
	case cost > maxBcryptCost:
		return fmt.Errorf("must be a bcrypt hash of cost %d at most, not %d", maxBcryptCost, cost)
	}
	return nil
}

// repeatedName returns a name that stands twice in an object of valid JSON.
func repeatedName(raw json.RawMessage) (string, bool) {
	type level struct {
		names  map[string]bool // nil in an array
		isName bool            // the next token is one
	}
	var levels []level
	dec := json.NewDecoder(bytes.NewReader(raw))
	for {
		token, err := dec.Token()
		if errors.Is(err, io.EOF) || err != nil {
			return "", false
		}
		switch delim, _ := token.(json.Delim); delim {
		case '{':
			levels = append(levels, level{names: make(map[string]bool), isName: true})
			continue
		case '[':
			levels = append(levels, level{})
			continue
		case '}', ']':
			levels = levels[:len(levels)-1]
		}
		if len(levels) == 0 {
			continue
		}
		top := &levels[len(levels)-1]
		if _, closed := token.(json.Delim); top.names != nil && top.isName && !closed {
			name := token.(string)
			if top.names[name] {
				return name, true
			}
			top.names[name] = true
			top.isName = false
			continue
		}
		top.isName = top.names != nil
	}
}
