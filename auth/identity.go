package auth

import (
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/caddyserver/caddy/v2"

	"github.com/isekai-gateway/isekai/store"
)

// The methods by which a request can say who makes it, as a route's auth.any names
// them.
const (
	MethodAPIKey = "api_key" // a key of a consumer in the store
	MethodJWT    = "jwt"     // a JSON Web Token of a configured issuer
	MethodBasic  = "basic"   // name and password of a configured account
	MethodMTLS   = "mtls"    // a client certificate that Caddy has verified
)

// Methods are all methods.
func Methods() []string { return []string{MethodAPIKey, MethodJWT, MethodBasic, MethodMTLS} }

// Identity is who makes a request. It must not be modified.
type Identity struct {
	// Method is how the identity was proved.
	Method string

	// ID is a consumer's number, a token's subject, an account's name, or the common
	// name in a certificate. IDs of different methods and issuers may be equal.
	ID string

	// Name is the consumer's name, else ID.
	Name string

	// Consumer is whose API key it is; nil for other methods.
	Consumer *store.Consumer

	// KeyID is the public id of the API key, or the key id of a token, if any.
	KeyID string

	// Issuer is the configured name of the token's issuer; empty for other methods.
	Issuer string

	// Groups are the identity's groups.
	Groups []string

	// Metadata is what else is known: the claims of a token as claim_NAME; the
	// fingerprint, serial and issuer of a certificate. Placeholders show it.
	Metadata map[string]string

	// headers are fields made of claims, in canonical form.
	headers map[string]string
}

// Caller returns a text that tells the identity from all others, whatever their
// method and issuer.
func (i *Identity) Caller() string {
	if i.Issuer != "" {
		return i.Method + ":" + i.Issuer + "/" + i.ID
	}
	return i.Method + ":" + i.ID
}

// User returns everything that placeholders show of the identity beside its id:
// Metadata with name, method, consumer, key_id, issuer and groups.
func (i *Identity) User() map[string]string {
	user := make(map[string]string, len(i.Metadata)+len(fixedKeys))
	maps.Copy(user, i.Metadata)
	for _, key := range fixedKeys {
		if _, ok := user[key]; !ok {
			user[key] = ""
		}
	}
	user["method"], user["name"], user["key_id"] = i.Method, i.Name, i.KeyID
	user["groups"] = joinList(i.Groups)
	if i.Consumer != nil {
		user["consumer"] = i.Consumer.Name
	}
	if i.Issuer != "" {
		user["issuer"] = i.Issuer
	}
	return user
}

// fixedKeys are the placeholders below http.auth.user. that always have a value, be
// it empty, once a request has passed authentication.
var fixedKeys = []string{"method", "name", "consumer", "key_id", "issuer", "groups"}

const userPlaceholder = "http.auth.user."

// SetPlaceholders makes {http.auth.user.id} and {http.auth.user.*} tell who i is, as
// Caddy's own authentication does; nobody, if i is nil.
func (i *Identity) SetPlaceholders(repl *caddy.Replacer) {
	if i == nil {
		// What a handler before has found counts for less than that we let nobody in.
		repl.Set(userPlaceholder+"id", "")
		for _, key := range fixedKeys {
			repl.Set(userPlaceholder+key, "")
		}
		return
	}
	repl.Set(userPlaceholder+"id", i.ID)
	for key, value := range i.User() {
		repl.Set(userPlaceholder+key, value)
	}
}

// InAny reports whether the identity is in one of groups.
func (i *Identity) InAny(groups []string) bool {
	return slices.ContainsFunc(groups, func(g string) bool { return slices.Contains(i.Groups, g) })
}

// listEscaper keeps an item of a list from being taken for several.
var listEscaper = strings.NewReplacer("%", "%25", ",", "%2C")

// joinList returns a list whose items a comma parts; commas and percent signs in
// items are percent-encoded.
func joinList(items []string) string {
	if len(items) == 1 {
		return listEscaper.Replace(items[0])
	}
	escaped := make([]string, len(items))
	for n, item := range items {
		escaped[n] = listEscaper.Replace(item)
	}
	return strings.Join(escaped, ",")
}

func consumerIdentity(c *store.Credential) *Identity {
	return &Identity{
		Method:   MethodAPIKey,
		ID:       strconv.FormatInt(c.Consumer.ID, 10),
		Name:     c.Consumer.Name,
		Consumer: &c.Consumer,
		KeyID:    c.Key.ID,
		Groups:   c.Consumer.Groups,
	}
}
