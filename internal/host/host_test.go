package host

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/go-multierror"

	"cc-ci-run/internal/docker"
	"cc-ci-run/internal/docker/dockertest"
	"cc-ci-run/internal/finding"
	"cc-ci-run/internal/systemd"
)

// What systemd and a disk do is tried with the real ones, by TestHost in package e2e.

// written is a host.toml.
func written(t *testing.T, text string) (file string) {
	t.Helper()
	file = filepath.Join(t.TempDir(), "host.toml")
	if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	return file
}

func TestConfig(t *testing.T) {
	file := written(t, `
timeout = "3s"
oneshots = ["a.service"]
[timer."a.timer"]
max_age = "2h"
[timer."b.timer"]
[unit."u.service"]
environment = { A = "b" }
[[endpoint]]
url = "https://example.org/"
[[endpoint]]
url = "http://x:80"
status = 302
min_days = 0
timeout = "1s"
`)
	c, err := ReadConfig(file, false, "/s")
	if err != nil {
		t.Fatal(err)
	}
	if c.Timeout != 3*time.Second || c.Timers["a.timer"] != 2*time.Hour || len(c.Timers) != 2 || c.Units["u.service"].Environment["A"] != "b" {
		t.Errorf("%+v", c)
	}
	if e := c.Endpoints; e[0].Status != 200 || e[0].MinDays != 14 || e[1].Status != 302 || e[1].MinDays != 0 || e[1].Timeout != time.Second {
		t.Errorf("endpoints %+v", e)
	}
	if c.MinFree != Default("").MinFree || len(c.Running) == 0 || c.Docker != "/s" || !c.Swarm {
		t.Errorf("what is left out is not the default: %+v", c)
	}
	if _, err := ReadConfig(file+"x", false, ""); err == nil {
		t.Error("a named file may not lack")
	}
	if c, err := ReadConfig(file+"x", true, ""); err != nil || len(c.Timers) != 1 {
		t.Errorf("%+v, %v", c, err)
	}
}

// Every mistake is named, each in its line.
func TestConfigMistakes(t *testing.T) {
	file := written(t, `timeout = "x"
running = ["docker"]
speed = 1
[allow_failed]
"a.service" = " "
[timer."nightly"]
max_age = "-1h"
[[endpoint]]
url = "ftp://x"
status = 99
`)
	_, err := ReadConfig(file, false, "/s")
	several, ok := err.(*multierror.Error)
	if !ok {
		t.Fatalf("%v", err)
	}
	want := []string{":1: timeout", ":2: \"docker\" is not a unit", ":3: speed: unknown key", ":5: allow_failed: a.service", ":6: \"nightly\" is not a unit", ":7: timer.nightly.max_age", ":9: endpoint: \"ftp://x\"", ":10: endpoint: status = 99"}
	if len(several.Errors) != len(want) {
		t.Errorf("%d errors, want %d: %v", len(several.Errors), len(want), err)
	}
	for i, e := range several.Errors {
		if i < len(want) && !strings.HasPrefix(e.Error(), file+want[i]) {
			t.Errorf("%v, want %s", e, want[i])
		}
	}
}

// A check that hangs and does not look at its context is left behind.
func TestLimited(t *testing.T) {
	results := limited(context.Background(), check{"x", 50 * time.Millisecond, func(context.Context) []finding.Finding {
		select {}
	}})
	if len(results) != 1 || results[0].Verdict != finding.Unknown || !strings.Contains(results[0].State, "no answer within 50ms") {
		t.Errorf("%+v", results)
	}
}

