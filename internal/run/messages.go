package run

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"cc-ci-run/internal/env"
	"cc-ci-run/internal/exec"
)

// This file has what a run says to people: what may make its result differ, and what went wrong.

// tellAbsent names the tools that this environment was built without.
func tellAbsent(plan *env.Plan, stderr *os.File) {
	if len(plan.Absent) == 0 {
		return
	}
	names := make([]string, len(plan.Absent))
	for i, a := range plan.Absent {
		names[i] = a.Name
	}
	exec.Tell(stderr, "cc-ci-run: absent from this environment: "+strings.Join(names, ", ")+"\n")
}

// tellSSH names the files that ssh obeys and that are not the environment's, or says
// why they are not known.
func tellSSH(files exec.Pairs, unknown error, stderr *os.File) {
	if unknown != nil {
		exec.Tell(stderr, "cc-ci-run: which files ssh reads in this user's home is not known ("+unknown.Error()+
			"): a test that uses ssh may pass for this user alone\n")
		return
	}
	if len(files) == 0 {
		return
	}
	names := make([]string, len(files))
	for i, f := range files {
		names[i] = filepath.Base(f.Name)
	}
	exec.Tell(stderr, "cc-ci-run: whatever HOME is, ssh reads "+strings.Join(names, ", ")+" in "+filepath.Dir(files[0].Name)+
		": a test that uses ssh may pass for this user alone\n")
}

// joined makes one error of all faults, a line each.
func joined(faults []env.Fault) error {
	var err error
	for _, f := range faults {
		err = errors.Join(err, f)
	}
	return err
}

// Explain writes an error to stderr, a line each where it is of several, and
// gives the exit status.
func Explain(err error, stderr *os.File) int {
	if err == nil {
		return 0
	}
	code := exec.StatusFailed
	var s exec.Status
	if errors.As(err, &s) {
		code, err = s.Code, s.Err
	}
	for _, err := range several(err) {
		exec.Tell(stderr, "cc-ci-run: "+strings.ReplaceAll(err.Error(), "\n", "\n  ")+"\n")
	}
	return code
}

// wrapped is one of several errors, with what is said of all of them.
type wrapped struct {
	where string
	error
	fix string
}

func (w wrapped) Error() string { return w.where + w.error.Error() + w.fix }
func (w wrapped) Unwrap() error { return w.error }

// several takes apart what errors.Join and go-multierror put together.
func several(err error) []error {
	var list []error
	var multi interface { // go-multierror
		error
		WrappedErrors() []error
	}
	if joined, ok := err.(interface{ Unwrap() []error }); ok && err.Error() == errors.Join(joined.Unwrap()...).Error() {
		list = joined.Unwrap()
	} else if errors.As(err, &multi) {
		// What wraps it says before it where, and after it what to do.
		where, fix, ok := strings.Cut(err.Error(), multi.Error())
		if !ok {
			where, fix = "", ""
		}
		list = slices.Clone(multi.WrappedErrors())
		for i := range list {
			w := wrapped{where, list[i], ""}
			if i == len(list)-1 {
				w.fix = fix
			}
			list[i] = w
		}
	} else if err != nil {
		return []error{err}
	}
	var all []error
	for _, err := range list {
		all = append(all, several(err)...)
	}
	return all
}
