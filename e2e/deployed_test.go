//go:build environment && e2e

package e2e

import (
	"bufio"
	"io"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"cc-ci-run/internal/audit"
)

// TestDeployed runs gitea's tests, which deploy the recipe, in three ways at once with
// one Docker daemon: by hand, sealed, and audited. In the audited run they must execute
// what docs/audit-gitea.toml lists. `make deployed` runs TestDeployed.
func TestDeployed(t *testing.T) {
	if !inSwarm(t, "gitea") {
		return
	}
	report := filepath.Join(filepath.Dir(binary(t)), "audit.json")
	t.Run("ways", func(t *testing.T) { // returns when all have run
		for name, flags := range map[string][]string{
			"by hand": nil,
			"sealed":  {"--seal"},
			"audited": {"audit", "--report", report},
		} {
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				runGitea(t, name, flags...)
			})
		}
	})
	if r, err := audit.Read(report); err != nil {
		t.Error(err)
	} else {
		executes(t, namesOf(r))
	}
	noneNamed(t, "cc-ci-")
}

// runGitea runs gitea's tests with flags of cc-ci-run; all tests must pass. Their
// output is logged line by line while they run, each line after the name of the way.
func runGitea(t *testing.T, name string, flags ...string) {
	t.Helper()
	dir := t.TempDir()
	cmd := recipes{home: dir}.command(t, slices.Concat(flags, []string{"../runner/run_recipe_ci.py", "gitea"})...)
	cmd.Env = append(cmd.Env, giteaImages...)
	out, in := io.Pipe()
	cmd.Stdout, cmd.Stderr = in, in
	said := make(chan string)
	go func() {
		var all strings.Builder
		for lines := bufio.NewScanner(out); lines.Scan(); {
			t.Logf("%s: %s", name, lines.Text())
			all.WriteString(lines.Text() + "\n")
		}
		said <- all.String()
	}()
	err := cmd.Run()
	in.Close()
	summary := summaryRE.FindStringSubmatch(<-said)
	if err != nil || summary == nil || !strings.HasPrefix(summary[1], "11 passed in") { // none was skipped
		t.Errorf("%s: %v, pytest says %q, should say that 11 passed and no more", name, err, summary)
	}
}
