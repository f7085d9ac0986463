package memory

import (
	"bytes"
	"compress/zlib"
	"crypto/sha1"
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
	"os"
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

// writer writes objects, and has the git process that writes refs. The process answers many
// requests, so that no program has to be started for a verdict.
type writer struct {
	r     *Repository
	lock  sync.Mutex
	held  *os.File
	wrote bool // there is something to pack
	zlib  *zlib.Writer
	refs  *process // started when it is first needed
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
	z, err := zlib.NewWriterLevel(nil, zlib.BestSpeed) // git packs better, later
	return &writer{r: r, held: held, zlib: z}, err
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
}

// end ends the process. Refs that it has confirmed are written.
func (w *writer) end() {
	if w.refs != nil {
		w.refs.end()
		w.refs = nil
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
		w.end() // after a failure, the git process does not answer any more
		return "", err
	}
	w.wrote = true
	return commit, nil
}

// write writes the objects of a commit.
func (w *writer) write(e Entry) (string, error) {
	f, err := w.r.dir.Open(state.Memory, "objects")
	if err != nil {
		return "", err
	}
	defer f.Close()
	var tree bytes.Buffer
	for _, name := range slices.Sorted(maps.Keys(e.Files)) {
		hash, err := w.putObject(f, "blob", e.Files[name])
		if err != nil {
			return "", err
		}
		binary, _ := hex.DecodeString(hash)
		fmt.Fprintf(&tree, "100644 %s\x00%s", name, binary)
	}
	hash, err := w.putObject(f, "tree", tree.Bytes())
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
	commit, err := w.putObject(f, "commit", text.Bytes())
	if err != nil {
		return "", err
	}
	return commit, f.Sync() // the names of the folders objects/XX that putObject made
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

// putObject writes a loose object, synced: deflated in the file objects/XX/…, which has the
// name of the object's hash (gitrepository-layout(5)). A file that is there is replaced,
// since it may be damaged.
func (w *writer) putObject(objects *state.Folder, kind string, data []byte) (hash string, err error) {
	var object bytes.Buffer
	w.zlib.Reset(&object)
	fmt.Fprintf(w.zlib, "%s %d\x00", kind, len(data))
	_, _ = w.zlib.Write(data)
	if err := w.zlib.Close(); err != nil {
		return "", err
	}
	hash = objectHash(sha1.New(), kind, data)
	f, err := objects.Make(hash[:2])
	if err != nil {
		return "", err
	}
	defer f.Close()
	return hash, f.Put(hash[2:], object.Bytes(), 0o440)
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
		if w.refs == nil {
			var err error
			if w.refs, err = startProcess(w.r.command("update-ref", "--stdin"), w.inherited(), w.r.start); err != nil {
				return err
			}
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
