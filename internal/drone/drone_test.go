package drone

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	api "github.com/drone/drone-go/drone"

	"cc-ci-run/internal/sweep"
)

const token = "secretoftheuser"

// fakeDrone is a fake Drone server with one repository, ci/recipes: as much of the
// API (handler/api of github.com/drone/drone v1.10.1) as package drone uses, and as strict.
// It has no runners: tests take builds and end them. `make drone` uses a real server.
type fakeDrone struct {
	t    *testing.T
	lock sync.Mutex

	repo   api.Repo
	builds []*api.Build // the newest last
	posts  int
	// refuse, if not nil, answers a request, or gives an error in place of an answer. It may
	// wait for the end of the request's context.
	refuse func(r *http.Request) (status int, err error)
	// late does the work of a request whose answer refuse withholds.
	late bool
}

func newFakeDrone(t *testing.T) *fakeDrone {
	return &fakeDrone{t: t, repo: api.Repo{Namespace: "ci", Name: "recipes", Branch: "main", Active: true, Timeout: 60}}
}

func (s *fakeDrone) RoundTrip(r *http.Request) (*http.Response, error) {
	answer := httptest.NewRecorder()
	s.lock.Lock()
	refuse, late := s.refuse, s.late
	s.lock.Unlock()
	if refuse != nil {
		status, err := refuse(r)
		if (status != 0 || err != nil) && late {
			s.ServeHTTP(httptest.NewRecorder(), r)
		}
		if err != nil {
			return nil, err
		}
		if status != 0 {
			answer.WriteHeader(status)
			fmt.Fprintf(answer, `{"message":"the fake server \u001b refuses"}`)
			return answer.Result(), nil
		}
	}
	if err := r.Context().Err(); err != nil {
		return nil, err
	}
	s.ServeHTTP(answer, r)
	return answer.Result(), nil
}

var paths = regexp.MustCompile(`^/api/repos/ci/recipes(?:(/builds)(?:/(\d+)(?:/logs/(\d+)/(\d+))?)?)?$`)

func (s *fakeDrone) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.lock.Lock()
	defer s.lock.Unlock()
	fail := func(status int) { http.Error(w, fmt.Sprintf(`{"message":%q}`, http.StatusText(status)), status) }
	if r.Header.Get("Authorization") != "Bearer "+token {
		fail(http.StatusUnauthorized)
		return
	}
	path := paths.FindStringSubmatch(r.URL.Path)
	number := 0
	if path != nil {
		number, _ = strconv.Atoi(path[2])
	}
	if path == nil || number > len(s.builds) {
		fail(http.StatusNotFound)
		return
	}
	var answer any
	query := r.URL.Query()
	switch what := r.Method + path[1]; {
	case what == "GET":
		answer = s.repo
	case path[3] != "":
		build := s.builds[number-1]
		if stage := build.Stages[0]; stage.Steps == nil || !over(build.Status) || stage.Machine == "dead" {
			fail(http.StatusNotFound) // a log is there once its step has ended, if the runner lives
			return
		}
		var lines []api.Line
		for i := range 20 {
			lines = append(lines, api.Line{Number: i, Message: fmt.Sprintf("line %d of step %s\n", i, path[4])})
		}
		answer = lines
	case what == "GET/builds" && number == 0:
		size, _ := strconv.Atoi(query.Get("per_page"))
		page, _ := strconv.Atoi(query.Get("page"))
		if size < 1 || size > 100 {
			size = 25
		}
		list := []*api.Build{}
		for i, build := range slices.Backward(s.builds) {
			if n := len(s.builds) - 1 - i - (max(page, 1)-1)*size; n >= 0 && n < size {
				brief := *build
				brief.Stages = nil // the list lacks them
				list = append(list, &brief)
			}
		}
		answer = list
	case what == "GET/builds":
		answer = s.builds[number-1]
	case what == "POST/builds" && number == 0:
		s.posts++
		if query.Get("branch") == "none" {
			fail(http.StatusNotFound)
			return
		}
		if query.Get("branch") == "empty" { // no pipeline for this event
			w.Header().Set("Content-Type", "application/json")
			fmt.Fprint(w, "null")
			return
		}
		answer = s.add(query)
	case what == "DELETE/builds" && number != 0:
		build := s.builds[number-1]
		if !over(build.Status) {
			s.finish(build, api.StatusKilled)
		}
		answer = build
	default:
		fail(http.StatusMethodNotAllowed)
		return
	}
	if err := json.NewEncoder(w).Encode(answer); err != nil {
		s.t.Error(err)
	}
}

// add starts a build. The caller holds the lock.
func (s *fakeDrone) add(query url.Values) *api.Build {
	build := &api.Build{Number: int64(len(s.builds) + 1), Event: "custom", Status: api.StatusPending, Target: "main", Params: map[string]string{}, Created: time.Now().Unix()}
	if branch := query.Get("branch"); branch != "" {
		build.Target = branch
	}
	for name, values := range query {
		if name != "branch" && name != "commit" && name != "access_token" {
			build.Params[name] = values[0]
		}
	}
	build.Stages = []*api.Stage{{Number: 1, Name: "sweep", Type: "exec", Status: api.StatusWaiting, OS: "linux", Arch: "amd64", Labels: map[string]string{"kvm": "yes"}}}
	s.builds = append(s.builds, build)
	return build
}

// finish ends a build. The caller holds the lock.
func (s *fakeDrone) finish(build *api.Build, status string) {
	build.Status = status
	for _, stage := range build.Stages {
		stage.Status = status
	}
}

// take lets a machine take a build, as Drone does: first only the stage says so.
func (s *fakeDrone) take(number int, machine string) {
	s.lock.Lock()
	defer s.lock.Unlock()
	s.builds[number-1].Stages[0].Machine = machine
}

func (s *fakeDrone) runs(number int, machine string) {
	s.lock.Lock()
	defer s.lock.Unlock()
	s.begin(s.builds[number-1], machine)
}

// begin has a machine take a build and work on it. The caller holds the lock.
func (s *fakeDrone) begin(build *api.Build, machine string) {
	build.Stages[0].Machine = machine
	build.Status = api.StatusRunning
	build.Stages[0].Steps = []*api.Step{{Number: 1, Name: "clone", Status: api.StatusPassing, Started: 1}, {Number: 2, Name: "sweep", Status: api.StatusRunning, Started: 2}, {Number: 3, Name: "after", Status: api.StatusSkipped}}
}

func (s *fakeDrone) ends(number int, status string) {
	s.lock.Lock()
	defer s.lock.Unlock()
	s.finish(s.builds[number-1], status)
}

// unable ends a build on a machine that cannot work.
func (s *fakeDrone) unable(number int) {
	s.exits(number, 1, sweep.UnableStatus)
}

