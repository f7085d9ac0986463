//go:build environment && e2e

package e2e

import (
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/pelletier/go-toml/v2"
	"github.com/rogpeppe/go-internal/diff"

	"cc-ci-run/internal/audit"
	"cc-ci-run/internal/toolset"
)

var update = flag.Bool("update", false, "TestAuditGitea writes docs/audit-gitea.toml anew (make audit)")

const namesExecuted = "../docs/audit-gitea.toml"

// TestAuditGitea writes docs/audit-gitea.toml: what gitea's tests, which deploy the
// recipe, execute. `make audit` runs it; TestDeployed compares.
func TestAuditGitea(t *testing.T) {
	if !*update {
		t.Skip("writes docs/audit-gitea.toml, and so only with -update: run `make audit`")
	}
	var set []byte
	for n := range 3 { // one run would not show that a name is there by chance
		report := filepath.Join(filepath.Dir(binary(t)), "audit.json")
		status, output := auditRecipe(t, append(besideDocker(t, "gitea"), binary(t)), giteaImages, "--report", report)
		if status != 0 {
			t.Fatalf("gitea's tests failed under audit, so what they execute says nothing: exit status %d: %s", status, output)
		}
		r, err := audit.Read(report)
		if err != nil {
			t.Fatal(err)
		}
		again := namesOf(r)
		if n > 0 && !bytes.Equal(again, set) {
			t.Fatalf("two runs of the same tests executed different things, so nothing was written:\n%s", diff.Diff("first run", set, "later run", again))
		}
		set = again
	}
	write(t, namesExecuted, string(set), 0o644)
	t.Log("wrote docs/audit-gitea.toml, the same in 3 runs")
}

// executes compares what a run executed with docs/audit-gitea.toml.
func executes(t *testing.T, set []byte) {
	t.Helper()
	said, err := os.ReadFile(namesExecuted)
	if err != nil {
		t.Fatalf("%v: `make audit` writes it", err)
	}
	// See the head of the file.
	unused := regexp.MustCompile(`(?m)^unused = \[\n(  .*\n)*\]\n`)
	compared := func(set []byte) []byte { return unused.ReplaceAll(set, nil) }
	if d := diff.Diff("docs/audit-gitea.toml", compared(said), "this run", compared(set)); d != nil {
		t.Errorf("gitea's tests no longer execute what docs/audit-gitea.toml says; build/audit.json has who executes it. If they should, `make audit` writes the file anew: commit that\n%s", d)
	}
}

// auditRecipe runs gitea's tests under audit, with flags, by a cc-ci-run, and
// gives the exit status and the output.
func auditRecipe(t testing.TB, program, variables []string, flags ...string) (status int, output string) {
	t.Helper()
	dir := t.TempDir()
	argv := slices.Concat(program, []string{"audit", "--state", dir + "/state"}, flags, []string{"runner/run_recipe_ci.py", "gitea"})
	return start{argv: argv, env: append([]string{"HOME=" + dir}, variables...), dir: ".."}.run(t)
}

