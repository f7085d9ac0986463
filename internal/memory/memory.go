// Package memory is the git repository in which sweeps remember their runs:
// STATE/sweep.git, bare, with a ref for each recipe and a commit for each run.
//
//	r, err := memory.Open(dir, git, start)
//	heads, err := r.Heads()                         // of all recipes, a few requests for each
//	r.Contents(heads, "state.json", func(h *Head, data []byte, err error) { … })
//	commit, err := r.Commit(memory.Entry{Recipe: "gitea", Parent: heads[0].Commit, …})
//
// So git keeps a recipe's history with its authors, guards its integrity, and replaces a
// state only if nobody else did so first (update-ref NEW OLD). Anybody can read along:
// git -C STATE/sweep.git log refs/cc-ci/sweep/gitea.
//
// The package knows nothing of verdicts: package sweep decides what the files of a
// commit say. The package believes an object only if its content has the hash that the
// ref, the commit or the tree names. Damage is an error of the recipe to which the
// damaged object belongs ([Head].Err), never of other recipes.
//
// git itself reads objects and writes refs, in processes that answer many requests. This
// package reads the refs (gitrepository-layout(5)), because git would follow a link, or
// wait for a FIFO, among them. It also writes the objects, as loose ones, each in one file:
// git would take longer, and would keep a damaged file (docs/decisions/0005).
package memory

import (
	"bytes"
	"crypto/sha1"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"cc-ci-run/internal/state"
)

// Start starts a command; wait waits for the command's end. A sweep has to know all of
// its children, so the sweep gives the function that starts them.
type Start func(cmd *exec.Cmd) (wait func() error, err error)

// Plain is the Start of a process that may have any children.
func Plain(cmd *exec.Cmd) (wait func() error, err error) { return cmd.Wait, cmd.Start() }

// Repository is the memory of a state directory. Its methods can be called by
// several goroutines at once.
type Repository struct {
	dir    state.Dir
	path   string
	git    string
	start  Start
	writer *writer           // nil: open for reading
	remote *Remote           // nil: no other machine shares the memory
	theirs map[string]string // the commits of the remote's refs, by the refs' names

	reading sync.Mutex
	reader  *process // nil: not started, or at work

	// Notes names the damaged files that were set aside and that belong to no single
	// recipe.
	Notes []string
}

// refs is where the refs of recipes are.
const refs = "refs/cc-ci/sweep/"

// refsFolder opens the directory of the refs that have files of their own.
func (r *Repository) refsFolder() (*state.Folder, error) {
	return r.dir.Open(state.Memory, strings.Split(strings.TrimSuffix(refs, "/"), "/")...)
}

// ErrNone says that there is no memory yet.
var ErrNone = errors.New("nothing is remembered yet")

// Open opens the memory for reading. git is the path of git. The error is ErrNone if no
// sweep has made a memory.
func Open(dir state.Dir, git string, start Start) (*Repository, error) {
	r, err := repository(dir, git, start)
	if err != nil {
		return nil, err
	}
	f, err := dir.Open(state.Memory)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, ErrNone
	}
	if err != nil {
		return nil, err
	}
	defer f.Close()
	for _, name := range files {
		// git would follow a link, and wait for a FIFO.
		if _, err := f.Owner(name); errors.Is(err, fs.ErrNotExist) {
			return nil, ErrNone
		} else if err != nil {
			return nil, err
		}
	}
	if git == "" {
		return nil, errNoGit
	}
	return r, nil
}

// repository is that of a state directory. git is started in other directories, so its
// path is absolute.
func repository(dir state.Dir, git string, start Start) (*Repository, error) {
	path, err := filepath.Abs(dir.Path(state.Memory, ""))
	return &Repository{dir: dir, path: path, git: git, start: start}, err
}

// files are the files without which a directory is not a repository.
var files = []string{"HEAD", "config"}

var errNoGit = errors.New("the toolset has no git, which a sweep needs to remember its runs: add git to toolset.toml")