// exits ends a build one of whose steps had an exit status other than 0.
func (s *fakeDrone) exits(number, step, status int) {
	s.lock.Lock()
	defer s.lock.Unlock()
	s.builds[number-1].Stages[0].Steps[step].ExitCode = status
	s.finish(s.builds[number-1], api.StatusFailing)
}

func (s *fakeDrone) set(refuse func(*http.Request) (int, error)) {
	s.lock.Lock()
	defer s.lock.Unlock()
	s.refuse = refuse
}

func (s *fakeDrone) status(number int) string {
	s.lock.Lock()
	defer s.lock.Unlock()
	return s.builds[number-1].Status
}

// ended is how many builds have ended.
func (s *fakeDrone) ended() (n int) {
	s.lock.Lock()
	defer s.lock.Unlock()
	for _, b := range s.builds {
		if over(b.Status) {
			n++
		}
	}
	return n
}

// client is a dispatcher's connection to the fake server.
func (s *fakeDrone) client(branch string) *Builds {
	b, err := New(Options{URL: "https://drone.example.org/ci/recipes", Branch: branch, Token: token, Transport: s})
	if err != nil {
		s.t.Fatal(err)
	}
	return b
}

var request = sweep.Request{Recipe: "a", Asked: sweep.Asked{Fingerprint: "f", Seen: "none"}, Limit: time.Hour}

// followed is one Run, and what it told.
type followed struct {
	end   sweep.Ending
	after time.Duration
	notes []string
}

func run(ctx context.Context, b *Builds, r sweep.Request) (f followed) {
	began := time.Now()
	var lock sync.Mutex
	f.end = b.Run(ctx, r, func(about, text string) {
		lock.Lock()
		defer lock.Unlock()
		f.notes = append(f.notes, fmt.Sprintf("%s %s: %s", time.Since(began).Truncate(time.Minute), about, text))
	})
	f.after = time.Since(began)
	return f
}

func unreachable(*http.Request) (int, error) { return 0, errors.New("connection refused") }

