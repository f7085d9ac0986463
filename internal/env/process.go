package env

import (
	"errors"
	"strconv"
)

// Process is the process state that a toolset declares. exec.Prepare sets it, and also
// resets what docs/process.md calls "set". A run record has most of the rest.
type Process struct {
	Umask string `toml:"umask" json:"umask"` // octal, as umask(1) prints it
	// NoFile is RLIMIT_NOFILE, soft and hard, in descriptors.
	NoFile uint64 `toml:"nofile" json:"nofile"`
	// Core is RLIMIT_CORE, soft and hard, in bytes.
	Core uint64 `toml:"core" json:"core"`
	// NoNewPrivs forbids programs to gain privileges, as sudo does (prctl(2),
	// PR_SET_NO_NEW_PRIVS).
	NoNewPrivs bool `toml:"no_new_privs" json:"no_new_privs"`
}

// UmaskBits is Umask as a number.
func (p Process) UmaskBits() (int, error) {
	n, err := strconv.ParseUint(p.Umask, 8, 16)
	if err != nil || n > 0o777 {
		return 0, errors.New("process: umask = " + strconv.Quote(p.Umask) + " is not an octal mode (like \"0022\")")
	}
	return int(n), nil
}
