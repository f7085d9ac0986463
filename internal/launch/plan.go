package launch

import (
	"encoding/binary"
	"errors"
	"hash/adler32"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"cc-ci-run/internal/exec"
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

	Process   exec.Process
	Seal      bool // every run is sealed, which the full program does
	HostPaths []string
	Absent    []string // tools left out

	// Of the host backend, whose files can change: each command's file, and
	// what the build itself made, by its time alone: the directories to which
	// nothing may be added, and the manifest.
	Files []File
	Dirs  []string
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
const magic = "cc-ci-run plan 3"

// Encode gives the compiled form: fields that end in a NUL byte, in the order
// of Plan; a list is its length and its elements. The last field is the
// Adler-32 of all before it, so that a plan that was edited is not run under
// the fingerprint of another environment. (A CRC-32 has tables; making them
// took as long as reading the plan.)
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
	text(magic, p.Fingerprint, p.Manifest, p.Backend, p.State, p.Bin, p.Interpreter)
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
	text(strconv.FormatBool(p.Seal))
	list(p.HostPaths)
	list(p.Absent)
	number(uint64(len(p.Files)))
	for _, f := range p.Files {
		text(f.Path)
		number(uint64(f.Size))
		number(uint64(f.MTime))
		number(f.Inode)
	}
	list(p.Dirs)
	return append(binary.BigEndian.AppendUint32(b, adler32.Checksum(b)), 0)
}

var errDamaged = errors.New("the compiled manifest is damaged or of another version: run `make build`")

// DecodePlan reads the compiled form. Its strings are parts of data, which is
// not copied. A plan that is not whole is an error.
func DecodePlan(data string) (*Plan, error) {
	const tail = 4 + 1 // the checksum's field
	if len(data) < tail || data[len(data)-1] != 0 {
		return nil, errDamaged
	}
	body := data[:len(data)-tail]
	if adler32.Checksum([]byte(body)) != binary.BigEndian.Uint32([]byte(data[len(body):])) {
		return nil, errDamaged
	}
	// One allocation for all strings: a list of them is a part of this one.
	d := decoder{fields: strings.Split(body, "\x00")}
	if d.text() != magic {
		return nil, errDamaged
	}
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
	p.Process = exec.Process{Umask: d.text(), NoFile: d.number(), Core: d.number(), NoNewPrivs: d.text() == "true"}
	p.Seal = d.text() == "true"
	p.HostPaths, p.Absent = d.list(), d.list()
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

// maxPlan is more than any plan has, in bytes.
const maxPlan = 64 << 20

// ReadPlan reads a compiled manifest.
func ReadPlan(path string) (*Plan, error) {
	data, err := exec.ReadRegular(path, maxPlan)
	if err != nil {
		return nil, err
	}
	return DecodePlan(string(data))
}

// decoder takes fields off. After a mistake all of them are empty.
type decoder struct {
	fields []string
	bad    bool
}

func (d *decoder) text() string {
	if len(d.fields) < 2 { // the last is no field, but what is after its end
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

// Intact says whether the files of the host backend are still those that the
// manifest was made from, by one stat each. Store paths can not change, and
// cost nothing.
func (p *Plan) Intact() bool {
	var s syscall.Stat_t
	for i := range p.Files {
		f := &p.Files[i]
		if syscall.Stat(f.Path, &s) != nil || s.Size != f.Size || s.Mtim.Nano() != f.MTime || f.Inode != 0 && s.Ino != f.Inode || s.Mode&0o111 == 0 {
			return false
		}
	}
	for _, dir := range p.Dirs {
		if syscall.Stat(dir, &s) != nil || s.Mtim.Sec != BuildTime {
			return false
		}
	}
	return true
}

// Kept says whether the state directory has this environment's manifest.
func (p *Plan) Kept(state string) bool {
	var s syscall.Stat_t
	return syscall.Lstat(filepath.Join(state, "manifests", p.Fingerprint+".json"), &s) == nil
}