// What becomes of one recipe's build, and after how long by the dispatcher's clock.
func TestRun(t *testing.T) {
	const limit = time.Hour + margin
	for _, c := range []struct {
		name  string
		lives func(s *fakeDrone) // acts while the build is followed, and returns
		posts int
		from  time.Duration // Run ends then …
		to    time.Duration // … at the latest
		end   sweep.Ending  // Failed is a part of the text
		notes []string      // parts of all notes
		left  string        // the status of build 1 at the end
		build int           // that the end names; 0: build 1
	}{
		{
			name: "it ends well",
			lives: func(s *fakeDrone) {
				time.Sleep(time.Minute)
				s.runs(1, "m1")
				time.Sleep(time.Minute)
				s.ends(1, api.StatusPassing)
			},
			posts: 1, from: 2 * time.Minute, to: 2*time.Minute + 2*every, end: sweep.Ending{Machine: "m1"}, left: api.StatusPassing,
			notes: []string{"0s a: build 1 waits for a machine (0 run, 1 wait): https://drone.example.org/ci/recipes/1", "1m0s a: runs on m1 (1 run, 0 wait): https://drone.example.org/ci/recipes/1"},
		}, {
			name:  "it ends badly",
			lives: func(s *fakeDrone) { s.runs(1, "m1"); s.ends(1, api.StatusFailing) },
			posts: 1, to: 2 * every, end: sweep.Ending{Machine: "m1"}, left: api.StatusFailing,
			notes: []string{"waits", "runs on m1"},
		}, {
			name:  "a machine takes it and is lost",
			lives: func(s *fakeDrone) { s.runs(1, "dead") },
			posts: 1, from: limit, to: limit + 2*every, end: sweep.Ending{Machine: "dead", Failed: "its build was lost: the machine dead had it for 1h2m"}, left: api.StatusKilled,
			notes: []string{"waits", "runs on dead"},
		}, {
			name:  "a machine accepts it and is lost before it begins",
			lives: func(s *fakeDrone) { s.take(1, "dead") },
			posts: 1, from: margin, to: margin + 2*detailsEvery, end: sweep.Ending{Machine: "dead", Failed: "its build was lost: the machine dead took it 2m"}, left: api.StatusKilled,
			notes: []string{"waits", "runs on dead"},
		}, {
			name:  "no machine takes it",
			lives: func(*fakeDrone) {},
			posts: 1, from: limit, to: limit + 2*every, left: api.StatusKilled,
			end:   sweep.Ending{Failed: `no machine took its build for 1h2m2s: a runner for linux/amd64 of type "exec" with exactly the labels kvm=yes has to be connected to the Drone server, and idle`, Final: true},
			notes: []string{"waits", "10m0s a: no machine has taken build 1 for 10m2s (0 run, 1 wait): a runner for linux/amd64"},
		}, {
			name: "a machine takes it late",
			lives: func(s *fakeDrone) {
				time.Sleep(30 * time.Minute)
				s.runs(1, "m1")
				time.Sleep(time.Hour)
				s.ends(1, api.StatusPassing)
			},
			posts: 1, from: 90 * time.Minute, to: 91 * time.Minute, end: sweep.Ending{Machine: "m1"}, left: api.StatusPassing,
			notes: []string{"waits", "no machine has taken build 1", "30m0s a: runs on m1"},
		}, {
			name:  "a person cancels it",
			lives: func(s *fakeDrone) { s.runs(1, "m1"); time.Sleep(time.Minute); s.ends(1, api.StatusKilled) },
			posts: 1, from: time.Minute, to: 2 * time.Minute, left: api.StatusKilled,
			end:   sweep.Ending{Machine: "m1", Failed: "its build was cancelled: by a person, or by the time limit that the repository has in Drone (60 minutes)", Final: true},
			notes: []string{"waits", "runs on m1"},
		}, {
			name: "the pipeline cannot be read",
			lives: func(s *fakeDrone) {
				s.lock.Lock()
				defer s.lock.Unlock()
				s.builds[0].Status, s.builds[0].Stages, s.builds[0].Error = api.StatusError, nil, "yaml: line 3"
			},
			posts: 1, to: 2 * every, end: sweep.Ending{Failed: "Drone could not start its build: yaml: line 3", Final: true}, left: api.StatusError,
			notes: []string{"waits"},
		}, {
			name: "the runner could not begin",
			lives: func(s *fakeDrone) {
				s.runs(1, "m1")
				s.lock.Lock()
				defer s.lock.Unlock()
				s.builds[0].Status, s.builds[0].Stages[0].Error = api.StatusError, "no space left on device"
			},
			posts: 2, from: limit, to: limit + 2*every, left: api.StatusError, build: 2,
			end:   sweep.Ending{Machine: "m1", Failed: `no machine that can work took its build for 1h2m2s: a runner for linux/amd64 of type "exec" with exactly the labels kvm=yes has to be connected to the Drone server, and idle; these machines could not work (cc-ci-run host may say why): m1 (its build failed: no space left on device)`, Final: true},
			notes: []string{"build 1 waits", "runs on m1", "build 1 has ended, because m1 cannot work (its build failed: no space left on device): https://drone.example.org/ci/recipes/1", "build 2 waits", "no machine has taken build 2"},
		}, {
			name: "the server is away while it runs",
			lives: func(s *fakeDrone) {
				s.runs(1, "m1")
				time.Sleep(time.Minute)
				s.set(unreachable)
				time.Sleep(30 * time.Minute)
				s.ends(1, api.StatusPassing)
				s.set(nil)
			},
			posts: 1, from: 31 * time.Minute, to: 32 * time.Minute, end: sweep.Ending{Machine: "m1"}, left: api.StatusPassing,
			notes: []string{"waits", "runs on m1", `1m0s : the Drone server https://drone.example.org does not answer as it should: Get "https://drone.example.org/api/repos/ci/recipes/builds?page=1&per_page=100": connection refused; builds go on`, "31m0s : the Drone server https://drone.example.org answers again"},
		}, {
			name:  "the server does not come back",
			lives: func(s *fakeDrone) { s.runs(1, "m1"); time.Sleep(time.Minute); s.set(unreachable) },
			posts: 1, from: limit + time.Minute, to: limit + 2*time.Minute, left: api.StatusRunning,
			end:   sweep.Ending{Machine: "m1", Failed: "the Drone server https://drone.example.org has not answered for 1h2m", Final: true},
			notes: []string{"waits", "runs on m1", "does not answer"},
		}, {
			name: "a proxy says that the server is down",
			lives: func(s *fakeDrone) {
				s.runs(1, "m1")
				time.Sleep(time.Minute)
				s.set(func(*http.Request) (int, error) { return http.StatusBadGateway, nil })
				time.Sleep(time.Minute)
				s.set(nil)
				s.ends(1, api.StatusPassing)
			},
			posts: 1, from: 2 * time.Minute, to: 3 * time.Minute, end: sweep.Ending{Machine: "m1"}, left: api.StatusPassing,
			notes: []string{"waits", "runs on m1", "does not answer", "answers again"},
		}, {
			name: "the server refuses to tell of the build",
			lives: func(s *fakeDrone) {
				s.runs(1, "m1")
				time.Sleep(time.Minute)
				s.set(func(r *http.Request) (int, error) {
					if strings.HasSuffix(r.URL.Path, "/1") {
						return http.StatusTooManyRequests, nil
					}
					return 0, nil
				})
				s.ends(1, api.StatusPassing)
				time.Sleep(time.Minute)
				s.set(nil)
			},
			posts: 1, from: 2 * time.Minute, to: 3 * time.Minute, end: sweep.Ending{Machine: "m1"}, left: api.StatusPassing,
			notes: []string{"waits", "runs on m1", "1m0s a: the Drone server says nothing of build 1, and the sweep asks again: Get "},
		}, {
			name: "the server never tells of the build",
			lives: func(s *fakeDrone) {
				s.set(func(r *http.Request) (int, error) {
					if r.Method == "GET" && strings.HasSuffix(r.URL.Path, "/1") {
						return http.StatusInternalServerError, nil
					}
					return 0, nil
				})
			},
			posts: 1, from: limit, to: limit + 2*every, left: api.StatusKilled,
			end:   sweep.Ending{Failed: "no machine took its build for 1h2m", Final: true},
			notes: []string{"waits", "the Drone server says nothing of build 1", "no machine has taken build 1"},
		}, {
			name: "the build is removed",
			lives: func(s *fakeDrone) {
				s.runs(1, "m1")
				time.Sleep(time.Minute)
				s.set(func(r *http.Request) (int, error) {
					if strings.HasSuffix(r.URL.Path, "/1") {
						return http.StatusNotFound, nil
					}
					return 0, nil
				})
				s.ends(1, api.StatusKilled)
			},
			posts: 1, from: time.Minute, to: 2 * time.Minute, end: sweep.Ending{Machine: "m1", Failed: "its build was cancelled", Final: true}, left: api.StatusKilled,
			notes: []string{"waits", "runs on m1"},
		}, {
			name: "the token is taken back",
			lives: func(s *fakeDrone) {
				s.runs(1, "m1")
				time.Sleep(time.Minute)
				s.set(func(*http.Request) (int, error) { return http.StatusUnauthorized, nil })
			},
			posts: 1, from: limit + time.Minute, to: limit + 2*time.Minute, left: api.StatusRunning,
			end:   sweep.Ending{Machine: "m1", Failed: "has not answered for 1h2m", Final: true},
			notes: []string{"waits", "runs on m1", "answered 401 Unauthorized: the fake server"},
		}, {
			name: "the server hangs",
			lives: func(s *fakeDrone) {
				s.runs(1, "m1")
				s.set(func(r *http.Request) (int, error) { <-r.Context().Done(); return 0, r.Context().Err() })
				time.Sleep(10 * time.Minute)
				s.set(nil)
				s.ends(1, api.StatusPassing)
			},
			posts: 1, from: 10 * time.Minute, to: 11 * time.Minute, end: sweep.Ending{Machine: "m1"}, left: api.StatusPassing,
			notes: []string{"waits", "no answer within 30s", "answers again", "runs on m1"},
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := newFakeDrone(t)
				b := s.client("")
				if err := b.Check(t.Context()); err != nil {
					t.Error(err)
				}
				go func() {
					synctest.Wait()
					c.lives(s)
				}()
				f := run(t.Context(), b, request)
				synctest.Wait()
				if f.after < c.from || f.after > c.to {
					t.Errorf("it ended after %s, should have after %s to %s", f.after, c.from, c.to)
				}
				if e := f.end; e.Machine != c.end.Machine || e.Final != c.end.Final || !strings.Contains(e.Failed, c.end.Failed) || (e.Failed == "") != (c.end.Failed == "") || e.Link != fmt.Sprintf("https://drone.example.org/ci/recipes/%d", max(1, c.build)) {
					t.Errorf("%+v, should be %+v", e, c.end)
				}
				if len(f.notes) != len(c.notes) {
					t.Fatalf("notes %q, should be %q", f.notes, c.notes)
				}
				for i, note := range f.notes {
					if !strings.Contains(note, c.notes[i]) {
						t.Errorf("note %q, should have %q", note, c.notes[i])
					}
				}
				if s.posts != c.posts || s.status(1) != c.left {
					t.Errorf("%d builds were asked for, should be %d; build 1 is %s, should be %s", s.posts, c.posts, s.status(1), c.left)
				}
				if f.end.Failed == "" {
					said := f.end.Said(t.Context())
					if !strings.HasPrefix(said, "line 10 of step 2\n") || !strings.HasSuffix(said, "line 19 of step 2\n") {
						t.Errorf("it said %q", said)
					}
				}
				time.Sleep(time.Hour) // whoever follows nothing asks nothing
			})
		})
	}
}

