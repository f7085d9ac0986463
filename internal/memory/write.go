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
	Parent string            // the recipe's commit until now, "" if it has none that is whole
	Old    string            // what the ref must still name; "" if it must not exist
	Broken bool              // the ref names nothing, and is replaced whatever it is
	Files  map[string][]byte // by name
	Author string            // for people: who ran it
	Email  string
	Time   time.Time
	// Message is a line, an empty one, and the rest.
	Message string
}

// ErrMoved says that a recipe's ref does not name the commit any more that the
// entry was made for: another sweep was quicker.
var ErrMoved = errors.New("another sweep wrote meanwhile")

// lockFile is held by each git process that may write, so that a sweep knows when
// those of a killed one are gone.
const lockFile = "writers.lock"

// writer has the git processes that write. Each answers many requests, so that a
// verdict costs no start of a program.
type writer struct {
	r    *Repository
	lock sync.Mutex
	held *os.File
	// wrote says that there is something to pack.
	wrote bool
	dir   string // of the files that are about to be objects
	// The processes, started when they are needed first.
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

// inherited are the files that a git process is given.
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

// end ends the processes. What they answered before is written.
func (w *writer) end() {
	for _, p := range []**process{&w.blobs, &w.trees, &w.commits, &w.refs} {
		if *p != nil {
			(*p).end()
			*p = nil
		}
	}
}

// Commit writes a commit, and makes it the recipe's. When Commit returns, both are
// on the disk, and at the remote, if there is one. The error is ErrMoved if the ref is not
// what the entry says.
func (r *Repository) Commit(e Entry) (commit string, err error) {
	w := r.writer
	w.lock.Lock()
	defer w.lock.Unlock()
	if commit, err = w.write(e); err == nil && r.remote != nil {
		err = r.push(Escape(e.Recipe), commit)
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
	// Not by "git mktree", which does not heed core.fsync (2.39): after a power cut, trees
	// were missing (TestPowerCut).
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

// ident is a name that git takes for an author's.
func ident(s string) string {
	return strings.Map(func(r rune) rune {
		if r == '<' || r == '>' || unicode.IsControl(r) {
			return '_'
		}
		return r
	}, strings.ToValidUTF8(s, "?"))
}

// object writes one object, by a file of which git is told the name.
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

// update makes a commit the recipe's, if the ref is still what it was.
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
	f, err := w.r.dir.Open(state.Memory, strings.Split(strings.TrimSuffix(refs, "/"), "/")...)
	if err != nil {
		return err
	}
	defer f.Close()
	if e.Broken {
		// In one step. If what is there were taken away first, and this process were
		// killed then, an older commit in packed-refs would be the recipe's.
		return f.Put(name, []byte(commit+"\n"), 0o640)
	}
	return f.Sync() // git syncs the files, and not the directory in which the ref was replaced
}

// process is a git that answers requests.
type process struct {
	command string
	in      io.WriteCloser
	out     *bufio.Reader
	said    bytes.Buffer
	wait    func() error
}

// started starts a process if it is not running. It works in the directory of
// the files.
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

// ask sends a request, and gives the last of the lines that are its answer.
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

// end ends the process; it can be called again.
func (p *process) end() (err error) {
	if p.wait != nil {
		_ = p.in.Close()
		_, _ = io.Copy(io.Discard, p.out)
		err = p.wait()
		p.wait = nil
	}
	return err
}