// namesOf is what an audited run executed as sets of names: the form of
// docs/audit-gitea.toml. Two runs that need the same give the same bytes, whenever
// and on whichever Debian 12 they are made.
func namesOf(r *audit.Report) []byte {
	used := map[string][]string{} // by tool
	for _, u := range r.Used {
		name := filepath.Base(u.Name)
		if u.Tool == audit.HostTool { // the path that the declaration names
			name = u.Name
		}
		used[u.Tool] = append(used[u.Tool], name)
	}
	var missing, undeclared, unused []string
	for _, m := range r.Missing {
		missing = append(missing, filepath.Base(m.Name))
	}
	for _, u := range r.Undeclared {
		undeclared = append(undeclared, filepath.Base(u.Name))
	}
	for _, u := range r.Unused {
		unused = append(unused, u.Tool)
	}
	list := func(names []string) string {
		slices.Sort(names)
		text := ""
		for _, name := range slices.Compact(names) {
			text += fmt.Sprintf("\n  %q,", name)
		}
		if text != "" {
			text += "\n"
		}
		return "[" + text + "]"
	}
	var b bytes.Buffer
	fmt.Fprintf(&b, `# What the gitea recipe executes when its tests deploy it: `+"`make audit`"+` writes this.
# `+"`make e2e`"+` makes the same run again, and fails if it executes something else.
#
# Names only. Left out is what differs between two runs that need the same: how often, when, by whom,
# and the directories of files outside the bin directory (temporary ones, the build's, a package's).
# The build leaves out tools that Debian lacks; they are in no list here. `+"`unused`"+` follows from the
# rest and toolset.toml, and is not compared: to add a tool takes no more than to declare it.

# by absolute path: programs of [host] paths
host = %s

# not on PATH, but of the packages that the toolset declares
closure = %s

# what the run wrote itself, where [seal] execute allows it
written = %s

# looked for and not found
missing = %s

# executed from outside the toolset
undeclared = %s

# tools of which it executed nothing
unused = %s

# commands, by the tool that declares them
[used]
`, list(used[audit.HostTool]), list(used[audit.ClosureTool]), list(used[audit.SealTool]), list(missing), list(undeclared), list(unused))
	var commands []string
	for tool, names := range used {
		if !slices.Contains([]string{audit.HostTool, audit.ClosureTool, audit.SealTool}, tool) {
			commands = append(commands, fmt.Sprintf("%q = %s\n", strings.Trim(tool, "[]"), list(names)))
		}
	}
	slices.Sort(commands)
	b.WriteString(strings.Join(commands, ""))
	return b.Bytes()
}

// TestAuditFindsDefect3 runs gitea's tests under audit in the environment that the
// sweep had before there was one list. They fail; the report names git-lfs, who
// looked for it, and the lines that fix it. With those lines, as they are, in the
// old toolset.toml the tests pass.
func TestAuditFindsDefect3(t *testing.T) {
	old := newOldEnvironment(t)
	variables := gitea(t)
	file := filepath.Join(t.TempDir(), "report")
	report := func() *audit.Report {
		r, err := audit.Read(file)
		if err != nil {
			t.Fatal(err)
		}
		return r
	}

	// --strict does not hide what the tests say: 1 is pytest's.
	status, output := auditRecipe(t, []string{old.program}, variables, "--strict", "--report", file)
	if status != 1 || !regexp.MustCompile(`(?m)^FAILED.*test_lfs_roundtrip`).MatchString(output) {
		t.Fatalf("without git-lfs test_lfs_roundtrip should fail: exit status %d: %s", status, output)
	}
	missing := report().Missing
	if len(missing) != 1 || missing[0].Name != "git-lfs" {
		t.Fatalf("not git-lfs, and that alone, is named as missing: %+v", missing)
	}
	fix := missing[0].Fix
	if missing[0].By["git"] == 0 || fix.Package != "git-lfs" || fix.Guess {
		t.Errorf("the report does not say that git looked for git-lfs and that Debian's package git-lfs brings it: %+v", missing[0])
	}
	t.Logf("missing: git-lfs, looked for by %s; package %s\n%s", audit.Programs(missing[0].By), fix, fix.TOML)

	// A script that gets along without git-lfs passes, but not with --strict.
	careless := script(t, `import subprocess; subprocess.run(["git", "lfs", "version"])`)
	for _, row := range []struct {
		flags []string
		want  int
	}{{nil, 0}, {[]string{"--strict"}, 125}} {
		argv := slices.Concat([]string{old.program, "audit", "--state", t.TempDir()}, row.flags, []string{careless})
		status, output := start{argv: argv, env: []string{"HOME=/"}}.run(t)
		if status != row.want || !strings.Contains(output, "1 missing") {
			t.Errorf("%q: exit status %d, want %d: %s", row.flags, status, row.want, output)
		}
		// Below the table, for a person to paste, are the same lines but for their
		// why, which names the script.
		lines, _, _ := strings.Cut(fix.TOML, "why ")
		if _, paste, _ := strings.Cut(output, "\nto add to toolset.toml:\n"); !strings.Contains(paste, lines) {
			t.Errorf("%q: the lines to paste should begin with\n%s: %s", row.flags, lines, output)
		}
	}

	old.declare(t, fix.TOML)
	if status, output := auditRecipe(t, []string{old.program}, variables, "--strict", "--report", file); status != 0 {
		t.Fatalf("with the lines that the report gives, gitea's tests should pass: exit status %d: %s", status, output)
	}
	if !slices.ContainsFunc(report().Used, func(u audit.Use) bool { return u.Name == "git-lfs" && u.Tool == "git-lfs" }) {
		t.Error("git-lfs is declared, but was not used")
	}
}

