package snapshot

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
)

// KeySize is how many bytes a key has.
const KeySize = 32

// ErrSealed says that a file is sealed with another key than the one at hand, or that
// there is none.
var ErrSealed = errors.New("the snapshot is sealed with another key")

// seal says in a header how the lines after it are sealed. Each file has a key of its
// own, made of the salt, so that the number of a line may be its nonce.
type seal struct {
	KeyID string `json:"key_id"`
	Salt  []byte `json:"salt"`
}

// newSeal returns a seal of a new file, and what seals its lines.
func newSeal(key []byte) (*seal, *sealer, error) {
	s := &seal{KeyID: keyID(key), Salt: make([]byte, 32)}
	_, _ = rand.Read(s.Salt) // which never fails
	lines, err := s.open(key)
	return s, lines, err
}

// open returns what opens the lines of a file, or seals them. Errors: ErrSealed.
func (s *seal) open(key []byte) (*sealer, error) {
	if len(key) == 0 || s.KeyID != keyID(key) {
		return nil, ErrSealed
	}
	own, err := hkdf.Key(sha256.New, key, s.Salt, "isekai snapshot", KeySize)
	if err != nil {
		return nil, fmt.Errorf("deriving a key: %w", err)
	}
	block, err := aes.NewCipher(own)
	if err != nil {
		return nil, fmt.Errorf("making a cipher: %w", err)
	}
	aead, err := cipher.NewGCM(block)
	if err != nil {
		return nil, fmt.Errorf("making a cipher: %w", err)
	}
	return &sealer{aead: aead}, nil
}

// keyID tells keys apart and helps nobody to guess one.
func keyID(key []byte) string {
	sum := sha256.Sum256(append([]byte("isekai snapshot key "), key...))
	return hex.EncodeToString(sum[:8])
}

// sealer seals lines, or opens them, in their order. The nil one leaves them in the clear.
type sealer struct {
	aead   cipher.AEAD
	number uint64
}

// nonce is the line's number, so that lines can't change places.
func (s *sealer) nonce() []byte {
	nonce := make([]byte, s.aead.NonceSize())
	binary.BigEndian.PutUint64(nonce[len(nonce)-8:], s.number)
	s.number++
	return nonce
}

func (s *sealer) seal(line []byte) []byte {
	if s == nil {
		return line
	}
	sealed := s.aead.Seal(nil, s.nonce(), line, nil)
	return base64.StdEncoding.AppendEncode(nil, sealed)
}

func (s *sealer) open(line []byte) ([]byte, error) {
	if s == nil {
		return line, nil
	}
	sealed, err := base64.StdEncoding.AppendDecode(nil, line)
	if err != nil {
		return nil, fmt.Errorf("%w: a line is not sealed", ErrCorrupt)
	}
	text, err := s.aead.Open(sealed[:0], s.nonce(), sealed, nil)
	if err != nil {
		return nil, fmt.Errorf("%w: a line was changed", ErrCorrupt)
	}
	return text, nil
}
