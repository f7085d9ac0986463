// Package live runs a probe through an invoker now, for parity to compare,
// instead of waiting for its next run.
//
//	r, err := Prober{…}.Probe(ctx, "systemd")
//
// The probe is `cc-ci-run exec true` with a state directory of its own: what
// it leaves is a run record like any other. It goes the way that the invoker's
// runs go, as far as this machine has it:
//
//   - systemd: a copy of the sweep's unit, with its drop-ins, started by
//     systemd; only its command is another. The cc-ci-run is the unit's own.
//   - drone: a copy of the runner's unit in the same way. What it starts is a
//     step's shell, with a step's variables and the PATH that the unit has;
//     cc-ci-run is found there, or not.
//   - manual: cc-ci-run on a pseudo-terminal, with this process's variables.
//     For root it becomes the sweep's user first, as `sudo -u` would.
//
// Copying a unit needs root: the copy is put below /run/systemd/system for as
// long as the probe takes. Of the unit only its [Service] is copied, without
// what it would do besides (ExecStartPre=, …, FailureAction=).
//
// The unit's user is not trusted, since tests run as that user: what root and
// systemd write is in a directory of root's, and of the user's own, which has
// the record, root reads files only, and follows no link.
package parity

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/coreos/go-systemd/v22/dbus"
	"github.com/creack/pty"

	"cc-ci-run/internal/record"
	"cc-ci-run/internal/state"
	"cc-ci-run/internal/toolset"
)

// Units are the invokers' units, as the NixOS modules call them.
var Units = map[string]string{
	"drone":   "drone-runner-exec.service",
	"systemd": "nightly-sweep.service",
}

// Limit is how long one probe may take.
const Limit = 30 * time.Second

// ErrNotHere is for an invoker that this machine has not.
var ErrNotHere = errors.New("not at hand")

// Prober knows what the probe by hand needs.
type Prober struct {
	Program string   // cc-ci-run
	Environ []string // of the caller
}

// Probe runs the probe through one invoker and gives what it left. The error
// is ErrNotHere if this machine has no such invoker.
func (p Prober) Probe(ctx context.Context, invoker string) (Run, error) {
	ctx, cancel := context.WithTimeout(ctx, Limit)
	defer cancel()
	r, m, err := p.probe(ctx, invoker)
	if err != nil {
		err = fmt.Errorf("probe of %s: %w", invoker, err)
	}
	return Run{Record: r, Environment: m, Probe: true}, err
}

func (p Prober) probe(ctx context.Context, invoker string) (*record.Record, *toolset.Manifest, error) {
	// Below /run every unit sees it, PrivateTmp or not.
	parent := "/run"
	if os.Geteuid() != 0 {
		parent = ""
	}
	dir, err := os.MkdirTemp(parent, "cc-ci-run-probe-")
	if err != nil {
		return nil, nil, err
	}
	defer os.RemoveAll(dir)
	stateDir := filepath.Join(dir, "state")
	if err := errors.Join(os.Mkdir(stateDir, 0o700), os.Chmod(dir, 0o755)); err != nil {
		return nil, nil, err
	}

	var like *unit
	if os.Geteuid() == 0 {
		like, err = find(ctx, Units[invoker])
		if invoker == "manual" {
			like, err = find(ctx, Units["systemd"]) // for its user
		}
		if err == nil {
			defer like.conn.Close()
			err = like.own(stateDir)
		}
	} else {
		err = fmt.Errorf("%w: only root can start a copy of its unit", ErrNotHere)
	}
	if invoker == "manual" {
		if like == nil {
			err = nil // as whoever we are
		}
		if err == nil {
			err = p.byHand(ctx, like, stateDir)
		}
	} else if err == nil {
		err = like.start(ctx, invoker, dir, stateDir)
	}
	if err != nil {
		return nil, nil, err
	}
	// From here on it is root's, as is what is in it.
	if err := take(stateDir); err != nil {
		return nil, nil, err
	}
	r, err := record.Newest(state.Dir(stateDir), invoker, "")
	if err != nil {
		return nil, nil, fmt.Errorf("it left no record of %s", invoker)
	}
	m, err := Kept(state.Dir(stateDir), r.Fingerprint)
	return r, m, err
}

