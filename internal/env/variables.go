package env

import (
	"errors"
	"path"
	"slices"
	"strings"
)

// Names of the variables that cc-ci-run itself gives every child.
const (
	InvokerVariable     = "CC_CI_RUN_INVOKER"     // drone, systemd or manual
	FingerprintVariable = "CC_CI_RUN_FINGERPRINT" // of the manifest, in hex
	// ResultVariable is given to scripts: the file that the runner writes the
	// outcome of each test to (package record).
	ResultVariable = "CC_CI_RUN_RESULT"
)

// Reserved says whether cc-ci-run itself sets a variable.
func Reserved(name string) bool {
	switch name {
	case "PATH", InvokerVariable, FingerprintVariable, ResultVariable:
		return true
	}
	return false
}

// forbidden never pass, whatever the toolset says: each of them changes what
// a program does from outside, so a run would no longer be the declared one.
// The toolset may fix them ([environment.set]), which is the same for all.
// Sources: environ(7), ld.so(8), bash(1), git(1), python(1) and the manual
// page of each program.
var forbidden = []string{
	"PATH",
	// the dynamic linker and the C library
	"LD_*", "GLIBC_TUNABLES", "GCONV_PATH", "GETCONF_DIR", "HOSTALIASES", "LOCALDOMAIN", "RES_OPTIONS",
	"LOCPATH", "NLSPATH", "MALLOC_*", "NIX_LD*",
	// shells: files run at start, options, imported functions, word splitting
	"BASH_ENV", "ENV", "BASH_FUNC_*", "BASHOPTS", "SHELLOPTS", "BASH_LOADABLES_PATH", "IFS", "CDPATH",
	"GLOBIGNORE", "PS4", "PROMPT_COMMAND", "POSIXLY_CORRECT", "EXECIGNORE",
	// interpreters
	"PYTHON*", "PYTEST_*", "__PYVENV_LAUNCHER__", "VIRTUAL_ENV", "PERL5*", "PERLLIB", "PERL_*", "RUBYOPT", "RUBYLIB",
	"NODE_OPTIONS", "NODE_PATH", "JAVA_TOOL_OPTIONS", "_JAVA_OPTIONS", "AWKPATH", "AWKLIBPATH",
	// git, all of it: repository, configuration, helpers, author
	"GIT_*", "SSH_ASKPASS",
	// options of tools, given by variable
	"TAR_OPTIONS", "GREP_OPTIONS", "GREP_COLOR", "GREP_COLORS", "GZIP", "BZIP", "BZIP2", "XZ_OPT", "XZ_DEFAULTS", "ZSTD_*",
	"RSYNC_*", "CURL_HOME", "OPENSSL_*", "SSLKEYLOGFILE", "LESSOPEN", "LESSCLOSE", "JQ_*",
	"SYSTEMD_*", "DYLD_*",
}

// Verdict is what became of one variable.
type Verdict string

// The verdicts of [Plan.Environment].
const (
	Fixed   Verdict = "fixed"   // by the toolset, whatever the caller has
	Given   Verdict = "given"   // by cc-ci-run itself
	Passed  Verdict = "passed"  // the caller's value
	Default Verdict = "default" // the toolset's value, as the caller has none
	Dropped Verdict = "dropped" // the caller's; the child does not see it
)

// Variable is one variable and the reason for what became of it.
type Variable struct {
	Name    string
	Value   string // empty if Dropped
	Verdict Verdict
	Rule    string // what in the toolset decided it …
	Pattern string // … and the pattern there that it matched, if it is one
}

// Why is what decided about a variable, for people. It is put together only
// for them: sixty strings are seen in a run's start.
func (v Variable) Why() string {
	switch {
	case v.Pattern == "":
		return v.Rule
	case v.Verdict == Dropped:
		return v.Rule + " (" + v.Pattern + ")"
	}
	return v.Rule + " " + v.Pattern
}

// Environment is what a child process is given, and what it is not:
// every variable that the caller or the toolset has, sorted by name.
type Environment []Variable

// Environ is the environment for execve: "NAME=VALUE", sorted by name.
func (e Environment) Environ() []string {
	size := 0
	for i := range e {
		size += len(e[i].Name) + 1 + len(e[i].Value)
	}
	var all strings.Builder // one allocation, not one for each
	all.Grow(size)
	list := make([]string, 0, len(e))
	for i := range e {
		if v := &e[i]; v.Verdict != Dropped {
			start := all.Len()
			all.WriteString(v.Name)
			all.WriteByte('=')
			all.WriteString(v.Value)
			list = append(list, all.String()[start:])
		}
	}
	return list
}

// With is the environment with one more variable that cc-ci-run itself gives,
// whatever the caller has of that name.
func (e Environment) With(name, value string) Environment {
	v := Variable{name, value, Given, "cc-ci-run tells each run", ""}
	i, ok := slices.BinarySearchFunc(e, name, func(v Variable, name string) int { return strings.Compare(v.Name, name) })
	if ok {
		e[i] = v
		return e
	}
	return slices.Insert(e, i, v)
}

// Value is the value of a variable that the child gets, "" for none.
func (e Environment) Value(name string) string {
	i, ok := slices.BinarySearchFunc(e, name, func(v Variable, name string) int { return strings.Compare(v.Name, name) })
	if !ok || e[i].Verdict == Dropped {
		return ""
	}
	return e[i].Value
}

