package isekai

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"path/filepath"
	"strings"

	"github.com/caddyserver/caddy/v2"

	"github.com/isekai-gateway/isekai/snapshot"
	"github.com/isekai-gateway/isekai/store"
)

// snapshotOff is the value of the option snapshot that keeps none.
const snapshotOff = "off"

// snapshotKey reads what snapshots are sealed with, nil for nothing. Its errors don't
// repeat it.
func snapshotKey(setting string) ([]byte, error) {
	if setting == "" {
		return nil, nil
	}
	key, err := base64.StdEncoding.DecodeString(strings.TrimSpace(caddy.NewReplacer().ReplaceKnown(setting, "")))
	if err != nil || len(key) != snapshot.KeySize {
		return nil, fmt.Errorf("must be %d bytes in base64 once its placeholders are resolved, as of openssl rand -base64 %d", snapshot.KeySize, snapshot.KeySize)
	}
	return key, nil
}

// snapshotFile returns where the last known routes of a store are kept, empty for
// nowhere. setting is the option snapshot.
func snapshotFile(setting, dsn string) string {
	switch setting = caddy.NewReplacer().ReplaceKnown(setting, ""); setting {
	case snapshotOff:
		return ""
	case "":
		identity := store.Identity(dsn)
		if identity == "" {
			return "" // a file has no need of a copy of it
		}
		// The password may change, and the file must not help to guess it.
		sum := sha256.Sum256([]byte(identity))
		return filepath.Join(caddy.AppDataDir(), "isekai", "snapshot-"+hex.EncodeToString(sum[:6])+".json")
	default:
		return setting
	}
}
