//go:build environment && e2e

package e2e

import (
	"bytes"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"sync"
	"syscall"
	"testing"
	"time"

	"cc-ci-run/internal/env"
	"cc-ci-run/internal/memory"
	"cc-ci-run/internal/state"
)

// BenchmarkShared is what a shared repository on a real Gitea costs a sweep, by the number of
// recipes that it remembers: to fetch when nothing is new, to push one run, and to push
// runs of 8 machines at once, each to another recipe. The numbers are those of the
// simulation (e2e/bench/nights).
func BenchmarkShared(b *testing.B) {
	gitea := serve(b, withGitea, giteaVariables)
	address, err := url.Parse(env.Lookup(gitea, "GITEA_URL"))
	if err != nil {
		b.Fatal(err)
	}
	user := env.Lookup(gitea, "GITEA_USER")
	address.User = url.UserPassword(user, env.Lookup(gitea, "GITEA_PASSWORD"))
	d := drone{variables: gitea}
	for _, recipes := range []int{60, 1000, 10_000} {
		name := fmt.Sprintf("memory-%d", recipes)
		d.ofGitea(b, "POST", "/user/repos", map[string]any{"name": name, "private": true}, nil)
		remote := memory.Remote{URL: address.JoinPath(user, name+".git").String()}
		fill(b, env.Lookup(gitea, "GITEA_URL"), name, recipes)
		var machines []*memory.Repository
		for range 8 {
			m, err := memory.Create(state.Dir(b.TempDir()), git(b), memory.Plain)
			if err != nil {
				b.Fatal(err)
			}
			b.Cleanup(m.Close)
			m.Share(remote)
			if err := m.Fetch(); err != nil {
				b.Fatal(err)
			}
			machines = append(machines, m)
		}
		push := func(machine, recipe int) {
			m, name := machines[machine], fmt.Sprintf("r%05d", recipe)
			heads, err := m.Heads(name)
			if err != nil || len(heads) != 1 {
				b.Fatal(err, heads)
			}
			e := memory.Entry{Recipe: name, Parent: heads[0].Commit, Old: heads[0].Commit, Author: "a", Email: "a@b", Time: time.Now(), Message: "PROMOTE", Files: map[string][]byte{"state.json": fmt.Append(nil, time.Now())}}
			if _, err := m.Commit(e); err != nil {
				b.Error(err)
			}
		}
		b.Run(fmt.Sprintf("fetch/%d", recipes), func(b *testing.B) {
			for b.Loop() {
				if err := machines[0].Fetch(); err != nil {
					b.Fatal(err)
				}
			}
		})
		b.Run(fmt.Sprintf("push/%d", recipes), func(b *testing.B) {
			for b.Loop() {
				push(0, 0)
			}
		})
		b.Run(fmt.Sprintf("push-by-8-at-once/%d", recipes), func(b *testing.B) {
			for b.Loop() {
				var all sync.WaitGroup
				for machine := range machines {
					all.Go(func() { push(machine, machine+1) })
				}
				all.Wait()
			}
			b.ReportMetric(float64(8*b.N)/b.Elapsed().Seconds(), "pushes/s")
		})
	}
}

// fill makes a memory of many recipes with one run each in a repository of Gitea's: on its
// disk, since Gitea takes minutes to accept a push of 10,000 refs.
func fill(b *testing.B, gitea, name string, recipes int) {
	b.Helper()
	config := regexp.MustCompile(`--config\x00([^\x00]+)`).FindStringSubmatch(read(b, fmt.Sprintf("/proc/%d/cmdline", listener(b, gitea))))
	if config == nil {
		b.Fatal("Gitea's directory is not known: its command line has no --config")
	}
	var dir string
	_ = filepath.WalkDir(filepath.Dir(config[1]), func(path string, _ fs.DirEntry, _ error) error {
		if filepath.Base(path) == name+".git" {
			dir = path
			return fs.SkipAll
		}
		return nil
	})
	info, err := os.Stat(dir)
	if err != nil {
		b.Fatal(err)
	}
	var text bytes.Buffer
	for n := range recipes {
		fmt.Fprintf(&text, "commit refs/cc-ci/sweep/r%05d\ncommitter a <a@b> %d +0000\ndata 7\nPROMOTE\nM 100644 inline state.json\ndata 6\nr%05d\n", n, n, n)
	}
	cmd := exec.CommandContext(interrupted(), git(b), "-c", "safe.directory=*", "--git-dir="+dir, "fast-import", "--quiet")
	cmd.Stdin = &text
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: info.Sys().(*syscall.Stat_t).Uid, Gid: info.Sys().(*syscall.Stat_t).Gid}}
	output(b, cmd)
}
