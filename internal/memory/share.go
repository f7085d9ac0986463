package memory

import (
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// Remote is a repository that several machines share. Its refs count; the refs of each
// machine are a copy.
type Remote struct {
	URL string // as in git-fetch(1): https, ssh, a path
	// Environ are the variables that git needs to reach the URL, as "NAME=VALUE": HOME for
	// .netrc and ssh's keys, a proxy, CA files.
	Environ []string
}

// ErrUnreachable says that the remote did not answer, or refused.
var ErrUnreachable = errors.New("the shared repository cannot be reached")

// remoteLimit is how long git may take to fetch or to push. Without the limit, a server
// that accepts a connection and then sends nothing would stop the sweep.
const remoteLimit = 2 * time.Minute

// Share makes the repository a copy of the remote's refs: [Repository.Fetch] takes them
// over, and [Repository.Commit] pushes a commit before the commit counts.
func (r *Repository) Share(remote Remote) { r.remote = &remote }

// Fetch takes over the remote's refs: all, or those with the given names. Afterwards
// [Repository.Shared] knows which refs the remote has. A ref that the remote does not
// have stays as it is here.
func (r *Repository) Fetch(names ...string) error { return r.fetch(names) }

// FetchAnew is Fetch of all refs when some recipes' objects are damaged here. git would not
// fetch an object that is there, though it is damaged. So the objects that the damaged heads
// name are removed, and git fetches all objects.
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
	// Without the lock: if the server hangs, callers wait for it at once, not one after the other.
	list, err := r.list(patterns...)
	if err != nil {
		return err
	}
	r.writer.lock.Lock()
	defer r.writer.lock.Unlock()
	if len(names) == 0 || r.theirs == nil {
		r.theirs = map[string]string{}
	}
	for _, name := range names {
		delete(r.theirs, name)
	}
	heads, err := r.readRefs(names)
	if err != nil {
		return err
	}
	ours := map[string]string{}
	for _, h := range heads {
		ours[h.Name] = h.Commit
	}
	var wanted []string
	for ref, hash := range list {
		name, ok := strings.CutPrefix(ref, refs)
		if !ok || strings.Contains(name, "/") {
			continue
		}
		r.theirs[name] = hash
		if ours[name] != hash || len(flags) > 0 {
			wanted = append(wanted, fmt.Sprintf("+%s:%[1]s\n", ref))
		}
	}
	if len(wanted) == 0 {
		return nil
	}
	r.writer.end() // it knows only the refs from before the fetch
	defer r.endReader()
	for some := range slices.Chunk(wanted, refsAtOnce) {
		if err := r.get(strings.Join(some, ""), flags...); err != nil {
			return err
		}
	}
	return nil
}

// refsAtOnce is how many refs one "git fetch" is asked for. git compares each with all
// others: 10,000 at once take 36 s, in parts of 500 they take 4 s.
const refsAtOnce = 500

// list gives the hashes of the remote's refs, by their names.
func (r *Repository) list(patterns ...string) (map[string]string, error) {
	text, err := r.reach("", slices.Concat([]string{"ls-remote", "--quiet", "--", r.remote.address()}, patterns)...)
	if err != nil {
		return nil, err
	}
	list := map[string]string{}
	for line := range strings.Lines(text) {
		if hash, ref, _ := strings.Cut(strings.TrimSpace(line), "\t"); isHash(hash) {
			list[ref] = hash
		}
	}
	return list, nil
}

// get fetches refs: a refspec in each line.
func (r *Repository) get(refspecs string, flags ...string) error {
	_, err := r.reach(refspecs, slices.Concat([]string{"fetch"}, flags, []string{"--quiet", "--no-tags", "--no-write-fetch-head", "--no-auto-gc", "--refmap=", "--stdin", "--", r.remote.address()})...)
	return err
}

// Shared says whether the remote has a recipe's ref, by the ref's name.
func (r *Repository) Shared(name string) bool {
	if r.remote == nil {
		return true
	}
	r.writer.lock.Lock()
	defer r.writer.lock.Unlock()
	return r.theirs[name] != ""
}

// push puts a commit into a ref of the remote, if that still has the old hash; "" if the ref
// must not exist.
func (r *Repository) push(ref, old, commit string) error {
	_, err := r.reach("", "push", "--quiet", "--porcelain", "--no-verify", "--force-with-lease="+ref+":"+old, "--", r.remote.address(), commit+":"+ref)
	return err
}

// lost are words in git's messages that mean that another push was quicker.
var lost = []string{"stale info", "[rejected]", "cannot lock ref", "failed to update ref", "reference already exists"}

// reach runs a git command that talks to the remote, and gives the command's output.
func (r *Repository) reach(input string, args ...string) (string, error) {
	var settings []string
	if args[0] == "fetch" {
		// Not synced, because 10,000 synced refs take minutes. What a power cut damages is
		// fetched anew ([Repository.FetchAnew]).
		settings = []string{"-c", "core.fsync=none"}
	}
	cmd := r.command(append(settings, args...)...)
	cmd.Env = slices.DeleteFunc(cmd.Env, func(kv string) bool {
		return strings.HasPrefix(kv, "GIT_ALLOW_PROTOCOL=") || strings.HasPrefix(kv, "HOME=")
	})
	cmd.Env = append(cmd.Env, r.remote.Environ...)
	cmd.Env = append(cmd.Env, r.remote.authorization()...)
	cmd.Env = append(cmd.Env, "GIT_ALLOW_PROTOCOL=file:git:http:https:ssh", "GIT_SSH_COMMAND=ssh -oBatchMode=yes", "GIT_ASKPASS=")
	cmd.Stdin = strings.NewReader(input)
	out, said, err := r.finish(cmd, remoteLimit)
	if err == nil {
		return out, nil
	}
	out, said = r.remote.hide(out), r.remote.hide(said)
	if exit := new(exec.ExitError); errors.As(err, &exit) {
		err = explain(args[0], out+said, err)
	}
	for _, words := range lost {
		if args[0] == "push" && strings.Contains(out+said, words) {
			return "", fmt.Errorf("%w (%w)", ErrMoved, err)
		}
	}
	return "", fmt.Errorf("%w: %w", ErrUnreachable, err)
}

