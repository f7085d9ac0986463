// Package docker asks a Docker daemon for its version, swarm and ID at its Unix socket.
//
//	socket := docker.Socket(plan.Set)          // from the variables that toolset.toml fixes; "" for none
//	d := docker.Ask(socket, docker.StartLimit) // d.State, d.Version, d.Swarm, d.ID
//	n, err := docker.Stacks(socket, limit)     // how many stacks the swarm has
//
// The daemon belongs to the host, not to the toolset, and tests deploy to it: two
// invokers that reach two daemons test two things. So each run of a script
// records which daemon it reaches, `check` and `host` show the daemon, and
// `parity` compares the daemons of two runs.
//
// Each run of a script asks before it starts, so this package is small: it speaks
// HTTP/1.0, in which a server sends its whole answer and hangs up, and links neither
// net nor net/http. An answer is not trusted: its length and its time are limited,
// and an answer that Docker would not give is refused.
package docker

import (
	"encoding/json"
	"errors"
	"io/fs"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"cc-ci-run/internal/env"
	"cc-ci-run/internal/exec"
)

// Group is the group that may use the daemon's socket, by default in Debian and NixOS.
const Group = "docker"

// StartLimit is how long the start of a run waits for a daemon. A daemon answers
// within milliseconds. If systemd starts the daemon only when it is asked, the answer
// takes seconds, and no run waits for it.
const StartLimit = 200 * time.Millisecond

// Daemon is what a daemon answered, or why it did not answer.
type Daemon struct {
	Socket  string `json:"socket"`
	State   State  `json:"state"`
	Version string `json:"version,omitempty"` // as "20.10.24+dfsg1"
	// Swarm says that the daemon is a manager of an active swarm, so that recipes
	// can be deployed to it.
	Swarm bool `json:"swarm"`
	// ID tells two daemons apart. It is the swarm's ID, or without a swarm the daemon's.
	ID string `json:"id,omitempty"`
	// Reason is why the daemon does not answer, or why it has no swarm.
	Reason string `json:"reason,omitempty"`
}

// State says whether a daemon answered, and if not, in which way.
type State string

// The states.
const (
	Answers State = "answers"
	Absent  State = "absent"  // the socket does not exist, or no process listens on it
	Denied  State = "denied"  // this user may not use the socket
	Silent  State = "silent"  // no answer in time, so nobody knows which daemon it is
	Strange State = "strange" // an answer that Docker would not give
)

// Socket is the path of the socket that docker's client uses, from DOCKER_HOST among
// the variables that toolset.toml fixes ("NAME=VALUE"). Socket is "" if DOCKER_HOST is
// not fixed, or is not the address of a Unix socket.
func Socket(fixed []string) string {
	path, ok := strings.CutPrefix(env.Lookup(fixed, "DOCKER_HOST"), "unix://")
	if !ok || !filepath.IsAbs(path) {
		return ""
	}
	return path
}

// Ask asks the daemon at a socket, and takes no longer than limit.
func Ask(socket string, limit time.Duration) Daemon {
	d := Daemon{Socket: socket, State: Answers}
	if err := d.ask(time.Now().Add(limit)); err != nil {
		state, reason := explain(err)
		return Daemon{Socket: socket, State: state, Reason: reason}
	}
	return d
}

// maxAnswer is the limit of an answer in bytes. A daemon's answer has some 4 KiB, and a
// line for each warning.
const maxAnswer = 1 << 20

// ask asks for the swarm first: a manager's answer has all that Daemon needs. The
// answer also has the swarm's join tokens, which must not be shown anywhere.
func (d *Daemon) ask(deadline time.Time) error {
	a, err := get(d.Socket, "/swarm", maxAnswer, deadline)
	if err != nil {
		return err
	}
	if d.Version, err = version(a.server); err != nil {
		return err
	}
	if a.status == 503 { // the daemon has no swarm, is only a worker, or its swarm is locked
		d.Reason = printable(a.first("message"))
		// GET /info is much slower, because the daemon counts all its objects.
		if a, err = get(d.Socket, "/info", maxAnswer, deadline); err != nil {
			return err
		}
	} else {
		d.Swarm = true
	}
	if a.status != 200 {
		return a.strange()
	}
	if d.ID = a.first("ID"); !plain(d.ID) {
		return errors.New("GET " + a.path + ": no ID in its answer")
	}
	return nil
}

// maxServices is the limit of a list of services in bytes: enough for thousands.
const maxServices = 64 << 20

