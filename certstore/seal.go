package certstore

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
)

// KeySize is the length of a key that values are sealed with, in bytes.
const KeySize = 32

// keyIDSize is the length of what is stored to tell keys apart.
const keyIDSize = 8

// ErrSealed says that a value can't be opened: its key is not among those given, or
// it, or the name it is stored under, was changed.
var ErrSealed = errors.New("the value is sealed, and none of the encryption keys opens it")

// seals encrypts values with AES-256-GCM. The name that a value is stored under is
// authenticated with it, so that values can't be exchanged for each other.
type seals struct {
	byID  map[string]cipher.AEAD
	first []byte // the id of the key that seals, nil if there is none
}

func newSeals(keys [][]byte) (*seals, error) {
	s := &seals{byID: make(map[string]cipher.AEAD)}
	for i, key := range keys {
		if len(key) != KeySize {
			return nil, fmt.Errorf("encryption key %d has %d bytes, and needs %d", i+1, len(key), KeySize)
		}
		block, err := aes.NewCipher(key)
		if err != nil {
			return nil, fmt.Errorf("encryption key %d: %w", i+1, err)
		}
		aead, err := cipher.NewGCM(block)
		if err != nil {
			return nil, fmt.Errorf("encryption key %d: %w", i+1, err)
		}
		// The id tells keys apart, and nothing of them.
		sum := sha256.Sum256(append([]byte("isekai certificate storage key\x00"), key...))
		id := sum[:keyIDSize]
		s.byID[string(id)] = aead
		if i == 0 {
			s.first = id
		}
	}
	return s, nil
}

// seal returns what to store for a value, and the id of the key it is sealed with.
func (s *seals) seal(name string, value []byte) (stored, id []byte) {
	if s.first == nil {
		return value, nil
	}
	aead := s.byID[string(s.first)]
	nonce := make([]byte, aead.NonceSize(), aead.NonceSize()+len(value)+aead.Overhead())
	rand.Read(nonce)
	return aead.Seal(nonce, nonce, value, []byte(name)), s.first
}

// open is the reverse of seal.
func (s *seals) open(name string, stored, id []byte) ([]byte, error) {
	if id == nil {
		return stored, nil
	}
	aead, ok := s.byID[string(id)]
	if !ok || len(stored) < aead.NonceSize() {
		return nil, ErrSealed
	}
	value, err := aead.Open(nil, stored[:aead.NonceSize()], stored[aead.NonceSize():], []byte(name))
	if err != nil {
		return nil, ErrSealed
	}
	return value, nil
}

// sealOverhead is how much longer than the value is what is stored of it, sealed.
const sealOverhead = 12 + 16
