// Package drone runs recipes on the machines of a Drone server: each recipe is a build of
// one repository, and Drone's runners take the builds.
//
//	builds, err := drone.New(drone.Options{URL: "https://drone.example.org/ci/recipes", Token: token})
//	ending := builds.Run(ctx, request, tell)
//
// A build has the event "custom" and three parameters: RECIPE, FINGERPRINT and SEEN. The
// repository's .drone.yml says what a machine does with them. Package drone only places
// builds, follows them, and ends those that no machine will end. It does not know what
// verdicts are: Drone's word for the end of a build ("success", "failure") is not used.
//
// All that must survive is in the Drone server. If a dispatcher is killed, the next one asks
// the server for the builds that have not ended, and takes them over.
package drone

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"

	api "github.com/drone/drone-go/drone"
	"golang.org/x/net/http/httpproxy"

	"cc-ci-run/internal/env"
	"cc-ci-run/internal/plaintext"
)

// Options say in which repository builds are started, and with which token.
type Options struct {
	URL     string   // of the repository, as a browser shows it: https://drone.example.org/OWNER/NAME
	Branch  string   // that builds check out; "": the repository's default branch
	Token   string   // of a user of Drone who may write to the repository
	Environ []string // "NAME=VALUE"; has the proxy, if one is needed
	// Transport is for tests; nil for the network.
	Transport http.RoundTripper
}

// Builds are the builds of one repository. Its methods may be called at the same time.
type Builds struct {
	server      string // the URL without the repository
	owner, name string
	branch      string
	token       string
	network     http.RoundTripper

	posts chan struct{} // has room for as many requests for a build as may be under way

	lock      sync.Mutex
	watched   map[int64]*watch // the builds that are followed, by their numbers
	following bool             // follow runs
	progress  time.Time        // when a machine that can work last took or ended one of the builds
	answered  time.Time        // when the server last answered
	silent    bool             // people were told that the server does not answer
	left      map[string]int64 // by recipe: unfinished builds of an earlier dispatcher; nil: not yet known
	newest    map[string]int64 // by recipe: the newest build that was followed
	unable    map[string]bool  // machines that could not do the work of the last build that they ended
	timeout   string           // the repository's time limit in Drone, for people
}

// Limits of single requests. The server answers a POST once it has the newest commit from
// the forge, for which it may wait 45 seconds right after a push.
const (
	getLimit    = 30 * time.Second
	postLimit   = 2 * time.Minute
	cancelLimit = 15 * time.Second
)

// postsAtOnce is how many builds are asked for at the same time.
const postsAtOnce = 4

// New gives the builds of the repository that the options name. It asks the server nothing.
func New(o Options) (*Builds, error) {
	const like = "write the repository's address at the Drone server, such as https://drone.example.org/OWNER/NAME"
	u, err := url.Parse(o.URL)
	if err != nil { // which would quote the URL, with its password
		return nil, errors.New("the URL cannot be read: " + like)
	}
	path := strings.Split(strings.Trim(u.Path, "/"), "/")
	switch {
	case u.User != nil:
		return nil, errors.New("the URL has a user or a password in it, which every user of this machine could read: " + like)
	case u.Scheme != "https" && u.Scheme != "http", u.Host == "", len(path) < 2, path[len(path)-1] == "", u.RawQuery != "", u.Fragment != "":
		return nil, fmt.Errorf("%q: %s", (&url.URL{Scheme: u.Scheme, Host: u.Host, Path: u.Path}).String(), like) // a query may have a token
	}
	n := len(path) - 2
	b := &Builds{
		owner: path[n], name: path[n+1], branch: o.Branch, token: o.Token, network: o.Transport,
		posts: make(chan struct{}, postsAtOnce), watched: map[int64]*watch{}, newest: map[string]int64{}, unable: map[string]bool{}, answered: time.Now(),
	}
	b.server = u.Scheme + "://" + u.Host + strings.TrimSuffix("/"+strings.Join(path[:n], "/"), "/")
	if b.network == nil {
		proxy := httpproxy.Config{}
		for name, value := range map[string]*string{"http_proxy": &proxy.HTTPProxy, "https_proxy": &proxy.HTTPSProxy, "no_proxy": &proxy.NoProxy} {
			if *value = env.Lookup(o.Environ, name); *value == "" {
				*value = env.Lookup(o.Environ, strings.ToUpper(name))
			}
		}
		choose := proxy.ProxyFunc()
		b.network = &http.Transport{Proxy: func(r *http.Request) (*url.URL, error) { return choose(r.URL) }, TLSHandshakeTimeout: getLimit}
	}
	return b, nil
}

