package memory

import (
	"bytes"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// Remote is a repository that several machines share: its refs are the truth, and
// those of the machine a copy.
type Remote struct {
	URL string // of git-fetch(1): https, ssh, a path
	// Environ are the variables by which git finds its way there, as "NAME=VALUE":
	// HOME for .netrc and ssh's keys, a proxy, CA files.
	Environ []string
}

// ErrUnreachable says that the remote did not answer, or refused.
var ErrUnreachable = errors.New("the shared repository cannot be reached")

// remoteLimit is how long git may take to fetch or to push. A server that accepts a
// connection and says nothing would else hold the sweep for ever.
const remoteLimit = 2 * time.Minute

// Share has the repository be a copy of the remote's refs: [Repository.Fetch] takes
// them over, and [Repository.Commit] pushes a commit before it counts.
func (r *Repository) Share(remote Remote) { r.remote = &remote }

// Fetch takes over the remote's refs: of all recipes, or of those with the names.
// Afterwards [Repository.Shared] knows which the remote has. A ref that it does not have
// stays as it is here.
func (r *Repository) Fetch(names ...string) error { return r.fetch(names) }

// FetchAnew is Fetch of all recipes where some are damaged here: git takes what it has for
// whole, fetches no object twice, and ends at one that it cannot read. So what the damaged
// ones name is removed, and all objects are fetched.
func (r *Repository) FetchAnew(damaged []*Head) error {
	for _, h := range damaged {
		hashes := []string{h.Commit, h.tree}
		for _, f := range h.files {
			hashes = append(hashes, f.hash)
		}
		for _, hash := range hashes {
			if isHash(hash) {
				_ = os.Remove(filepath.Join(r.path, "objects", hash[:2], hash[2:]))
			}
		}
	}
	return r.fetch(nil, "--refetch")
}

func (r *Repository) fetch(names []string, flags ...string) error {
	patterns := []string{refs + "*"}
	if len(names) > 0 {
		patterns = nil
		for _, name := range names {
			patterns = append(patterns, refs+name)
		}
	}
	r.writer.lock.Lock()
	defer r.writer.lock.Unlock()
	list, err := r.reach(slices.Concat([]string{"ls-remote", "--quiet", "--", r.remote.URL}, patterns)...)
	if err != nil {
		return err
	}
	if len(names) == 0 || r.theirs == nil {
		r.theirs = map[string]string{}
	}
	args := slices.Concat([]string{"fetch"}, flags, []string{"--quiet", "--no-tags", "--no-write-fetch-head", "--no-auto-gc", "--refmap=", "--stdin", "--", r.remote.URL})
	var wanted strings.Builder
	for _, name := range names {
		delete(r.theirs, name)
	}
	for line := range strings.Lines(list) {
		hash, ref, _ := strings.Cut(strings.TrimSpace(line), "\t")
		if name, ok := strings.CutPrefix(ref, refs); ok && isHash(hash) && !strings.Contains(name, "/") {
			r.theirs[name] = hash
			fmt.Fprintf(&wanted, "+%s:%[1]s\n", ref)
		}
	}
	if wanted.Len() == 0 {
		return nil
	}
	r.writer.end() // what those processes know of refs and packs is of before
	_, err = r.reachWith(wanted.String(), args...)
	return err
}

// Shared says whether the remote has a recipe's ref, by the ref's name.
func (r *Repository) Shared(name string) bool { return r.remote == nil || r.theirs[name] != "" }

// push gives a commit to the remote, if its ref is still there what it was.
func (r *Repository) push(name, commit string) error {
	ref := refs + name
	_, err := r.reach("push", "--quiet", "--porcelain", "--no-verify", "--force-with-lease="+ref+":"+r.theirs[name], "--", r.remote.URL, commit+":"+ref)
	if err == nil {
		r.theirs[name] = commit
	}
	return err
}

// lost are the words by which git says that another push was quicker.
var lost = []string{"stale info", "[rejected]", "cannot lock ref", "failed to update ref", "reference already exists"}

// reach runs a git command that talks to the remote, and gives what it prints.
func (r *Repository) reach(args ...string) (string, error) { return r.reachWith("", args...) }

func (r *Repository) reachWith(input string, args ...string) (string, error) {
	cmd := r.command(args...)
	cmd.Env = slices.DeleteFunc(cmd.Env, func(kv string) bool {
		return strings.HasPrefix(kv, "GIT_ALLOW_PROTOCOL=") || strings.HasPrefix(kv, "HOME=")
	})
	cmd.Env = append(cmd.Env, r.remote.Environ...)
	cmd.Env = append(cmd.Env, "GIT_ALLOW_PROTOCOL=file:git:http:https:ssh", "GIT_SSH_COMMAND=ssh -oBatchMode=yes", "GIT_ASKPASS=")
	cmd.ExtraFiles = r.writer.inherited()
	cmd.Stdin = strings.NewReader(input)
	var out, said bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &said
	wait, err := r.start(cmd)
	if err == nil {
		timer := time.AfterFunc(remoteLimit, func() { _ = cmd.Process.Kill() })
		if err = wait(); !timer.Stop() && err != nil {
			err = fmt.Errorf("took longer than %s", remoteLimit)
		}
	}
	if err == nil {
		return out.String(), nil
	}
	text := out.String() + said.String()
	if exit := new(exec.ExitError); errors.As(err, &exit) {
		err = explain(args[0], text, err)
	}
	for _, words := range lost {
		if args[0] == "push" && strings.Contains(text, words) {
			return "", fmt.Errorf("%w (%w)", ErrMoved, err)
		}
	}
	return "", fmt.Errorf("%w: %w", ErrUnreachable, err)
}

// keyRef is the commit of the key that all machines have.
const keyRef = "refs/cc-ci/key"

// Key is a key of some size that all machines share: the one of the remote, or a new
// one if there is none.
func (r *Repository) Key(size int) ([]byte, error) {
	w := r.writer
	w.lock.Lock()
	defer w.lock.Unlock()
	for range 3 {
		list, err := r.reach("ls-remote", "--quiet", "--", r.remote.URL, keyRef)
		if err != nil {
			return nil, err
		}
		for line := range strings.Lines(list) { // git also lists refs whose names only end so
			if hash, ref, _ := strings.Cut(strings.TrimSpace(line), "\t"); ref == keyRef && isHash(hash) {
				return r.fetchKey(hash, size)
			}
		}
		key := make([]byte, size)
		_, _ = rand.Read(key) // never fails
		e := Entry{Files: map[string][]byte{"key": key}, Author: "cc-ci-run", Email: "cc-ci-run", Time: time.Now(), Message: "The key by which machines compare what a site gives"}
		commit, err := w.write(e)
		if err != nil {
			w.end()
			return nil, err
		}
		_, err = r.reach("push", "--quiet", "--porcelain", "--no-verify", "--force-with-lease="+keyRef+":", "--", r.remote.URL, commit+":"+keyRef)
		if err == nil {
			return key, nil
		}
		if !errors.Is(err, ErrMoved) {
			return nil, err
		}
	}
	return nil, fmt.Errorf("%w: %s changes again and again", ErrUnreachable, keyRef)
}

func (r *Repository) fetchKey(hash string, size int) (key []byte, err error) {
	if _, err := r.reach("fetch", "--quiet", "--no-tags", "--no-write-fetch-head", "--no-auto-gc", "--refmap=", "--", r.remote.URL, "+"+keyRef+":"+keyRef); err != nil {
		return nil, err
	}
	heads := []*Head{{Name: "key", Commit: hash}}
	if err := r.trees(heads); err != nil {
		return nil, err
	}
	failed := r.Contents(heads, "key", func(_ *Head, data []byte, fault error) {
		if key = data; fault == nil && len(data) != size {
			fault = fmt.Errorf("%s of the shared repository has no key of %d bytes: remove that ref, and all machines' recipes are run once more", keyRef, size)
		}
		err = fault
	})
	if err = errors.Join(failed, err); err != nil {
		return nil, err
	}
	return key, nil
}
