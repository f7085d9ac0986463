// Package record keeps one JSON file for each run: what was run, by which
// invoker, in which environment.
//
// A record is written just before the child takes over the process, so it
// says what the run was given, not how it ended. It is small because it need
// not repeat what the fingerprint names: tools, versions and files are in
// the manifest, of which the state directory keeps one copy for each
// fingerprint.
//
//	STATE/runs/ID.json             one for each run
//	STATE/manifests/PRINT.json     the manifest with that fingerprint
//
// Names of variables are recorded, never a value that the caller passed.
package record

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
	"unicode/utf8"

	"cc-ci-run/internal/env"
	"cc-ci-run/internal/exec"
)

// Schema is the version of the record's form.
const Schema = 1

// Record is one run.
type Record struct {
	Schema int       `json:"schema"`
	ID     string    `json:"id"`   // sorts by time
	Time   time.Time `json:"time"` // UTC
	PID    int       `json:"pid"`  // of cc-ci-run and, unless Pty, of the child that replaces it

	Invoker Invoker `json:"invoker"`

	Mode      string   `json:"mode"` // how cc-ci-run was called: script, exec or shell
	Program   string   `json:"program"`
	Args      []string `json:"args"`
	Pty       bool     `json:"pty"`       // on a pseudo-terminal of its own
	Directory string   `json:"directory"` // working directory
	Revision  string   `json:"revision"`  // of the git work tree around Directory, "" without one

	Fingerprint string            `json:"fingerprint"`
	Manifest    string            `json:"manifest"` // the file it was read from
	Backend     string            `json:"backend"`
	Absent      []string          `json:"absent"`      // tools that this environment was built without
	Passed      []string          `json:"passed"`      // names of the caller's variables
	Dropped     []string          `json:"dropped"`     // names
	CallerPath  string            `json:"caller_path"` // PATH as the invoker had it; no run sees it
	HostPaths   map[string]string `json:"host_paths"`  // declared path -> file that it resolved to, "" for none
	Process     exec.State        `json:"process"`
}

// Invoker is who started a run.
type Invoker struct {
	Name string `json:"name"` // drone, systemd or manual
	// ID is the invoker's own name for this run: REPO/BUILD/STAGE/STEP of
	// Drone, INVOCATION_ID of systemd, "" of a person.
	ID string `json:"id,omitempty"`
}

// DetectInvoker tells the invoker from the variables that the real ones set.
// Drone sets DRONE=true (and comes first: its runner is itself a systemd
// unit). A systemd unit has INVOCATION_ID, and JOURNAL_STREAM or
// SYSTEMD_EXEC_PID (systemd.exec(5)). A desktop session hands those on to its
// shells, where a person sits: so not with a terminal on stdin.
func DetectInvoker(caller []string, stdinIsTerminal bool) Invoker {
	get := func(name string) string { return env.Lookup(caller, name) }
	if get("DRONE") == "true" {
		return Invoker{"drone", strings.Join([]string{get("DRONE_REPO"), get("DRONE_BUILD_NUMBER"), get("DRONE_STAGE_NAME"), get("DRONE_STEP_NAME")}, "/")}
	}
	unit := get("JOURNAL_STREAM") != "" || get("SYSTEMD_EXEC_PID") != ""
	if id := get("INVOCATION_ID"); id != "" && unit && !stdinIsTerminal {
		return Invoker{"systemd", id}
	}
	return Invoker{Name: "manual"}
}

// New gathers the record of a run that is about to start. The process state
// is that of the moment, so it is called after [exec.Prepare].
func New(m *env.Manifest, manifest string, e env.Environment, caller []string, invoker Invoker, mode, program string, args []string, pty bool) *Record {
	now := time.Now().UTC()
	pid := os.Getpid()
	dir, _ := syscall.Getwd() // the kernel's word, not $PWD's; "" if it was deleted
	r := &Record{
		Schema: Schema,
		ID:     now.Format("20060102T150405.000000000Z") + "-" + strconv.Itoa(pid),
		Time:   now, PID: pid,
		Invoker: Invoker{invoker.Name, printable(invoker.ID)},
		Mode:    mode, Program: printable(program), Args: printables(args),
		Directory: printable(dir), Revision: Revision(dir),
		Fingerprint: m.Fingerprint(), Manifest: manifest, Backend: m.Backend,
		Absent:    []string{},
		Passed:    printables(e.Names(env.Passed)),
		Dropped:   printables(e.Names(env.Dropped)),
		HostPaths: map[string]string{},
		Process:   exec.Capture(),

		CallerPath: printable(env.Lookup(caller, "PATH")),
	}
	if r.Pty = pty; pty {
		r.Process.Terminals = [3]bool{true, true, true}
	}
	for _, a := range m.Absent {
		r.Absent = append(r.Absent, a.Name)
	}
	for _, p := range m.Host.Paths {
		r.HostPaths[p], _ = filepath.EvalSymlinks(p)
	}
	return r
}

// Write puts the record into the state directory, atomically: a reader sees
// all of it or none. It is not synced, as that would cost each run a disk's
// latency: after a power cut the last seconds' records may be missing or
// empty. The manifest m is kept beside the records, once.
func (r *Record) Write(state string, m *env.Manifest) error {
	data, err := json.MarshalIndent(r, "", " ")
	if err != nil {
		return err
	}
	if err := r.writeAtomic(filepath.Join(state, "runs"), r.ID+".json", append(data, '\n')); err != nil {
		return err
	}
	kept := filepath.Join(state, "manifests")
	if _, err := os.Lstat(filepath.Join(kept, r.Fingerprint+".json")); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return r.writeAtomic(kept, r.Fingerprint+".json", m.Bytes())
}

func (r *Record) writeAtomic(dir, name string, data []byte) error {
	temp := filepath.Join(dir, "."+name+"."+r.ID) // nobody else's
	err := os.WriteFile(temp, data, 0o644)
	if errors.Is(err, fs.ErrNotExist) { // the first record of all
		if err = os.MkdirAll(dir, 0o755); err == nil {
			err = os.WriteFile(temp, data, 0o644)
		}
	}
	if err == nil {
		err = os.Rename(temp, filepath.Join(dir, name))
	}
	if err != nil {
		_ = os.Remove(temp)
	}
	return err
}

// Read reads one record.
func Read(path string) (*Record, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	r := &Record{}
	if err := json.Unmarshal(data, r); err != nil {
		return nil, fmt.Errorf("%s: not a run record: %w", path, err)
	}
	if r.Schema > Schema {
		return nil, fmt.Errorf("%s: schema %d is newer than this cc-ci-run knows (%d)", path, r.Schema, Schema)
	}
	return r, nil
}

// printable keeps JSON from losing bytes: what is not UTF-8 is written as Go
// writes it in a string literal.
func printable(s string) string {
	if utf8.ValidString(s) {
		return s
	}
	return strconv.QuoteToASCII(s)
}

func printables(list []string) []string {
	out := make([]string, len(list))
	for i, s := range list {
		out[i] = printable(s)
	}
	return out
}