func TestEndpoint(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/moved":
			http.Redirect(w, r, "/ok", http.StatusFound)
		case "/hang":
			<-r.Context().Done()
		}
	}))
	defer server.Close()
	for _, c := range []struct {
		url     string
		status  int
		verdict finding.Verdict
		state   string
	}{
		{server.URL + "/ok", 200, finding.OK, "200 OK after "},
		{server.URL + "/moved", 200, finding.Fault, "302 Found, should be 200"},
		{server.URL + "/moved", 302, finding.OK, "302 Found after "},
		{server.URL + "/hang", 200, finding.Fault, "no answer in time"},
		{"http://127.0.0.1:1/", 200, finding.Fault, "connection refused"},
		{"http://nowhere.invalid/", 200, finding.Fault, "lookup nowhere.invalid"},
	} {
		limit := time.Minute
		if strings.HasSuffix(c.url, "/hang") {
			limit = 300 * time.Millisecond
		}
		ctx, cancel := context.WithTimeout(t.Context(), limit)
		results := Endpoint{URL: c.url, Status: c.status}.look(ctx)
		cancel()
		if r := results[0]; r.Verdict != c.verdict || !strings.Contains(r.State, c.state) || r.Verdict == finding.Fault && r.Fix == "" {
			if c.url == "http://nowhere.invalid/" && r.State == "no answer in time" {
				continue // a resolver that does not answer
			}
			t.Errorf("%s: %+v", c.url, r)
		}
	}
}

// What was wrong before, and is not another fault now, did not get worse.
func TestWorse(t *testing.T) {
	report := func(verdict finding.Verdict, state string) Report {
		return Report{Results: []finding.Finding{{Verdict: finding.OK, What: "another"}, {Verdict: verdict, What: "it", State: state, Fix: time.Now().String()}}}
	}
	for _, row := range []struct {
		name         string
		earlier, now Report
		worse        bool
	}{
		{"well", report(finding.OK, ""), report(finding.OK, ""), false},
		{"breaks", report(finding.OK, ""), report(finding.Fault, "x"), true},
		{"a note breaks", report(finding.Note, ""), report(finding.Fault, "x"), true},
		{"new", Report{}, report(finding.Fault, "x"), true},
		{"cannot be looked at any more", report(finding.OK, ""), report(finding.Unknown, ""), true},
		{"gets well", report(finding.Fault, "x"), report(finding.OK, ""), false},
		{"the same fault", report(finding.Fault, "wait 5 days"), report(finding.Fault, "wait 4 days"), false},
		{"the same fault, in another unit", report(finding.Fault, "expired 1 day ago"), report(finding.Fault, "expired 20 minutes ago"), false},
		{"another fault of one thing", report(finding.Fault, "expires in 5 days"), report(finding.Fault, "connection refused"), true},
		{"another status", report(finding.Fault, "answers 302, should be 200"), report(finding.Fault, "dial tcp 127.0.0.1:1: connection refused"), true},
		{"one more fault of one thing", report(finding.Fault, "2 faults: browsers, abra"), report(finding.Fault, "3 faults: browsers, abra, git"), true},
		{"cannot be looked at, as before", report(finding.Unknown, ""), report(finding.Unknown, "y"), false},
		{"a fault where it could not be looked at", report(finding.Unknown, ""), report(finding.Fault, "x"), false},
		{"cannot be looked at after a fault", report(finding.Fault, "x"), report(finding.Unknown, ""), false},
	} {
		if got := row.now.Worse(row.earlier); (len(got) > 0) != row.worse {
			t.Errorf("%s: %v", row.name, got)
		}
	}
}

