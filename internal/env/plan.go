package env

import (
	"encoding/binary"
	"errors"
	"hash/adler32"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
)

// Plan is what a run needs of a manifest.
type Plan struct {
	Fingerprint string // SHA-256 of the manifest file, in hex
	Manifest    string // its path
	Backend     string
	State       string // the state directory
	Bin         string // the one directory of PATH
	Interpreter string

	Set     []string // fixed variables, "NAME=VALUE"
	Default []string // those of callers that have none, "NAME=VALUE"
	Pass    []string // patterns of what passes …
	Site    []string // … of it, what a site gives
	Only    []Only   // … and what only one invoker has
	Require []string // names

	Process   Process
	HostPaths []string
	Absent    []Absent // tools left out

	// Seal says that every run is sealed; a sealed run may also execute what
	// SealExecute names.
	Seal        bool
	SealExecute []string

	// Of the host backend, whose files can change: each command's file, and
	// what the build itself made, by its time alone: the directories to which
	// nothing may be added, and the manifest.
	Files []File
	Dirs  []string

	// Lists are read only by the runs that need them.
	Lists Lists
}

// Lists are long, and the last part of a compiled plan.
type Lists struct {
	Commands []string // names in Bin that the toolset declares, sorted
	Closure  []string // files and directories that the toolset may execute
}

// Absent is a tool that the toolset declares and this environment lacks.
type Absent struct {
	Name     string
	Commands []string
}

// Only are patterns of variables that one invoker alone has.
type Only struct {
	Invoker  string
	Patterns []string
}

// File is a command's file as it was when the manifest was made.
type File struct {
	Path  string // in the bin directory; links are followed
	Size  int64  // bytes
	MTime int64  // nanoseconds since 1970
	Inode uint64 // 0: not compared
}

// BuildTime is the mtime, in seconds since 1970, of the directories that the
// host backend makes. It is the one that Nix gives store paths, and for the
// same reason: a directory's own times say nothing, and two builds are the
// same bytes. It also costs one stat to see that nobody added an entry.
const BuildTime = 1

// magic is the first field of a compiled plan, with the version of its form.
const magic = "cc-ci-run plan 5"

// HeadSize is enough of a compiled plan to ask [PlanSize].
const HeadSize = len(magic) + 1 + sizeDigits + 1

const sizeDigits = 9

// PlanSize is how many bytes of a compiled plan come before its Lists, by the
// [HeadSize] bytes that it begins with; 0 if they are none of a plan.
func PlanSize(head []byte) int {
	if len(head) < HeadSize || string(head[:len(magic)+1]) != magic+"\x00" {
		return 0
	}
	n, err := strconv.Atoi(string(head[len(magic)+1 : HeadSize-1]))
	if err != nil || n < 0 || n > MaxPlan {
		return 0
	}
	return n
}

// Encode gives the compiled form: fields that end in a NUL byte, in the order
// of Plan; a list is its length and its elements. The second field is the size
// of all before Lists. That part and Lists each end with the Adler-32 of all
// before it, so that a plan that was edited is not run under the fingerprint of
// another environment. (A CRC-32 has tables; making them took as long as reading
// the plan.)
func (p *Plan) Encode() []byte {
	var b []byte
	text := func(list ...string) {
		for _, s := range list {
			b = append(append(b, s...), 0)
		}
	}
	number := func(n uint64) { text(strconv.FormatUint(n, 10)) }
	list := func(l []string) {
		number(uint64(len(l)))
		text(l...)
	}
	text(magic, strings.Repeat("0", sizeDigits), p.Fingerprint, p.Manifest, p.Backend, p.State, p.Bin, p.Interpreter)
	list(p.Set)
	list(p.Default)
	list(p.Pass)
	list(p.Site)
	number(uint64(len(p.Only)))
	for _, o := range p.Only {
		text(o.Invoker)
		list(o.Patterns)
	}
	list(p.Require)
	text(p.Process.Umask)
	number(p.Process.NoFile)
	number(p.Process.Core)
	text(strconv.FormatBool(p.Process.NoNewPrivs))
	list(p.HostPaths)
	number(uint64(len(p.Absent)))
	for _, a := range p.Absent {
		text(a.Name)
		list(a.Commands)
	}
	text(strconv.FormatBool(p.Seal))
	list(p.SealExecute)
	number(uint64(len(p.Files)))
	for _, f := range p.Files {
		text(f.Path)
		number(uint64(f.Size))
		number(uint64(f.MTime))
		number(f.Inode)
	}
	list(p.Dirs)
	size := strconv.Itoa(len(b) + tail)
	copy(b[HeadSize-1-len(size):], size)
	b = append(binary.BigEndian.AppendUint32(b, adler32.Checksum(b)), 0)
	list(p.Lists.Commands)
	list(p.Lists.Closure)
	return append(binary.BigEndian.AppendUint32(b, adler32.Checksum(b)), 0)
}

const tail = 4 + 1 // a checksum's field

var errDamaged = errors.New("the compiled manifest is damaged or of another version: run `make build`")

// sound takes the checksum off the end of data, if it is that of all before it.
func sound(data string) (body string, ok bool) {
	if len(data) < tail || data[len(data)-1] != 0 {
		return "", false
	}
	body = data[:len(data)-tail]
	return body, adler32.Checksum([]byte(body)) == binary.BigEndian.Uint32([]byte(data[len(body):]))
}