// Check says why the URL cannot be used. The error does not quote the URL, which may have a
// password.
func (r Remote) Check() error {
	if _, err := url.Parse(r.URL); err != nil && strings.Contains(r.URL, "://") {
		return errors.New("the URL of the shared repository cannot be read: write special characters in its user and password as %XX")
	}
	return nil
}

// login gives the parsed URL and its password. ok is false if the URL is not http(s), or has
// no password.
func (r Remote) login() (u *url.URL, password string, ok bool) {
	u, err := url.Parse(r.URL)
	if err != nil || u.Scheme != "https" && u.Scheme != "http" {
		return nil, "", false
	}
	password, ok = u.User.Password()
	return u, password, ok
}

// address is the URL without its user and password. Every user of the machine can read git's
// arguments, and the URL is one of them. git gets the password by authorization.
func (r Remote) address() string {
	u, _, ok := r.login()
	if !ok {
		return r.URL
	}
	u.User = nil
	return u.String()
}

// authorization gives the variables that make git send the user and the password in a header. Only
// git's own user can read a process's variables. git would also send the header to a server
// to which it is redirected, so the variables forbid redirects.
func (r Remote) authorization() []string {
	u, password, ok := r.login()
	if !ok {
		return nil
	}
	basic := base64.StdEncoding.EncodeToString([]byte(u.User.Username() + ":" + password))
	return []string{
		"GIT_CONFIG_COUNT=2",
		"GIT_CONFIG_KEY_0=http.extraHeader", "GIT_CONFIG_VALUE_0=Authorization: Basic " + basic,
		"GIT_CONFIG_KEY_1=http.followRedirects", "GIT_CONFIG_VALUE_1=false",
	}
}

// Secrets are the parts of the URL that may be secret, each as the URL has it and with its
// %XX decoded, as git and servers show it.
func (r Remote) Secrets() (list []string) {
	_, rest, ok := strings.Cut(r.URL, "://")
	if !ok {
		return nil
	}
	authority := rest
	if i := strings.IndexAny(rest, "/?#"); i >= 0 {
		authority = rest[:i]
	}
	if _, query, ok := strings.Cut(r.URL, "?"); ok {
		list = append(list, query)
	}
	at := strings.LastIndexByte(authority, '@')
	if at < 0 {
		return list
	}
	user, password, colon := strings.Cut(authority[:at], ":")
	add := func(secret, end string) {
		list = append(list, secret+end)
		if decoded, err := url.PathUnescape(secret); err == nil {
			list = append(list, decoded+end)
		}
	}
	if password != "" {
		add(password, "")
	}
	// A token may be the user (at GitHub, with this word as the password), whom git names.
	if http := strings.HasPrefix(r.URL, "http"); http && (password == "" || password == "x-oauth-basic") {
		add(user, "@")
		if colon {
			add(user, ":")
		}
	}
	return list
}

// hide removes from git's messages what of the URL may be secret: git itself leaves out the
// password, but not a query.
func (r Remote) hide(text string) string {
	for _, secret := range r.Secrets() {
		text = strings.ReplaceAll(text, secret, "…")
	}
	return text
}

// keyRef is the ref of the commit that has the key of all machines.
const keyRef = "refs/cc-ci/key"

// Key gives the key that all machines share, of a size in bytes. If the remote has no key,
// Key makes a new one and pushes it.
func (r *Repository) Key(size int) ([]byte, error) {
	w := r.writer
	w.lock.Lock()
	defer w.lock.Unlock()
	for range 3 {
		list, err := r.list(keyRef)
		if err != nil {
			return nil, err
		}
		if hash := list[keyRef]; hash != "" { // git also lists refs whose names only end so
			return r.fetchKey(hash, size)
		}
		key := make([]byte, size)
		_, _ = rand.Read(key) // never fails
		e := Entry{Files: map[string][]byte{"key": key}, Author: "cc-ci-run", Email: "cc-ci-run", Time: time.Now(), Message: "The key with which machines hash the site's values"}
		commit, err := w.write(e)
		if err != nil {
			w.end()
			return nil, err
		}
		if err = r.push(keyRef, "", commit); err == nil {
			return key, nil
		}
		if !errors.Is(err, ErrMoved) {
			return nil, err
		}
	}
	return nil, fmt.Errorf("%w: another machine changed %s at each of three attempts", ErrUnreachable, keyRef)
}

func (r *Repository) fetchKey(hash string, size int) (key []byte, err error) {
	if err := r.get("+" + keyRef + ":" + keyRef + "\n"); err != nil {
		return nil, err
	}
	heads := []*Head{{Name: "key", Commit: hash}}
	if err := r.trees(heads); err != nil {
		return nil, err
	}
	failed := r.Contents(heads, "key", func(_ *Head, data []byte, fault error) {
		if key = data; fault == nil && len(data) != size {
			fault = fmt.Errorf("%s in the shared repository has no key of %d bytes: remove this ref; the next sweep of each machine then runs all recipes once more", keyRef, size)
		}
		err = fault
	})
	if err = errors.Join(failed, err); err != nil {
		return nil, err
	}
	return key, nil
}
