package memory

import (
	"bufio"
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"
	"unicode"

	"cc-ci-run/internal/state"
)

// Entry is a commit to be made.
type Entry struct {
	Recipe string
	Parent string            // the recipe's newest commit until now, "" if there is none or it is damaged
	Old    string            // the commit that the ref must still name; "" if the ref must not exist
	Broken bool              // the ref names no commit, and is replaced whatever its content is
	Files  map[string][]byte // by name
	Author string            // for people: who ran it
	Email  string
	Time   time.Time
	// Message is one line, an empty line, and more text.
	Message string
}

// ErrMoved says that a recipe's ref no longer names the commit on which the entry is
// based: another sweep was quicker.
var ErrMoved = errors.New("another sweep has written the recipe's state meanwhile")

// lockFile is locked by each git process that may write, so that a sweep knows when the
// git processes of a killed sweep are gone.
const lockFile = "writers.lock"

// writer has the git processes that write. Each answers many requests, so that no program
// has to be started for a verdict.
type writer struct {
	r    *Repository
	lock sync.Mutex
	held *os.File
	// wrote says that there is something to pack.
	wrote bool
	dir   string // of files that git is about to make objects of
	// The processes, each started when it is first needed.
	blobs, trees, commits, refs *process
}

func newWriter(r *Repository) (*writer, error) {
	f, err := r.dir.Open(state.Memory)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	held, err := f.LockToHandOn(lockFile)
	if err != nil {
		return nil, err
	}
	return &writer{r: r, held: held}, nil
}

// inherited are the open files that a git process inherits: the lock.
func (w *writer) inherited() []*os.File {
	if w == nil {
		return nil
	}
	return []*os.File{w.held}
}

func (w *writer) close() {
	w.lock.Lock()
	defer w.lock.Unlock()
	w.end()
	_ = w.held.Close()
	if w.dir != "" {
		_ = os.RemoveAll(w.dir)
	}
}

// end ends the processes. Objects and refs that they have confirmed are written.
func (w *writer) end() {
	for _, p := range []**process{&w.blobs, &w.trees, &w.commits, &w.refs} {
		if *p != nil {
			(*p).end()
			*p = nil
		}
	}
}

// Commit writes a commit and puts it into the recipe's ref. When Commit returns, commit
// and ref are on the disk, and at the remote, if there is one. The error is ErrMoved if the
// ref does not name the commit that the entry says.
func (r *Repository) Commit(e Entry) (commit string, err error) {
	w := r.writer
	w.lock.Lock()
	defer w.lock.Unlock()
	if commit, err = w.write(e); err == nil && r.remote != nil {
		name := Escape(e.Recipe)
		if err = r.push(refs+name, r.theirs[name], commit); err == nil {
			r.theirs[name] = commit
		}
	}
	if err == nil {
		err = w.update(e, commit)
	}
	if err != nil {
		w.end() // a process that failed does not answer any more
		return "", err
	}
	w.wrote = true
	return commit, nil
}

// write writes the objects of a commit.
func (w *writer) write(e Entry) (string, error) {
	if w.dir == "" {
		dir, err := os.MkdirTemp(w.r.path, "writing.")
		if err != nil {
			return "", err
		}
		w.dir = dir
	}
	var tree bytes.Buffer
	for _, name := range slices.Sorted(maps.Keys(e.Files)) {
		hash, err := w.object(&w.blobs, "blob", e.Files[name])
		if err != nil {
			return "", err
		}
		binary, err := hex.DecodeString(hash)
		if err != nil {
			return "", fmt.Errorf("git hash-object answered %q", hash)
		}
		fmt.Fprintf(&tree, "100644 %s\x00%s", name, binary)
	}
	// "git mktree" is not used, because it ignores core.fsync (in git 2.39): after a power
	// cut, trees were missing (TestPowerCut).
	hash, err := w.object(&w.trees, "tree", tree.Bytes())
	if err != nil {
		return "", err
	}
	var text bytes.Buffer
	fmt.Fprintf(&text, "tree %s\n", hash)
	if e.Parent != "" {
		fmt.Fprintf(&text, "parent %s\n", e.Parent)
	}
	who := fmt.Sprintf("%s <%s> %d +0000", ident(e.Author), ident(e.Email), e.Time.Unix())
	fmt.Fprintf(&text, "author %s\ncommitter %s\nencoding UTF-8\n\n%s\n", who, who, strings.ToValidUTF8(e.Message, "?"))
	commit, err := w.object(&w.commits, "commit", text.Bytes())
	if err != nil {
		return "", err
	}
	return commit, nil
}