// A build cannot be started at once, or the answer that says so is lost.
func TestStart(t *testing.T) {
	first := func(status int, err error) func(s *fakeDrone, r *http.Request) (int, error) {
		return func(s *fakeDrone, r *http.Request) (int, error) {
			if r.Method == "POST" && s.posts == 0 {
				return status, err
			}
			return 0, nil
		}
	}
	for _, c := range []struct {
		name   string
		branch string
		refuse func(s *fakeDrone, r *http.Request) (int, error)
		late   bool // the server does what it is asked
		posts  int
		after  time.Duration
		failed string
		notes  []string
	}{
		{name: "refused for a moment", refuse: func(s *fakeDrone, r *http.Request) (int, error) {
			if r.Method == "POST" && time.Since(epoch) < time.Minute {
				return http.StatusNotFound, nil
			}
			return 0, nil
		}, posts: 1, after: time.Minute, notes: []string{"0s a: no build could be started yet, and the sweep keeps trying for 5m0s: Post ", "waits"}},
		{name: "the answer is lost", refuse: first(0, errors.New("connection reset")), late: true, posts: 1, after: 10 * time.Second, notes: []string{"does not answer", "answers again", "build 1 was started before, and this sweep takes it over"}},
		{name: "the answer is late", refuse: func(s *fakeDrone, r *http.Request) (int, error) {
			if r.Method == "POST" && s.posts == 0 {
				<-r.Context().Done()
				return 0, r.Context().Err()
			}
			return 0, nil
		}, late: true, posts: 1, after: 2*time.Minute + 10*time.Second, notes: []string{"no answer within 2m0s", "answers again", "takes it over"}},
		{name: "the server is down for a moment", refuse: func(s *fakeDrone, r *http.Request) (int, error) {
			if time.Since(epoch) < time.Minute {
				return 0, errors.New("connection refused")
			}
			return 0, nil
		}, posts: 1, after: time.Minute, notes: []string{"does not answer", "answers again", "waits"}},
		{name: "the server is down", refuse: func(*fakeDrone, *http.Request) (int, error) { return 0, errors.New("connection refused") }, after: time.Hour + margin + retryEvery, failed: "connection refused", notes: []string{"does not answer"}},
		{name: "there is no such branch", branch: "none", posts: 32, after: refusedFor + retryEvery, failed: "answered 404 Not Found", notes: []string{"no build could be started yet"}},
		{name: "the branch has no such pipeline", branch: "empty", posts: 1, failed: ".drone.yml of the branch that builds check out has no pipeline for the event custom"},
		{name: "the token may not write", refuse: first(http.StatusForbidden, nil), failed: "answered 403 Forbidden: the fake server refuses"},
		{name: "the token is not valid any more", refuse: func(*fakeDrone, *http.Request) (int, error) { return http.StatusUnauthorized, nil }, failed: "answered 401", notes: []string{"answered 401"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := newFakeDrone(t)
				epoch = time.Now()
				if c.refuse != nil {
					s.refuse = func(r *http.Request) (int, error) { return c.refuse(s, r) }
				}
				s.late = c.late
				began := time.Now()
				b := s.client(c.branch)
				go func() { // the first machine is idle
					for s.count() == 0 && time.Since(began) < 2*time.Hour {
						time.Sleep(time.Second)
					}
					if s.count() > 0 {
						time.Sleep(time.Minute)
						s.runs(1, "m1")
						s.ends(1, api.StatusPassing)
					}
				}()
				f := run(t.Context(), b, request)
				if (f.end.Failed == "") != (c.failed == "") || !strings.Contains(f.end.Failed, c.failed) || strings.Contains(fmt.Sprint(f.end, f.notes), token) {
					t.Errorf("%+v, should be %q", f.end, c.failed)
				}
				if c.failed != "" && !f.end.Final {
					t.Errorf("%+v: another attempt would be of no use", f.end)
				}
				if c.failed != "" && f.after > c.after+every {
					t.Errorf("it ended after %s, should have after %s", f.after, c.after)
				}
				if s.posts != c.posts {
					t.Errorf("%d builds were asked for, should be %d", s.posts, c.posts)
				}
				if c.failed == "" {
					c.notes = append(c.notes, "runs on m1")
				}
				if len(f.notes) != len(c.notes) {
					t.Fatalf("notes %q, should be %q", f.notes, c.notes)
				}
				for i, note := range f.notes {
					if !strings.Contains(note, c.notes[i]) {
						t.Errorf("note %q, should have %q", note, c.notes[i])
					}
				}
				time.Sleep(3 * time.Hour)
			})
		})
	}
}

// epoch is when a test began.
var epoch time.Time

func (s *fakeDrone) count() int {
	s.lock.Lock()
	defer s.lock.Unlock()
	return len(s.builds)
}

// A build that somebody started before is taken over, but not just any.
func TestTakeOver(t *testing.T) {
	build := func(status, event, branch, recipe, fingerprint string, age time.Duration) func(*fakeDrone) {
		return func(s *fakeDrone) {
			b := s.add(url.Values{"RECIPE": {recipe}, "FINGERPRINT": {fingerprint}, "branch": {branch}})
			b.Status, b.Event, b.Created = status, event, time.Now().Add(-age).Unix()
		}
	}
	others := func(n int) func(*fakeDrone) {
		return func(s *fakeDrone) {
			for range n {
				build(api.StatusPassing, "push", "main", "", "", time.Hour)(s)
			}
		}
	}
	for name, c := range map[string]struct {
		builds []func(*fakeDrone)
		want   int // the number of the build that is taken over, 0 for none
	}{
		"none":                    {nil, 0},
		"it waits":                {[]func(*fakeDrone){build(api.StatusPending, "custom", "main", "a", "f", 0)}, 1},
		"it runs":                 {[]func(*fakeDrone){build(api.StatusRunning, "custom", "main", "a", "f", 0)}, 1},
		"the newest of two":       {[]func(*fakeDrone){build(api.StatusRunning, "custom", "main", "a", "f", 0), build(api.StatusPending, "custom", "main", "a", "f", 0)}, 2},
		"a person has started it": {[]func(*fakeDrone){build(api.StatusPending, "custom", "main", "a", "", 0)}, 1},
		"behind many others":      {[]func(*fakeDrone){build(api.StatusRunning, "custom", "main", "a", "f", time.Hour), others(250)}, 1},
		"it has ended":            {[]func(*fakeDrone){build(api.StatusPassing, "custom", "main", "a", "f", 0)}, 0},
		"another recipe":          {[]func(*fakeDrone){build(api.StatusPending, "custom", "main", "ab", "f", 0)}, 0},
		"another environment":     {[]func(*fakeDrone){build(api.StatusPending, "custom", "main", "a", "g", 0)}, 0},
		"another branch":          {[]func(*fakeDrone){build(api.StatusPending, "custom", "other", "a", "f", 0)}, 0},
		"a push":                  {[]func(*fakeDrone){build(api.StatusPending, "push", "main", "a", "f", 0)}, 0},
		"so old that nobody has it": {[]func(*fakeDrone){build(api.StatusRunning, "custom", "main", "a", "f", 300*time.Hour), func(s *fakeDrone) {
			for range 100 {
				build(api.StatusPassing, "push", "main", "", "", 200*time.Hour)(s)
			}
		}}, 0},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := newFakeDrone(t)
				for _, add := range c.builds {
					add(s)
				}
				want := c.want
				if want == 0 {
					want = len(s.builds) + 1
				}
				go func() {
					time.Sleep(time.Minute)
					s.runs(want, "m1")
					s.ends(want, api.StatusPassing)
				}()
				f := run(t.Context(), s.client("main"), request)
				if f.end.Failed != "" || !strings.HasSuffix(f.end.Link, fmt.Sprintf("/%d", want)) || (s.posts == 0) != (c.want > 0) {
					t.Errorf("%+v, %d builds were asked for; should be build %d", f, s.posts, want)
				}
				time.Sleep(time.Hour)
			})
		})
	}
}