// Stacks counts the stacks of the swarm of which the daemon is a manager.
func Stacks(socket string, limit time.Duration) (int, error) {
	a, err := get(socket, "/services", maxServices, time.Now().Add(limit))
	if err != nil {
		return 0, err
	}
	if a.status != 200 {
		return 0, a.strange()
	}
	var services []struct {
		Spec struct{ Labels map[string]string }
	}
	if json.Unmarshal([]byte(a.body), &services) != nil {
		return 0, errors.New("GET /services: its answer is not Docker's JSON")
	}
	stacks := map[string]bool{}
	for _, s := range services {
		if stack := s.Spec.Labels["com.docker.stack.namespace"]; stack != "" {
			stacks[stack] = true
		}
	}
	return len(stacks), nil
}

// answer is an HTTP answer.
type answer struct {
	path   string // that was asked for
	status int
	server string // the value of the header Server
	body   string
}

func (a answer) strange() error {
	return errors.New("GET " + a.path + ": status " + strconv.Itoa(a.status))
}

// first is the value of the body's first field if that field has the given name and
// is a string; else "". A daemon writes the fields of a Go struct in their order, in
// which ID is the first. With the decoder of encoding/json linked in, each start of the
// small program was 0.1 ms slower, even without a daemon.
func (a answer) first(name string) string {
	body := strings.TrimSpace(a.body)
	if !strings.HasPrefix(body, `{"`+name+`":"`) || !strings.HasSuffix(body, "}") {
		return ""
	}
	quoted, _ := strconv.QuotedPrefix(body[len(name)+len(`{"":`):])
	text, _ := strconv.Unquote(quoted)
	return text
}

// get sends one GET request and reads the answer.
func get(socket, path string, limit int, deadline time.Time) (a answer, err error) {
	data, err := exec.Converse(socket, "GET "+path+" HTTP/1.0\r\nHost: docker\r\n\r\n", limit, deadline)
	if err != nil {
		return a, err
	}
	head, body, ended := strings.Cut(string(data), "\r\n\r\n")
	line, headers, _ := strings.Cut(head, "\r\n")
	protocol, rest, _ := strings.Cut(line, " ")
	code, _, _ := strings.Cut(rest, " ")
	a = answer{path: path, body: body}
	a.status, err = strconv.Atoi(code)
	if !ended || err != nil || !strings.HasPrefix(protocol, "HTTP/1.") {
		return a, errors.New("GET " + path + ": its answer is not HTTP")
	}
	for header := range strings.SplitSeq(headers, "\r\n") {
		name, value, _ := strings.Cut(header, ":")
		value = strings.TrimSpace(value)
		switch {
		case strings.EqualFold(name, "Server"):
			a.server = value
		case strings.EqualFold(name, "Content-Length") && value != strconv.Itoa(len(body)):
			return a, errors.New("GET " + path + ": its answer ends too early or too late")
		}
	}
	return a, nil
}

// version is the daemon's version, from the header Server of any answer, such as
// "Docker/20.10.24 (linux)".
func version(server string) (string, error) {
	name, version, _ := strings.Cut(server, "/")
	version, _, _ = strings.Cut(version, " ")
	if name != "Docker" || !plain(version) {
		return "", errors.New("its header Server is not Docker's, but " + strconv.QuoteToASCII(short(server)))
	}
	return version, nil
}

// plain says whether a text has only characters of versions and IDs, and not too many.
func plain(s string) bool {
	const signs = "+-.:_~"
	strange := func(r rune) bool {
		return !(r >= '0' && r <= '9' || r >= 'A' && r <= 'Z' || r >= 'a' && r <= 'z' || strings.ContainsRune(signs, r))
	}
	return s != "" && s == short(s) && strings.IndexFunc(s, strange) < 0
}

// short is the beginning of a text, so that a message fits a line or two.
func short(s string) string { return s[:min(len(s), 200)] }

// printable is a daemon's own message, on one line.
func printable(s string) string {
	return strings.ToValidUTF8(short(strings.Join(strings.Fields(s), " ")), "")
}

// explain is the state and the reason that an error of ask means.
func explain(err error) (State, string) {
	switch {
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, syscall.ENOTDIR):
		return Absent, "is not there"
	case errors.Is(err, syscall.ECONNREFUSED):
		return Absent, "connection refused: nobody listens"
	case errors.Is(err, fs.ErrPermission):
		return Denied, "permission denied"
	case errors.Is(err, exec.ErrSilent):
		return Silent, err.Error()
	}
	return Strange, "does not answer as Docker does: " + err.Error()
}
