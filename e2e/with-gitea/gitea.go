package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"time"

	"cc-ci-run/e2e/internal/wrap"
)

const (
	admin = "witness"
	// startLimit is how long Gitea may take to answer, and to make a user.
	startLimit = time.Minute
)

// appINI is Gitea's configuration: nothing but HTTP with LFS on loopback; no mail,
// ssh, update check, nor avatars from afar. Other programs (Drone) may log in by
// OAuth2, and get webhooks on loopback. Gitea adds secrets of its own.
const appINI = `RUN_MODE = prod

[server]
HTTP_ADDR = 127.0.0.1
HTTP_PORT = %[1]d
ROOT_URL = http://127.0.0.1:%[1]d/
STATIC_ROOT_PATH = %[2]s/static
OFFLINE_MODE = true
DISABLE_SSH = true
LFS_START_SERVER = true

[database]
DB_TYPE = sqlite3

[security]
INSTALL_LOCK = true

[service]
DISABLE_REGISTRATION = true

[openid]
ENABLE_OPENID_SIGNIN = false

[webhook]
ALLOWED_HOST_LIST = loopback

[picture]
DISABLE_GRAVATAR = true

[cron.update_checker]
ENABLED = false

[actions]
ENABLED = false

[packages]
ENABLED = false

[indexer]
ISSUE_INDEXER_TYPE = db

[log]
MODE = console
LEVEL = Info
`

// gitea is a Gitea in a directory of its own: newGitea makes the directory, start
// starts Gitea, and stop, which must be called, stops it and removes the directory.
type gitea struct {
	url     string
	dir     string
	environ []string            // Gitea's
	as      *syscall.Credential // nil: as this process
	end     func()              // stops the server and waits for its end
}

func newGitea(program string, environ []string) (*gitea, error) {
	info, err := os.Stat(program)
	if err != nil || !info.Mode().IsRegular() {
		return nil, fmt.Errorf("there is no %s: e2e/build-gitea makes it", program)
	}
	port, err := wrap.FreePort()
	if err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp("", "with-gitea-")
	if err != nil {
		return nil, err
	}
	g := &gitea{
		url: fmt.Sprintf("http://127.0.0.1:%d", port), dir: dir,
		environ: []string{"HOME=" + dir, "GITEA_WORK_DIR=" + dir}, end: func() {},
	}
	for _, kv := range environ { // of the caller's nothing but PATH, where Gitea finds git
		if strings.HasPrefix(kv, "PATH=") {
			g.environ = append(g.environ, kv)
		}
	}
	if err := g.furnish(program, info.Mode(), port); err != nil {
		g.stop()
		return nil, err
	}
	return g, nil
}

// furnish fills the directory. The program and its static files are copied, since
// nobody may not reach where they are (in the home of root, say).
func (g *gitea) furnish(program string, mode fs.FileMode, port int) error {
	data, err := os.ReadFile(program)
	if err != nil {
		return err
	}
	if err := os.WriteFile(g.dir+"/gitea", data, mode.Perm()); err != nil {
		return err
	}
	if err := os.CopyFS(g.dir+"/static", os.DirFS(program+".static")); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := os.WriteFile(g.dir+"/app.ini", fmt.Appendf(nil, appINI, port, g.dir), 0o600); err != nil {
		return err
	}
	if os.Geteuid() != 0 {
		return nil
	}
	nobody, err := user.Lookup("nobody")
	if err != nil {
		return err
	}
	uid, _ := strconv.Atoi(nobody.Uid)
	gid, _ := strconv.Atoi(nobody.Gid)
	g.as = &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)} // and no other groups
	return filepath.WalkDir(g.dir, func(path string, _ fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		return os.Lchown(path, uid, gid)
	})
}

// start starts Gitea and waits until it answers, with an administrator, whose
// password it returns.
func (g *gitea) start(ctx context.Context) (password string, err error) {
	g.end, err = wrap.Server{
		Name: "Gitea", Log: g.dir + "/gitea.log", Healthy: g.url + "/api/healthz", Limit: startLimit,
		Command: func(ctx context.Context) *exec.Cmd { return g.command(ctx, "web") },
	}.Start(ctx)
	if err != nil {
		return "", err
	}
	return g.addAdmin(ctx)
}

var passwordLine = regexp.MustCompile(`(?m)random password is '(.+)'$`)

// addAdmin creates the administrator. Gitea makes up the password: so it is in no
// argument, which every user could read.
func (g *gitea) addAdmin(ctx context.Context) (password string, err error) {
	ctx, cancel := context.WithTimeoutCause(ctx, startLimit, fmt.Errorf("no user was created within %s", startLimit))
	defer cancel()
	output, err := g.command(ctx, "admin", "user", "create", "--admin", "--username", admin,
		"--email", admin+"@localhost.invalid", "--random-password", "--must-change-password=false").CombinedOutput()
	found := passwordLine.FindSubmatch(output)
	switch {
	case ctx.Err() != nil:
		return "", context.Cause(ctx)
	case err == nil && found != nil:
		return string(found[1]), nil
	case err == nil:
		err = errors.New("without a password in what Gitea printed")
	case found != nil: // which is nobody's to read
		output = bytes.ReplaceAll(output, found[1], []byte("..."))
	}
	return "", fmt.Errorf("no user could be created: %w\n%s", err, output)
}

// command is one of Gitea's commands, in its directory.
func (g *gitea) command(ctx context.Context, args ...string) *exec.Cmd {
	cmd := wrap.Endable(ctx, g.dir+"/gitea", append(args, "--config", g.dir+"/app.ini")...)
	cmd.Dir, cmd.Env = g.dir, g.environ
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: g.as}
	return cmd
}

func (g *gitea) stop() {
	g.end()
	_ = os.RemoveAll(g.dir)
}
