package toolset

import (
	"fmt"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"cc-ci-run/internal/config"
	"cc-ci-run/internal/env"
)

// Toolset is the declaration: all that a recipe test may rely on. It is
// the content of toolset.toml, checked.
type Toolset struct {
	Tools       []Tool      `toml:"tool"`
	Python      Python      `toml:"python"`
	Browsers    Browsers    `toml:"browsers"`
	Environment Variables   `toml:"environment"`
	Process     env.Process `toml:"process"`
	Host        Host        `toml:"host"`
	Seal        Seal        `toml:"seal"`

	file *config.File // names the places of mistakes
}

// Tool is one [[tool]]: a package and the commands that it must bring.
type Tool struct {
	Name string `toml:"name"` // unique in the toolset
	// Nix is the package's attribute path in nixpkgs.
	Nix string `toml:"nix"`
	// Debian names the package or packages (separated by spaces) of the
	// host backend; "" where Debian has none.
	Debian string `toml:"debian"`
	// Commands must all be found in the bin directory, on every backend.
	Commands []string `toml:"commands"`
	// Files gives the absolute path of a command on the host backend, where
	// Debian's file has another name than the command.
	Files map[string]string `toml:"files"`
	// Why says who relies on it.
	Why string `toml:"why"`
}

// Python is the interpreter and the packages that SCRIPT may import.
type Python struct {
	Nix      string   `toml:"nix"`
	Debian   string   `toml:"debian"`
	Commands []string `toml:"commands"` // the interpreter and the packages' own scripts
	Packages []string `toml:"packages"` // names as on PyPI and in nixpkgs' python3Packages
	// Requirements is the pinned and hashed lock of Packages for the host
	// backend, relative to toolset.toml.
	Requirements string `toml:"requirements"`
	Why          string `toml:"why"`
}

// Browsers are what playwright launches.
type Browsers struct {
	Nix    string `toml:"nix"`
	Debian string `toml:"debian"`
	Host   string `toml:"host"` // the browser's file on the host backend
	Why    string `toml:"why"`
}

// Variables says what becomes of each variable of the caller, and which
// ones a run is given. See [Manifest.Environment] for the rules.
type Variables struct {
	Pass []string `toml:"pass"` // names or globs
	// Site is passed like Pass: what each site gives to each invoker in that
	// invoker's own way (a secret of Drone's server, an EnvironmentFile of the
	// unit, a person's export), so that a probe has none of it.
	Site    []string            `toml:"site"`
	Require []string            `toml:"require"` // names; a run without one does not start
	Only    map[string][]string `toml:"only"`    // invoker -> names or globs that only it sets; passed like Pass, and no fault when parity finds them missing elsewhere
	Default map[string]string   `toml:"default"` // passed, or this where the caller has none
	Set     map[string]string   `toml:"set"`     // fixed
	Nix     map[string]string   `toml:"nix"`     // fixed on the Nix backend
	Host    map[string]string   `toml:"host"`    // fixed on the host backend
}

// Host is what runs reach by absolute path, outside the toolset.
type Host struct {
	Paths  []string `toml:"paths" json:"paths"`
	Debian string   `toml:"debian" json:"-"` // packages that bring Paths
}

// Seal is which runs are sealed, and what they may execute besides the
// toolset. See [Manifest.Executable].
type Seal struct {
	Every bool `toml:"seal" json:"seal"` // every run is, as with --seal
	// Execute are directories and files outside the toolset: in the
	// directories, tests may execute what they find or write.
	Execute []string `toml:"execute" json:"execute"`
}

// Invokers are the ways to start a run. The names are used in toolset.toml,
// in records and by parity.
var Invokers = []string{"drone", "systemd", "manual"}

var (
	nameRE    = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._+-]*$`)
	commandRE = regexp.MustCompile(`^[A-Za-z0-9_\[.][A-Za-z0-9._+@\[-]*$`)
	attrRE    = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_'-]*(\.[A-Za-z0-9_][A-Za-z0-9_'-]*)*$`)
	debianRE  = regexp.MustCompile(`^[a-z0-9][a-z0-9+.-]+$`)
	braceRE   = regexp.MustCompile(`\{[^{}]*\}`)
)

