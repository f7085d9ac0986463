package exec

import (
	"errors"

	"golang.org/x/sys/unix"
)

// least are limits that a caller can lower, and what tests may need of each. Those of
// open files and core files are not here, since a toolset declares them.
var least = [...]struct {
	resource int
	soft     uint64 // what the soft limit is raised to, as far as the hard one allows; 0: package entry does that
	needed   uint64 // what a sweep does not start below
	name     string
	unit     string
}{
	{unix.RLIMIT_FSIZE, unix.RLIM_INFINITY, unix.RLIM_INFINITY, "file size (ulimit -f, LimitFSIZE=)", "bytes"},
	{unix.RLIMIT_CPU, unix.RLIM_INFINITY, unix.RLIM_INFINITY, "processor time (ulimit -t, LimitCPU=)", "seconds"},
	{unix.RLIMIT_AS, 0, unix.RLIM_INFINITY, "address space (ulimit -v, LimitAS=)", "bytes"},
	{unix.RLIMIT_DATA, 0, unix.RLIM_INFINITY, "data (ulimit -d, LimitDATA=)", "bytes"},
	{unix.RLIMIT_STACK, 8 << 20, 8 << 20, "stack (ulimit -s, LimitSTACK=)", "bytes"}, // the kernel's own
	{unix.RLIMIT_NPROC, unix.RLIM_INFINITY, 1024, "processes (ulimit -u, LimitNPROC=)", ""},
	{unix.RLIMIT_SIGPENDING, unix.RLIM_INFINITY, 1024, "pending signals (ulimit -i, LimitSIGPENDING=)", ""},
	{unix.RLIMIT_MSGQUEUE, unix.RLIM_INFINITY, 819_200, "message queues (ulimit -q, LimitMSGQUEUE=)", "bytes"}, // the kernel's own
	{unix.RLIMIT_MEMLOCK, unix.RLIM_INFINITY, 64 << 10, "locked memory (ulimit -l, LimitMEMLOCK=)", "bytes"},
}

// raiseLimits raises the soft limits that a caller has lowered.
func raiseLimits() {
	for i := range least {
		l := &least[i]
		var have unix.Rlimit
		if l.soft > 0 && unix.Getrlimit(l.resource, &have) == nil && have.Cur < min(l.soft, have.Max) {
			have.Cur = min(l.soft, have.Max)
			_ = unix.Setrlimit(l.resource, &have)
		}
	}
}

// LimitsOfTests raises the limits of this process, which its children inherit, to what
// the tests of any recipe may need, and names each limit that it may not raise so far. files is
// what is needed of open files.
func LimitsOfTests(files uint64) error {
	var errs error
	check := func(resource int, needed uint64, name, unit string) {
		var have unix.Rlimit
		if unix.Getrlimit(resource, &have) != nil || have.Max >= needed && have.Cur >= needed {
			return
		}
		raised := unix.Rlimit{Cur: max(have.Cur, needed), Max: max(have.Max, needed)}
		if unix.Setrlimit(resource, &raised) == nil { // for a hard limit that takes privileges
			return
		}
		number := func(n uint64) string {
			if n == unix.RLIM_INFINITY || unit == "" {
				return limit(n)
			}
			return limit(n) + " " + unit
		}
		errs = errors.Join(errs, errors.New("the hard limit of "+name+" is "+number(have.Max)+"; tests may need "+number(needed)+
			", and would fail here that pass elsewhere: start without that limit"))
	}
	for _, l := range least {
		check(l.resource, l.needed, l.name, l.unit)
	}
	check(unix.RLIMIT_NOFILE, files, "open files (ulimit -n, LimitNOFILE=)", "")
	return errs
}