// DecodePlan reads the compiled form up to its Lists ([PlanSize] bytes), which
// stay empty. Its strings are parts of data, which is not copied. A plan that is
// not whole is an error.
func DecodePlan(data string) (*Plan, error) {
	body, ok := sound(data)
	if !ok || PlanSize([]byte(data[:min(len(data), HeadSize)])) != len(data) {
		return nil, errDamaged
	}
	// One allocation for all strings: a list of them is a part of this one.
	d := decoder{fields: strings.Split(body, "\x00")}
	if d.text() != magic {
		return nil, errDamaged
	}
	d.text() // the size
	p := &Plan{
		Fingerprint: d.text(), Manifest: d.text(), Backend: d.text(), State: d.text(), Bin: d.text(), Interpreter: d.text(),
		Set: d.list(), Default: d.list(), Pass: d.list(), Site: d.list(),
	}
	for _, list := range [][]string{p.Set, p.Default} {
		for _, kv := range list {
			if strings.IndexByte(kv, '=') < 1 {
				return nil, errDamaged
			}
		}
	}
	p.Only = make([]Only, d.length())
	for i := range p.Only {
		p.Only[i] = Only{d.text(), d.list()}
	}
	p.Require = d.list()
	p.Process = Process{Umask: d.text(), NoFile: d.number(), Core: d.number(), NoNewPrivs: d.text() == "true"}
	p.HostPaths = d.list()
	p.Absent = make([]Absent, d.length())
	for i := range p.Absent {
		p.Absent[i] = Absent{d.text(), d.list()}
	}
	p.Seal = d.text() == "true"
	p.SealExecute = d.list()
	p.Files = make([]File, d.length())
	for i := range p.Files {
		p.Files[i] = File{d.text(), int64(d.number()), int64(d.number()), d.number()}
	}
	p.Dirs = d.list()
	if d.bad || len(d.fields) != 1 || d.fields[0] != "" { // what is after the last NUL byte
		return nil, errDamaged
	}
	if _, err := p.Process.UmaskBits(); err != nil {
		return nil, errDamaged
	}
	return p, nil
}

// decoder takes fields off. After a mistake all of them are empty.
type decoder struct {
	fields []string
	bad    bool
}

func (d *decoder) text() string {
	if len(d.fields) < 2 { // the last is not a field, but what is after its end
		d.bad = true
		return ""
	}
	field := d.fields[0]
	d.fields = d.fields[1:]
	return field
}

func (d *decoder) number() uint64 {
	n, err := strconv.ParseUint(d.text(), 10, 64)
	d.bad = d.bad || err != nil
	return n
}

// length is a list's: no more elements than there are fields left.
func (d *decoder) length() int {
	n := d.number()
	if d.bad || n >= uint64(len(d.fields)) {
		d.bad = true
		return 0
	}
	return int(n)
}

func (d *decoder) list() []string {
	n := d.length()
	list := d.fields[:n:n]
	d.fields = d.fields[n:]
	return list
}

// DecodeLists reads the whole compiled form for its Lists.
func DecodeLists(data string) (l Lists, err error) {
	body, ok := sound(data)
	size := PlanSize([]byte(data[:min(len(data), HeadSize)]))
	if !ok || size == 0 || size > len(body) {
		return l, errDamaged
	}
	d := decoder{fields: strings.Split(body[size:], "\x00")}
	l.Commands, l.Closure = d.list(), d.list()
	if d.bad || len(d.fields) != 1 || d.fields[0] != "" {
		return Lists{}, errDamaged
	}
	return l, nil
}

// MaxPlan is more than any compiled plan has, in bytes.
const MaxPlan = 64 << 20

// Fault is something that keeps a run from having its full environment.
type Fault struct {
	What  string // the command, file or directory
	State string // what is wrong with it
	Fix   string // what to do
}

func (f Fault) Error() string {
	return f.What + " " + f.State + " since the environment was built: " + f.Fix
}

// Changed looks whether the files of the host backend are still those that the
// manifest was made from, by one stat each: size, mtime and inode of what the
// bin directory leads to. Store paths cannot change, and cost nothing.
func (p *Plan) Changed() []Fault {
	var faults []Fault
	var s syscall.Stat_t
	for i := range p.Files {
		f := &p.Files[i]
		err := syscall.Stat(f.Path, &s)
		if err == nil && s.Size == f.Size && s.Mtim.Nano() == f.MTime && (f.Inode == 0 || s.Ino == f.Inode) && s.Mode&0o111 != 0 {
			continue
		}
		faults = append(faults, f.fault(err, &s))
	}
	for _, dir := range p.Dirs {
		if syscall.Stat(dir, &s) != nil || s.Mtim.Sec != BuildTime {
			faults = append(faults, Fault{dir, "changed", rebuild})
		}
	}
	return faults
}

const rebuild = "run `make build`"

// fault says how a file differs from what it was.
func (f *File) fault(err error, now *syscall.Stat_t) Fault {
	of := f.Path
	if target, err := os.Readlink(f.Path); err == nil {
		of = target
	}
	name := filepath.Base(f.Path)
	switch {
	case f.Size == 0 && f.MTime == 0:
		return Fault{name, "has no file in the manifest, so it may have changed", rebuild}
	case err == syscall.ENOENT:
		return Fault{name, "vanished (" + of + ")", rebuild}
	case err != nil:
		return Fault{name, "changed (" + of + ": " + err.Error() + ")", rebuild}
	case now.Mode&0o111 == 0:
		return Fault{name, "lost its execute permission (" + of + ")", "install its package again"}
	}
	return Fault{name, "changed (" + of + ")", rebuild}
}
