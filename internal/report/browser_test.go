//go:build environment

package report

import (
	"encoding/json"
	"flag"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "take the pictures of docs/ anew")

// TestBrowser looks at reports with the environment's browser, as recipes' tests do: see
// testdata/browser.py. `make build build/tools/axe` makes what it needs.
func TestBrowser(t *testing.T) {
	root, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	axe := filepath.Join(root, "build/tools/axe/axe_playwright_python/axe.min.js")
	if _, err := os.Stat(axe); err != nil {
		t.Fatalf("%v: run `make build/tools/axe`", err)
	}
	good := believable(t)
	report := good.write()
	told, err := json.Marshal(map[string]any{
		"headline": "1 newly failing, 3 still failing, 1 fixed, 1 never run; git-lfs 3.7.1 → 3.4.0, perl u3 → u4",
		"groups": map[string][]string{
			"newly failing": {"gitea"}, "still failing": {"discourse", "matrix-synapse", "nextcloud"}, "fixed": {"hedgedoc"}, "never run": {"collabora"},
			"passing": {"cryptpad", "keycloak", "mattermost", "peertube", "vaultwarden", "wordpress"},
		},
		"axe": []string{"index.html", "r-gitea.html", "r-matrix-synapse.html", "r-mattermost.html", "environments.html", envFile(good.current.Fingerprint()), "parity.html", "audit.html", "host.html"},
	})
	if err != nil {
		t.Fatal(err)
	}
	args := []string{"exec", "python3", "testdata/browser.py", axe, string(told), report, hostileExample(t).write()}
	if *update {
		args = append(args, filepath.Join(root, "docs"))
	}
	cmd := exec.Command(filepath.Join(root, "build/cc-ci-run"), args...)
	cmd.Env = append(os.Environ(), "HOME="+t.TempDir(), "CC_CI_RUN_STATE="+t.TempDir())
	var said strings.Builder
	cmd.Stderr = &said
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%v\n%s", err, said.String())
	}
	for line := range strings.Lines(string(out)) {
		if line = strings.TrimSpace(line); line != "" {
			t.Error(line)
		}
	}
}