// A build that was cancelled before its recipe's turn is not taken over.
func TestLateTurn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newFakeDrone(t)
		s.add(url.Values{"RECIPE": {"b"}, "FINGERPRINT": {"f"}})
		b := s.client("main")
		go func() {
			time.Sleep(time.Minute)
			s.ends(2, api.StatusPassing)
			s.ends(1, api.StatusKilled)
			for range 100 {
				s.lock.Lock()
				s.add(url.Values{}).Status = api.StatusPassing
				s.lock.Unlock()
			}
		}()
		run(t.Context(), b, request)
		r := request
		r.Recipe = "b"
		go func() {
			time.Sleep(time.Minute)
			s.ends(103, api.StatusPassing)
		}()
		if f := run(t.Context(), b, r); f.end.Failed != "" || !strings.HasSuffix(f.end.Link, "/103") {
			t.Errorf("%+v", f)
		}
		time.Sleep(time.Hour)
	})
}

// Many recipes, few machines, two dispatchers, one of which is killed.
func TestMany(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newFakeDrone(t)
		const recipes, each = 40, 4 * time.Minute
		stop := make(chan struct{})
		for m := range 3 {
			go s.machine(fmt.Sprint("m", m), 10*time.Second, stop, func(number int) {
				time.Sleep(each)
				s.ends(number, api.StatusPassing)
			})
		}
		dispatch := func(ctx context.Context, b *Builds) (done int) {
			var all sync.WaitGroup
			var lock sync.Mutex
			room := make(chan struct{}, 16)
			for n := range recipes {
				all.Go(func() {
					room <- struct{}{}
					defer func() { <-room }()
					r := request
					r.Recipe = fmt.Sprint("r", n)
					if f := run(ctx, b, r); f.end.Failed == "" {
						lock.Lock()
						done++
						lock.Unlock()
					} else if ctx.Err() == nil {
						t.Errorf("%s: %+v", r.Recipe, f)
					}
				})
			}
			all.Wait()
			return done
		}
		// The first one is killed: what it has started stays.
		dead, kill := context.WithCancel(t.Context())
		first := s.client("")
		go func() {
			time.Sleep(10 * time.Minute)
			s.set(func(r *http.Request) (int, error) {
				if r.Method == "DELETE" {
					return 0, errors.New("killed")
				}
				return 0, nil
			})
			kill()
		}()
		dispatch(dead, first)
		s.set(nil)
		before := s.posts
		if before < 20 || before > 30 {
			t.Errorf("the first dispatcher started %d builds", before)
		}
		began, ended := time.Now(), s.ended()
		if done := dispatch(t.Context(), s.client("")); done != recipes {
			t.Errorf("%d of %d are done", done, recipes)
		}
		close(stop)
		// Of the first one's builds, those that had ended were asked for again.
		if s.posts > recipes+10 {
			t.Errorf("%d builds for %d recipes", s.posts, recipes)
		}
		// No machine was idle while a build waited: then all end within an equal share of the
		// builds that were left, and one build. A machine looks every 10 seconds, and the
		// dispatcher hears of the end within 20.
		builds := time.Duration(s.posts - ended)
		if took := time.Since(began); took > (builds/3+1)*(each+10*time.Second)+builds%3*(each+10*time.Second)/3+20*time.Second {
			t.Errorf("%d builds took %s", builds, took)
		}
		time.Sleep(time.Hour)
	})
}