// Repository is the repository, as OWNER/NAME.
func (b *Builds) Repository() string { return b.owner + "/" + b.name }

// Check says why the server would not start a build. If the server cannot be reached, or
// answers with a fault of its own, Check gives no error, and the sweep begins nevertheless:
// the server may come back.
func (b *Builds) Check(ctx context.Context) error {
	repo, err := call(ctx, b, getLimit, func(c api.Client) (*api.Repo, error) { return c.Repo(b.owner, b.name) })
	refused := new(Refused)
	switch {
	case errors.As(err, &refused) && refused.Status == http.StatusUnauthorized:
		return fmt.Errorf("the Drone server %s does not accept the token: take a new one from the user's account page there", b.server)
	case errors.As(err, &refused) && refused.Status < 500:
		return fmt.Errorf("the Drone server %s does not show the repository %s (%w): activate the repository there, and let the token's user write to it", b.server, b.Repository(), err)
	case err == nil && !repo.Active:
		return fmt.Errorf("the repository %s is not active at the Drone server %s: activate it there", b.Repository(), b.server)
	case err == nil:
		b.learn(repo)
	}
	return nil
}

// learn notes what the server says of the repository.
func (b *Builds) learn(repo *api.Repo) {
	b.lock.Lock()
	defer b.lock.Unlock()
	b.timeout = fmt.Sprintf(" (%d minutes)", repo.Timeout)
	b.branch = cmp.Or(b.branch, repo.Branch)
}

// branchOfBuilds is the branch whose builds are started and taken over. If nobody has named
// one and the server was away at the start, the server is asked for the default branch.
func (b *Builds) branchOfBuilds(ctx context.Context) (string, error) {
	b.lock.Lock()
	branch := b.branch
	b.lock.Unlock()
	if branch != "" {
		return branch, nil
	}
	repo, err := call(ctx, b, getLimit, func(c api.Client) (*api.Repo, error) { return c.Repo(b.owner, b.name) })
	if err != nil {
		return "", err
	}
	b.learn(repo)
	return repo.Branch, nil
}

// Refused is the error of a request that the server answered with another status than
// success.
type Refused struct {
	Method string
	Status int
	Text   string
}

func (r *Refused) Error() string {
	return strings.TrimSuffix(fmt.Sprintf("answered %d %s: %s", r.Status, http.StatusText(r.Status), r.Text), ": ")
}

// call makes one request. Its time limit includes the answer's body.
func call[T any](ctx context.Context, b *Builds, limit time.Duration, ask func(api.Client) (T, error)) (T, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, limit, fmt.Errorf("no answer within %s", limit))
	defer cancel()
	answer, err := ask(api.NewClient(b.server, &http.Client{
		Transport:     &transport{ctx, b.token, b.network},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}))
	if err != nil && ctx.Err() != nil {
		err = context.Cause(ctx)
	}
	return answer, err
}

// transport gives requests of the API's client, which knows neither contexts nor limits, a
// context, the token and a limit of size.
type transport struct {
	ctx     context.Context
	token   string
	network http.RoundTripper
}

// maxAnswer is the size of the largest answer that is read. Logs are the largest.
const maxAnswer = 64 << 20

