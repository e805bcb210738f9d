package isekai

import (
	"crypto/sha256"
	"encoding/hex"
	"path/filepath"

	"github.com/caddyserver/caddy/v2"

	"github.com/isekai-gateway/isekai/store"
)

// snapshotOff is the value of the option snapshot that keeps none.
const snapshotOff = "off"

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
