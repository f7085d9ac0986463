package forge

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"os/exec"
	"strings"
	"testing"
)

const secret = "s3cret"

// Which repository a remote is of. What cannot be one gets no status, and the message has
// no password.
func TestRepository(t *testing.T) {
	const forge, deep, ported = "https://git.example.org", "https://example.org/git/", "http://127.0.0.1:3000"
	long := strings.Repeat("x", 10_000)
	for _, c := range []struct{ forge, remote, want, says string }{
		{forge, "https://git.example.org/recipes/gitea.git", "recipes/gitea", ""},
		{forge, "https://git.example.org/recipes/gitea", "recipes/gitea", ""},
		{forge, "https://git.example.org/recipes/gitea.git/", "recipes/gitea", ""},
		{forge, "https://git.example.org:443/recipes/gitea.git", "recipes/gitea", ""},
		{forge, "https://GIT.example.org/recipes/gitea.git", "recipes/gitea", ""},
		{forge, "http://git.example.org/recipes/gitea.git", "recipes/gitea", ""},
		{forge, "https://alice:" + secret + "@git.example.org/recipes/gitea.git", "recipes/gitea", ""},
		{forge, "https://git.example.org/recipes/two.git.git", "recipes/two.git", ""},
		{forge, "https://git.example.org/a%20b/c", "a b/c", ""},
		{forge, "git@git.example.org:recipes/gitea.git", "recipes/gitea", ""},
		{forge, "git.example.org:recipes/gitea", "recipes/gitea", ""},
		{forge, "git@git.example.org:/recipes/gitea.git", "recipes/gitea", ""},
		{forge, "ssh://git@git.example.org:2222/recipes/gitea.git", "recipes/gitea", ""},
		{forge, "git+ssh://git.example.org/recipes/gitea.git", "recipes/gitea", ""},
		{"https://[::1]:3000", "https://[::1]:3000/recipes/gitea.git", "recipes/gitea", ""},
		{"https://[::1]:3000", "git@[::1]:recipes/gitea.git", "recipes/gitea", ""},
		{ported, "http://127.0.0.1:3000/e2e/gitea.git", "e2e/gitea", ""},
		{deep, "https://example.org/git/recipes/gitea.git", "recipes/gitea", ""},
		{deep, "git@example.org:recipes/gitea.git", "recipes/gitea", ""},
		{"https://git.example.org/recipes/{recipe}", "", "recipes/the recipe", ""},
		{"https://example.org/git/recipes/ci-{recipe}", "/anything", "recipes/ci-the recipe", ""},
		{"https://example.org/{recipe}/app", "", "the recipe/app", ""},

		{forge, "https://alice:" + secret + "@evil.example.org/recipes/gitea.git", "", "its remote is not on git.example.org but on evil.example.org"},
		{forge, "https://git.example.org.evil.org/recipes/gitea.git", "", "not on git.example.org"},
		{forge, "https://git.example.org@evil.org/recipes/gitea.git", "", "but on evil.org"},
		{forge, "git@evil.org:recipes/gitea.git", "", "but on evil.org"},
		{forge, "ssh://git@evil.org/recipes/gitea.git", "", "but on evil.org"},
		{ported, "http://127.0.0.1:4000/e2e/gitea.git", "", "not on 127.0.0.1:3000 but on 127.0.0.1:4000"},
		{forge, "https://git.example.org/group/sub/gitea.git", "", "its remote git.example.org/group/sub/gitea.git is not a repository OWNER/NAME of https://git.example.org"},
		{forge, "git@git.example.org:group/sub/gitea.git", "", "is not a repository OWNER/NAME"},
		{forge, "https://git.example.org/gitea.git", "", "is not a repository OWNER/NAME"},
		{forge, "https://git.example.org", "", "is not below"},
		{forge, "https://git.example.org/../gitea", "", "is not a repository OWNER/NAME"},
		{forge, "https://git.example.org/a/..", "", "is not a repository OWNER/NAME"},
		{forge, "https://git.example.org/a/b%0a%1b[31m", "", "is not a repository OWNER/NAME"},
		{forge, "https://git.example.org/a/b%2fc", "", "is not a repository OWNER/NAME"},
		{deep, "https://example.org/recipes/gitea.git", "", "is not below https://example.org/git"},
		{deep, "https://example.org/gitty/recipes/gitea.git", "", "is not below"},
		{forge, "/srv/git/recipes/gitea.git", "", "is a path"},
		{forge, "../gitea:x", "", "is a path"},
		{forge, "", "", "is a path"},
		{forge, "file:///srv/git/gitea.git", "", "is of the protocol file"},
		{forge, "https://alice:" + secret + "@git.example.org:port/x/y", "", "is not a URL that can be read"},
		{forge, "ext::sh -c " + secret, "", "but on ext"},
		{forge, "https://git.example.org/" + long, "", "xxx… is not a repository OWNER/NAME"},
	} {
		f, err := New(c.forge, secret)
		if err != nil {
			t.Fatal(err)
		}
		got, err := f.Repository("the recipe", c.remote)
		if c.want != "" {
			if err != nil || got.String() != c.want {
				t.Errorf("%.100s: %s, %v, should be %s", c.remote, got, err, c.want)
			}
			continue
		}
		if err == nil || !strings.Contains(err.Error(), c.says) || strings.Contains(err.Error(), secret) || strings.ContainsAny(err.Error(), "\n\x1b") || len(err.Error()) > 400 {
			t.Errorf("%.100s: %s, %.500v, should say %q", c.remote, got, err, c.says)
		}
	}
}

