// Package docker asks a Docker daemon what it is, by its Unix socket.
//
//	socket := docker.Socket(plan.Set)          // what the declaration fixes, "" for none
//	d := docker.Ask(socket, docker.StartLimit) // d.State, d.Version, d.Swarm, d.ID
//	n, err := docker.Stacks(socket, limit)     // how many stacks the swarm has
//
// The daemon is the host's, not the toolset's, and tests deploy to it: two
// invokers that reach two daemons test two things. So each run of a script
// records which daemon it reaches, `check` and `host` show it, and `parity`
// compares it.
//
// Runs ask before each start, so this package is small: it speaks HTTP/1.0, in
// which a server says all it has to say and hangs up, and links neither net nor
// net/http. What a server says is not trusted: its length and its time are
// limited, and only what Docker would say is taken.
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

// Group may use the daemon's socket, by the defaults of Debian and NixOS.
const Group = "docker"

// StartLimit is how long the start of a run waits for a daemon. A daemon answers
// within milliseconds; one that its socket's unit has yet to start takes seconds,
// and no run waits for that.
const StartLimit = 200 * time.Millisecond

// Daemon is what one daemon said of itself.
type Daemon struct {
	Socket  string `json:"socket"`
	State   State  `json:"state"`
	Version string `json:"version,omitempty"` // as "20.10.24+dfsg1"
	// Swarm says that the daemon is a manager of an active swarm, so that recipes
	// can be deployed to it.
	Swarm bool `json:"swarm"`
	// ID tells two daemons apart: it is the swarm's, else the daemon's own.
	ID string `json:"id,omitempty"`
	// Reason is why the daemon does not answer, or why it has no swarm.
	Reason string `json:"reason,omitempty"`
}

// State is what became of the question.
type State string

// The states.
const (
	Answers State = "answers"
	Absent  State = "absent"  // there is no socket, or nobody listens at it
	Denied  State = "denied"  // this user may not use the socket
	Silent  State = "silent"  // no answer in time; which daemon it is is not known
	Strange State = "strange" // an answer that Docker would not give
)

// Socket is the socket that the declaration gives to docker's client: DOCKER_HOST
// among the variables that it fixes ("NAME=VALUE"). It is "" if DOCKER_HOST is not
// fixed, or is not the address of a Unix socket.
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

// maxAnswer is more than a daemon says of itself, in bytes: some 4 KiB, and a line
// for each warning.
const maxAnswer = 1 << 20

// ask asks for the swarm first: a manager's answer has all there is to know. It
// also has the swarm's join tokens, which nothing may show.
func (d *Daemon) ask(deadline time.Time) error {
	a, err := get(d.Socket, "/swarm", maxAnswer, deadline)
	if err != nil {
		return err
	}
	if d.Version, err = version(a.server); err != nil {
		return err
	}
	if a.status == 503 { // no swarm, only a worker of one, or a swarm that is locked
		d.Reason = printable(a.first("message"))
		// Much slower, since the daemon counts all it has.
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

// maxServices is more than the services of a swarm of thousands are, in bytes.
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
		return 0, errors.New("GET /services: its answer is not JSON of Docker's")
	}
	stacks := map[string]bool{}
	for _, s := range services {
		if stack := s.Spec.Labels["com.docker.stack.namespace"]; stack != "" {
			stacks[stack] = true
		}
	}
	return len(stacks), nil
}

// answer is one of HTTP.
type answer struct {
	path   string // of the question
	status int
	server string // the header's value
	body   string
}

func (a answer) strange() error {
	return errors.New("GET " + a.path + ": status " + strconv.Itoa(a.status))
}

// first is the value of the body's first field, if that has a name, and is a text;
// else "". A daemon writes the fields of a Go struct in their order, so an ID is the
// first. The decoder of encoding/json, linked into the small program, made each of
// its starts 0.1 ms slower, also without a daemon.
func (a answer) first(name string) string {
	body := strings.TrimSpace(a.body)
	if !strings.HasPrefix(body, `{"`+name+`":"`) || !strings.HasSuffix(body, "}") {
		return ""
	}
	quoted, _ := strconv.QuotedPrefix(body[len(name)+len(`{"":`):])
	text, _ := strconv.Unquote(quoted)
	return text
}

// get asks one question.
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

// version takes it from the header that a daemon sends with each answer, as
// "Docker/20.10.24 (linux)".
func version(server string) (string, error) {
	name, version, _ := strings.Cut(server, "/")
	version, _, _ = strings.Cut(version, " ")
	if name != "Docker" || !plain(version) {
		return "", errors.New("its header Server is not Docker's, but " + strconv.QuoteToASCII(short(server)))
	}
	return version, nil
}

// plain says whether a text is as versions and IDs are.
func plain(s string) bool {
	const signs = "+-.:_~"
	strange := func(r rune) bool {
		return !(r >= '0' && r <= '9' || r >= 'A' && r <= 'Z' || r >= 'a' && r <= 'z' || strings.ContainsRune(signs, r))
	}
	return s != "" && s == short(s) && strings.IndexFunc(s, strange) < 0
}

// short keeps a message on its line.
func short(s string) string { return s[:min(len(s), 200)] }

// printable is a daemon's own message, on one line.
func printable(s string) string {
	return strings.ToValidUTF8(short(strings.Join(strings.Fields(s), " ")), "")
}

// explain says what an error of the question means.
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
