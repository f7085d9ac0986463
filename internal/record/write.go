package record

import (
	"os"
	"strconv"
	"strings"
	"syscall"
	"time"
	"unicode/utf8"

	"golang.org/x/sys/unix"

	"cc-ci-run/internal/docker"
	"cc-ci-run/internal/env"
	"cc-ci-run/internal/exec"
	"cc-ci-run/internal/state"
)

// Schema is the version of the record's form.
const Schema = 1

// Record is one run.
type Record struct {
	Schema int       `json:"schema"`
	ID     string    `json:"id"`   // sorts by time
	Time   time.Time `json:"time"` // UTC
	PID    int       `json:"pid"`  // of cc-ci-run and, unless Pty, of the child that replaces it

	Invoker env.Invoker `json:"invoker"`

	Mode      string   `json:"mode"` // how cc-ci-run was called: script, exec or shell
	Program   string   `json:"program"`
	Args      []string `json:"args"`
	Pty       bool     `json:"pty"`       // on a pseudo-terminal of its own
	Audited   bool     `json:"audited"`   // by `cc-ci-run audit`, whose report has this ID
	Sealed    string   `json:"sealed"`    // "full"; "none: REASON" if only the best effort was asked for; "" if none was
	Directory string   `json:"directory"` // working directory
	Revision  string   `json:"revision"`  // of the git work tree around the recipe, or around Directory if there is no recipe; "" without one
	Result    string   `json:"result"`    // the file that the script was told to write its tests' outcomes to (env.ResultVariable); "" for none, and before this field was added

	Fingerprint string     `json:"fingerprint"`
	Manifest    string     `json:"manifest"` // the file it was read from
	Backend     string     `json:"backend"`
	Absent      []string   `json:"absent"`      // tools that this environment was built without
	Passed      []string   `json:"passed"`      // names of the caller's variables
	Dropped     []string   `json:"dropped"`     // names
	CallerPath  string     `json:"caller_path"` // PATH as the invoker had it; no run sees it
	HostPaths   exec.Pairs `json:"host_paths"`  // declared path -> file that it resolved to, "" for none
	SSHFiles    exec.Pairs `json:"ssh_files"`   // what ssh reads whatever HOME is, see [exec.SSHFiles]; nil in records from before this field
	Process     exec.State `json:"process"`

	// Surroundings are what the run sees of the machine; nil before this field was
	// added.
	Surroundings *exec.Surroundings `json:"surroundings,omitempty"`

	// Docker is the daemon that the script's docker client reaches; nil if nobody
	// asked, as for exec and shell, or before this field was added.
	Docker *docker.Daemon `json:"docker,omitempty"`
}

// ID names a run by when it starts, by this process, by what it is of ([Recipe]) and
// by its invoker. IDs sort by time, and whoever looks for the newest run of an
// invoker, or of a recipe by an invoker, opens no file but that one. An earlier
// cc-ci-run left the recipe out, and before that the invoker.
func ID(now time.Time, invoker, program string, args []string) string {
	b := now.UTC().AppendFormat(make([]byte, 0, 128), "20060102T150405.000000000Z")
	b = append(strconv.AppendInt(append(b, '-'), int64(os.Getpid()), 10), '-')
	b = append(state.AppendRecipe(b, Recipe(program, args)), '-')
	return string(append(b, invoker...))
}

// New gathers the record of a run that is about to start. The process
// state is that of the moment, so it is called after [exec.Prepare].
func New(now time.Time, p *env.Plan, e env.Environment, caller []string, invoker env.Invoker, mode, program string, args []string, pty bool) *Record {
	now = now.UTC()
	pid := os.Getpid()
	dir, _ := syscall.Getwd() // the kernel's word, not $PWD's; "" if it was deleted
	recipe := folder(program, args, dir)
	r := &Record{
		Schema: Schema,
		ID:     ID(now, invoker.Name, program, args),
		Time:   now, PID: pid,
		Invoker: env.Invoker{Name: invoker.Name, ID: printable(invoker.ID)},
		Mode:    mode, Program: printable(program), Args: printables(args),
		Directory: printable(dir), Revision: Revision(recipe),
		Fingerprint: p.Fingerprint, Manifest: printable(p.Manifest), Backend: p.Backend,
		Absent:    make([]string, 0, len(p.Absent)),
		Passed:    printables(e.Names(env.Passed)),
		Dropped:   printables(e.Names(env.Dropped)),
		HostPaths: make(exec.Pairs, 0, len(p.HostPaths)),
		Process:   exec.Capture(),

		CallerPath: printable(env.Lookup(caller, "PATH")),
	}
	if r.Pty = pty; pty {
		r.Process.Terminals = [3]bool{true, true, true}
	}
	for _, a := range p.Absent {
		r.Absent = append(r.Absent, a.Name)
	}
	for _, path := range p.HostPaths {
		r.HostPaths = append(r.HostPaths, exec.Pair{Name: path, Value: printable(exec.Resolve(path))})
	}
	r.HostPaths = r.HostPaths.Sorted()
	r.surround(e, p.Set, recipe)
	return r
}

