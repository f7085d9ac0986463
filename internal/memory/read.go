package memory

import (
	"bufio"
	"bytes"
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

// objects reads objects of one kind and visits them in order. git ends at an object
// whose content git cannot read, so git is started again for the objects after it.
func (r *Repository) objects(hashes []string, kind string, visit func(i int, data []byte, err error)) error {
	for from, restarts := 0, 0; from < len(hashes); restarts++ {
		if restarts > maxRestarts {
			return fmt.Errorf("%s: more than %d objects are damaged: list them with `git -C %s fsck`", r.path, maxRestarts, r.path)
		}
		read, err := r.batch(hashes[from:], kind, func(i int, data []byte, err error) { visit(from+i, data, err) })
		if err != nil && read == 0 && restarts == 0 && !errors.As(err, new(damage)) {
			return err
		}
		from += read
		if from < len(hashes) {
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

// batch asks one git process for objects, and says how many objects it got. If some are
// missing, the error is about the first that is missing.
func (r *Repository) batch(hashes []string, kind string, visit func(i int, data []byte, err error)) (read int, err error) {
	cmd := r.command("cat-file", "--batch", "--buffer")
	cmd.Stdin = strings.NewReader(strings.Join(hashes, "\n") + "\n")
	var said bytes.Buffer
	cmd.Stderr = &said
	out, err := cmd.StdoutPipe()
	if err != nil {
		return 0, err
	}
	wait, err := r.start(cmd)
	if err != nil {
		return 0, fmt.Errorf("git cat-file: %w", err)
	}
	// A FIFO in the place of an object, or of a file that git's configuration names, holds
	// git for ever.
	silent := time.AfterFunc(silence, func() { _ = cmd.Process.Kill() })
	defer silent.Stop()
	in := bufio.NewReaderSize(out, 64<<10)
	h := sha1.New()
	for ; read < len(hashes); read++ {
		data, wrong, failed := object(in, h, hashes[read], kind)
		if failed != nil {
			err = failed
			break
		}
		silent.Reset(silence)
		visit(read, data, wrong)
	}
	_, _ = io.Copy(io.Discard, in)
	end := wait()
	switch {
	case read == len(hashes):
		return read, nil
	case !silent.Stop():
		return read, damage(fmt.Sprintf("git did not answer for %s: look for a FIFO in its place", silence))
	}
	if text := strings.TrimSpace(said.String()); text != "" {
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

// objectHash is the hash by which git names an object.
func objectHash(h hash.Hash, kind string, data []byte) string {
	h.Reset()
	fmt.Fprintf(h, "%s %d\x00", kind, len(data))
	h.Write(data)
	return hex.EncodeToString(h.Sum(nil))
}
