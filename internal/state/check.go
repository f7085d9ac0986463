package state

import (
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"

	"golang.org/x/sys/unix"

	"cc-ci-run/internal/finding"
)

// Check finds whether the places that are there have the owner and the mode of
// their rules. The owner is that of the state directory, of which Check compares
// only that others cannot write to it.
func (d Dir) Check() []finding.Finding {
	const what = "state directory"
	fd, top, err := d.top()
	if errors.Is(err, fs.ErrNotExist) {
		return []finding.Finding{{Verdict: finding.Note, What: what, State: string(d) + " is not there: the first run makes it"}}
	}
	if err != nil {
		return []finding.Finding{{Verdict: finding.Fault, What: what, State: err.Error(), Fix: "make a directory there, for the tests' user"}}
	}
	unix.Close(fd)
	var list []finding.Finding
	fault := func(path, state, fix string) {
		list = append(list, finding.Finding{Verdict: finding.Fault, What: what, State: path + ": " + state, Fix: fix})
	}
	if top.Mode&othersWrite != 0 && top.Mode&unix.S_ISVTX == 0 {
		fault(string(d), fmt.Sprintf("mode %04o lets others replace what is in it", top.Mode&0o7777), "chmod go-w "+string(d))
	}
	for _, rule := range Rules()[1:] {
		path := d.Path(rule.Place, "")
		var s unix.Stat_t
		if err := unix.Lstat(path, &s); errors.Is(err, unix.ENOENT) {
			continue
		} else if err != nil {
			fault(path, err.Error(), "look at "+filepath.Dir(path))
			continue
		}
		if is := kindOf(s.Mode); is != "a directory" {
			if is == "" {
				is = "is a file"
			}
			fault(path, is+", not a directory", "rm "+path)
			continue
		}
		if s.Uid != top.Uid {
			fault(path, fmt.Sprintf("belongs to user %d, and the state directory to user %d", s.Uid, top.Uid), fmt.Sprintf("chown -Rh %d:%d %s", top.Uid, top.Gid, path))
		}
		want := rule.modeIn(top.Mode)
		if is := s.Mode & 0o7777; is != want {
			fault(path, fmt.Sprintf("has mode %04o, not %04o", is, want), fmt.Sprintf("chmod %04o %s", want, path))
		}
	}
	if len(list) == 0 {
		list = append(list, finding.Finding{Verdict: finding.OK, What: what, State: string(d) + ": owner and modes are those of its places"})
	}
	return list
}