// Head is the newest commit of a recipe.
type Head struct {
	Name   string // of the ref: the recipe's, as Escape gives it
	Commit string // its hash; "" if not even that can be read
	Err    error  // why the recipe has no memory
	tree   string
	files  []file
}

// file is an entry of a commit's tree.
type file struct{ name, hash string }

// Heads gives the newest commits of all recipes, sorted by name, or of the refs with the
// given names.
func (r *Repository) Heads(names ...string) ([]*Head, error) {
	heads, err := r.readRefs(names)
	if err != nil {
		return nil, err
	}
	return heads, r.trees(heads)
}

// trees reads the trees of the heads' commits.
func (r *Repository) trees(heads []*Head) error {
	err := r.follow(heads, func(h *Head) string { return h.Commit }, "commit", func(h *Head, data []byte) error {
		line, _, _ := bytes.Cut(data, []byte("\n"))
		hash, ok := bytes.CutPrefix(line, []byte("tree "))
		if h.tree = string(hash); !ok || !isHash(h.tree) {
			return errors.New("names no tree")
		}
		return nil
	})
	if err == nil {
		err = r.follow(heads, func(h *Head) string { return h.tree }, "tree", func(h *Head, data []byte) (err error) {
			h.files, err = parseTree(data)
			return err
		})
	}
	return err
}

// follow reads an object of each head that has no fault yet.
func (r *Repository) follow(heads []*Head, hashOf func(*Head) string, kind string, use func(*Head, []byte) error) error {
	var good []*Head
	var hashes []string
	for _, h := range heads {
		if h.Err == nil {
			good, hashes = append(good, h), append(hashes, hashOf(h))
		}
	}
	return r.objects(hashes, kind, func(i int, data []byte, err error) {
		if err == nil {
			if err = use(good[i], data); err != nil {
				err = fmt.Errorf("%s %s %w", kind, hashes[i], err)
			}
		}
		good[i].Err = err
	})
}

// parseTree reads a tree: "MODE NAME\0" and a binary hash, for each entry.
func parseTree(data []byte) (list []file, err error) {
	for len(data) > 0 {
		mode, rest, ok := bytes.Cut(data, []byte(" "))
		name, rest, ok2 := bytes.Cut(rest, []byte("\x00"))
		if !ok || !ok2 || len(rest) < hashSize {
			return nil, errors.New("ends in the middle")
		}
		if strings.HasPrefix(string(mode), "100") {
			list = append(list, file{string(name), fmt.Sprintf("%x", rest[:hashSize])})
		}
		data = rest[hashSize:]
	}
	return list, nil
}

// Hash is the hash of one of a head's files, "" if the commit has none of that name.
func (h *Head) Hash(name string) string {
	if i := slices.IndexFunc(h.files, func(f file) bool { return f.name == name }); i >= 0 {
		return h.files[i].hash
	}
	return ""
}

// Contents visits one file of each head, in order. For a head with a fault, err is the
// fault; for a commit without the file, data is nil.
func (r *Repository) Contents(heads []*Head, name string, visit func(h *Head, data []byte, err error)) error {
	// Heads that need no request are visited in their order, too.
	var hashes []string
	for _, h := range heads {
		if hash := h.Hash(name); h.Err == nil && hash != "" {
			hashes = append(hashes, hash)
		}
	}
	next := 0
	pass := func() {
		for ; next < len(heads) && (heads[next].Err != nil || heads[next].Hash(name) == ""); next++ {
			visit(heads[next], nil, heads[next].Err)
		}
	}
	err := r.objects(hashes, "blob", func(_ int, data []byte, err error) {
		pass()
		visit(heads[next], data, err)
		next++
	})
	pass()
	return err
}

// Blobs reads the contents of files by their hashes, in order.
func (r *Repository) Blobs(hashes []string, visit func(i int, data []byte, err error)) error {
	return r.objects(hashes, "blob", visit)
}

// Blob is the content of one file.
func (r *Repository) Blob(hash string) (data []byte, err error) {
	failed := r.objects([]string{hash}, "blob", func(_ int, d []byte, e error) { data, err = d, e })
	return data, errors.Join(failed, err)
}

