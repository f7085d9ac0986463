package parity

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/creack/pty"

	"cc-ci-run/internal/record"
	"cc-ci-run/internal/state"
)

// Limit is how long one probe may take.
const Limit = 30 * time.Second

// emptyScript is what a probe runs: a script, since only the record of a script says
// which docker daemon its tests reach.
const emptyScript = "/dev/null"

// lookFile is the name of the file that the closer look is put into.
const lookFile = "look.json"

// ErrNotHere is for an invoker that this machine has not.
var ErrNotHere = errors.New("not at hand")

// Prober runs a probe through an invoker now, for [Compare], instead of waiting
// for the invoker's next run.
//
//	r, err := Prober{…}.Probe(ctx, "systemd")
//
// The probe is `cc-ci-run /dev/null`, an empty script, with a state directory of its
// own: what it leaves is a run record like any other. After it, `cc-ci-run look` takes a
// closer look at the same place ([Look]). The probe goes the way that the invoker's runs
// go, as far as this machine has it:
//
//   - systemd: a copy of the sweep's unit, with its drop-ins, started by
//     systemd; only its command is another. The cc-ci-run is the unit's own.
//   - drone: a copy of the runner's unit in the same way. What it starts is a
//     step's shell, with a step's variables and the PATH that the unit has;
//     cc-ci-run is found there, or not.
//   - manual: cc-ci-run on a pseudo-terminal, with this process's variables.
//     For root it becomes the sweep's user first, as `sudo -u` would.
//
// The unit's user is not trusted, since tests run as that user: what root and
// systemd write is in a directory of root's, and of the user's own, which has
// the record, root reads files only, and follows no link.
type Prober struct {
	Program string   // cc-ci-run, for the probe by hand
	Environ []string // of the caller, likewise
}

// Probe runs the probe through one invoker and gives what it left. The error
// is ErrNotHere if this machine has no such invoker.
func (p Prober) Probe(ctx context.Context, invoker string) (Run, error) {
	ctx, cancel := context.WithTimeout(ctx, Limit)
	defer cancel()
	run, err := p.probe(ctx, invoker)
	if err != nil {
		err = fmt.Errorf("probe of %s: %w", invoker, err)
	}
	return run, err
}

func (p Prober) probe(ctx context.Context, invoker string) (Run, error) {
	// Below /run every unit sees it, PrivateTmp or not.
	parent := "/run"
	if os.Geteuid() != 0 {
		parent = ""
	}
	dir, err := os.MkdirTemp(parent, "cc-ci-run-probe-")
	if err != nil {
		return Run{}, err
	}
	defer os.RemoveAll(dir)
	stateDir := filepath.Join(dir, "state")
	if err := errors.Join(os.Mkdir(stateDir, 0o700), os.Chmod(dir, 0o755)); err != nil {
		return Run{}, err
	}
	// Without the monotonic clock, which the record has not either.
	before := time.Now().Round(0)
	look, err := p.start(ctx, invoker, dir, stateDir)
	if err != nil {
		return Run{}, err
	}
	after := time.Now().Round(0)
	run, err := left(stateDir, invoker, look)
	if err == nil {
		run.Clock = ahead(run.Time, before, after)
	}
	return run, err
}

// ahead is how far a clock is ahead (or, below 0, behind) that read now between before
// and after; 0 if that may have been right.
func ahead(now, before, after time.Time) time.Duration {
	switch {
	case now.Before(before):
		return now.Sub(before)
	case now.After(after):
		return now.Sub(after)
	}
	return 0
}

// start starts the probe as an invoker does, and waits for its end. It gives the file
// that the closer look is in.
func (p Prober) start(ctx context.Context, invoker, dir, stateDir string) (look string, err error) {
	byHand := invoker == "manual"
	name := Units[invoker]
	if byHand {
		name = Units["systemd"] // for its user
	}
	like, err := find(ctx, name)
	if err != nil && byHand {
		return p.byHand(ctx, account{}, dir, stateDir) // as whoever we are
	}
	if err != nil {
		return "", err
	}
	defer like.conn.Close()
	who, err := like.account()
	if err == nil {
		err = who.own(stateDir)
	}
	if err != nil {
		return "", err
	}
	if byHand {
		return p.byHand(ctx, who, dir, stateDir)
	}
	return filepath.Join(stateDir, lookFile), like.start(ctx, invoker, dir, stateDir)
}

// byHand runs the probe on a pseudo-terminal, and then its closer look.
func (p Prober) byHand(ctx context.Context, who account, dir, stateDir string) (look string, err error) {
	command := func(args ...string) *exec.Cmd {
		cmd := exec.CommandContext(ctx, p.Program, args...)
		cmd.Env = p.Environ
		cmd.Dir = "/"
		if who.credential != nil {
			cmd.SysProcAttr = &syscall.SysProcAttr{Credential: who.credential}
			cmd.Env = slices.DeleteFunc(slices.Clone(cmd.Env), func(kv string) bool { return strings.HasPrefix(kv, "HOME=") })
			cmd.Env = append(cmd.Env, "HOME="+who.home)
		}
		return cmd
	}
	cmd := command("--state", stateDir, emptyScript)
	terminal, err := pty.Start(cmd)
	if err != nil {
		return "", err
	}
	defer terminal.Close()
	var said bytes.Buffer
	_, _ = io.Copy(&said, terminal) // its end is EIO
	if err := cmd.Wait(); err != nil {
		return "", fmt.Errorf("%w: %s", err, strings.TrimSpace(said.String()))
	}
	looked, err := command("look").Output()
	if err != nil {
		return "", fmt.Errorf("closer look: %w", err)
	}
	look = filepath.Join(dir, lookFile) // not the user's directory, who could put a link there
	return look, os.WriteFile(look, looked, 0o600)
}

// left gives what the probe left in its state directory, which from here on is
// root's, as is what is in it.
func left(stateDir, invoker, look string) (Run, error) {
	if err := take(stateDir); err != nil {
		return Run{}, err
	}
	r, _, err := record.Newest(state.Dir(stateDir), invoker, "")
	if err != nil {
		return Run{}, fmt.Errorf("it left no record of %s", invoker)
	}
	m, err := Kept(state.Dir(stateDir), r.Fingerprint, nil)
	run := Run{Record: r, Environment: m, Probe: true}
	// An older cc-ci-run has no closer look, and leaves an empty file.
	if data, err := readLook(look); err == nil && len(data) > 0 {
		if err := json.Unmarshal(data, &run.Look); err != nil {
			return Run{}, fmt.Errorf("it left a closer look that cannot be read: %w", err)
		}
	}
	return run, err
}

// take makes a directory tree this process's own, and finds that it holds
// nothing but directories and files.
func take(dir string) error {
	return filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if !d.IsDir() && !d.Type().IsRegular() {
			return fmt.Errorf("%s is not a file: somebody meddles with the probe", path)
		}
		return os.Lchown(path, os.Geteuid(), os.Getegid())
	})
}
