// Package forge shows a sweep's verdicts at the commits of a Gitea or Forgejo.
//
//	f, err := forge.New("https://git.example.org", token)
//	repository, err := f.Repository("gitea", "git@git.example.org:recipes/gitea.git")
//	err = f.Show(ctx, repository, commit, forge.Status{State: forge.Failure, …})
//
// The token goes to the forge that New names, and nowhere else, whatever the remote of a
// recipe is. No message has the token, or a password of a remote.
package forge

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"
	"unicode"

	"cc-ci-run/internal/plaintext"
)

// Forge is a Gitea or Forgejo.
type Forge struct {
	base *url.URL // below which its pages are
	// given is OWNER/NAME of each recipe's repository, with {recipe} in it; empty if
	// the repository is the one that the recipe's remote names.
	given  Repository
	token  string
	client *http.Client
}

// Repository is OWNER/NAME.
type Repository struct{ Owner, Name string }

func (r Repository) String() string { return r.Owner + "/" + r.Name }

// place is where a URL has the name of a recipe.
const place = "{recipe}"

// limit is how long the forge may take for one status.
const limit = 20 * time.Second

// New is the forge at a URL: its own, such as https://git.example.org, or that of a
// recipe's repository, such as https://git.example.org/recipes/{recipe}. The forge
// must have issued the token, with the permission to write to repositories.
func New(address, token string) (*Forge, error) {
	u, err := url.Parse(address)
	switch {
	case err != nil || u.Scheme != "https" && u.Scheme != "http" || u.Host == "":
		return nil, errors.New("must be a URL of http or https: of the forge, or of a recipe's repository, with {recipe} where its name belongs")
	case u.User != nil || u.RawQuery != "" || u.Fragment != "":
		return nil, errors.New("has a user, a query or a fragment: leave them out; the token belongs in the file of --status-token")
	}
	u.Path, u.RawPath = strings.TrimRight(u.Path, "/"), ""
	f := &Forge{base: u, token: token, client: &http.Client{
		Timeout:       limit,
		Transport:     &http.Transport{}, // no proxy of the environment
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}
	if strings.Contains(u.Path, place) {
		parts := strings.Split(u.Path, "/")
		if len(parts) < 3 || strings.Contains(strings.Join(parts[:len(parts)-2], "/"), place) {
			return nil, errors.New("has {recipe} where no repository's owner or name is: write it as https://HOST/OWNER/{recipe}")
		}
		f.given = Repository{parts[len(parts)-2], parts[len(parts)-1]}
		u.Path = strings.Join(parts[:len(parts)-2], "/")
	}
	return f, nil
}

// Given says whether Repository needs no remote.
func (f *Forge) Given() bool { return f.given.Name != "" }

// Repository is the repository of a recipe, by the URL of its remote (git-fetch(1)). The
// error says why the forge has no repository of the recipe.
func (f *Forge) Repository(recipe, remote string) (Repository, error) {
	if f.Given() {
		fill := func(text string) string { return strings.ReplaceAll(text, place, recipe) }
		return Repository{fill(f.given.Owner), fill(f.given.Name)}, nil
	}
	host, path, err := f.split(remote)
	if err != nil {
		return Repository{}, err
	}
	parts := strings.Split(strings.TrimSuffix(strings.Trim(path, "/"), ".git"), "/")
	if len(parts) != 2 || slices.ContainsFunc(parts, func(part string) bool {
		return part == "" || part == "." || part == ".." || strings.ContainsFunc(part, func(r rune) bool { return !unicode.IsPrint(r) })
	}) {
		return Repository{}, fmt.Errorf("its remote %s is not a repository OWNER/NAME of %s", shown(host+"/"+strings.Trim(path, "/")), f.base)
	}
	return Repository{parts[0], parts[1]}, nil
}

// split gives the host of a remote, which must be the forge's, and the path below the forge.
func (f *Forge) split(remote string) (host, path string, err error) {
	other := func() error {
		return fmt.Errorf("its remote is not on %s but on %s", f.base.Host, shown(host))
	}
	if !strings.Contains(remote, "://") { // HOST:PATH, of ssh, or a path
		before, after, ok := strings.Cut(remote, ":")
		if host = before[strings.LastIndexByte(before, '@')+1:]; strings.HasPrefix(before, "[") || strings.Contains(before, "@[") {
			host, after, ok = strings.Cut(remote[strings.IndexByte(remote, '[')+1:], "]")
			after = strings.TrimPrefix(after, ":")
		}
		if !ok || host == "" || strings.Contains(before, "/") {
			return "", "", errors.New("its remote is a path, not a repository of a forge")
		}
		if !strings.EqualFold(host, f.base.Hostname()) {
			return "", "", other()
		}
		return host, after, nil
	}
	u, err := url.Parse(remote)
	if err != nil { // which would quote the URL, with its password
		return "", "", errors.New("its remote is not a URL that can be read")
	}
	host = u.Hostname()
	switch u.Scheme {
	case "ssh", "git+ssh", "git":
		if !strings.EqualFold(host, f.base.Hostname()) {
			return "", "", other()
		}
		return host, u.Path, nil
	case "https", "http":
		same := u.Scheme != f.base.Scheme || port(u) == port(f.base)
		if host = u.Host; !strings.EqualFold(u.Hostname(), f.base.Hostname()) || !same {
			return "", "", other()
		}
		path, ok := strings.CutPrefix(u.Path, f.base.Path+"/")
		if !ok {
			return "", "", fmt.Errorf("its remote %s is not below %s", shown(host+u.Path), f.base)
		}
		return host, path, nil
	}
	return "", "", fmt.Errorf("its remote is of the protocol %s, not a repository of a forge", shown(u.Scheme))
}

func port(u *url.URL) string {
	if p := u.Port(); p != "" {
		return p
	}
	return map[string]string{"https": "443", "http": "80"}[u.Scheme]
}

// shown makes a text that somebody else wrote fit for a message.
func shown(text string) string { return plaintext.Brief(text, 200) }

// Status is what the forge shows beside a commit: for each context the newest status.
type Status struct {
	State       State  `json:"state"`
	Context     string `json:"context"`
	Description string `json:"description"`
	TargetURL   string `json:"target_url,omitempty"`
}

// State is the forge's word for how a run went.
type State string

// The states of a verdict.
const (
	Success State = "success"
	Failure State = "failure" // the tests did not pass
	Error   State = "error"   // the tests say nothing about the commit
)

// ErrUnreachable says that the forge did not answer at all.
var ErrUnreachable = errors.New("the forge cannot be reached")

// Show sets a status of a commit.
func (f *Forge) Show(ctx context.Context, r Repository, commit string, s Status) error {
	body, err := json.Marshal(s)
	if err != nil {
		return err
	}
	at := f.base.JoinPath("api/v1/repos", url.PathEscape(r.Owner), url.PathEscape(r.Name), "statuses", url.PathEscape(commit))
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, at.String(), bytes.NewReader(body))
	if err != nil {
		return err
	}
	request.Header.Set("Authorization", "token "+f.token)
	request.Header.Set("Content-Type", "application/json")
	request.Header.Set("User-Agent", "cc-ci-run")
	answer, err := f.client.Do(request)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrUnreachable, err)
	}
	defer answer.Body.Close()
	text, _ := io.ReadAll(io.LimitReader(answer.Body, 4<<10))
	switch answer.StatusCode {
	case http.StatusCreated, http.StatusOK:
		return nil
	case http.StatusUnauthorized, http.StatusForbidden:
		return fmt.Errorf("%s refuses the token (%s) for %s: make one with the permission to write repositories", f.base.Host, answer.Status, shown(r.String()))
	case http.StatusNotFound:
		return fmt.Errorf("%s has no repository %s with the commit %.12s, or the token may not see it", f.base.Host, shown(r.String()), commit)
	}
	return fmt.Errorf("%s answered %s: %s", f.base.Host, answer.Status, shown(strings.ReplaceAll(string(text), f.token, "…")))
}
