package toolset

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"

	"cc-ci-run/internal/env"
)

// before is an environment of a Debian machine.
func before() *Manifest {
	file := func(name, sum string) Command {
		return Command{name, "/usr/bin/" + name, &File{SHA256: sum, Size: 1, MTime: 1, Inode: 1}}
	}
	return &Manifest{
		Schema: Schema, Backend: BackendHost, State: "/s", Bin: "/b/toolset/bin", Interpreter: "/b/toolset/bin/python3",
		Tools: []ResolvedTool{
			{"perl", "why", []Package{{"perl", "5.36.0-7+deb12u2"}, {"perl-base", "5.36.0-7+deb12u2"}}, []Command{file("perl", "a"), file("prove", "b")}},
			{"procps", "why", []Package{{"procps", "2:4.0.2-3"}, {"sysvinit-utils", "3.06-4"}}, []Command{file("ps", "c"), file("pidof", "d")}},
			{"jq", "why", []Package{{"jq", "1.6"}}, []Command{file("jq", "e")}},
		},
		Python: ResolvedPython{
			Version: "3.11.2", Packages: []Package{{"pytest", "9.2.0"}}, Tree: "t1", Site: "/b/python/1",
			Commands: []Command{file("python3", "p"), {"pytest", "/b/toolset/bin/pytest", &File{SHA256: "of this build"}}},
		},
		Browsers: ResolvedBrowsers{"/b/toolset/browsers", []Package{{"chromium", "156.0-1~deb12u1"}}, []Command{file("chromium", "c1")}, "b1"},
		Variables: ManifestVariables{
			Pass: []string{"HOME"}, Site: []string{"GITEA_URL"}, Require: []string{"HOME"}, Only: map[string][]string{"drone": {"CI_*"}},
			Default: map[string]string{"TERM": "dumb"}, Set: map[string]string{"LANG": "C.UTF-8", "EMPTY": "", "PLAYWRIGHT_BROWSERS_PATH": "/b/toolset/browsers", "CURL_HOME": "/b/toolset/dotfiles"},
		},
		Process: env.Process{Umask: "0022", NoFile: 65536},
		Host:    Host{Paths: []string{"/bin/sh", "/tmp"}},
		Seal:    Seal{false, []string{"/tmp"}},
	}
}