// readRefs reads the refs: those in files of their own, and those that "git pack-refs"
// has put into one file. If a ref is in both, its own file is newer. The single files are
// read first, because git removes them only after it has written the common file.
func (r *Repository) readRefs(names []string) ([]*Head, error) {
	all := map[string]*Head{}
	f, err := r.refsFolder()
	if err == nil {
		defer f.Close()
		list := names
		if len(list) == 0 {
			list, err = f.Names("")
		}
		for _, name := range list {
			if h := looseRef(f, name); h != nil {
				all[name] = h
			}
		}
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	packed, err := r.dir.Read(state.Memory, packedRefs)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	for line := range bytes.Lines(packed) {
		hash, ref, _ := bytes.Cut(bytes.TrimSuffix(line, []byte("\n")), []byte(" "))
		name, ok := strings.CutPrefix(string(ref), refs)
		if !ok || all[name] != nil || len(names) > 0 && !slices.Contains(names, name) {
			continue
		}
		h := &Head{Name: name, Commit: string(hash)}
		if !isHash(h.Commit) || !bytes.HasSuffix(line, []byte("\n")) {
			h.Commit, h.Err = "", &state.Fault{Path: r.dir.Path(state.Memory, packedRefs), Is: "is damaged at " + refs + name, Fix: "the next sweep runs the recipe again"}
		}
		all[name] = h
	}
	heads := slices.SortedFunc(maps.Values(all), func(a, b *Head) int { return strings.Compare(a.Name, b.Name) })
	return heads, nil
}

const packedRefs = "packed-refs"

// looseRef reads a ref in a file of its own; nil if there is none.
func looseRef(f *state.Folder, name string) *Head {
	if strings.HasSuffix(name, ".lock") {
		return nil // being written
	}
	h := &Head{Name: name}
	data, _, err := f.Read(name)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		h.Err = err
	default:
		h.Commit = strings.TrimSuffix(string(data), "\n")
		if !isHash(h.Commit) {
			h.Commit, h.Err = "", &state.Fault{Path: f.Path(name), Is: "is damaged, because it names no commit", Fix: "the next sweep runs the recipe again"}
		}
	}
	return h
}

// fsynced are the files that git syncs to the disk before it goes on (git-config(1),
// core.fsync).
const fsynced = "loose-object,pack,pack-metadata,reference"

// command is a git command in the repository. Only the repository's own configuration
// counts, without the settings that start programs or reach other hosts, because root may
// read a repository that another user writes.
func (r *Repository) command(args ...string) *exec.Cmd {
	cmd := exec.Command(r.git, append([]string{
		"--git-dir=" + r.path, "--no-replace-objects",
		"-c", "core.fsync=" + fsynced,
		"-c", "core.hooksPath=/dev/null", "-c", "core.fsmonitor=false",
		"-c", "gc.autoDetach=false", "-c", "gc.auto=2000", "-c", "maintenance.auto=false",
	}, args...)...)
	cmd.Env = []string{
		"GIT_CONFIG_NOSYSTEM=1", "GIT_CONFIG_GLOBAL=/dev/null", "GIT_ATTR_NOSYSTEM=1", "HOME=/nonexistent", "XDG_CONFIG_HOME=/nonexistent",
		"GIT_NO_LAZY_FETCH=1", "GIT_ALLOW_PROTOCOL=", "GIT_TERMINAL_PROMPT=0", "GIT_DEFAULT_REF_FORMAT=files", "LC_ALL=C",
	}
	cmd.Dir = r.path
	// A group of its own: Ctrl-C at a terminal is for the sweep alone, which then
	// still writes what it knows.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	return cmd
}

// run runs a git command. Each but "gc" is short, unless a FIFO holds it.
func (r *Repository) run(args ...string) error {
	limit := silence
	if args[0] == "gc" {
		limit = 0
	}
	_, said, err := r.finish(r.command(args...), limit)
	return explain(args[0], said, err)
}

