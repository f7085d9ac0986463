// Package mounttest has tests of the machine's mounts take turns.
//
// `make test` runs packages at once. A run's record compares the run's mounts with those of
// the machine, so a test that compares records must not run while another test mounts
// something for the whole machine.
package mounttest

import (
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// Lock waits until no other test has the lock. The lock is on a file that each test finds,
// the go.mod in root, which is the repository. The lock ends with unlock, or with the process.
func Lock(root string) (unlock func(), err error) {
	f, err := os.Open(filepath.Join(root, "go.mod"))
	if err != nil {
		return nil, err
	}
	for {
		if err = unix.Flock(int(f.Fd()), unix.LOCK_EX); err != unix.EINTR {
			break
		}
	}
	return func() { _ = f.Close() }, err
}
