package parity

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/coreos/go-systemd/v22/dbus"

	"cc-ci-run/internal/systemd"
)

// Units are the invokers' units, as the NixOS modules call them.
var Units = map[string]string{
	"drone":   "drone-runner-exec.service",
	"systemd": "nightly-sweep.service",
}

// unit is an invoker's unit, of which the probe starts a copy. That needs root: the
// copy is put below /run/systemd/system for as long as the probe takes. Of the unit
// only its [Service] is copied, without what it would do besides (ExecStartPre=, …,
// FailureAction=).
type unit struct {
	conn       *dbus.Conn
	name       string
	properties systemd.Properties
}

// find gives a unit that systemd has loaded, for root.
func find(ctx context.Context, name string) (*unit, error) {
	if os.Geteuid() != 0 {
		return nil, fmt.Errorf("%w: only root can start a copy of its unit", ErrNotHere)
	}
	conn, _, err := systemd.Connect(ctx)
	if err != nil {
		return nil, fmt.Errorf("%w: systemd does not answer: %w", ErrNotHere, err)
	}
	properties, err := systemd.Unit(ctx, conn, name)
	if err == nil && properties.Text("LoadState") != "loaded" {
		err = fmt.Errorf("%w: systemd has no %s", ErrNotHere, name)
	}
	if err != nil {
		conn.Close()
		return nil, err
	}
	return &unit{conn, name, properties}, nil
}

// account is whose a process is. The zero account is that of this process.
type account struct {
	credential *syscall.Credential
	home       string
}

// account is that of the unit's User= and SupplementaryGroups=; zero if it has no
// User=.
func (u *unit) account() (account, error) {
	name := u.properties.Text("User")
	if name == "" {
		return account{}, nil
	}
	known, err := user.Lookup(name)
	if err != nil {
		known, err = user.LookupId(name)
	}
	if err != nil {
		return account{}, fmt.Errorf("user of %s: %w", u.name, err)
	}
	groups, err := known.GroupIds()
	if err != nil {
		return account{}, err
	}
	for _, name := range u.properties.List("SupplementaryGroups") {
		group, err := user.LookupGroup(name)
		if err != nil {
			return account{}, fmt.Errorf("group of %s: %w", u.name, err)
		}
		groups = append(groups, group.Gid)
	}
	number := func(s string) uint32 { n, _ := strconv.ParseUint(s, 10, 32); return uint32(n) }
	credential := &syscall.Credential{Uid: number(known.Uid), Gid: number(known.Gid)}
	slices.Sort(groups)
	for _, id := range slices.Compact(groups) {
		credential.Groups = append(credential.Groups, number(id))
	}
	return account{credential, known.HomeDir}, nil
}

// own gives a directory to the account.
func (a account) own(dir string) error {
	if a.credential == nil {
		return nil
	}
	return os.Chown(dir, int(a.credential.Uid), int(a.credential.Gid))
}

// start starts a copy of the unit whose command is the probe, and waits for
// its end.
func (u *unit) start(ctx context.Context, invoker, dir, stateDir string) (err error) {
	command, err := u.command(invoker, stateDir)
	if err != nil {
		return err
	}
	script, said := filepath.Join(dir, "probe"), filepath.Join(dir, "said")
	// Whatever this process's umask is.
	if err := errors.Join(os.WriteFile(script, []byte(command), 0o644), os.Chmod(script, 0o644)); err != nil {
		return err
	}
	name := filepath.Base(dir) + ".service"
	file := filepath.Join("/run/systemd/system", name)
	defer func() {
		err = errors.Join(err, os.RemoveAll(file+".d"), os.Remove(file), u.conn.ReloadContext(context.WithoutCancel(ctx)))
	}()
	if err := u.copyTo(file, script, said); err != nil {
		return err
	}
	return u.run(ctx, name, said)
}

// command is the script that is the probe.
func (u *unit) command(invoker, stateDir string) (string, error) {
	if invoker == "drone" {
		return step(stateDir), nil
	}
	program := ""
	if programs := u.properties.Programs("ExecStart"); len(programs) > 0 {
		program = programs[0]
	}
	if filepath.Base(program) != "cc-ci-run" {
		return "", fmt.Errorf("%s starts %q, not cc-ci-run", u.name, program)
	}
	return fmt.Sprintf("'%[1]s' --state %[2]s %[3]s && { %[4]s; }\n", program, stateDir, emptyScript, lookBy("'"+program+"'", stateDir)), nil
}

// lookBy takes the closer look, which an older cc-ci-run has not: the probe goes on.
func lookBy(program, stateDir string) string {
	return fmt.Sprintf("%s look >%s 2>/dev/null || :", program, filepath.Join(stateDir, lookFile))
}

// copyTo makes a copy of the unit, with its drop-ins, that starts a script and
// nothing else. What the script writes to stderr is in the file said.
func (u *unit) copyTo(file, script, said string) error {
	dropIns := file + ".d"
	if err := os.MkdirAll(dropIns, 0o755); err != nil {
		return err
	}
	if err := copyService(u.properties.Text("FragmentPath"), file); err != nil {
		return err
	}
	for i, path := range u.properties.List("DropInPaths") {
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
	return os.WriteFile(filepath.Join(dropIns, "~~~~-probe.conf"), []byte(last), 0o644)
}

// run starts the copy, which systemd has not read yet, and waits for its end. What
// is not ended in time is stopped.
func (u *unit) run(ctx context.Context, name, said string) error {
	if err := u.conn.ReloadContext(ctx); err != nil {
		return err
	}
	done := make(chan string, 1)
	if _, err := u.conn.StartUnitContext(ctx, name, "replace", done); err != nil {
		return err
	}
	always := context.WithoutCancel(ctx)
	select {
	case result := <-done:
		if result == "done" {
			return nil
		}
		_ = u.conn.ResetFailedUnitContext(always, name)
		text, _ := os.ReadFile(said)
		return fmt.Errorf("a copy of %s ended with %q: %s", u.name, result, strings.TrimSpace(string(text)))
	case <-ctx.Done():
		u.end(always, name)
		return fmt.Errorf("a copy of %s: %w", u.name, ctx.Err())
	}
}

// end ends a copy at once, whatever the unit's own end would be, and has systemd
// forget it.
func (u *unit) end(ctx context.Context, name string) {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	_ = u.conn.KillUnitWithTarget(ctx, name, dbus.All, int32(syscall.SIGKILL))
	stopped := make(chan string, 1)
	if _, err := u.conn.StopUnitContext(ctx, name, "replace", stopped); err == nil {
		select {
		case <-stopped:
		case <-ctx.Done():
		}
	}
	_ = u.conn.ResetFailedUnitContext(ctx, name)
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
  /bin/sh -ec 'set -a; [ -z "$DRONE_RUNNER_ENVFILE" ] || . "$DRONE_RUNNER_ENVFILE"; cc-ci-run --state %[2]s %[4]s; %[5]s'
`, home, stateDir, hand, emptyScript, lookBy("cc-ci-run", stateDir))
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
