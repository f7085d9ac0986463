//go:build environment && e2e

package e2e

import (
	"fmt"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// TestCommitStatus is a sweep that shows its verdicts at the commits of a real Gitea.
// `make drone` runs it.
func TestCommitStatus(t *testing.T) {
	t.Parallel()
	d := drone{variables: gitea(t)} // without a Drone server
	user := d.get("GITEA_USER")
	var made struct {
		SHA1 string `json:"sha1"`
	}
	d.ofGitea(t, "POST", "/users/"+user+"/tokens", map[string]any{"name": "sweep", "scopes": []string{"write:repository"}}, &made)
	dir := t.TempDir()
	write(t, filepath.Join(dir, "token"), made.SHA1+"\n", 0o600)
	write(t, filepath.Join(dir, "wrong"), "wrong\n", 0o600)

	const passes, fails = "def test_it():\n    pass\n", "def test_it():\n    assert False, \"\\x1b[31m\" + \"very long \" * 100\n"
	recipes := map[string]struct{ test, state, says string }{
		"passes": {passes, "success", "1 passed ("},
		"fails":  {fails, "failure", "1 failed: test_it.py::test_it (never promoted)"},
		"dies":   {"import os\n\n\ndef test_it():\n    os._exit(0)\n", "error", ""},
		"many": {
			"import pytest\n\n\n@pytest.mark.parametrize(\"n\", range(30))\ndef test_with_a_name_that_is_rather_long(n):\n    assert False\n", "failure", "30 failed: ",
		},
	}
	commits := map[string]string{}
	for name, r := range recipes {
		tree := filepath.Join(dir, "recipes", name)
		write(t, filepath.Join(tree, "test_it.py"), r.test, 0o644)
		d.ofGitea(t, "POST", "/user/repos", map[string]any{"name": name, "private": true}, nil)
		git := func(args ...string) string {
			return strings.TrimSpace(output(t, exec.CommandContext(interrupted(), "git", append([]string{"-C", tree, "-c", "user.name=e2e", "-c", "user.email=e2e@localhost"}, args...)...)))
		}
		git("init", "--quiet")
		git("add", ".")
		git("commit", "--quiet", "--message=the recipe")
		d.repository = user + "/" + name
		commits[name] = d.push(t, tree)
		git("remote", "add", "origin", strings.Replace(d.get("GITEA_URL"), "://", "://"+user+":a-password@", 1)+"/"+d.repository+".git")
	}
	write(t, filepath.Join(dir, "recipes/folder/test_it.py"), passes, 0o644)

	sweep := func(args ...string) string {
		cmd := exec.CommandContext(interrupted(), binary(t), append([]string{
			"sweep", "--recipes", filepath.Join(dir, "recipes"), "--state", filepath.Join(dir, "state"), "--runner", "../runner/run_recipe_ci.py",
			"--status-url", d.get("GITEA_URL"), "--build-url", "https://ci.example.org/{recipe}/{run}",
		}, args...)...)
		out, _ := cmd.CombinedOutput() // the status is 1: recipes are held
		for _, secret := range []string{made.SHA1, "a-password"} {
			if strings.Contains(string(out), secret) {
				t.Errorf("the sweep printed a secret:\n%s", out)
			}
		}
		return string(out)
	}
	type status struct {
		Context, Status, Description string
		TargetURL                    string `json:"target_url"`
	}
	statuses := func(name string) (list []status) {
		d.ofGitea(t, "GET", fmt.Sprintf("/repos/%s/%s/commits/%s/statuses", user, name, commits[name]), nil, &list)
		return list
	}

	if said := sweep("--status-token", filepath.Join(dir, "wrong"), "passes"); !strings.Contains(said, "passes: its commit was not given a status: ") || !strings.Contains(said, "refuses the token") {
		t.Errorf("with a wrong token:\n%s", said)
	}
	said := sweep("--status-token", filepath.Join(dir, "token"), "--force")
	t.Log(said)
	if !strings.Contains(said, "no status for recipes that are folders without a commit of their own: folder\n") {
		t.Errorf("nothing is said of the folder:\n%s", said)
	}
	for name, r := range recipes {
		list := statuses(name)
		if len(list) != 1 {
			t.Errorf("%s has the statuses %+v", name, list)
			continue
		}
		s := list[0]
		if s.Context != "cc-ci-run/"+name || s.Status != r.state || len([]rune(s.Description)) > 140 || !strings.HasPrefix(s.TargetURL, "https://ci.example.org/"+name+"/20") {
			t.Errorf("%s: %+v", name, s)
		}
		if !strings.HasPrefix(s.Description, r.says) {
			t.Errorf("%s: %q, should begin with %q", name, s.Description, r.says)
		}
	}
	// A sweep that only skips a recipe says nothing new of its commit.
	sweep("--status-token", filepath.Join(dir, "token"), "passes")
	if list := statuses("passes"); len(list) != 1 {
		t.Errorf("after a skip: %+v", list)
	}
	// Fixed: the commit after has its own.
	tree := filepath.Join(dir, "recipes/fails")
	write(t, filepath.Join(tree, "test_it.py"), passes, 0o644)
	output(t, exec.CommandContext(interrupted(), "git", "-C", tree, "-c", "user.name=e2e", "-c", "user.email=e2e@localhost", "commit", "--quiet", "--all", "--message=fixed"))
	d.repository = user + "/fails"
	commits["fails"] = d.push(t, tree)
	sweep("--status-token", filepath.Join(dir, "token"), "fails")
	if list := statuses("fails"); len(list) != 1 || list[0].Status != "success" {
		t.Errorf("after the fix: %+v", list)
	}
	// By the URL of repositories, whatever their remote is.
	output(t, exec.CommandContext(interrupted(), "git", "-C", tree, "remote", "remove", "origin"))
	sweep("--status-token", filepath.Join(dir, "token"), "--force", "--status-url", d.get("GITEA_URL")+"/"+user+"/{recipe}", "fails")
	if list := statuses("fails"); len(list) != 2 {
		t.Errorf("by {recipe}: %+v", list)
	}
}