// byHand runs the probe on a pseudo-terminal; as the user of a unit, if given.
func (p Prober) byHand(ctx context.Context, like *unit, stateDir string) error {
	cmd := exec.CommandContext(ctx, p.Program, "--state", stateDir, "exec", "true")
	cmd.Env = p.Environ
	cmd.Dir = "/"
	if like != nil && like.credential != nil {
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: like.credential}
		cmd.Env = slices.DeleteFunc(slices.Clone(cmd.Env), func(kv string) bool { return strings.HasPrefix(kv, "HOME=") })
		cmd.Env = append(cmd.Env, "HOME="+like.home)
	}
	terminal, err := pty.Start(cmd)
	if err != nil {
		return err
	}
	defer terminal.Close()
	var said bytes.Buffer
	_, _ = io.Copy(&said, terminal) // its end is EIO
	if err := cmd.Wait(); err != nil {
		return fmt.Errorf("%w: %s", err, strings.TrimSpace(said.String()))
	}
	return nil
}

// unit is an invoker's unit.
type unit struct {
	conn       *dbus.Conn
	name       string
	properties map[string]any
	credential *syscall.Credential // of its User=; nil if it has none
	home       string              // its
}

// find gives a unit that systemd has loaded.
func find(ctx context.Context, name string) (*unit, error) {
	conn, err := dbus.NewWithContext(ctx)
	if err != nil {
		return nil, fmt.Errorf("%w: systemd does not answer: %w", ErrNotHere, err)
	}
	properties, err := conn.GetAllPropertiesContext(ctx, name)
	if err == nil && properties["LoadState"] != "loaded" {
		err = fmt.Errorf("%w: systemd has no %s", ErrNotHere, name)
	}
	if err != nil {
		conn.Close()
		return nil, err
	}
	return &unit{conn: conn, name: name, properties: properties}, nil
}

func (u *unit) text(property string) string {
	s, _ := u.properties[property].(string)
	return s
}

