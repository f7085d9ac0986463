package parity

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"

	"cc-ci-run/internal/exec"
)

// Look is what a probe finds out besides its record, because each run would take too
// long for it. `cc-ci-run look` prints one, in the place where the probe runs.
type Look struct {
	// Files are path -> SHA-256 of the content, or why there is none.
	Files map[string]string `json:"files"`
	// Landlock is how many Landlock domains are around the process, or why nobody
	// knows.
	Landlock string `json:"landlock"`
}

// lookedAt are files that a test reads by way of libraries, besides the host paths of
// the toolset: who resolves names, which time zone is local, and whom OpenSSL trusts.
var lookedAt = []string{
	"/etc/gai.conf", "/etc/host.conf", "/etc/hosts", "/etc/localtime", "/etc/nsswitch.conf", "/etc/resolv.conf",
	"/etc/ssl/certs", "/etc/ssl/openssl.cnf",
}

// maxLookedAt is how much of a file is read, in bytes.
const maxLookedAt = 16 << 20

// LookAround takes a closer look from inside of this process: at the files of the host
// that the toolset names, and those that libraries read.
func LookAround(hostPaths []string) Look {
	l := Look{Files: map[string]string{}}
	for _, path := range slices.Concat(hostPaths, lookedAt) {
		if digest := digest(path); digest != "" {
			l.Files[path] = digest
		}
	}
	if n, err := exec.LandlockDomains(); err == nil {
		l.Landlock = fmt.Sprint(n)
	} else {
		l.Landlock = "unknown: " + err.Error()
	}
	return l
}

// digest is a file's; "" for what has no content, as a device. Of a directory of
// certificates it is of all names and contents.
func digest(path string) string {
	info, err := os.Stat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return "missing"
	case err != nil:
		return "cannot be read"
	case info.Mode().IsRegular():
		data, err := exec.ReadRegular(path, maxLookedAt)
		if err != nil {
			return "cannot be read"
		}
		return fmt.Sprintf("%x", sha256.Sum256(data))
	case !info.IsDir() || path != "/etc/ssl/certs":
		return ""
	}
	entries, err := os.ReadDir(path)
	if err != nil {
		return "cannot be read"
	}
	all := sha256.New()
	for _, e := range entries {
		fmt.Fprintf(all, "%q %s\n", e.Name(), digest(filepath.Join(path, e.Name())))
	}
	return fmt.Sprintf("%x", all.Sum(nil))
}

// readLook reads what `cc-ci-run look` wrote to a file.
func readLook(path string) ([]byte, error) { return exec.ReadRegular(path, maxLookedAt) }

func sortedKeys(a, b map[string]string) []string {
	all := maps.Clone(a)
	maps.Copy(all, b)
	return slices.Sorted(maps.Keys(all))
}
