package state

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"

	"golang.org/x/sys/unix"
)

// Fault is a file or directory of a state directory that is not used: what it
// is, and what to do about it.
type Fault struct {
	Path, Is, Fix string
	// Newer says that a newer cc-ci-run wrote the file: it is whole, and stays
	// as it is.
	Newer bool
}

func (f *Fault) Error() string { return f.Path + ": " + f.Is + ": " + f.Fix }

const (
	remove    = "remove it"
	removeNot = "it is not used; remove it"
)

// Damaged says whether an error is of a file that nobody can use, so that one
// may be put in its place.
func Damaged(err error) bool {
	var f *Fault
	return errors.As(err, &f) && !f.Newer
}

// Newer says whether an error is of a file that a newer cc-ci-run wrote.
func Newer(err error) bool {
	var f *Fault
	return errors.As(err, &f) && f.Newer
}

// kindOf names what is not a regular file, "" for one.
func kindOf(mode uint32) string {
	switch mode & unix.S_IFMT {
	case unix.S_IFREG:
		return ""
	case unix.S_IFDIR:
		return "a directory"
	case unix.S_IFLNK:
		return "a symbolic link"
	case unix.S_IFIFO:
		return "a FIFO"
	case unix.S_IFSOCK:
		return "a socket"
	}
	return "a device"
}

// maxValues is how many values the JSON of one file may have. A file of the
// largest size can have so many that they need a hundred times its size in
// memory.
const maxValues = 150_000

// Decode reads the JSON of a file into v. path names the file in messages. It
// refuses a schema above newest.
func Decode(path string, data []byte, newest int, v any) error {
	if n := Values(data); n > maxValues {
		return &Fault{Path: path, Is: fmt.Sprintf("has more than %d values", maxValues), Fix: removeNot}
	}
	// A newer file may have other types, so the schema is read first.
	var head struct {
		Schema json.RawMessage `json:"schema"`
	}
	if err := json.Unmarshal(data, &head); err == nil {
		if n, err := strconv.Atoi(string(head.Schema)); err == nil && n > newest {
			return NewerSchema(path, n, newest)
		}
	}
	if err := json.Unmarshal(data, v); err != nil {
		return &Fault{Path: path, Is: fmt.Sprintf("is damaged (%v)", err), Fix: removeNot}
	}
	return nil
}

// NewerSchema is the fault of a file that a newer cc-ci-run wrote.
func NewerSchema(path string, schema, newest int) error {
	return &Fault{
		Path: path, Newer: true,
		Is:  fmt.Sprintf("was written by a newer cc-ci-run (schema %d, this one knows %d) and is left as it is", schema, newest),
		Fix: "use that cc-ci-run, or remove the file",
	}
}

// Values counts the values of a JSON text, whole or not: what they need in memory
// follows from that.
func Values(data []byte) (n int) {
	for len(data) > 0 {
		switch data[0] {
		case '{', '[', ',':
			n++
		case '"':
			for end := 1; ; end++ { // to the end of the string
				next := bytes.IndexAny(data[end:], `"\`)
				if next < 0 {
					return n
				}
				if end += next; data[end] == '"' {
					data = data[end:]
					break
				}
				if end++; end >= len(data) { // what is escaped
					return n
				}
			}
		}
		data = data[1:]
	}
	return n
}