// ident makes a name one that git accepts for an author.
func ident(s string) string {
	return strings.Map(func(r rune) rune {
		if r == '<' || r == '>' || unicode.IsControl(r) {
			return '_'
		}
		return r
	}, strings.ToValidUTF8(s, "?"))
}

// object writes one object: it writes a file, and tells git the file's name.
func (w *writer) object(p **process, kind string, data []byte) (hash string, err error) {
	if err := os.WriteFile(filepath.Join(w.dir, kind), data, 0o600); err != nil {
		return "", err
	}
	if err := w.started(p, "hash-object", "-w", "--no-filters", "-t", kind, "--stdin-paths"); err != nil {
		return "", err
	}
	return (*p).ask(kind+"\n", 1)
}

// none is the value of a ref that does not exist.
var none = strings.Repeat("0", 2*hashSize)

// update puts a commit into the recipe's ref, if the ref still names the old commit.
func (w *writer) update(e Entry, commit string) error {
	old := e.Old
	if old == "" {
		old = none
	}
	name := Escape(e.Recipe)
	if !e.Broken {
		if err := w.started(&w.refs, "update-ref", "--stdin"); err != nil {
			return err
		}
		_, err := w.refs.ask(fmt.Sprintf("start\nupdate %s%s %s %s\nprepare\ncommit\n", refs, name, commit, old), 3)
		if err != nil {
			now, failed := w.r.readRefs([]string{name})
			if failed == nil && (len(now) == 0 && e.Old != "" || len(now) > 0 && now[0].Commit != e.Old) {
				return fmt.Errorf("%w (%w)", ErrMoved, err)
			}
			return err
		}
	}
	f, err := w.r.refsFolder()
	if err != nil {
		return err
	}
	defer f.Close()
	if e.Broken {
		// In one step. If the broken ref were removed first, and this process were killed
		// then, the recipe would have an older commit of packed-refs.
		return f.Put(name, []byte(commit+"\n"), 0o640)
	}
	return f.Sync() // git syncs the file, but not the directory in which it replaced the ref
}

// process is a git that answers requests.
type process struct {
	command string
	in      io.WriteCloser
	out     *bufio.Reader
	said    bytes.Buffer
	wait    func() error
}

// started starts a process if it is not running. The process works in the writer's
// directory.
func (w *writer) started(p **process, command string, args ...string) error {
	if *p != nil {
		return nil
	}
	cmd := w.r.command(append([]string{command}, args...)...)
	cmd.Dir, cmd.ExtraFiles = w.dir, w.inherited()
	next, err := startProcess(cmd, command, w.r.start)
	if err == nil {
		*p = next
	}
	return err
}

func startProcess(cmd *exec.Cmd, command string, start Start) (p *process, err error) {
	p = &process{command: command}
	cmd.Stderr = &p.said
	if p.in, err = cmd.StdinPipe(); err != nil {
		return nil, err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	p.out = bufio.NewReader(out)
	if p.wait, err = start(cmd); err != nil {
		return nil, fmt.Errorf("git %s: %w", command, err)
	}
	return p, nil
}

// ask sends a request, and gives the last line of the answer.
func (p *process) ask(request string, lines int) (answer string, err error) {
	_, err = io.WriteString(p.in, request)
	for ; lines > 0 && err == nil; lines-- {
		answer, err = p.out.ReadString('\n')
	}
	if err == nil {
		return strings.TrimSuffix(answer, "\n"), nil
	}
	if end := p.end(); end != nil {
		err = end
	}
	return "", explain(p.command, p.said.String(), err)
}

// end ends the process. It may be called more than once.
func (p *process) end() (err error) {
	if p.wait != nil {
		_ = p.in.Close()
		_, _ = io.Copy(io.Discard, p.out)
		err = p.wait()
		p.wait = nil
	}
	return err
}