// resolver are the files that decide which names a test can look up.
var resolver = [...]string{"/etc/hosts", "/etc/nsswitch.conf", "/etc/resolv.conf"}

// surround records the surroundings. Of the files it reads those that could have
// another content under the same name: not those of the Nix store, whose name has
// a hash of the content.
func (r *Record) surround(e env.Environment, set []string, recipe string) {
	value := func(name, otherwise string) string {
		if v := e.Value(name); v != "" {
			return v
		}
		return otherwise
	}
	files := make([]string, 0, len(resolver)+1)
	for _, path := range append(resolver[:], env.Lookup(set, "SSL_CERT_FILE")) {
		if path != "" && !strings.HasPrefix(r.HostPaths.Get(path), "/nix/store/") {
			files = append(files, path)
		}
	}
	r.Surroundings = exec.Surround(r.Process.Cgroup, files, exec.Pairs{
		{Name: "HOME", Value: value("HOME", "/")}, {Name: "TMPDIR", Value: value("TMPDIR", "/tmp")}, {Name: "recipe", Value: recipe},
	})
	s := r.Surroundings
	s.Hostname, s.Label = printable(s.Hostname), printable(s.Label)
	s.Mounts, s.Interfaces = printables(s.Mounts), printables(s.Interfaces)
	r.Process.Cgroup = printable(r.Process.Cgroup)
}

// Write puts the record into the state directory: STATE/runs/ID.json. It is not
// synced (see state.Dir.Put).
func (r *Record) Write(dir state.Dir) error {
	return dir.Put(state.Runs, r.ID+".json", r.AppendJSON(make([]byte, 0, 8<<10)))
}

// Keep copies the manifest of the run's environment beside the records, once
// for each fingerprint. A copy that another user put there, or that is not
// whole, is replaced.
func (r *Record) Keep(dir state.Dir) error {
	name := r.Fingerprint + ".json"
	var manifest unix.Stat_t
	if err := unix.Stat(r.Manifest, &manifest); err != nil {
		return &os.PathError{Op: "stat", Path: r.Manifest, Err: err}
	}
	// A power cut leaves a file of zeros. What else is not whole has another size.
	if size, ours := dir.Size(state.Manifests, name); ours && size == manifest.Size && dir.FirstByte(state.Manifests, name) == '{' {
		return nil
	}
	data, err := exec.ReadRegular(r.Manifest, maxManifest)
	if err != nil {
		return err
	}
	return dir.PutSynced(state.Manifests, name, data, 0o644)
}

// maxManifest is more than any manifest has, in bytes.
const maxManifest = 16 << 20

// printable keeps JSON from losing bytes: what is not UTF-8 is written as Go
// writes it in a string literal.
func printable(s string) string {
	if utf8.ValidString(s) {
		return s
	}
	return strconv.QuoteToASCII(s)
}

// unprinted is the inverse of printable.
func unprinted(s string) string {
	if raw, err := strconv.Unquote(s); err == nil && !utf8.ValidString(raw) {
		return raw
	}
	return s
}

func printables(list []string) []string {
	out := make([]string, len(list))
	for i, s := range list {
		out[i] = printable(s)
	}
	return out
}

// AppendJSON appends the record as encoding/json would write it, indented by
// one space. It is written by hand since that library, with reflection, costs
// a run's start more than all else here; a test compares the two.
func (r *Record) AppendJSON(b []byte) []byte {
	w := writer{b: append(b, '{')}
	w.number("schema", int64(r.Schema))
	w.text("id", r.ID)
	w.text("time", r.Time.Format(time.RFC3339Nano))
	w.number("pid", int64(r.PID))
	w.open("invoker", '{')
	w.text("name", r.Invoker.Name)
	w.some("id", r.Invoker.ID)
	w.close('}')
	w.text("mode", r.Mode)
	w.text("program", r.Program)
	w.list("args", r.Args)
	w.bool("pty", r.Pty)
	w.bool("audited", r.Audited)
	w.text("sealed", r.Sealed)
	w.text("directory", r.Directory)
	w.text("revision", r.Revision)
	w.text("result", printable(r.Result))
	w.text("fingerprint", r.Fingerprint)
	w.text("manifest", r.Manifest)
	w.text("backend", r.Backend)
	w.list("absent", r.Absent)
	w.list("passed", r.Passed)
	w.list("dropped", r.Dropped)
	w.text("caller_path", r.CallerPath)
	w.object("host_paths", r.HostPaths)
	w.object("ssh_files", r.SSHFiles)
	w.open("process", '{')
	p := &r.Process
	w.text("uid", p.UID)
	w.text("gid", p.GID)
	w.text("groups", p.Groups)
	w.open("capabilities", '{')
	w.text("inheritable", p.Capabilities.Inheritable)
	w.text("permitted", p.Capabilities.Permitted)
	w.text("effective", p.Capabilities.Effective)
	w.text("bounding", p.Capabilities.Bounding)
	w.text("ambient", p.Capabilities.Ambient)
	w.close('}')
	w.bool("no_new_privs", p.NoNewPrivs)
	w.text("seccomp", p.Seccomp)
	w.text("seccomp_filters", p.SeccompFilters)
	w.text("umask", p.Umask)
	w.text("signals_ignored", p.SignalsIgnored)
	w.number("nice", int64(p.Nice))
	w.open("inherited", '{')
	w.text("policy", p.Inherited.Policy)
	w.text("io_priority", p.Inherited.IOPriority)
	w.text("cpus", p.Inherited.CPUs)
	w.text("memory_nodes", p.Inherited.MemoryNodes)
	w.text("oom_score_adj", p.Inherited.OOM)
	w.text("login_uid", p.Inherited.LoginUID)
	w.text("personality", p.Inherited.Personality)
	w.text("secure_bits", p.Inherited.SecureBits)
	w.close('}')
	w.text("cgroup", p.Cgroup)
	w.object("limits", p.Limits)
	w.open("terminals", '[')
	for _, t := range p.Terminals {
		w.next()
		w.b = strconv.AppendBool(w.b, t)
	}
	w.close(']')
	w.close('}')
	if r.Surroundings != nil {
		w.surroundings(r.Surroundings)
	}
	if d := r.Docker; d != nil {
		w.open("docker", '{')
		w.text("socket", d.Socket)
		w.text("state", string(d.State))
		w.some("version", d.Version)
		w.bool("swarm", d.Swarm)
		w.some("id", d.ID)
		w.some("reason", d.Reason)
		w.close('}')
	}
	w.close('}')
	return append(w.b, '\n')
}