// IsTool says whether a name can be a tool's.
func IsTool(name string) bool { return nameRE.MatchString(name) }

// IsAttribute says whether a path of attributes can be one in nixpkgs.
func IsAttribute(path string) bool { return attrRE.MatchString(path) }

// IsDebian says whether a name can be a Debian package's.
func IsDebian(name string) bool { return debianRE.MatchString(name) }

// IsCommand says whether a name can be a command's.
func IsCommand(name string) bool { return commandRE.MatchString(name) && name != "." && name != ".." }

// ParseToolset reads a toolset strictly. file is how the toolset is named
// in errors. All mistakes are reported together, as a *multierror.Error of
// lines "FILE:LINE: what: why"; only a file that is not TOML at all gives one.
func ParseToolset(file string, data []byte) (*Toolset, error) {
	t := &Toolset{}
	var err error
	if t.file, err = config.Decode(file, data, t); err != nil {
		return nil, err
	}
	t.check()
	return t, t.file.Err()
}

// Packages lists the Debian packages of the whole toolset, each once,
// sorted: what the host backend needs installed.
func (t *Toolset) Packages() []string {
	var all []string
	for _, tool := range t.Tools {
		all = append(all, strings.Fields(tool.Debian)...)
	}
	for _, s := range []string{t.Python.Debian, t.Browsers.Debian, t.Host.Debian} {
		all = append(all, strings.Fields(s)...)
	}
	slices.Sort(all)
	return slices.Compact(all)
}

func (t *Toolset) check() {
	fail := t.file.Fail

	if len(t.Tools) == 0 {
		fail("tool", "no [[tool]]: a toolset declares at least one")
	}
	first := map[string]string{} // tool name -> its key
	for i, tool := range t.Tools {
		t.checkTool(fmt.Sprintf("tool[%d]", i), tool, first)
	}

	for _, table := range []struct {
		name  string
		check func()
	}{
		{"python", t.checkPython},
		{"browsers", t.checkBrowsers},
		{"environment", t.checkVariables},
		{"process", t.checkProcess},
		{"host", t.checkHost},
	} {
		if !t.file.Has(table.name) {
			fail(table.name, "no [%s] table", table.name)
		} else {
			table.check()
		}
	}
	t.checkSeal() // a toolset may do without the table
}

// checkTool checks one [[tool]], whose key in the file is key. first has the keys
// of those before.
func (t *Toolset) checkTool(key string, tool Tool, first map[string]string) {
	fail := t.file.Fail
	label := tool.Name
	switch {
	case tool.Name == "":
		label = "[[tool]]"
		fail(key, "[[tool]] without a name")
	case !IsTool(tool.Name):
		fail(key+".name", "%q: not a name (letters, digits, . _ + -)", tool.Name)
	case first[tool.Name] != "":
		fail(key+".name", "%s: declared twice, first in line %d", tool.Name, t.file.Line(first[tool.Name]))
	default:
		first[tool.Name] = key + ".name"
	}
	if !IsAttribute(tool.Nix) {
		fail(key+".nix", "%s: nix = %q is not an attribute path of nixpkgs", label, tool.Nix)
	}
	if !t.file.Has(key + ".debian") {
		fail(key, "%s: no debian package named (\"\" where Debian has none)", label)
	}
	t.checkDebian(key+".debian", label, tool.Debian)
	if strings.TrimSpace(tool.Why) == "" {
		fail(key+".why", "%s: no why: say who relies on it", label)
	}
	if len(tool.Commands) == 0 {
		fail(key, "%s: no commands: a tool brings at least one", label)
	}
	for j, c := range tool.Commands {
		at := fmt.Sprintf("%s.commands[%d]", key, j)
		if !IsCommand(c) {
			fail(at, "%s: %q is not a command's name", label, c)
		} else if slices.Contains(tool.Commands[:j], c) {
			fail(at, "%s: command %s appears twice", label, c)
		} else if slices.Contains(t.Python.Commands, c) {
			fail(at, "%s: command %s is [python]'s", label, c)
		}
	}
	for c, file := range tool.Files {
		at := key + ".files." + c
		if !slices.Contains(tool.Commands, c) {
			fail(at, "%s: files names %s, which is not one of its commands", label, c)
		}
		if !filepath.IsAbs(file) {
			fail(at, "%s: files.%s = %q is not an absolute path", label, c, file)
		}
	}
}