// Names lists the variables with one of the verdicts, sorted.
func (e Environment) Names(verdicts ...Verdict) []string {
	list := make([]string, 0, len(e))
	for i := range e {
		if slices.Contains(verdicts, e[i].Verdict) {
			list = append(list, e[i].Name)
		}
	}
	return list
}

// Environment computes what a child gets from what the caller has. caller is
// a list of "NAME=VALUE" as os.Environ gives it; of a name that appears twice
// the first counts, as for getenv(3), and what has no name or no "=" is no
// variable. invoker is told to each run. The error has a line for each
// required variable that the caller lacks or has empty; the environment is
// whole all the same.
//
// The rules, first match wins: PATH is the bin directory; what cc-ci-run gives
// or the toolset fixes is so for everybody; what must never pass is dropped;
// what the toolset names (default, pass, site, only) passes; the rest is
// dropped.
func (p *Plan) Environment(caller []string, invoker string) (e Environment, err error) {
	e = make(Environment, 0, 3+len(p.Set)+len(caller)+len(p.Default))
	e = append(
		e,
		Variable{"PATH", p.Bin, Fixed, "the toolset's bin directory", ""},
		Variable{InvokerVariable, invoker, Given, "cc-ci-run tells each run", ""},
		Variable{FingerprintVariable, p.Fingerprint, Given, "cc-ci-run tells each run", ""},
	)
	for _, kv := range p.Set {
		name, value, _ := strings.Cut(kv, "=")
		e = append(e, Variable{name, value, Fixed, "environment.set", ""})
	}
	only := make([]string, len(p.Only)) // rules
	for i := range p.Only {
		only[i] = "environment.only." + p.Only[i].Invoker
	}
	for _, kv := range caller {
		name, value, ok := strings.Cut(kv, "=")
		if !ok || name == "" {
			continue
		}
		if pattern := ForbiddenBy(name); pattern != "" {
			e = append(e, Variable{Name: name, Verdict: Dropped, Rule: "never passes", Pattern: pattern})
		} else if rule, pattern := p.passedBy(name, only); rule != "" {
			e = append(e, Variable{name, value, Passed, rule, pattern})
		} else {
			e = append(e, Variable{Name: name, Verdict: Dropped, Rule: "not named by the toolset"})
		}
	}
	for _, kv := range p.Default {
		name, value, _ := strings.Cut(kv, "=")
		e = append(e, Variable{name, value, Default, "environment.default", ""})
	}
	// Of each name the first counts.
	slices.SortStableFunc(e, func(a, b Variable) int { return strings.Compare(a.Name, b.Name) })
	e = slices.CompactFunc(e, func(a, b Variable) bool { return a.Name == b.Name })

	for _, name := range p.Require {
		i, ok := slices.BinarySearchFunc(e, name, func(v Variable, name string) int { return strings.Compare(v.Name, name) })
		if !ok || e[i].Verdict != Passed || e[i].Value == "" {
			err = errors.Join(err, errors.New(name+" is not set: every run needs it (environment.require); set it in the shell, the unit or the pipeline that starts cc-ci-run"))
		}
	}
	return e, err
}

// passedBy names the rule that lets a variable of the caller pass, or "", and
// its pattern. Call it only for names that are not forbidden. only are the rules
// of p.Only.
func (p *Plan) passedBy(name string, only []string) (rule, pattern string) {
	if !IsVariable(name) {
		return "", ""
	}
	for _, kv := range p.Default {
		if len(kv) > len(name) && strings.HasPrefix(kv, name) && kv[len(name)] == '=' {
			return "environment.default", ""
		}
	}
	if pattern := Match(p.Pass, name); pattern != "" {
		return "environment.pass", pattern
	}
	if pattern := Match(p.Site, name); pattern != "" {
		return "environment.site", pattern
	}
	for i := range p.Only {
		if pattern := Match(p.Only[i].Patterns, name); pattern != "" {
			return only[i], pattern
		}
	}
	return "", ""
}

// IsVariable says whether a name is one that a shell can use.
func IsVariable(name string) bool {
	for i := range len(name) {
		c := name[i]
		letter := c >= 'A' && c <= 'Z' || c >= 'a' && c <= 'z' || c == '_'
		if !letter && (i == 0 || c < '0' || c > '9') {
			return false
		}
	}
	return name != ""
}

// Lookup is a variable's value among those of a caller, "" without it. Of a
// name that appears twice the first counts.
func Lookup(caller []string, name string) string {
	for _, kv := range caller {
		if k, v, ok := strings.Cut(kv, "="); ok && k == name {
			return v
		}
	}
	return ""
}

// ForbiddenBy gives the pattern that forbids name, or "". A glob such as
// "GIT_A*" is forbidden if the pattern covers all that it could match; one
// that is broader ("*") is allowed, and filtered name by name at run time.
func ForbiddenBy(name string) string { return Match(forbidden, name) }

// Match gives the first pattern that name matches, or "".
func Match(patterns []string, name string) string {
	for _, p := range patterns {
		if matches(p, name) {
			return p
		}
	}
	return ""
}

// matches is path.Match, but quick for what patterns are: a name, or the
// beginning of one and "*".
func matches(pattern, name string) bool {
	i := 0
	for ; i < len(pattern); i++ {
		if c := pattern[i]; c == '*' || c == '?' || c == '[' || c == '\\' {
			break
		}
		if i == len(name) || pattern[i] != name[i] {
			return false
		}
	}
	if i == len(pattern) {
		return i == len(name)
	}
	ok, _ := path.Match(pattern[i:], name[i:])
	return ok
}
