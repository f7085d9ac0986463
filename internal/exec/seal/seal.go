// Package seal lets the kernel refuse to execute what was not declared.
//
//	if err := seal.Supported(); err != nil { … }    // this kernel cannot, and why
//	err := seal.Apply(manifest.Executable())        // after exec.Prepare, before the child
//
// From then on no thread of this process and no descendant can execute a file
// that is not one of those, or below one of those directories: not by PATH, by
// absolute path, by a descriptor or through a link. It cannot be taken back.
//
// Landlock does it, by two of its rights. EXECUTE is what this is about. REFER
// is granted everywhere, since Landlock would otherwise forbid to move a file
// to another directory; with it the kernel only forbids a move or a link by
// which a file would become executable. Of its own Landlock also forbids to
// mount, and to trace or enter a process outside the seal; all other reading
// and writing is as it was.
//
// Landlock knows files by where they are, and a file of memory (memfd_create)
// is nowhere: it would be let through. So a seccomp filter refuses those that
// could be executed. Another filter keeps a run from typing commands for the shell
// that started it. See [filterCalls].
//
// What the seal does not stop is in docs/seal.md; a test tries each line of it.
package seal

import (
	"errors"
	"fmt"

	"github.com/landlock-lsm/go-landlock/landlock"
	ll "github.com/landlock-lsm/go-landlock/landlock/syscall"
	"golang.org/x/sys/unix"

	"cc-ci-run/internal/env"
)

// neededABI is Landlock's first version that can allow files to be moved
// between directories (Linux 5.19).
const neededABI = 2

// Supported says why this kernel cannot seal, with the fix; nil if it can.
func Supported() error {
	if len(memory) == 0 {
		return errors.New("no seccomp filter is known for this architecture (amd64 and arm64 have one)")
	}
	abi, err := ll.LandlockGetABIVersion()
	switch {
	case errors.Is(err, unix.EOPNOTSUPP):
		return errors.New("this kernel has Landlock disabled: add landlock to its boot parameter lsm=")
	case errors.Is(err, unix.ENOSYS):
		return errors.New("this kernel has no Landlock: it takes Linux 5.19 with CONFIG_SECURITY_LANDLOCK, or a container that lets its system calls through")
	case err != nil:
		return fmt.Errorf("this kernel's Landlock cannot be used here (%w): the container or unit must let its system calls through", err)
	case abi < neededABI:
		return fmt.Errorf("this kernel's Landlock is of version %d, where %d is needed: it takes Linux 5.19", abi, neededABI)
	}
	if err := filterSupported(); err != nil {
		return fmt.Errorf("this kernel has no seccomp filters (%w): it takes CONFIG_SECCOMP_FILTER", err)
	}
	return nil
}

// Faults are what keeps an environment from being sealed: that no closure is
// known, or that a file or directory is not there, so that it cannot be allowed.
func Faults(closure, execute []string) []env.Fault {
	var faults []env.Fault
	if len(closure) == 0 {
		faults = append(faults, env.Fault{What: "manifest", State: "has no closure, as an earlier cc-ci-run made it", Fix: "run `make build`"})
	}
	for _, p := range execute {
		if err := unix.Access(p, unix.F_OK); err != nil {
			faults = append(faults, env.Fault{What: p, State: err.Error(), Fix: "make it, or take it out of [seal] execute in toolset.toml"})
		}
	}
	return faults
}

// Apply seals this process: all its threads, and what they start. Of the files
// and directories, those that are not there are passed over.
//
// It sets no_new_privs, without which an unprivileged process may not seal
// itself.
func Apply(executable []string) error {
	rights := landlock.MustConfig(landlock.AccessFSSet(ll.AccessFSExecute | ll.AccessFSRefer))
	err := rights.RestrictPaths(
		landlock.PathAccess(ll.AccessFSRefer, "/"),
		landlock.PathAccess(ll.AccessFSExecute, executable...).IgnoreIfMissing(),
	)
	if err == nil {
		err = filterCalls()
	}
	if err != nil {
		return fmt.Errorf("seal: %w", err)
	}
	return nil
}