func (t *transport) RoundTrip(r *http.Request) (*http.Response, error) {
	r = r.Clone(t.ctx)
	r.Header.Set("Authorization", "Bearer "+t.token)
	answer, err := t.network.RoundTrip(r)
	if err != nil {
		return nil, err
	}
	body := answer.Body
	if answer.StatusCode >= 300 { // a redirect, too: the token is not sent to another host
		defer body.Close()
		text, _ := io.ReadAll(io.LimitReader(body, 4<<10))
		var message struct{ Message string }
		if json.Unmarshal(text, &message) == nil && message.Message != "" {
			text = []byte(message.Message)
		}
		shown := func(text string) string { // a server may send back what it was sent
			return strings.Join(strings.Fields(plaintext.Brief(strings.ReplaceAll(text, t.token, "…"), 300)), " ")
		}
		refused := &Refused{Method: r.Method, Status: answer.StatusCode, Text: shown(string(text))}
		if to := answer.Header.Get("Location"); to != "" {
			refused.Text = "the server redirects to " + shown(to) + ", where the token is not sent: write that address"
		}
		return nil, refused
	}
	answer.Body = struct {
		io.Reader
		io.Closer
	}{io.LimitReader(body, maxAnswer), body}
	return answer, nil
}

// page is how many builds the server lists in one answer: the most that it allows.
const page = 100

func (b *Builds) list(ctx context.Context, number int) ([]*api.Build, error) {
	list, err := call(ctx, b, getLimit, func(c api.Client) ([]*api.Build, error) {
		return c.BuildList(b.owner, b.name, api.ListOptions{Page: number, Size: page})
	})
	return slices.DeleteFunc(list, func(build *api.Build) bool { return build == nil }), err
}

var errAnother = errors.New("the answer is about another build, or about none")

func (b *Builds) get(ctx context.Context, number int64) (*api.Build, error) {
	build, err := call(ctx, b, getLimit, func(c api.Client) (*api.Build, error) { return c.Build(b.owner, b.name, int(number)) })
	if err != nil {
		return nil, err
	}
	if build.Number != number || build.Status == "" {
		return nil, errAnother
	}
	// What people are shown of a build is short, and has no controls of a terminal.
	build.Error = plaintext.Brief(build.Error, 300)
	build.Stages = slices.DeleteFunc(build.Stages, func(stage *api.Stage) bool { return stage == nil })
	for _, stage := range build.Stages {
		stage.Machine, stage.Error = plaintext.Brief(stage.Machine, 100), plaintext.Brief(stage.Error, 300)
		stage.Steps = slices.DeleteFunc(stage.Steps, func(step *api.Step) bool { return step == nil })
	}
	return build, nil
}

// cancel ends a build, also if ctx has ended.
func (b *Builds) cancel(ctx context.Context, number int64) error {
	_, err := call(context.WithoutCancel(ctx), b, cancelLimit, func(c api.Client) (any, error) { return nil, c.BuildCancel(b.owner, b.name, int(number)) })
	return err
}

// link is the page of a build, for people.
func (b *Builds) link(number int64) string {
	return fmt.Sprintf("%s/%s/%s/%d", b.server, b.owner, b.name, number)
}

// over says whether a build has ended.
func over(status string) bool {
	switch status {
	case api.StatusPending, api.StatusRunning, api.StatusWaiting, api.StatusBlocked:
		return false
	}
	return true
}

// lastWords is the end of the output of the last step that a build has begun.
func (b *Builds) lastWords(ctx context.Context, build *api.Build) string {
	for i := len(build.Stages) - 1; i >= 0; i-- {
		stage := build.Stages[i]
		for j := len(stage.Steps) - 1; j >= 0; j-- {
			step := stage.Steps[j]
			if step.Started == 0 || step.Status == api.StatusSkipped {
				continue
			}
			lines, err := call(ctx, b, getLimit, func(c api.Client) ([]*api.Line, error) {
				return c.Logs(b.owner, b.name, int(build.Number), stage.Number, step.Number)
			})
			if err != nil { // of a machine that is gone, Drone has no log
				return step.Error
			}
			lines = slices.DeleteFunc(lines, func(line *api.Line) bool { return line == nil })
			var text strings.Builder
			for _, line := range lines[max(0, len(lines)-lastLines):] {
				text.WriteString(line.Message)
			}
			return text.String()
		}
	}
	return build.Error
}

// lastLines is how many lines lastWords gives.
const lastLines = 10