func (w *writer) surroundings(s *exec.Surroundings) {
	w.open("surroundings", '{')
	w.object("namespaces", s.Namespaces)
	w.text("hostname", s.Hostname)
	w.text("root", s.Root)
	w.list("mounts", s.Mounts)
	w.list("interfaces", s.Interfaces)
	w.text("user_map", s.UserMap)
	w.text("clock_offsets", s.Clocks)
	w.object("cgroup_limits", s.Cgroup)
	w.text("label", s.Label)
	w.text("write_execute", s.WriteExecute)
	w.object("files", s.Files)
	w.open("free", '[')
	for _, f := range s.Free {
		w.element('{')
		w.text("name", f.Name)
		w.number("bytes", f.Bytes)
		w.number("inodes", f.Inodes)
		w.number("files", f.Files)
		w.close('}')
	}
	w.close(']')
	w.close('}')
}

// writer appends JSON. depth is how far it is indented.
type writer struct {
	b     []byte
	depth int
}

// next begins an element on a line of its own.
func (w *writer) next() {
	if last := w.b[len(w.b)-1]; last != '{' && last != '[' {
		w.b = append(w.b, ',')
	}
	w.newline(1)
}

func (w *writer) newline(extra int) {
	w.b = append(w.b, '\n')
	for range w.depth + extra {
		w.b = append(w.b, ' ')
	}
}

func (w *writer) name(name string) {
	w.next()
	w.quote(name)
	w.b = append(w.b, ": "...)
}

func (w *writer) open(name string, bracket byte) {
	w.name(name)
	w.b = append(w.b, bracket)
	w.depth++
}

func (w *writer) close(bracket byte) {
	w.depth--
	if last := w.b[len(w.b)-1]; last != '{' && last != '[' {
		w.newline(1)
	}
	w.b = append(w.b, bracket)
}

func (w *writer) text(name, value string) { w.name(name); w.quote(value) }

// some is text for "omitempty".
func (w *writer) some(name, value string) {
	if value != "" {
		w.text(name, value)
	}
}

// element opens one of a list.
func (w *writer) element(bracket byte) {
	w.next()
	w.b = append(w.b, bracket)
	w.depth++
}

func (w *writer) number(name string, n int64) {
	w.name(name)
	w.b = strconv.AppendInt(w.b, n, 10)
}
func (w *writer) bool(name string, v bool) { w.name(name); w.b = strconv.AppendBool(w.b, v) }

func (w *writer) list(name string, list []string) {
	w.open(name, '[')
	for _, s := range list {
		w.next()
		w.quote(s)
	}
	w.close(']')
}

func (w *writer) object(name string, pairs exec.Pairs) {
	w.open(name, '{')
	for _, p := range pairs {
		w.text(p.Name, p.Value)
	}
	w.close('}')
}

// quote appends a string; it is UTF-8, see printable.
func (w *writer) quote(s string) {
	const hex = "0123456789abcdef"
	w.b = append(w.b, '"')
	for i := range len(s) {
		switch c := s[i]; {
		case c == '"' || c == '\\':
			w.b = append(w.b, '\\', c)
		case c < ' ' || c == 0x7f:
			w.b = append(w.b, '\\', 'u', '0', '0', hex[c>>4], hex[c&15])
		default:
			w.b = append(w.b, c)
		}
	}
	w.b = append(w.b, '"')
}