// own gives a directory to the unit's user.
func (u *unit) own(dir string) error {
	name := u.text("User")
	if name == "" {
		return nil
	}
	account, err := user.Lookup(name)
	if err != nil {
		account, err = user.LookupId(name)
	}
	if err != nil {
		return fmt.Errorf("user of %s: %w", u.name, err)
	}
	number := func(s string) uint32 { n, _ := strconv.ParseUint(s, 10, 32); return uint32(n) }
	u.home = account.HomeDir
	u.credential = &syscall.Credential{Uid: number(account.Uid), Gid: number(account.Gid)}
	groups, err := account.GroupIds()
	if err != nil {
		return err
	}
	named, _ := u.properties["SupplementaryGroups"].([]string)
	for _, name := range named {
		group, err := user.LookupGroup(name)
		if err != nil {
			return fmt.Errorf("group of %s: %w", u.name, err)
		}
		groups = append(groups, group.Gid)
	}
	slices.Sort(groups)
	for _, id := range slices.Compact(groups) {
		u.credential.Groups = append(u.credential.Groups, number(id))
	}
	return os.Chown(dir, int(u.credential.Uid), int(u.credential.Gid))
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

// start starts a copy of the unit whose command is the probe, and waits for
// its end.
func (u *unit) start(ctx context.Context, invoker, dir, stateDir string) (err error) {
	script := filepath.Join(dir, "probe")
	var command string
	if invoker == "drone" {
		command = step(stateDir)
	} else if program := u.program(); filepath.Base(program) == "cc-ci-run" {
		command = fmt.Sprintf("exec '%s' --state %s exec true\n", program, stateDir)
	} else {
		return fmt.Errorf("%s starts %q, not cc-ci-run", u.name, program)
	}
	// Whatever this process's umask is.
	if err := errors.Join(os.WriteFile(script, []byte(command), 0o644), os.Chmod(script, 0o644)); err != nil {
		return err
	}
	said := filepath.Join(dir, "said")

	name := filepath.Base(dir) + ".service"
	file := filepath.Join("/run/systemd/system", name)
	dropIns := file + ".d"
	reload := context.WithoutCancel(ctx)
	defer func() {
		err = errors.Join(err, os.RemoveAll(dropIns), os.Remove(file), u.conn.ReloadContext(reload))
	}()
	if err := os.MkdirAll(dropIns, 0o755); err != nil {
		return err
	}
	if err := copyService(u.text("FragmentPath"), file); err != nil {
		return err
	}
	list, _ := u.properties["DropInPaths"].([]string)
	for i, path := range list {
		if err := copyService(path, filepath.Join(dropIns, fmt.Sprintf("%03d.conf", i))); err != nil {
			return err
		}
	}
	// The last word: all that would be done besides the probe is taken out.
	last := `[Unit]
Description=cc-ci-run parity --live: a probe in the place of ` + u.name + `
[Service]
Type=oneshot
Restart=no
RuntimeDirectoryPreserve=yes
ExecCondition=
ExecStartPre=
ExecStart=
ExecStart=/bin/sh ` + script + `
ExecStartPost=
ExecStop=
ExecStopPost=
StandardError=append:` + said + `
`
	if err := os.WriteFile(filepath.Join(dropIns, "~~~~-probe.conf"), []byte(last), 0o644); err != nil {
		return err
	}
	if err := u.conn.ReloadContext(ctx); err != nil {
		return err
	}
	done := make(chan string, 1)
	if _, err := u.conn.StartUnitContext(ctx, name, "replace", done); err != nil {
		return err
	}
	select {
	case result := <-done:
		if result == "done" {
			return nil
		}
		_ = u.conn.ResetFailedUnitContext(reload, name)
		text, _ := os.ReadFile(said)
		return fmt.Errorf("a copy of %s ended with %q: %s", u.name, result, strings.TrimSpace(string(text)))
	case <-ctx.Done():
		_, _ = u.conn.StopUnitContext(reload, name, "replace", nil)
		return fmt.Errorf("a copy of %s: %w", u.name, ctx.Err())
	}
}

// program is the first word of ExecStart=.
func (u *unit) program() string {
	list, _ := u.properties["ExecStart"].([][]any)
	if len(list) == 0 || len(list[0]) == 0 {
		return ""
	}
	path, _ := list[0][0].(string)
	return path
}

// step is a script that starts the probe as Drone's runner starts a step: by
// /bin/sh -e, with a fresh HOME, what the runner hands on of its own (PATH,
// USER, proxies, its file of variables) and a step's variables. Only those
// that say who the invoker is are here, not all ninety.
func step(stateDir string) string {
	home := filepath.Join(stateDir, "home")
	hand := ""
	for _, name := range []string{"USER", "http_proxy", "https_proxy", "no_proxy", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "DRONE_RUNNER_ENVFILE"} {
		hand += fmt.Sprintf(` ${%[1]s:+%[1]s="$%[1]s"}`, name)
	}
	return fmt.Sprintf(`mkdir %[1]s && cd %[1]s &&
exec /usr/bin/env -i PATH="$PATH"%[3]s HOME=%[1]s HOMEPATH=%[1]s USERPROFILE=%[1]s DRONE_WORKSPACE=%[1]s CI=true DRONE=true \
  DRONE_REPO=cc-ci-run/probe DRONE_BUILD_NUMBER=0 DRONE_STAGE_NAME=live DRONE_STEP_NAME=probe CI_BUILD_NUMBER=0 \
  GIT_TERMINAL_PROMPT=0 GIT_AUTHOR_NAME=drone GIT_AUTHOR_EMAIL=noreply@drone GIT_COMMITTER_NAME=drone GIT_COMMITTER_EMAIL=noreply@drone \
  /bin/sh -ec 'set -a; [ -z "$DRONE_RUNNER_ENVFILE" ] || . "$DRONE_RUNNER_ENVFILE"; cc-ci-run --state %[2]s exec true'
`, home, stateDir, hand)
}

// copyService copies the [Service] sections of a unit file or drop-in. The
// copy is for root only: it may have secrets in Environment=.
func copyService(from, to string) error {
	data, err := os.ReadFile(from)
	if err != nil {
		return err
	}
	var kept strings.Builder
	inside := false
	for line := range strings.Lines(string(data)) {
		if text := strings.TrimSpace(line); strings.HasPrefix(text, "[") {
			inside = text == "[Service]"
		}
		if inside {
			kept.WriteString(line)
		}
	}
	return os.WriteFile(to, []byte(kept.String()), 0o600)
}
