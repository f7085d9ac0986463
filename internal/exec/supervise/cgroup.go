package supervise

import (
	"crypto/rand"
	"encoding/hex"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// prefix begins the names of the cgroups that this package makes.
const prefix = "cc-ci-run-"

// delegated is the directory of the cgroup that this process is in, if its
// unit has Delegate=, or "". systemd marks such a cgroup by an attribute, and
// gives it to the unit's user (systemd.resource-control(5), "Delegate=").
func delegated() string {
	membership, _ := os.ReadFile("/proc/self/cgroup")
	path := ""
	for line := range strings.Lines(string(membership)) {
		if p, ok := strings.CutPrefix(strings.TrimSuffix(line, "\n"), "0::"); ok {
			path = p
		}
	}
	if path == "" || strings.HasPrefix(path, "/..") {
		return ""
	}
	dir := filepath.Join(cgroupMount(), path)
	for _, name := range []string{"user.delegate", "trusted.delegate"} {
		value := make([]byte, 1)
		if n, err := unix.Getxattr(dir, name, value); err == nil && n == 1 && value[0] == '1' {
			if unix.Access(dir, unix.W_OK) == nil && unix.Access(filepath.Join(dir, "cgroup.procs"), unix.W_OK) == nil {
				return dir
			}
		}
	}
	return ""
}

// cgroupMount is where cgroup v2 is mounted. Its root is this process's
// namespace's root, as the paths in /proc/self/cgroup are.
func cgroupMount() string {
	mounts, _ := os.ReadFile("/proc/self/mountinfo")
	for line := range strings.Lines(string(mounts)) {
		before, after, _ := strings.Cut(line, " - ")
		if fields := strings.Fields(before); strings.HasPrefix(after, "cgroup2 ") && len(fields) > 4 && fields[3] == "/" {
			return fields[4]
		}
	}
	return ""
}

// newCgroup makes a cgroup for one run below base, or gives "" if that is not
// possible: the supervisor alone is enough. Its name is never another's.
func newCgroup(base string) string {
	if base == "" {
		return ""
	}
	var random [16]byte
	_, _ = rand.Read(random[:]) // never fails
	dir := filepath.Join(base, prefix+hex.EncodeToString(random[:]))
	if os.Mkdir(dir, 0o755) != nil {
		return ""
	}
	return dir
}

// killCgroup kills all processes of a cgroup and of those below it.
func killCgroup(dir string) {
	if dir != "" {
		_ = os.WriteFile(filepath.Join(dir, "cgroup.kill"), []byte("1"), 0)
	}
}

// removeCgroup removes a cgroup and those below it. What is killed may take a
// moment to leave it.
func removeCgroup(dir string) {
	if dir == "" {
		return
	}
	for limit := time.Now().Add(time.Second); ; time.Sleep(time.Millisecond) {
		var dirs []string
		_ = filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
			if err == nil && d.IsDir() {
				dirs = append(dirs, path)
			}
			return nil
		})
		for i := len(dirs) - 1; i >= 0; i-- {
			_ = unix.Rmdir(dirs[i])
		}
		if _, err := os.Stat(dir); err != nil || time.Now().After(limit) {
			return
		}
	}
}

// KillCgroup ends what a run whose sweep was killed left in its cgroup, and
// removes that. It touches only what this package made.
func KillCgroup(dir string) {
	if strings.HasPrefix(filepath.Base(dir), prefix) && filepath.IsAbs(dir) {
		killCgroup(dir)
		removeCgroup(dir)
	}
}
