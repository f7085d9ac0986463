package main

import (
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"golang.org/x/sys/unix"

	"cc-ci-run/e2e/internal/wrap"
)

// remove makes the directory, waits for the end of init, and removes what then
// remains. The process "remove" is not in the namespaces and is not killed when
// with-docker is killed, so it does its work however with-docker ends.
func remove(dir string) {
	if err := os.Mkdir(dir, 0o711); err != nil {
		say("%v", err)
		os.Exit(wrap.CannotStart)
	}
	unix.Close(secondExtra) // init may begin
	for {
		// The kernel reports the end of process 1 after that of all others.
		n, err := unix.Poll([]unix.PollFd{{Fd: firstExtra, Events: unix.POLLIN}}, -1)
		if n == 1 || err != unix.EINTR {
			break
		}
	}
	failed := os.RemoveAll(dir) != nil
	for _, cgroup := range cgroups(filepath.Base(dir)) {
		failed = os.Remove(cgroup) != nil || failed
	}
	if failed {
		os.Exit(1)
	}
}

// cgroups are the directories of the cgroup with a name, and of the cgroups below
// it, the lowest first. cgroup version 1 has a hierarchy for each controller.
func cgroups(name string) (dirs []string) {
	const root = "/sys/fs/cgroup/"
	tops, _ := filepath.Glob(root + "*/" + name)
	for _, top := range append(tops, root+name) {
		_ = filepath.WalkDir(top, func(path string, entry fs.DirEntry, err error) error {
			if err == nil && entry.IsDir() {
				dirs = append(dirs, path)
			}
			return nil
		})
	}
	slices.Reverse(dirs)
	return dirs
}
