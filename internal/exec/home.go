package exec

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"golang.org/x/sys/unix"
)

// Passwd is the password database, as far as [SSHFiles] asks it: users of other
// sources (LDAP, systemd) are not found.
const Passwd = "/etc/passwd"

// sshFiles are what ssh reads in the directory .ssh: its configuration, the hosts
// that it trusts, and its keys. The order is the alphabet's.
var sshFiles = []string{
	"config",
	"id_dsa", "id_ecdsa", "id_ecdsa_sk", "id_ed25519", "id_ed25519_sk", "id_rsa", "id_xmss",
	"known_hosts", "known_hosts2",
}

// SSHFiles are the files of ssh in the home that the password database names for
// this user, each with its size and the time of its last change. ssh reads these
// files whatever HOME is, and no variable prevents that, so a run can only tell of
// them. No file is opened: a user without ~/.ssh, as a CI's is, costs one stat. If the
// database cannot be read, that is the error, and the one pair.
func SSHFiles() (Pairs, error) {
	home, err := homeOf(Passwd, strconv.Itoa(unix.Getuid()))
	switch {
	case err != nil:
		return Pairs{{Passwd, "not known: " + err.Error()}}, err
	case home == "":
		return Pairs{}, nil
	}
	return sshFilesIn(home + "/.ssh"), nil
}

func sshFilesIn(dir string) Pairs {
	found := Pairs{}
	var s unix.Stat_t
	if unix.Stat(dir, &s) != nil {
		return found
	}
	for _, name := range sshFiles {
		path := dir + "/" + name
		if unix.Stat(path, &s) == nil {
			changed := time.Unix(s.Mtim.Unix()).UTC().Format(time.RFC3339Nano)
			if !utf8.ValidString(path) {
				path = strconv.QuoteToASCII(path) // a record is UTF-8
			}
			found = append(found, Pair{path, strconv.FormatInt(s.Size, 10) + " bytes, changed " + changed})
		}
	}
	return found
}

// Limits of a password database, in bytes: one of a million users has the first.
const (
	maxPasswd     = 64 << 20
	maxPasswdLine = 1 << 20
)

// homeOf finds a user's home in a password database, "" for none. It reads the
// database in parts, no further than the user's line.
func homeOf(path, uid string) (string, error) {
	fd, _, err := openRegular(path)
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil
	}
	if err != nil {
		return "", err
	}
	defer unix.Close(fd)
	part := make([]byte, 0, 4<<10)
	for size := 0; size < maxPasswd; {
		n, err := unix.Read(fd, part[len(part):cap(part)])
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return "", &os.PathError{Op: "read", Path: path, Err: err}
		}
		size += n
		part = part[:len(part)+n]
		lines := part
		if n > 0 { // the last line may go on
			lines = part[:bytes.LastIndexByte(part, '\n')+1]
		}
		home, found := homeIn(string(lines), uid)
		if found || n == 0 {
			return home, nil
		}
		part = part[:copy(part[:cap(part)], part[len(lines):])]
		if len(part) == cap(part) {
			if len(part) >= maxPasswdLine {
				return "", &os.PathError{Op: "read", Path: path, Err: errors.New("has a line of more than 1 MiB")}
			}
			part = append(part, 0)[:len(part)]
		}
	}
	return "", &os.PathError{Op: "read", Path: path, Err: errors.New("its first 64 MiB do not have the user")}
}

// homeIn finds a user's home in lines of a password database.
func homeIn(lines, uid string) (home string, found bool) {
	is := ":" + uid + ":"
	for line := range strings.Lines(lines) {
		if !strings.Contains(line, is) {
			continue
		}
		field := strings.SplitN(line, ":", 7)
		if len(field) == 7 && field[2] == uid {
			return field[5], true
		}
	}
	return "", false
}
