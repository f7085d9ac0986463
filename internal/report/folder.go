package report

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// folder is the directory of a report, locked. What is in it is reached by the opened
// directory, so that nobody puts another in its place meanwhile.
type folder struct {
	root *os.Root
	lock *os.File

	mutex  sync.Mutex
	wanted map[string]bool // pages that the report has
}

// unfinished is how the name of a page begins that is being written.
const unfinished = ".report-"

// openFolder makes a directory if need be, and waits for another report that is
// being written there.
func openFolder(ctx context.Context, dir string) (*folder, error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, notDirectory(dir, err)
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, notDirectory(dir, err)
	}
	f := &folder{root: root, wanted: map[string]bool{}}
	if f.lock, err = root.Open("."); err == nil {
		err = f.wait(ctx)
	}
	if err != nil {
		f.close()
		return nil, err
	}
	names, err := f.names()
	if err != nil {
		f.close()
		return nil, err
	}
	for _, name := range names {
		if strings.HasPrefix(name, unfinished) { // of a process that was killed
			_ = root.Remove(name)
		}
	}
	return f, nil
}

// wait takes the lock of the directory itself: a report leaves no other file there.
func (f *folder) wait(ctx context.Context) error {
	for {
		err := unix.Flock(int(f.lock.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if !errors.Is(err, unix.EWOULDBLOCK) {
			return err
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%s: another report is being written there: %w", f.root.Name(), ctx.Err())
		case <-time.After(100 * time.Millisecond):
		}
	}
}

func (f *folder) close() {
	if f.lock != nil {
		_ = f.lock.Close()
	}
	_ = f.root.Close()
}

func (f *folder) names() ([]string, error) {
	dir, err := f.root.Open(".")
	if err != nil {
		return nil, err
	}
	defer dir.Close()
	return dir.Readdirnames(-1)
}

// The end of a page: what it was made from.
const (
	keyBefore = "<!-- cc-ci-run report "
	keyAfter  = " -->\n"
)

func keyOf(data []byte) string {
	sum := sha256.Sum256(data)
	return hex.EncodeToString(sum[:])
}

// stale says whether a page is to be written, since it has another key or none. The
// report has that page in any case.
func (f *folder) stale(name, key string) bool {
	f.mutex.Lock()
	f.wanted[name] = true
	f.mutex.Unlock()
	return f.key(name) != key
}

// key is the key of the page that is there, "" if there is none of ours.
func (f *folder) key(name string) string {
	info, err := f.root.Lstat(name)
	if err != nil || !info.Mode().IsRegular() {
		return ""
	}
	file, err := f.root.Open(name)
	if err != nil {
		return ""
	}
	defer file.Close()
	end := make([]byte, len(keyBefore)+2*sha256.Size+len(keyAfter))
	if _, err := file.ReadAt(end, info.Size()-int64(len(end))); err != nil {
		return ""
	}
	key, ok := bytes.CutPrefix(end, []byte(keyBefore))
	key, ok2 := bytes.CutSuffix(key, []byte(keyAfter))
	if !ok || !ok2 {
		return ""
	}
	return string(key)
}

// put replaces a page in one step. It is not synced: after a power cut the next report
// writes it again.
func (f *folder) put(name, key string, page []byte) (err error) {
	temporary := unfinished + rand.Text()
	file, err := f.root.OpenFile(temporary, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			_ = f.root.Remove(temporary)
		}
	}()
	_, err = file.Write(append(page, keyBefore+key+keyAfter...))
	// Who may read the pages, the directory says.
	if err = errors.Join(err, file.Chmod(0o644), file.Close()); err != nil {
		return err
	}
	return f.root.Rename(temporary, name)
}

// putContent is put for a page whose content is its key.
func (f *folder) putContent(name string, page []byte) error {
	key := keyOf(page)
	if !f.stale(name, key) {
		return nil
	}
	return f.put(name, key, page)
}

// removeOthers removes the pages of ours that the report does not have any more.
func (f *folder) removeOthers() error {
	names, err := f.names()
	if err != nil {
		return err
	}
	for _, name := range names {
		if f.wanted[name] || !strings.HasSuffix(name, ".html") || f.key(name) == "" {
			continue
		}
		if err := f.root.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return nil
}
