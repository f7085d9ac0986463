package memory

import (
	"bufio"
	"crypto/sha1"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"strconv"
	"strings"
	"time"
)

// hashSize is the size of a hash, in bytes: the repository is made with SHA-1,
// git's default, so that every git can exchange objects with it.
const hashSize = sha1.Size

func isHash(s string) bool {
	_, err := hex.DecodeString(s)
	return err == nil && len(s) == 2*hashSize
}

// maxObject is the largest object that is read, in bytes.
const maxObject = 64 << 20

// maxRestarts is how often git is started again after an object at which it gave up.
const maxRestarts = 200

// Unread is the error if git did not work: it says nothing of the objects.
type Unread struct{ error }

func (u Unread) Unwrap() error { return u.error }

// objects reads objects of one kind and visits them in order. git ends at an object
// whose content git cannot read, so git is started again for the objects after it. If git
// ends without a word, somebody may have killed it, so the object is asked for once more.
func (r *Repository) objects(hashes []string, kind string, visit func(i int, data []byte, err error)) error {
	again := -1 // the object that is asked for once more
	for from, restarts := 0, 0; from < len(hashes); restarts++ {
		if restarts > maxRestarts {
			return fmt.Errorf("%s: more than %d objects are damaged: list them with `git -C %s fsck`", r.path, maxRestarts, r.path)
		}
		read, err := r.batch(hashes[from:], kind, func(i int, data []byte, err error) { visit(from+i, data, err) })
		if from += read; from == len(hashes) {
			break
		}
		switch said := errors.As(err, new(damage)); {
		case errors.As(err, new(Unread)), !said && again == from && from == 0:
			return Unread{err}
		case !said && again != from:
			again = from
		default:
			visit(from, nil, fmt.Errorf("%s %s cannot be read: %w", kind, hashes[from], err))
			from++
		}
	}
	return nil
}

// silence is how long git may take for one object, or for a short command. A test makes
// it shorter.
var silence = time.Minute

// damage is git's message about an object at which git ended.
type damage string

func (d damage) Error() string { return string(d) }

// takeReader gives the git process that reads objects. While that process answers a request,
// a second one answers the next.
func (r *Repository) takeReader() (p *process, err error) {
	r.reading.Lock()
	defer r.reading.Unlock()
	if p, r.reader = r.reader, nil; p != nil {
		return p, nil
	}
	return startProcess(r.command("cat-file", "--batch-command", "--buffer"), nil, r.start)
}

func (r *Repository) returnReader(p *process) {
	r.reading.Lock()
	defer r.reading.Unlock()
	if r.reader != nil {
		r.reader.end()
	}
	r.reader = p
}

// endReader ends the git process that reads objects. After a fetch, that process would still
// know only the packs from before.
func (r *Repository) endReader() { r.returnReader(nil) }

// batch asks a git process for objects, and says how many objects it got. If some are
// missing, the error is about the first that is missing.
func (r *Repository) batch(hashes []string, kind string, visit func(i int, data []byte, err error)) (read int, err error) {
	p, err := r.takeReader()
	if err != nil {
		return 0, Unread{err}
	}
	asked := make(chan struct{})
	go func() { // git answers before it has read all requests
		defer close(asked)
		w := bufio.NewWriter(p.in)
		for _, hash := range hashes {
			fmt.Fprintf(w, "contents %s\n", hash)
		}
		fmt.Fprint(w, "flush\n")
		_ = w.Flush() // fails if git has ended: then answers are missing
	}()
	// git waits for ever if an object's file, or a file that git's configuration names, is a
	// FIFO.
	silent := time.AfterFunc(silence, func() { _ = p.cmd.Process.Kill() })
	h := sha1.New()
	for ; read < len(hashes); read++ {
		data, wrong, failed := object(p.out, h, hashes[read], kind)
		if failed != nil {
			err = failed
			break
		}
		silent.Reset(silence)
		visit(read, data, wrong)
	}
	if read == len(hashes) && silent.Stop() {
		<-asked
		r.returnReader(p)
		return read, nil
	}
	killed := !silent.Stop()
	if !killed {
		_ = p.cmd.Process.Kill() // git's answer cannot be understood
	}
	<-asked
	end := p.end()
	switch {
	case read == len(hashes):
		return read, nil
	case killed:
		return read, damage(fmt.Sprintf("git did not answer for %s: look for a FIFO where the object's file should be", silence))
	}
	if text := strings.TrimSpace(p.said.String()); text != "" {
		return read, damage(strings.ReplaceAll(text, "\n", "; "))
	}
	return read, explain("cat-file", "", errors.Join(err, end))
}

// object reads git's answer about one object. wrong says what is wrong with the object;
// failed says why there is no answer.
func object(in *bufio.Reader, h hash.Hash, name, kind string) (data []byte, wrong, failed error) {
	line, err := in.ReadString('\n')
	if err != nil {
		return nil, nil, err
	}
	w := strings.Fields(line) // HASH KIND SIZE, or HASH "missing"
	if len(w) != 3 {
		return nil, fmt.Errorf("%s %s is missing", kind, name), nil
	}
	size, err := strconv.ParseInt(w[2], 10, 64)
	if err != nil {
		return nil, nil, fmt.Errorf("git cat-file answered %q", line)
	}
	if size > maxObject {
		_, failed = io.CopyN(io.Discard, in, size+1)
		return nil, fmt.Errorf("%s %s has %d bytes, more than the limit of %d", w[1], name, size, maxObject), failed
	}
	data = make([]byte, size+1)
	if _, err := io.ReadFull(in, data); err != nil {
		return nil, nil, err
	}
	data = data[:size]
	if w[1] != kind || objectHash(h, kind, data) != name {
		return nil, fmt.Errorf("%s %s is damaged: its content has another hash", kind, name), nil
	}
	return data, nil, nil
}

// objectHash gives the hash that is the name of an object in git.
func objectHash(h hash.Hash, kind string, data []byte) string {
	h.Reset()
	fmt.Fprintf(h, "%s %d\x00", kind, len(data))
	h.Write(data)
	return hex.EncodeToString(h.Sum(nil))
}