func TestNew(t *testing.T) {
	for address, says := range map[string]string{
		"https://git.example.org":                      "",
		"http://127.0.0.1:3000/git/":                   "",
		"git.example.org":                              "must be a URL",
		"ssh://git.example.org":                        "must be a URL",
		"https://":                                     "must be a URL",
		"https://alice:" + secret + "@git.example.org": "has a user",
		"https://git.example.org?x":                    "a query",
		"https://git.example.org/{recipe}":             "write it as https://HOST/OWNER/{recipe}",
		"https://git.example.org/{recipe}/a/b":         "write it as",
	} {
		_, err := New(address, secret)
		if says == "" && err == nil {
			continue
		}
		if says == "" || err == nil || !strings.Contains(err.Error(), says) || strings.Contains(err.Error(), secret) {
			t.Errorf("%s: %v, should say %q", address, err, says)
		}
	}
}

// What a forge can answer. A real one is in e2e/status_test.go.
func TestShow(t *testing.T) {
	for _, c := range []struct {
		status int
		answer string
		says   string
	}{
		{http.StatusCreated, "{}", ""},
		{http.StatusUnauthorized, "", "refuses the token"},
		{http.StatusForbidden, "", "refuses the token"},
		{http.StatusNotFound, "", "has no repository o/r with the commit cafe"},
		{http.StatusFound, "", "answered 302"},
		{http.StatusInternalServerError, "token " + secret + "\x1b[31m" + strings.Repeat("x", 100_000), "answered 500"},
		{http.StatusInternalServerError, strings.Repeat("x", 195) + secret, "answered 500"},
	} {
		elsewhere := false
		server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path == "/elsewhere" {
				elsewhere = true
			} else if r.URL.Path != "/git/api/v1/repos/o/r/statuses/cafe" || r.Method != http.MethodPost || r.Header.Get("Authorization") != "token "+secret {
				t.Errorf("%s %s", r.Method, r.URL)
			}
			w.Header().Set("Location", "/elsewhere")
			w.WriteHeader(c.status)
			_, _ = w.Write([]byte(c.answer))
		}))
		f, err := New(server.URL+"/git", secret)
		if err != nil {
			t.Fatal(err)
		}
		err = f.Show(context.Background(), Repository{"o", "r"}, "cafe", Status{State: Success})
		if c.says == "" && err == nil {
			continue
		}
		if c.says == "" || err == nil || !strings.Contains(err.Error(), c.says) || strings.Contains(err.Error(), secret[:4]) || strings.ContainsAny(err.Error(), "\n\x1b") || len(err.Error()) > 400 {
			t.Errorf("%d: %v, should say %q", c.status, err, c.says)
		}
		if elsewhere {
			t.Error("a redirect was followed")
		}
		server.Close()
		if err := f.Show(context.Background(), Repository{"o", "r"}, "cafe", Status{}); !errors.Is(err, ErrUnreachable) {
			t.Error(err)
		}
	}
}

func TestRemote(t *testing.T) {
	git, err := exec.LookPath("git")
	if err != nil {
		t.Skip("git is missing: apt-get install git")
	}
	dir := t.TempDir()
	run := func(args ...string) {
		if out, err := exec.Command(git, append([]string{"-C", dir}, args...)...).CombinedOutput(); err != nil {
			t.Fatalf("%s: %v", out, err)
		}
	}
	run("init", "--quiet")
	if _, err := Remote(context.Background(), git, dir); err == nil || err.Error() != "its work tree has no remote named origin" {
		t.Error(err)
	}
	run("remote", "add", "origin", "git@git.example.org:recipes/gitea.git")
	run("config", "url.https://evil.example.org/.insteadOf", "git@git.example.org:") // what git fetches from is not what people call it
	if got, err := Remote(context.Background(), git, dir); err != nil || got != "git@git.example.org:recipes/gitea.git" {
		t.Error(got, err)
	}
}
