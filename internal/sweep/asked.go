package sweep

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"cc-ci-run/internal/memory"
	"cc-ci-run/internal/plaintext"
)

// This file is a sweep that a dispatcher asks for one recipe: what such a sweep does and a
// timer's does not. Above all, its machine tries again as long as the machine cannot work.

// Asked is what a dispatcher tells the machine that it asks for a recipe.
type Asked struct {
	// Fingerprint is that of the dispatcher's environment: a machine with another environment
	// runs nothing. If Fingerprint is "", a machine with any environment runs the recipe.
	Fingerprint string
	// Seen is the newest commit of the recipe's ref that the dispatcher knew, [NoCommit] for
	// none, or "". While the ref still names this commit, the machine runs the recipe, even
	// if it would skip the recipe.
	Seen string
}

// NoCommit is [Asked.Seen] of a recipe that has no ref in the shared repository.
const NoCommit = "none"

// check says what is wrong with values that may come from whoever starts builds.
func (a Asked) check() error {
	if a.Fingerprint != "" && !isHex(a.Fingerprint, 64) {
		return fmt.Errorf("--fingerprint %q: a fingerprint is 64 of the digits 0-9 and a-f", plaintext.Shorten(a.Fingerprint, 100))
	}
	if a.Seen != "" && a.Seen != NoCommit && !isHex(a.Seen, 40) {
		return fmt.Errorf("--seen %q: must be a commit, as 40 of the digits 0-9 and a-f, or %q", plaintext.Shorten(a.Seen, 100), NoCommit)
	}
	return nil
}

func isHex(text string, length int) bool {
	return len(text) == length && strings.Trim(text, "0123456789abcdef") == ""
}

// foreignEnvironment says that this machine does not have the environment that a
// dispatcher asks for, or "".
func (s *sweep) foreignEnvironment() string {
	if asked, own := s.Asked.Fingerprint, s.now.Fingerprint; asked != "" && asked != own {
		return fmt.Sprintf("the machine %s has the environment %.12s, and the dispatcher asks for %.12s: install the same build of cc-ci-run on both; on a machine that has had both environments, `cc-ci-run env diff %.12[3]s %.12[2]s` shows what differs", s.Machine, own, asked)
	}
	return ""
}

// wanted says whether a dispatcher asks for a run of a recipe even if it would be skipped.
func (s *sweep) wanted(recipe string) bool {
	return s.Asked.Seen != "" && s.Asked.Seen == s.store.seen(recipe)
}

// Unable is the error of a sweep that could not do its work because of a fault of its
// machine, for example a full disk or a shared repository that the machine does not reach.
// Another machine may be able to do the same work.
//
// A machine that a dispatcher asks tries again for some minutes, and then ends with the
// exit status [UnableStatus]. Meanwhile its runner takes no other build. A machine that
// failed at once would take most builds of the night, and leave few to the machines that work.
type Unable struct {
	Err   error
	tried bool // for long enough
}

func (u *Unable) Error() string { return u.Err.Error() }
func (u *Unable) Unwrap() error { return u.Err }

// unable makes an error that of a machine that cannot work, if a dispatcher asks the machine.
func (o Options) unable(err error) error {
	if o.Asked.Seen == "" || errors.As(err, new(*Unable)) {
		return err
	}
	return &Unable{Err: err}
}

// UnableStatus is EX_TEMPFAIL of sysexits.h: a fault that may be over at another attempt.
const UnableStatus = 75

// retries says how a machine that cannot work tries again: every is the pause between two
// attempts, and no attempt begins later than most after the first failure. A test makes them
// shorter.
var retries = struct{ every, most time.Duration }{20 * time.Second, 10 * time.Minute}

// Tries is for how long a machine that cannot work tries again: no longer than the recipe's
// time limit.
func Tries(limit time.Duration) time.Duration { return min(limit, retries.most) }

// tries is [Tries] for the recipe that a dispatcher asks for.
func (o Options) tries() time.Duration {
	limit := o.Timeout
	for _, name := range o.Only {
		limit = o.timeout(name)
	}
	return Tries(limit)
}

// again says whether a machine that failed first at some time should try once more. If so,
// it waits first.
func (o Options) again(ctx context.Context, failed time.Time) bool {
	left := o.tries() - time.Since(failed)
	if o.Asked.Seen == "" || ctx.Err() != nil || left <= 0 {
		return false
	}
	select {
	case <-ctx.Done():
		return false
	case <-time.After(min(left, retries.every)):
		return true
	}
}

// runAsked sweeps the recipe that a dispatcher asks for.
func (o Options) runAsked(ctx context.Context, tell func(Event)) ([]Result, error) {
	var failed time.Time
	for {
		results, err := o.run(ctx, tell)
		cannot := new(Unable)
		switch {
		case !errors.As(err, &cannot) || cannot.tried:
			return results, err
		case ctx.Err() != nil: // the machine may be able to work
			return results, fmt.Errorf("interrupted: %s", err)
		}
		if failed.IsZero() {
			failed = time.Now()
			tell(Event{Note: fmt.Sprintf("%v; the machine tries again for %s", err, o.tries())})
		}
		if !o.again(ctx, failed) {
			return results, err
		}
	}
}

// writeAsked is write for a dispatcher: what cannot be written or pushed now may be later,
// and a run is not to be lost.
func (s *sweep) writeAsked(ctx context.Context, j *job, ran *Inputs, kept *commit, tell func(string)) error {
	failed := time.Now()
	for told := false; ; told = true {
		err := s.write(j, ran, kept)
		if err == nil || errors.Is(err, memory.ErrMoved) || s.Asked.Seen == "" || ctx.Err() != nil {
			return err
		}
		if !told {
			tell(fmt.Sprintf("the verdict %s cannot be remembered: %v; the machine tries again for %s", j.Verdict, err, s.tries()))
		}
		if !s.again(ctx, failed) {
			return err
		}
	}
}