// Machines that cannot work take no more recipes than they can try, and every recipe is run
// by another machine, if there is one.
func TestUnable(t *testing.T) {
	for _, c := range []struct {
		bad, good, recipes int
		tries              time.Duration // how long a bad machine tries each build
		heals              time.Duration // when bad machines can work; 0: never
		each               time.Duration // how long a good machine runs a recipe's tests
		builds             int           // at most
		within             time.Duration
	}{
		// The night takes as long as the good machines need for all recipes, and little more.
		{bad: 1, good: 1, recipes: 12, tries: 10 * time.Minute, each: 10 * time.Minute, builds: 12 + 15, within: 145 * time.Minute},
		{bad: 1, good: 1, recipes: 60, tries: 10 * time.Minute, each: time.Minute, builds: 60 + 8, within: 75 * time.Minute},
		{bad: 1, good: 1, recipes: 1, tries: 10 * time.Minute, each: time.Minute, builds: 3, within: 15 * time.Minute},
		{bad: 1, good: 1, recipes: 4, tries: 10 * time.Minute, each: 55 * time.Minute, builds: 4 + 24, within: 245 * time.Minute},
		{bad: 4, good: 4, recipes: 60, tries: 10 * time.Minute, each: 5 * time.Minute, builds: 60 + 48, within: 110 * time.Minute},
		{bad: 7, good: 1, recipes: 10, tries: 10 * time.Minute, each: 10 * time.Minute, builds: 10 + 80, within: 125 * time.Minute},
		{bad: 1, good: 1, recipes: 60, tries: 10 * time.Minute, heals: 25 * time.Minute, each: 5 * time.Minute, builds: 60 + 8, within: 190 * time.Minute},
		// They give up quickly, as with a short time limit.
		{bad: 2, good: 1, recipes: 5, tries: 0, each: 10 * time.Minute, builds: 150, within: 100 * time.Minute},
		{bad: 1, good: 1, recipes: 12, tries: 0, each: 20 * time.Minute, builds: 500, within: 300 * time.Minute},
		// No machine can work. After a recipe's limit, that is told of all recipes.
		{bad: 2, good: 0, recipes: 20, tries: 10 * time.Minute, builds: 20 + 20, within: 90 * time.Minute},
		{bad: 2, good: 0, recipes: 6, tries: 14 * time.Minute, builds: 6 + 14, within: 100 * time.Minute},
		{bad: 1, good: 0, recipes: 1, tries: 10 * time.Minute, builds: 9, within: 75 * time.Minute},
		{bad: 1, good: 0, recipes: 20, tries: 0, builds: 20 * 22, within: 75 * time.Minute},
	} {
		t.Run(fmt.Sprintf("%d bad, %d good, %d recipes, %s, heals %s", c.bad, c.good, c.recipes, c.tries, c.heals), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := newFakeDrone(t)
				stop, began := make(chan struct{}), time.Now()
				for m := range c.bad + c.good {
					go s.machine(fmt.Sprint("m", m), 5*time.Second, stop, func(number int) {
						wait := func(long time.Duration) {
							for until := time.Now().Add(long); time.Now().Before(until) && !over(s.status(number)); {
								time.Sleep(10 * time.Second) // a cancelled build is over at once
							}
						}
						bad := func() bool { return m < c.bad && (c.heals == 0 || time.Since(began) < c.heals) }
						if bad() {
							wait(c.tries)
						}
						cannot := bad()
						if !cannot {
							wait(c.each)
						}
						switch {
						case over(s.status(number)):
						case cannot:
							s.unable(number)
						default:
							s.ends(number, api.StatusPassing)
						}
					})
				}
				b := s.client("")
				var all sync.WaitGroup
				for n := range c.recipes {
					all.Go(func() {
						r := request
						r.Recipe = fmt.Sprint("r", n)
						end := run(t.Context(), b, r).end
						number, _ := strconv.Atoi(end.Link[strings.LastIndexByte(end.Link, '/')+1:])
						switch passed := s.status(number) == api.StatusPassing; {
						case c.good > 0 && (!passed || end.Failed != ""):
							t.Errorf("%s: %+v", r.Recipe, end)
						case c.good == 0 && (!strings.Contains(end.Failed, "no machine that can work took its build for 1h") || !strings.Contains(end.Failed, " may say why): m0") || !end.Final):
							t.Errorf("%s: %+v", r.Recipe, end)
						}
					})
				}
				all.Wait()
				took := time.Since(began)
				time.Sleep(time.Minute) // builds are cancelled
				close(stop)
				time.Sleep(time.Hour)
				if len(s.builds) > c.builds || took > c.within {
					t.Errorf("%d builds, %s; should be at most %d, %s", len(s.builds), took, c.builds, c.within)
				}
				t.Logf("%d builds, %s", len(s.builds), took)
				for i, build := range s.builds {
					if !over(build.Status) {
						t.Errorf("build %d is %s", i+1, build.Status)
					}
				}
			})
		})
	}
}

// m0 could not do the work of build 1, and takes build 2, so build 3 is started. What becomes of
// both decides.
func TestParked(t *testing.T) {
	for name, c := range map[string]struct {
		lives  func(s *fakeDrone, cancel func())
		end    int // the number of the build that counts
		failed string
		posts  int
		left   string // the status of the other build
	}{
		"the other one does the work": {func(s *fakeDrone, _ func()) { s.runs(3, "m1"); s.ends(3, api.StatusPassing) }, 3, "", 3, api.StatusKilled},
		"its machine can work again":  {func(s *fakeDrone, _ func()) { s.ends(2, api.StatusFailing) }, 2, "", 3, api.StatusKilled},
		"both do the work": {func(s *fakeDrone, _ func()) {
			s.runs(3, "m1")
			s.ends(3, api.StatusPassing)
			s.ends(2, api.StatusPassing)
		}, 2, "", 3, api.StatusPassing},
		"a person cancels it": {func(s *fakeDrone, _ func()) {
			s.ends(2, api.StatusKilled)
			time.Sleep(time.Minute)
			s.runs(3, "m1")
			time.Sleep(time.Minute)
			s.ends(3, api.StatusPassing)
		}, 3, "", 3, api.StatusKilled},
		"a person cancels the other one": {func(s *fakeDrone, _ func()) { s.runs(3, "m1"); time.Sleep(time.Minute); s.ends(3, api.StatusKilled) }, 3, "its build was cancelled", 3, api.StatusKilled},
		"its step fails otherwise": {func(s *fakeDrone, _ func()) {
			s.exits(2, 1, 125)
			time.Sleep(time.Minute)
			s.runs(3, "m1")
			s.ends(3, api.StatusPassing)
		}, 3, "", 3, api.StatusFailing},
		"the other machine cannot work either": {func(s *fakeDrone, _ func()) {
			s.runs(3, "m1")
			time.Sleep(10 * time.Minute)
			s.unable(3)
			time.Sleep(time.Minute)
			s.runs(4, "m2")
			time.Sleep(time.Minute)
			s.ends(4, api.StatusPassing)
		}, 4, "", 4, api.StatusKilled},
		"its machine works on it, and the other one cannot": {func(s *fakeDrone, _ func()) {
			time.Sleep(13 * time.Minute)
			s.runs(3, "m1")
			s.unable(3)
			time.Sleep(20 * time.Minute)
			s.ends(2, api.StatusPassing)
		}, 2, "", 3, api.StatusPassing},
		"the sweep is ended": {func(s *fakeDrone, cancel func()) { cancel() }, 3, "its build was cancelled with the sweep", 3, api.StatusKilled},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := newFakeDrone(t)
				b := s.client("")
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()
				go func() {
					for n := 1; n <= 2; n++ {
						for s.count() < n {
							time.Sleep(time.Second)
						}
						s.runs(n, "m0")
						if n == 1 {
							time.Sleep(time.Minute)
							s.unable(1)
						}
					}
					for s.count() < 3 {
						time.Sleep(time.Second)
					}
					time.Sleep(detailsEvery)
					c.lives(s, cancel)
				}()
				f := run(ctx, b, request)
				if !strings.HasSuffix(f.end.Link, fmt.Sprintf("/%d", c.end)) || !strings.Contains(f.end.Failed, c.failed) || (f.end.Failed == "") != (c.failed == "") {
					t.Errorf("%+v; should be build %d, %q", f, c.end, c.failed)
				}
				other := 2
				if c.end == 2 {
					other = 3
				}
				if len(s.builds) != c.posts || c.left == api.StatusKilled && s.status(other) != api.StatusKilled {
					t.Errorf("%d builds, the other one is %s; should be %d, %s", len(s.builds), s.status(other), c.posts, c.left)
				}
				for i := range s.builds {
					if !over(s.status(i + 1)) {
						t.Errorf("build %d is %s", i+1, s.status(i+1))
					}
				}
				time.Sleep(3 * time.Hour)
			})
		})
	}
}