// No message has the value of a variable that somebody gave a unit, but of PATH and
// HOME.
func TestEnvironmentKeepsSecrets(t *testing.T) {
	const secret = "hunter2"
	want := Unit{Environment: map[string]string{"PATH": "/p", "GITEA_PASSWORD": "", "HOME": "%S/x"}}
	for added, line := range map[string]string{
		"API_TOKEN=" + secret:                          "API_TOKEN=… is added",
		"GITEA_PASSWORD=" + secret:                     "GITEA_PASSWORD=…, should be ",
		"http_proxy=http://me:" + secret + "@p":        "http_proxy=… is added",
		"LD_PRELOAD=" + secret:                         "LD_PRELOAD=… is added",
		"PASSWORD_PATH=" + secret + "\nPATH=" + secret: "PASSWORD_PATH=… is added",
		"PATH=/opt/old/bin":                            "PATH=/opt/old/bin, should be /p",
		"HOME=/tmp/evil":                               "HOME=/tmp/evil, should be %S/x",
	} {
		p := systemd.Properties{"Environment": []string{"PATH=/p", "HOME=/var/lib/x", "GITEA_PASSWORD=", added}}
		list := environment("it", "x.service", p, want)
		if text := fmt.Sprint(list); !strings.Contains(text, line) || strings.Contains(text, secret) {
			t.Errorf("%q: %s, want %q", added, text, line)
		}
	}
}

// docker tells of the daemon. A swarm that is not active matters where recipes are
// deployed.
func TestDocker(t *testing.T) {
	group, err := user.LookupGroup(docker.Group)
	for name, row := range map[string]struct {
		daemon  dockertest.Daemon
		swarm   bool
		verdict finding.Verdict
		state   string
		fix     string
	}{
		"a manager":           {dockertest.Daemon{Swarm: "s"}, true, finding.OK, "daemon 20.10.24+dfsg1 answers at %s, swarm active", ""},
		"no swarm":            {dockertest.Daemon{ID: "i"}, true, finding.Fault, "daemon 20.10.24+dfsg1 answers at %s, swarm not active, so no recipe can be deployed: This node is not a swarm manager.", "docker swarm init"},
		"no swarm, no recipe": {dockertest.Daemon{ID: "i"}, false, finding.OK, "daemon 20.10.24+dfsg1 answers at %s, swarm not active", ""},
		"another server":      {dockertest.Daemon{Version: "?"}, true, finding.Fault, "%s does not answer as Docker does", "systemctl restart docker.service; journalctl -u docker.service"},
	} {
		t.Run(name, func(t *testing.T) {
			socket := filepath.Join(t.TempDir(), "s")
			stop, failed := row.daemon.Serve(socket)
			if failed != nil {
				t.Fatal(failed)
			}
			defer stop()
			if err == nil { // without such a group, nobody looks whose the socket is
				gid, _ := strconv.Atoi(group.Gid)
				if failed := errors.Join(os.Chown(socket, -1, gid), os.Chmod(socket, 0o660)); failed != nil {
					t.Skip("needs root, to give a socket to the group docker: run the test as root: ", failed)
				}
			}
			h := Host{Config: &Config{Docker: socket, Swarm: row.swarm, Timeout: time.Minute}}
			f := h.docker(t.Context())[0]
			if want := strings.ReplaceAll(row.state, "%s", socket); f.Verdict != row.verdict || !strings.HasPrefix(f.State, want) || f.Fix != row.fix {
				t.Errorf("%+v, want %s, %s", f, row.verdict, want)
			}
		})
	}
}

func TestMetrics(t *testing.T) {
	r := Report{
		Time: time.Unix(1000, 0), Fingerprint: "f", Failed: 2,
		Results: []finding.Finding{{Verdict: finding.OK, What: "a"}, {Verdict: finding.Fault, What: "b \"\\\n"}, {Verdict: finding.OK, What: "b \"\\\n"}},
		Sweep:   &Sweep{End: time.Unix(900, 0), Status: 1},
	}
	text := r.Metrics()
	for _, want := range []string{
		"cc_ci_run_host_healthy 0\n", "cc_ci_run_environment_info{fingerprint=\"f\"} 1\n", "cc_ci_run_host_failed_units 2\n",
		"cc_ci_run_host_check_healthy{check=\"a\"} 1\n", `cc_ci_run_host_check_healthy{check="b \"\\\n"} 0` + "\n",
		"cc_ci_run_sweep_end_timestamp_seconds 900\n", "cc_ci_run_sweep_status 1\n",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("%q is missing in\n%s", want, text)
		}
	}
}