func TestDifference(t *testing.T) {
	for name, c := range map[string]struct {
		change func(m *Manifest)
		want   string // changes, separated by ";"
	}{
		"none": {func(*Manifest) {}, ""},
		"a security update": {func(m *Manifest) {
			m.Tools[0].Packages = []Package{{"perl", "5.36.0-7+deb12u4"}, {"perl-base", "5.36.0-7+deb12u4"}}
		}, "perl u2 → u4"},
		"a version":                     {func(m *Manifest) { m.Tools[2].Packages[0].Version = "1.7"; m.Tools[2].Commands[0].File.SHA256 = "x" }, "jq 1.6 → 1.7"},
		"a version with another update": {func(m *Manifest) { m.Tools[0].Packages = []Package{{"perl", "5.38.0-1+deb13u2"}} }, "perl 5.36.0-7+deb12u2 → 5.38.0-1+deb13u2"},
		"a version that ends in a u":    {func(m *Manifest) { m.Browsers.Packages[0].Version = "156.0-1~deb12u" }, "chromium 156.0-1~deb12u1 → 156.0-1~deb12u"},
		"one of several packages":       {func(m *Manifest) { m.Tools[1].Packages[1].Version = "3.07" }, "sysvinit-utils 3.06-4 → 3.07"},
		"a package less": {func(m *Manifest) {
			m.Tools[1].Packages = m.Tools[1].Packages[:1]
			m.Tools[1].Commands = m.Tools[1].Commands[:1]
		}, "- sysvinit-utils;- command pidof"},
		"an unknown version": {func(m *Manifest) { m.Tools[2].Packages[0].Version = "" }, `jq 1.6 → ""`},
		"a tool more": {func(m *Manifest) {
			m.Tools = append(m.Tools, ResolvedTool{Name: "git-lfs", Packages: []Package{{"git-lfs", "3.3"}}, Commands: []Command{{Name: "git-lfs"}}})
		}, "+ git-lfs 3.3"},
		"a tool less":             {func(m *Manifest) { m.Tools = m.Tools[:2] }, "- jq"},
		"a tool that is left out": {func(m *Manifest) { m.Tools, m.Absent = m.Tools[:2], []Absent{{Name: "jq"}} }, "- jq"},
		"a tool of two packages more": {func(m *Manifest) {
			m.Tools = append(m.Tools, ResolvedTool{Name: "x", Packages: []Package{{"x", "1"}, {"y", "2"}}})
		}, "+ x x 1, y 2"},
		"another order":                 {func(m *Manifest) { m.Tools[0], m.Tools[2] = m.Tools[2], m.Tools[0] }, ""},
		"a command less":                {func(m *Manifest) { m.Tools[0].Commands = m.Tools[0].Commands[:1] }, "- command prove"},
		"other files of one version":    {func(m *Manifest) { m.Tools[2].Commands[0].File.SHA256 = "x" }, "jq 1.6: other files of the same version"},
		"other files of two packages":   {func(m *Manifest) { m.Tools[1].Commands[0].File.SHA256 = "x" }, "procps: other files of the same version"},
		"python":                        {func(m *Manifest) { m.Python.Version = "3.12"; m.Python.Commands[0].File.SHA256 = "x" }, "python 3.11.2 → 3.12"},
		"other files of python":         {func(m *Manifest) { m.Python.Tree = "t2" }, "python 3.11.2: other files of the same version"},
		"a Python package":              {func(m *Manifest) { m.Python.Packages[0].Version = "9.3"; m.Python.Tree = "t2" }, "pytest 9.2.0 → 9.3"},
		"a Python package more":         {func(m *Manifest) { m.Python.Packages = append(m.Python.Packages, Package{"pyyaml", "6"}) }, "+ pyyaml 6"},
		"a browser":                     {func(m *Manifest) { m.Browsers.Packages[0].Version = "156.0-1~deb12u2"; m.Browsers.Tree = "b2" }, "chromium u1 → u2"},
		"other files of the browsers":   {func(m *Manifest) { m.Browsers.Tree = "b2" }, "browsers 156.0-1~deb12u1: other files of the same version"},
		"a variable's value":            {func(m *Manifest) { m.Variables.Set["LANG"] = "de" }, "variable LANG C.UTF-8 → de"},
		"a variable without a value":    {func(m *Manifest) { delete(m.Variables.Set, "EMPTY") }, "- variable EMPTY"},
		"a variable that becomes empty": {func(m *Manifest) { m.Variables.Set["LANG"] = "" }, `variable LANG C.UTF-8 → ""`},
		"a variable more":               {func(m *Manifest) { m.Variables.Set["X"] = "1" }, "+ variable X 1"},
		"a default":                     {func(m *Manifest) { m.Variables.Default["TERM"] = "xterm" }, "default TERM dumb → xterm"},
		"what passes":                   {func(m *Manifest) { m.Variables.Pass = []string{"USER"} }, "- pass HOME;+ pass USER"},
		"what the site gives":           {func(m *Manifest) { m.Variables.Site = nil }, "- site GITEA_URL"},
		"what one invoker has":          {func(m *Manifest) { m.Variables.Only["manual"] = []string{"NO_COLOR"} }, "+ only manual: NO_COLOR"},
		"what is required":              {func(m *Manifest) { m.Variables.Require = nil }, "- require HOME"},
		"process state":                 {func(m *Manifest) { m.Process = env.Process{Umask: "0077", NoFile: 1024, Core: 1, NoNewPrivs: true} }, "process core 0 → 1;process no_new_privs false → true;process nofile 65536 → 1024;process umask 0022 → 0077"},
		"host paths":                    {func(m *Manifest) { m.Host.Paths = []string{"/tmp", "/dev/shm"} }, "- host path /bin/sh;+ host path /dev/shm"},
		"the seal":                      {func(m *Manifest) { m.Seal = Seal{true, nil} }, "- seal /tmp;+ seal of every run"},
		"the backend":                   {func(m *Manifest) { m.Backend = BackendNix }, "backend host → nix"},
		"reasons, state, times of files": {func(m *Manifest) {
			m.Tools[0].Why, m.State = "x", "/other"
			m.Tools[0].Commands[0].File.MTime = 2
			m.Tools[0].Commands[0].File.Inode = 9
		}, ""},
		"the same build in another place": {elsewhere, "PATH /b/toolset/bin → /c/toolset/bin"},
		"another place and a tool less":   {func(m *Manifest) { elsewhere(m); m.Tools = m.Tools[:2] }, "- jq"},
	} {
		t.Run(name, func(t *testing.T) {
			a, b := before(), before()
			c.change(b)
			if got := strings.Join(Strings(Difference(a, b)), ";"); got != c.want {
				t.Errorf("got  %s\nwant %s", got, c.want)
			}
			// Back again, each thing is the other way round.
			back := Difference(b, a)
			for _, change := range Difference(a, b) {
				turned := Change{map[Kind]Kind{Added: Removed, Removed: Added, Changed: Changed}[change.Kind], change.Of, change.Name, change.B, change.A}
				if !slices.Contains(back, turned) {
					t.Errorf("back: %+v is not in %+v", turned, back)
				}
			}
		})
	}
}

// elsewhere is what a build of the same in another directory changes.
func elsewhere(m *Manifest) {
	data, err := json.Marshal(m)
	if err != nil {
		panic(err)
	}
	moved := strings.ReplaceAll(strings.ReplaceAll(string(data), `"/b/`, `"/c/`), "of this build", "of that build")
	*m = Manifest{}
	if err := json.Unmarshal([]byte(moved), m); err != nil {
		panic(err)
	}
}

// Of Nix, each file's path has the hash of its build.
func TestDifferenceOfNix(t *testing.T) {
	of := func(version, hash string) *Manifest {
		return &Manifest{Backend: BackendNix, Bin: "/nix/store/" + hash + "-bin", Tools: []ResolvedTool{
			{"jq", "", []Package{{"jq", version}}, []Command{{"jq", "/nix/store/" + hash + "-jq/bin/jq", nil}}},
		}}
	}
	for _, c := range []struct {
		version, hash, want string
	}{
		{"1.6", "a", ""},
		{"1.6", "b", "jq 1.6: other files of the same version"},
		{"1.7", "b", "jq 1.6 → 1.7"},
	} {
		if got := strings.Join(Strings(Difference(of("1.6", "a"), of(c.version, c.hash))), ";"); got != c.want {
			t.Errorf("%s, %s: %q, want %q", c.version, c.hash, got, c.want)
		}
	}
}
