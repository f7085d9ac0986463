package state

import (
	"path/filepath"

	"github.com/google/renameio/v2"
)

// PutSynced is [Dir.Put], synced: after a crash the file is the earlier one or
// this one.
func (d Dir) PutSynced(p Place, name string, data []byte) error {
	if err := d.Make(p); err != nil {
		return err
	}
	path := d.Path(p, name)
	return renameio.WriteFile(path, data, 0o644, renameio.WithTempDir(filepath.Dir(path)))
}