// What a step's exit status means.
func TestOutcome(t *testing.T) {
	for _, c := range []struct {
		status string
		stage  string // its error
		exits  []int
		want   outcome
	}{
		{api.StatusPassing, "", []int{0, 0}, useful},
		{api.StatusFailing, "", []int{0, 1}, useful},
		{api.StatusFailing, "", []int{0, sweep.UnableStatus}, unable},
		{api.StatusFailing, "", []int{0, 127}, unable},
		{api.StatusFailing, "", []int{0, 125}, fruitless},
		{api.StatusFailing, "", []int{0, 137}, fruitless},
		{api.StatusFailing, "", []int{128, 0}, unable},
		{api.StatusFailing, "", []int{1, 0}, unable},
		{api.StatusKilled, "", []int{0, 0}, fruitless},
		{api.StatusKilled, "cancelled", []int{0, 127}, fruitless},
		{api.StatusError, "no space left on device", nil, unable},
		{api.StatusError, "", nil, fruitless},
	} {
		build := &api.Build{Status: c.status, Stages: []*api.Stage{{Machine: "m", Error: c.stage}}}
		for i, exit := range c.exits {
			build.Stages[0].Steps = append(build.Stages[0].Steps, &api.Step{Name: []string{"clone", "sweep"}[i], ExitCode: exit})
		}
		if got := outcomeOf(build); got != c.want {
			t.Errorf("%+v: %d", c, got)
		}
	}
}

// machine looks for a build that waits, again and again, takes the build, and works on it.
func (s *fakeDrone) machine(name string, looksEvery time.Duration, stop <-chan struct{}, work func(number int)) {
	for {
		select {
		case <-stop:
			return
		case <-time.After(looksEvery):
		}
		if number := s.next(name); number > 0 {
			work(number)
		}
	}
}

// next takes the oldest build that waits; 0 if there is none.
func (s *fakeDrone) next(machine string) int {
	s.lock.Lock()
	defer s.lock.Unlock()
	i := slices.IndexFunc(s.builds, func(b *api.Build) bool { return b.Status == api.StatusPending && b.Stages[0].Machine == "" })
	if i >= 0 {
		s.begin(s.builds[i], machine)
	}
	return i + 1
}

// A build waits on its machine for another one: its own time begins after that.
func TestQueueOfMachine(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newFakeDrone(t)
		b := s.client("")
		var all sync.WaitGroup
		for _, recipe := range []string{"a", "b"} {
			all.Go(func() {
				r := request
				r.Recipe = recipe
				if f := run(t.Context(), b, r); f.end.Failed != "" {
					t.Errorf("%+v", f)
				}
			})
		}
		time.Sleep(time.Minute)
		s.runs(1, "m1")
		s.runs(2, "m1")
		time.Sleep(55 * time.Minute)
		s.ends(1, api.StatusPassing)
		time.Sleep(55 * time.Minute)
		s.ends(2, api.StatusPassing)
		all.Wait()
		time.Sleep(time.Hour)
	})
}

// The end of a sweep cancels its builds, also one that is being started.
func TestEnded(t *testing.T) {
	for name, c := range map[string]struct {
		refuse func(*http.Request) (int, error)
		late   bool
		before func(*fakeDrone)
	}{
		"it runs":  {before: func(s *fakeDrone) { s.runs(1, "m1") }},
		"it waits": {},
		"it is being started": {refuse: func(r *http.Request) (int, error) {
			if r.Method == "POST" {
				<-r.Context().Done()
				return 0, r.Context().Err()
			}
			return 0, nil
		}, late: true},
		"the server is away": {before: func(s *fakeDrone) { s.set(unreachable) }},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := newFakeDrone(t)
				s.refuse, s.late = c.refuse, c.late
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()
				var ended time.Time
				go func() {
					time.Sleep(time.Minute)
					if c.before != nil {
						c.before(s)
					}
					time.Sleep(20 * time.Second)
					ended = time.Now()
					cancel()
				}()
				f := run(ctx, s.client(""), request)
				if bound := 2*cancelLimit + getLimit; f.end.Failed == "" || time.Since(ended) > bound {
					t.Errorf("%+v after %s", f, time.Since(ended))
				}
				if want := name != "the server is away"; (s.status(1) == api.StatusKilled) != want {
					t.Errorf("its build is %s", s.status(1))
				}
				time.Sleep(time.Hour)
			})
		})
	}
}

func TestCheck(t *testing.T) {
	for name, c := range map[string]struct {
		change func(s *fakeDrone, o *Options)
		want   string
	}{
		"all is well":        {func(*fakeDrone, *Options) {}, ""},
		"the server is away": {func(s *fakeDrone, _ *Options) { s.refuse = unreachable }, ""},
		"a wrong token":      {func(_ *fakeDrone, o *Options) { o.Token = "another" }, "does not accept the token"},
		"no such repository": {func(_ *fakeDrone, o *Options) { o.URL += "x" }, "the Drone server https://drone.example.org does not show the repository ci/recipesx ("},
		"not active":         {func(s *fakeDrone, _ *Options) { s.repo.Active = false }, "is not active"},
		"a redirect": {func(s *fakeDrone, o *Options) {
			o.Transport = redirect{s, ""}
		}, "answered 301 Moved Permanently: the server redirects to https://evil.example.org/, where the token is not sent"},
		"a redirect with the token": {func(s *fakeDrone, o *Options) {
			o.Transport = redirect{s, "?" + token + "\x1b[31m" + strings.Repeat("x", 100_000)}
		}, "the server redirects to https://evil.example.org/?… [31mxxx"},
		"an answer with the token": {func(s *fakeDrone, o *Options) {
			o.Transport = says{http.StatusNotFound, strings.Repeat("x", 290) + token}
		}, "xxx…"},
		"a null": {func(s *fakeDrone, o *Options) { o.Transport = says{http.StatusOK, "null"} }, "is not active"},
	} {
		t.Run(name, func(t *testing.T) {
			s := newFakeDrone(t)
			o := Options{URL: "https://drone.example.org/ci/recipes", Token: token, Transport: s}
			c.change(s, &o)
			b, err := New(o)
			if err == nil {
				err = b.Check(t.Context())
			}
			if (err == nil) != (c.want == "") || err != nil && (!strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), token[:5]) || len(err.Error()) > 1000 || strings.Contains(err.Error(), "\x1b")) {
				t.Errorf("%.1000v, should be %q", err, c.want)
			}
		})
	}
}

// redirect is a server that sends to another one.
type redirect struct {
	s    *fakeDrone
	more string // of the address
}

// says is a server with one answer.
type says struct {
	status int
	text   string
}

func (s says) RoundTrip(*http.Request) (*http.Response, error) {
	answer := httptest.NewRecorder()
	answer.WriteHeader(s.status)
	_, _ = answer.WriteString(s.text)
	return answer.Result(), nil
}

