package exec

import (
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"golang.org/x/sys/unix"
)

// passwd is the password database, as far as [SSHFiles] asks it: users of other
// sources (LDAP, systemd) are not found.
const passwd = "/etc/passwd"

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
// them. No file is opened: a user without ~/.ssh, as a CI's is, costs one stat.
func SSHFiles() Pairs {
	data, err := ReadRegular(passwd, 1<<20)
	if err != nil {
		return Pairs{}
	}
	home := homeOf(string(data), strconv.Itoa(unix.Getuid()))
	if home == "" {
		return Pairs{}
	}
	return sshFilesIn(home + "/.ssh")
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

// homeOf finds a user's home in the lines of a password database, "" for none.
func homeOf(lines, uid string) string {
	for line := range strings.Lines(lines) {
		field := strings.SplitN(line, ":", 7)
		if len(field) == 7 && field[2] == uid {
			return field[5]
		}
	}
	return ""
}