// checkDebian keeps what apt-get would take for an option from it.
func (t *Toolset) checkDebian(key, label, packages string) {
	for _, p := range strings.Fields(packages) {
		if !IsDebian(p) {
			t.file.Fail(key, "%s: %q is not a Debian package's name", label, p)
		}
	}
}

func (t *Toolset) checkPython() {
	fail := t.file.Fail
	t.checkDebian("python.debian", "python", t.Python.Debian)
	if !attrRE.MatchString(t.Python.Nix) {
		fail("python.nix", "python: nix = %q is not an attribute path of nixpkgs", t.Python.Nix)
	}
	if !slices.Contains(t.Python.Commands, "python3") {
		fail("python.commands", "python: commands must have python3")
	}
	for i, c := range t.Python.Commands {
		if !IsCommand(c) {
			fail(fmt.Sprintf("python.commands[%d]", i), "python: %q is not a command's name", c)
		} else if slices.Contains(t.Python.Commands[:i], c) {
			fail(fmt.Sprintf("python.commands[%d]", i), "python: command %s appears twice", c)
		}
	}
	if len(t.Python.Packages) == 0 {
		fail("python.packages", "python: no packages")
	}
	for i, p := range t.Python.Packages {
		at := fmt.Sprintf("python.packages[%d]", i)
		if !nameRE.MatchString(p) {
			fail(at, "python: %q is not a package's name", p)
		} else if slices.Contains(t.Python.Packages[:i], p) {
			fail(at, "python: package %s appears twice", p)
		}
	}
	if t.Python.Requirements == "" {
		fail("python.requirements", "python: no requirements: the host backend installs from a pinned, hashed lock")
	}
}

func (t *Toolset) checkBrowsers() {
	t.checkDebian("browsers.debian", "browsers", t.Browsers.Debian)
	if !attrRE.MatchString(t.Browsers.Nix) {
		t.file.Fail("browsers.nix", "browsers: nix = %q is not an attribute path of nixpkgs", t.Browsers.Nix)
	}
	if !filepath.IsAbs(t.Browsers.Host) {
		t.file.Fail("browsers.host", "browsers: host = %q is not an absolute path", t.Browsers.Host)
	}
}

func (t *Toolset) checkProcess() {
	if _, err := t.Process.UmaskBits(); err != nil {
		t.file.Fail("process.umask", "%v", err)
	}
	if t.Process.NoFile < 64 {
		t.file.Fail("process.nofile", "process: nofile = %d: Python alone needs more (64 at least)", t.Process.NoFile)
	}
}

func (t *Toolset) checkHost() {
	fail := t.file.Fail
	t.checkDebian("host.debian", "host", t.Host.Debian)
	if len(t.Host.Paths) == 0 {
		fail("host.paths", "host: no paths: shell=True in Python runs /bin/sh at least")
	}
	for i, p := range t.Host.Paths {
		at := fmt.Sprintf("host.paths[%d]", i)
		if !filepath.IsAbs(p) || filepath.Clean(p) != p {
			fail(at, "host: %q is not a clean absolute path", p)
		} else if slices.Contains(t.Host.Paths[:i], p) {
			fail(at, "host: %s appears twice", p)
		}
	}
}

func (t *Toolset) checkSeal() {
	fail := t.file.Fail
	for i, p := range t.Seal.Execute {
		at := fmt.Sprintf("seal.execute[%d]", i)
		switch {
		case !filepath.IsAbs(p) || filepath.Clean(p) != p || strings.ContainsRune(p, 0):
			fail(at, "seal: %q is not a clean absolute path", p)
		case p == "/":
			fail(at, "seal: / is everything, so the seal would forbid nothing: name the directories in which tests write what they execute")
		case slices.Contains(t.Seal.Execute[:i], p):
			fail(at, "seal: %s appears twice", p)
		}
	}
}