// finish runs a git command that may write, and gives what the command printed to stdout and
// to stderr. A command that takes longer than the limit, if there is one, is killed.
func (r *Repository) finish(cmd *exec.Cmd, limit time.Duration) (out, said string, err error) {
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	cmd.ExtraFiles = r.writer.inherited()
	wait, err := r.start(cmd)
	if err != nil {
		return "", "", err
	}
	if limit == 0 {
		err = wait()
	} else {
		timer := time.AfterFunc(limit, func() { _ = cmd.Process.Kill() })
		if err = wait(); !timer.Stop() && err != nil {
			err = fmt.Errorf("took longer than %s", limit)
		}
	}
	return stdout.String(), stderr.String(), err
}

// explain adds to the error of a git command what git said.
func explain(command, said string, err error) error {
	if err == nil {
		return nil
	}
	if said = strings.Join(strings.FieldsFunc(said, func(r rune) bool { return r == '\n' }), "; "); said != "" {
		return fmt.Errorf("git %s: %s", command, said)
	}
	return fmt.Errorf("git %s: %w", command, err)
}

// Create opens the memory for writing, and makes it if it does not exist. Only the holder
// of the sweep's lock may call Create. It waits for the git processes of a killed sweep.
func Create(dir state.Dir, git string, start Start) (*Repository, error) {
	if git == "" {
		return nil, errNoGit
	}
	if err := dir.Make(state.Memory); err != nil {
		return nil, err
	}
	r, err := repository(dir, git, start)
	if err != nil {
		return nil, err
	}
	if r.writer, err = newWriter(r); err != nil {
		return nil, err
	}
	if err = r.prepare(); err != nil {
		r.Close()
		return nil, err
	}
	return r, nil
}

// prepare makes the directory a repository if it is not a whole one. It removes what a
// killed git left there, and sets aside files that git cannot read.
func (r *Repository) prepare() error {
	r.unlock()
	if err := r.repairPacked(); err != nil {
		return err
	}
	whole, err := r.whole()
	if err == nil && !whole {
		err = r.init()
	}
	if err != nil {
		return err
	}
	// git removes the directory when all of its refs are packed.
	f, err := r.dir.Open(state.Memory, "refs")
	for _, name := range strings.Split(strings.Trim(strings.TrimPrefix(refs, "refs"), "/"), "/") {
		if err != nil {
			return err
		}
		below, failed := f.Make(name)
		f.Close()
		f, err = below, failed
	}
	if err == nil {
		f.Close()
	}
	return err
}

// whole says whether git accepts the directory as a repository. It sets aside files that
// git cannot use.
func (r *Repository) whole() (whole bool, err error) {
	f, err := r.dir.Open(state.Memory)
	if err != nil {
		return false, err
	}
	defer f.Close()
	whole = true
	check := func(name string, fault error) {
		if fault != nil {
			whole = false
			err = errors.Join(err, r.setAside(name, fault.Error()))
		}
	}
	for _, name := range files {
		_, fault := f.Owner(name)
		check(name, fault)
	}
	for _, name := range []string{"objects", "refs"} {
		below, fault := f.Folder(name)
		if fault == nil {
			below.Close()
		}
		check(name, fault)
	}
	if whole {
		if fault := r.run("rev-parse", "--git-dir"); fault != nil {
			for _, name := range files {
				check(name, fault)
			}
		}
	}
	return whole, err
}

// mode is that of the files, whatever the umask: those whom the directory lets in may read.
const mode = "0640"

func (r *Repository) init() error {
	info, err := os.Stat(r.path)
	if err == nil {
		err = r.run("init", "--quiet", "--bare", "--template=", "--object-format=sha1", "--initial-branch=main", "--shared="+mode)
	}
	if err == nil { // git gives the directory the set-group-ID bit, by which a state directory is shared
		err = os.Chmod(r.path, info.Mode())
	}
	for _, kv := range [][2]string{{"core.logAllRefUpdates", "false"}, {"core.fsync", fsynced}} {
		if err == nil {
			err = r.run("config", kv[0], kv[1])
		}
	}
	if err != nil {
		return err
	}
	// git init syncs none of its files. With a HEAD that is empty after a crash, what is
	// written next would be lost.
	f, err := r.dir.Open(state.Memory)
	if err != nil {
		return err
	}
	defer f.Close()
	return f.SyncAll()
}