// Answers of a hostile server, or of a server that is not a Drone server: the dispatcher goes
// on, and people see only the beginning of an answer, without control characters.
func TestHostile(t *testing.T) {
	long := strings.Repeat("long", 100_000) + "\\u001b[31m\\n"
	for name, c := range map[string]struct {
		list, page string
		failed     string
	}{
		"nothing":         {"null", "null", "no machine took its build"},
		"nulls":           {"[null]", `{"number":1,"status":"failure","stages":[null,{"machine":"m","steps":[null,{"number":1,"started":1}]},null]}`, ""},
		"another build":   {"[]", `{"number":2,"status":"success"}`, "no machine took its build"},
		"below 0":         {`[{"number":-1}]`, `{"number":-1,"status":"success"}`, "no machine took its build"},
		"long texts":      {"[]", `{"number":1,"status":"running","stages":[{"machine":"` + long + `"}]}`, "its build was lost"},
		"long errors":     {"[]", `{"number":1,"status":"error","error":"` + long + `"}`, "Drone could not start its build: long"},
		"a stage's error": {"[]", `{"number":1,"status":"error","stages":[{"error":"` + long + `"}]}`, "its build failed: long"},
		"another type":    {`{"a":1}`, `{}`, "has not answered for"},
		"no JSON":         {`<html>`, `<html>`, "has not answered for"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b, err := New(Options{URL: "https://drone.example.org/ci/recipes", Branch: "main", Token: token, Transport: answers(func(r *http.Request) string {
					switch {
					case r.Method == "POST":
						return `{"number":1}`
					case strings.HasSuffix(r.URL.Path, "/builds") && strings.HasPrefix(c.list, "["), strings.HasSuffix(r.URL.Path, "/builds") && time.Since(epoch) > time.Second:
						return c.list
					case strings.HasSuffix(r.URL.Path, "/builds"):
						return "[]"
					case strings.Contains(r.URL.Path, "/logs/"):
						return `[null,{"out":"the log"}]`
					}
					return c.page
				})})
				if err != nil {
					t.Fatal(err)
				}
				epoch = time.Now()
				f := run(t.Context(), b, request)
				if text := fmt.Sprint(f.notes, f.end.Failed, f.end.Machine); !strings.Contains(f.end.Failed, c.failed) || (c.failed == "") != (f.end.Failed == "") || len(text) > 3000 || strings.ContainsAny(text, "\x1b\n") {
					t.Errorf("%.1000s, should be %q", text, c.failed)
				}
				if c.failed == "" {
					if said := f.end.Said(t.Context()); said != "the log" {
						t.Errorf("it said %q", said)
					}
				}
				time.Sleep(time.Hour)
			})
		})
	}
}

// answers is a server that always succeeds.
type answers func(*http.Request) string

func (a answers) RoundTrip(r *http.Request) (*http.Response, error) {
	return says{http.StatusOK, a(r)}.RoundTrip(r)
}

// If the server is away when a sweep starts, the sweep does not take over a build of any
// other branch than the default one.
func TestBranchLater(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newFakeDrone(t)
		s.add(url.Values{"RECIPE": {"a"}, "branch": {"feature"}})
		b := s.client("")
		s.set(unreachable)
		if err := b.Check(t.Context()); err != nil {
			t.Error(err)
		}
		s.set(nil)
		go func() {
			time.Sleep(time.Minute)
			s.ends(2, api.StatusPassing)
		}()
		if f := run(t.Context(), b, request); f.end.Failed != "" || !strings.HasSuffix(f.end.Link, "/2") || s.builds[1].Target != "main" {
			t.Errorf("%+v", f)
		}
		time.Sleep(time.Hour)
	})
}

func (d redirect) RoundTrip(r *http.Request) (*http.Response, error) {
	if r.URL.Host != "drone.example.org" {
		d.s.t.Errorf("asked %s", r.URL)
	}
	answer := httptest.NewRecorder()
	answer.Header().Set("Location", "https://evil.example.org/"+d.more)
	answer.WriteHeader(http.StatusMovedPermanently)
	return answer.Result(), nil
}

func TestURL(t *testing.T) {
	for _, c := range []struct{ url, server, link, err string }{
		{"https://drone.example.org/ci/recipes", "https://drone.example.org", "https://drone.example.org/ci/recipes/7", ""},
		{"https://drone.example.org/ci/recipes/", "https://drone.example.org", "https://drone.example.org/ci/recipes/7", ""},
		{"http://127.0.0.1:8080/ci/recipes", "http://127.0.0.1:8080", "http://127.0.0.1:8080/ci/recipes/7", ""},
		{"https://example.org/drone/ci/recipes", "https://example.org/drone", "https://example.org/drone/ci/recipes/7", ""},
		{"", "", "", "write the repository's address"},
		{"drone.example.org/ci/recipes", "", "", "write the repository's address"},
		{"https://drone.example.org/ci", "", "", "write the repository's address"},
		{"https://drone.example.org", "", "", "write the repository's address"},
		{"ssh://drone.example.org/ci/recipes", "", "", "write the repository's address"},
		{"https://me:" + token + "@drone.example.org/ci/recipes", "", "", "has a user or a password in it"},
		{"https://drone.example.org/ci/recipes?access_token=" + token, "", "", "write the repository's address"},
		{"https://me:" + token + "@%zz/ci/recipes", "", "", "write the repository's address"},
	} {
		b, err := New(Options{URL: c.url})
		if c.err != "" {
			if err == nil || !strings.Contains(err.Error(), c.err) || strings.Contains(err.Error(), token) {
				t.Errorf("%q: %v", c.url, err)
			}
			continue
		}
		if err != nil || b.server != c.server || b.link(7) != c.link || b.Repository() != "ci/recipes" {
			t.Errorf("%q: %+v, %v", c.url, b, err)
		}
	}
}

// The proxy is that of the variables that are passed.
func TestProxy(t *testing.T) {
	proxy := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintf(w, `{"active":true,"slug":%q}`, r.URL.Host)
	}))
	defer proxy.Close()
	for _, c := range []struct {
		environ []string
		proxied bool
	}{
		{[]string{"http_proxy=" + proxy.URL}, true},
		{[]string{"HTTP_PROXY=" + proxy.URL}, true},
		{[]string{"http_proxy=" + proxy.URL, "no_proxy=drone.invalid"}, false},
		{nil, false},
	} {
		b, err := New(Options{URL: "http://drone.invalid/ci/recipes", Environ: c.environ})
		if err != nil {
			t.Fatal(err)
		}
		repo, err := call(t.Context(), b, getLimit, func(c api.Client) (*api.Repo, error) { return c.Repo("ci", "recipes") })
		if (err == nil && repo.Slug == "drone.invalid") != c.proxied {
			t.Errorf("%q: %+v, %v", c.environ, repo, err)
		}
	}
}
