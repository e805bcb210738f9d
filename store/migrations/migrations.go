// Package migrations embeds the schema, once for each kind of database, as
// goose migrations. A file that has been released is never edited: the next
// change is the next file.
package migrations

import "embed"

//go:embed postgres/*.sql sqlite/*.sql
var files embed.FS

// Files holds the migrations below "postgres/" and "sqlite/".
func Files() embed.FS { return files }