// oldEnvironment is an environment of the list that the sweep had, and a
// cc-ci-run for it.
type oldEnvironment struct{ declaration, program, out string }

// newOldEnvironment makes it in build/, where it shares Python's packages with the
// real one.
func newOldEnvironment(t *testing.T) oldEnvironment {
	t.Helper()
	build, err := filepath.Abs("../build")
	if err != nil {
		t.Fatal(err)
	}
	old := oldEnvironment{build + "/old/toolset.toml", build + "/old/cc-ci-run", build + "/old-toolset"}
	requirements, err := os.ReadFile("../requirements.txt")
	if err != nil {
		t.Fatal(err)
	}
	write(t, build+"/old/requirements.txt", string(requirements), 0o644)
	write(t, old.declaration, "", 0o644)
	link := fmt.Sprintf("-E cc-ci-run/internal/entry.start -X main.manifest=%[1]s/manifest.json -X main.plan=%[1]s/manifest.plan -X main.program=%[2]s -X main.full=%[2]s-full", old.out, old.program)
	for suffix := range strings.SplitSeq(" -full", " ") {
		cmd := exec.Command("go", "build", "-buildvcs=false", "-ldflags", link, "-o", old.program+suffix, "../cmd/cc-ci-run"+suffix)
		cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
	}
	old.declare(t, string(oldToolset(t)))
	return old
}

// declare adds lines to the declaration and makes the environment.
func (old oldEnvironment) declare(t *testing.T, lines string) {
	t.Helper()
	declaration, err := os.ReadFile(old.declaration)
	if err != nil {
		t.Fatal(err)
	}
	write(t, old.declaration, string(declaration)+"\n"+lines, 0o644)
	// What this machine has no package for is left out as in the real environment.
	m, err := toolset.ReadManifest("../build/toolset/manifest.json")
	if err != nil {
		t.Fatal(err)
	}
	args := []string{"manifest", "--toolset", old.declaration, "--out", old.out, "--state", filepath.Dir(old.declaration) + "/state"}
	for _, tool := range m.Absent {
		args = append(args, "--without", tool.Name)
	}
	if out, err := exec.Command(old.program, args...).CombinedOutput(); err != nil {
		t.Fatalf("%s makes no environment: %v: %s", old.declaration, err, out)
	}
}

// oldToolset is toolset.toml with only the tools that the sweep had before there
// was one list. All else (Python, browsers, variables ...) stays as it is, so that
// only the list differs.
func oldToolset(t *testing.T) []byte {
	t.Helper()
	nix := exec.Command("scripts/with-stand-in", "nix-instantiate", "--eval", "--strict", "--json", "nix/tests/legacy.nix", "-A", "packages.sweep")
	nix.Dir = ".."
	nix.Stderr = t.Output()
	out, err := nix.Output()
	if err != nil {
		t.Fatalf("%v: %v", nix, err)
	}
	var packages []string
	if err := json.Unmarshal(out, &packages); err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile("../toolset.toml")
	if err != nil {
		t.Fatal(err)
	}
	var declared map[string]any
	if err := toml.Unmarshal(data, &declared); err != nil {
		t.Fatal(err)
	}
	declared["tool"] = slices.DeleteFunc(declared["tool"].([]any), func(tool any) bool {
		return !slices.Contains(packages, tool.(map[string]any)["nix"].(string))
	})
	if data, err = toml.Marshal(declared); err != nil {
		t.Fatal(err)
	}
	return data
}
