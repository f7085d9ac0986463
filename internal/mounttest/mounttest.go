// Package mounttest gives one test at a time the right to mount a file system for the whole
// machine, or to compare records of runs.
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

// Lock waits until no other test has the lock. root is the repository's directory: the lock is
// on its go.mod, because every test finds that file. The lock ends when unlock is called, or
// when the process ends.
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
	unlock = func() { _ = f.Close() }
	if err != nil {
		unlock()
	}
	return unlock, err
}