func (t *Toolset) checkVariables() {
	v := t.Environment
	t.checkPatterns("environment.pass", v.Pass)
	t.checkPatterns("environment.site", v.Site)
	for invoker, list := range v.Only {
		if !slices.Contains(Invokers, invoker) {
			t.file.Fail("environment.only."+invoker, "environment.only: %q is not an invoker (%s)", invoker, strings.Join(Invokers, ", "))
		}
		t.checkPatterns("environment.only."+invoker, list)
	}
	t.checkValues()
	for i, name := range v.Require {
		at := fmt.Sprintf("environment.require[%d]", i)
		if !env.IsVariable(name) {
			t.file.Fail(at, "environment.require: %q is not a variable's name", name)
		} else if env.Match(v.Pass, name) == "" {
			t.file.Fail(at, "environment.require: %s is not in environment.pass, so no run could have it", name)
		} else if slices.Contains(v.Require[:i], name) {
			t.file.Fail(at, "environment.require: %s appears twice", name)
		}
	}
}

// checkPatterns checks the patterns of what passes, which are at key.
func (t *Toolset) checkPatterns(key string, list []string) {
	for i, p := range list {
		at := fmt.Sprintf("%s[%d]", key, i)
		if err := checkPattern(p); err != nil {
			t.file.Fail(at, "%s: %v", key, err)
		} else if rule := env.ForbiddenBy(p); rule != "" {
			t.file.Fail(at, "%s: %s never passes (it changes a run from outside; rule %s)", key, p, rule)
		} else if slices.Contains(list[:i], p) {
			t.file.Fail(at, "%s: %s appears twice", key, p)
		}
	}
}

// checkValues checks the variables that have a value in the toolset.
func (t *Toolset) checkValues() {
	fail, v := t.file.Fail, t.Environment
	fixed := map[string]string{} // name -> table
	for _, table := range []struct {
		name string
		vars map[string]string
	}{{"set", v.Set}, {"nix", v.Nix}, {"host", v.Host}, {"default", v.Default}} {
		for name, value := range table.vars {
			key := "environment." + table.name + "." + name
			switch {
			case !env.IsVariable(name):
				fail(key, "environment.%s: %q is not a variable's name", table.name, name)
			case env.Reserved(name):
				fail(key, "environment.%s: %s is set by cc-ci-run itself", table.name, name)
			case table.name == "default" && env.ForbiddenBy(name) != "":
				fail(key, "environment.default: %s never passes", name)
			case fixed[name] == "set" || fixed[name] != "" && table.name == "default":
				fail(key, "environment.%s: %s is fixed by environment.%s already", table.name, name, fixed[name])
			default:
				fixed[name] = table.name
			}
			if strings.ContainsRune(value, 0) {
				fail(key, "environment.%s: %s holds a NUL byte", table.name, name)
			}
			// The Nix backend also knows every package by its attribute.
			for _, b := range braceRE.FindAllString(value, -1) {
				if !slices.Contains(ownPlaceholders, b) && (table.name != "nix" || !attrRE.MatchString(b[1:len(b)-1])) {
					fail(key, "environment.%s: %s: unknown placeholder %s (%s; in environment.nix also {attribute})", table.name, name, b, strings.Join(ownPlaceholders, ", "))
				}
			}
		}
	}
}

// ownPlaceholders stand for the toolset's own directories.
var ownPlaceholders = []string{"{bin}", "{browsers}", "{dotfiles}"}

// checkPattern accepts a variable's name, or a glob of path.Match over names.
func checkPattern(p string) error {
	if _, err := path.Match(p, ""); err != nil {
		return fmt.Errorf("%q: bad glob: %w", p, err)
	}
	if p == "" || strings.ContainsAny(p, "=\x00/ ") {
		return fmt.Errorf("%q is not a variable's name or a glob", p)
	}
	return nil
}
