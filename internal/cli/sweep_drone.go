package cli

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"cc-ci-run/internal/drone"
	"cc-ci-run/internal/env"
	"cc-ci-run/internal/exec"
	"cc-ci-run/internal/run"
	"cc-ci-run/internal/sweep"
)

// This file has the flags of a sweep by several machines: those of the dispatcher, and those
// with which the dispatcher's builds start a sweep of one recipe on another machine.

// placement are the flags of the dispatcher.
type placement struct{ url, branch, token string }

func (d *placement) addTo(cmd *cobra.Command) {
	f := cmd.Flags()
	f.StringVar(&d.url, "drone", "", "run the recipes on the machines of a Drone server, as builds of the repository with this `URL` at that server; needs --shared and --state")
	f.StringVar(&d.branch, "drone-branch", "", "the `branch` that the builds check out (default: the repository's default branch)")
	f.StringVar(&d.token, "drone-token", "", "`file` with a token for Drone (default: "+tokenName+" among systemd's credentials of the unit)")
}

// tokenName is the name of systemd's credential with the token.
const tokenName = "drone-token"

// jobsOfDrone is how many builds are under way at once if nobody sets another number. The
// runners take as many of them as they have room for, and the others wait in Drone. So the
// number should be larger than the number of machines, and no larger than 100, because one
// page of Drone's list has 100 builds, and the dispatcher follows its builds by one page.
const jobsOfDrone = 64

// machinesOwn are flags that say how a machine runs a recipe. A dispatcher's machines take
// that from the sweep.toml of the commit that they test.
var machinesOwn = []string{"seal", "audit", "timeout", "grace", "skips-hold", "promote", "show-log", "fingerprint", "seen"}

// elsewhere makes the sweep a dispatcher. A dry run asks no other machine, so it needs no
// token.
func (d *placement) elsewhere(ctx context.Context, p Process, o *sweep.Options, set func(flag string) bool) error {
	if d.url == "" {
		for _, flag := range []string{"drone-branch", "drone-token", "drone"} {
			if set(flag) {
				return fmt.Errorf("--%s: write the repository's address at the Drone server after --drone", flag)
			}
		}
		return nil
	}
	for _, flag := range machinesOwn {
		if set(flag) {
			return fmt.Errorf("--%s has no effect on the machines that --drone asks: write limits and skips into %s, and other flags into the repository's .drone.yml", flag, sweep.ConfigName)
		}
	}
	switch {
	case o.Shared == nil:
		return errors.New("--drone needs --shared URL: the machines push their verdicts to that git repository, where this sweep reads them")
	case !set("state") && env.Lookup(p.Environ, run.StateVariable) == "":
		return fmt.Errorf("--drone needs a state directory of its own: write --state DIR. A sweep that a runner starts on this machine waits for the lock of %s, which this sweep would hold all the time", o.State)
	}
	builds := drone.Options{URL: d.url, Branch: d.branch, Environ: p.Environ}
	if !o.DryRun {
		var err error
		if builds.Token, err = d.readToken(p.Environ); err != nil {
			return err
		}
	}
	b, err := drone.New(builds)
	if err != nil {
		return fmt.Errorf("--drone: %w", err)
	}
	if !o.DryRun {
		if err := b.Check(ctx); err != nil {
			return fmt.Errorf("--drone: %w", err)
		}
	}
	o.Elsewhere = b
	return nil
}

// readToken reads the file with the token.
func (d *placement) readToken(environ []string) (string, error) {
	file := d.token
	if file == "" {
		dir := env.Lookup(environ, "CREDENTIALS_DIRECTORY")
		if dir == "" {
			return "", errors.New("--drone needs a token: name its file by --drone-token, or give the unit the credential " + tokenName + " (LoadCredential=)")
		}
		file = filepath.Join(dir, tokenName)
	}
	return readToken("token for Drone", file)
}

// readToken reads a file with a token. what is the token, for messages.
func readToken(what, file string) (string, error) {
	info, err := os.Stat(file)
	if err != nil {
		return "", fmt.Errorf("the %s: %w", what, err)
	}
	if info.Mode().Perm()&0o007 != 0 {
		return "", fmt.Errorf("%s, the %s, can be read by every user of this machine: chmod 600 %[1]s, and take a new token", file, what)
	}
	const most = 4 << 10
	data, err := exec.ReadRegular(file, most)
	if err != nil {
		return "", fmt.Errorf("the %s: %w", what, err)
	}
	token := strings.TrimSpace(string(data))
	if token == "" || len(data) == most || strings.ContainsFunc(token, func(r rune) bool { return r <= ' ' || r > '~' }) {
		return "", fmt.Errorf("%s has no %s: the file must have one word, the token as the user's settings show it", file, what)
	}
	return token, nil
}

// waiting is the flag --wait: a yes, or how long.
type waiting struct {
	wait  *bool
	limit *time.Duration
}

func (w waiting) String() string {
	switch {
	case w.wait == nil || !*w.wait:
		return ""
	case *w.limit == 0:
		return "true"
	}
	return w.limit.String()
}

func (w waiting) Type() string { return "time" }

func (w waiting) Set(text string) error {
	if yes, err := strconv.ParseBool(text); err == nil && text != "0" && text != "1" {
		*w.wait, *w.limit = yes, 0
		return nil
	}
	limit, err := time.ParseDuration(text)
	if err != nil || limit <= 0 {
		return errors.New("must be a time above 0, such as 2h or 90s")
	}
	*w.wait, *w.limit = true, limit
	return nil
}
