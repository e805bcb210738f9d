// Package auth decides who makes a request: consumers by their API keys, holders of
// JSON Web Tokens, accounts by name and password, and holders of client
// certificates.
package auth

import (
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base32"
	"strings"
)

// Prefixes of secrets. They tell people and secret scanners what they have found.
const (
	PrefixKey   = "isk_" // an API key of a consumer
	PrefixToken = "ist_" // a token for the admin API
)

const (
	idBytes     = 10 // 16 characters
	secretBytes = 35 // 56 characters, 280 bits

	idLength     = idBytes * 8 / 5
	secretLength = secretBytes * 8 / 5
)

// encoding has no character that must be escaped anywhere, and no padding at
// multiples of 5 bytes.
var encoding = base32.NewEncoding("abcdefghijklmnopqrstuvwxyz234567").WithPadding(base32.NoPadding)

// Secret is a credential whose first part, the id, is public and finds it, and
// whose second part is compared with a hash.
type Secret struct {
	// ID is 16 characters of a-z and 2-7.
	ID string

	// Hash is the SHA-256 of the part after the id. That part has 280 random bits,
	// so a slow hash would protect nothing, and let guesses cost more than they do.
	Hash [sha256.Size]byte
}

// NewSecret returns a random secret: prefix, id, "_" and the secret part. The text
// is the only place where that part is.
func NewSecret(prefix string) (text string, secret Secret) {
	random := make([]byte, idBytes+secretBytes)
	_, _ = rand.Read(random) // never fails
	secret.ID = encoding.EncodeToString(random[:idBytes])
	part := encoding.EncodeToString(random[idBytes:])
	secret.Hash = sha256.Sum256([]byte(part))
	return prefix + secret.ID + "_" + part, secret
}

// ParseSecret takes a text with prefix apart. What is not of the form that NewSecret
// makes is none, and nobody needs to look for it.
func ParseSecret(prefix, text string) (Secret, bool) {
	rest, ok := strings.CutPrefix(text, prefix)
	if !ok || len(rest) != idLength+1+secretLength || rest[idLength] != '_' {
		return Secret{}, false
	}
	id, part := rest[:idLength], rest[idLength+1:]
	if !isEncoded(id) || !isEncoded(part) {
		return Secret{}, false
	}
	return Secret{ID: id, Hash: sha256.Sum256([]byte(part))}, true
}

// Matches reports, in a time that does not depend on where they differ, whether the
// stored hash is that of s.
func (s Secret) Matches(hash []byte) bool {
	return subtle.ConstantTimeCompare(s.Hash[:], hash) == 1
}

func isEncoded(s string) bool {
	for i := range len(s) {
		if c := s[i]; (c < 'a' || c > 'z') && (c < '2' || c > '7') {
			return false
		}
	}
	return true
}