// setAside moves a file of the repository to the place for damaged files.
func (r *Repository) setAside(name, why string) error {
	f, err := r.dir.Open(state.Memory)
	if err != nil {
		return err
	}
	defer f.Close()
	aside, err := f.MoveAside(name, r.dir, state.Recipes)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err == nil {
		r.Notes = append(r.Notes, fmt.Sprintf("%s was damaged (%s) and was moved to %s", f.Path(name), why, aside))
	}
	return err
}

// repairPacked leaves only the lines of packed-refs that name a commit, in their order:
// git works with no ref if one line is damaged, and does not find each if a name is, since
// it searches a sorted file.
func (r *Repository) repairPacked() error {
	data, err := r.dir.Read(state.Memory, packedRefs)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil && !state.Damaged(err) {
		return err
	}
	const head = "# pack-refs with: peeled fully-peeled sorted \n"
	good := map[string]string{} // lines, by the names of refs
	damaged := 0
	last := ""
	for line := range bytes.Lines(data) {
		hash, ref, ok := strings.Cut(string(line), " ")
		name, ours := strings.CutPrefix(strings.TrimSuffix(ref, "\n"), "refs/")
		peeled := strings.HasPrefix(hash, "^") && isHash(strings.TrimSpace(hash[1:]))
		switch whole := strings.HasSuffix(ref, "\n"); {
		case peeled, ok && whole && strings.HasPrefix(hash, "#"):
		case !ok || !whole || !isHash(hash) || !ours || !fs.ValidPath(name) || good[name] != "":
			damaged++
		default:
			if name < last {
				damaged++
			}
			good[name], last = string(line), name
		}
	}
	if err == nil && damaged == 0 {
		return nil
	}
	if err := r.setAside(packedRefs, fmt.Sprintf("%d of its lines name no commit, or are not in order", damaged)); err != nil {
		return err
	}
	text := head
	for _, name := range slices.Sorted(maps.Keys(good)) {
		text += good[name]
	}
	return r.dir.PutSynced(state.Memory, packedRefs, []byte(text), 0o640)
}

// unlock removes the lock files of a git that was killed: no git runs in the repository
// now.
func (r *Repository) unlock() {
	for _, pattern := range []string{"*.lock", refs + "*.lock", refs + ".*", "refs/cc-ci/*.lock", packedRefs + ".new", "gc.pid", "objects/.*", "objects/??/.*"} {
		// filepath.Glob would take the path's own characters for a pattern.
		list, _ := fs.Glob(os.DirFS(r.path), pattern)
		for _, name := range list {
			if name != lockFile {
				_ = os.RemoveAll(filepath.Join(r.path, name))
			}
		}
	}
}

// Close ends git's processes. A nil Repository has none.
func (r *Repository) Close() {
	if r == nil {
		return
	}
	r.endReader()
	if r.writer != nil {
		r.writer.close()
	}
}

// Maintain packs refs and, from time to time, objects, if something was written. A sweep
// calls Maintain at its end.
func (r *Repository) Maintain() error {
	if !r.writer.wrote {
		return nil
	}
	if err := r.run("pack-refs", "--all"); err != nil {
		return err
	}
	return r.run("gc", "--auto", "--quiet")
}

// NewHead is the head of a commit that was just made.
func NewHead(name, commit string, files map[string][]byte) *Head {
	h := &Head{Name: name, Commit: commit}
	for name, data := range files {
		h.files = append(h.files, file{name, HashOf(data)})
	}
	return h
}

// HashOf is the hash of a file's content.
func HashOf(data []byte) string { return objectHash(sha1.New(), "blob", data) }
