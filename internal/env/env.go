// Package env answers one question: in which environment does a recipe test
// run? It does so in three steps, each a value that the next is made from.
//
//	toolset.toml --ParseToolset--> Toolset    what is declared, once, for everybody
//	Toolset --HostBuild.Run--> Manifest       the same, resolved on one machine: absolute
//	                                          paths, versions, fixed variables; JSON, made
//	                                          at build time (the Nix backend writes the same)
//	Manifest --Environment--> Environment     what one child process is given
//
// [Manifest.Environment] is the only place that decides what becomes of a
// variable; `cc-ci-run env --explain` prints what it decided, so the two can
// not disagree. Nothing here reads the process's own environment: the
// caller's variables come in as a list, as os.Environ gives them.
//
// A manifest is known by its [Fingerprint], the SHA-256 of the file: same
// fingerprint, same environment. On the host backend files can change under
// it, so [Manifest.Verify] looks at each one before a run, and
// [Manifest.Check] at everything, as closely as it can.
package env

import (
	"cmp"
	"fmt"
	"path"
	"slices"
	"strings"

	"github.com/hashicorp/go-multierror"
)

// Names of the variables that cc-ci-run itself gives every child.
const (
	InvokerVariable     = "CC_CI_RUN_INVOKER"     // drone, systemd or manual
	FingerprintVariable = "CC_CI_RUN_FINGERPRINT" // of the manifest, in hex
)

var reserved = map[string]bool{"PATH": true, InvokerVariable: true, FingerprintVariable: true}

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

// The verdicts of [Manifest.Environment].
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
	Rule    string // what in the toolset decided it, for people
}

// Environment is what a child process is given, and what it is not:
// every variable that the caller or the toolset has, sorted by name.
type Environment []Variable

// Environ is the environment for execve: "NAME=VALUE", sorted by name.
func (e Environment) Environ() []string {
	list := make([]string, 0, len(e))
	for _, v := range e {
		if v.Verdict != Dropped {
			list = append(list, v.Name+"="+v.Value)
		}
	}
	return list
}

// Names lists the variables with one of the verdicts, sorted.
func (e Environment) Names(verdicts ...Verdict) []string {
	list := []string{}
	for _, v := range e {
		if slices.Contains(verdicts, v.Verdict) {
			list = append(list, v.Name)
		}
	}
	return list
}

// Environment computes what a child gets from what the caller has. caller is
// a list of "NAME=VALUE" as os.Environ gives it; of a name that stands twice
// the first counts, as for getenv(3), and what has no name or no "=" is no
// variable. given are the variables that cc-ci-run itself sets.
//
// The rules, first match wins: PATH is the bin directory; what the toolset
// fixes or cc-ci-run gives is so for everybody; what must never pass is
// dropped; what the toolset names (pass, site, only, default) passes; the rest is
// dropped. Every required variable that is missing or empty is an error, all
// of them reported together.
func (m *Manifest) Environment(caller []string, given map[string]string) (Environment, error) {
	e := Environment{{Name: "PATH", Value: m.Bin, Verdict: Fixed, Rule: "the toolset's bin directory"}}
	for name, value := range given {
		e = append(e, Variable{name, value, Given, "cc-ci-run tells each run"})
	}
	for name, value := range m.Variables.Set {
		e = append(e, Variable{name, value, Fixed, "environment.set"})
	}
	seen := make(map[string]bool, len(e)+len(caller))
	for _, v := range e {
		seen[v.Name] = true
	}
	settled := len(e)
	for _, kv := range caller {
		name, value, ok := strings.Cut(kv, "=")
		if !ok || name == "" || seen[name] {
			continue
		}
		seen[name] = true
		if rule := forbiddenBy(name); rule != "" {
			e = append(e, Variable{Name: name, Verdict: Dropped, Rule: "never passes (" + rule + ")"})
		} else if rule := m.passedBy(name); rule != "" {
			e = append(e, Variable{name, value, Passed, rule})
		} else {
			e = append(e, Variable{Name: name, Verdict: Dropped, Rule: "not named by the toolset"})
		}
	}
	for name, value := range m.Variables.Default {
		if !seen[name] {
			e = append(e, Variable{name, value, Default, "environment.default"})
		}
	}

	var errs *multierror.Error
	for _, name := range m.Variables.Require {
		i := slices.IndexFunc(e[settled:], func(v Variable) bool { return v.Name == name && v.Verdict == Passed && v.Value != "" })
		if i < 0 {
			errs = multierror.Append(errs, fmt.Errorf("%s is not set: every run needs it (environment.require); set it in the shell, the unit or the pipeline that starts cc-ci-run", name))
		}
	}
	slices.SortFunc(e, func(a, b Variable) int { return cmp.Compare(a.Name, b.Name) })
	return e, errs.ErrorOrNil()
}

// passedBy names the rule that lets a variable of the caller pass, or "". It
// is asked of what [forbidden] leaves.
func (m *Manifest) passedBy(name string) string {
	if !variableRE.MatchString(name) {
		return ""
	}
	if _, ok := m.Variables.Default[name]; ok {
		return "environment.default"
	}
	if p := match(m.Variables.Pass, name); p != "" {
		return "environment.pass " + p
	}
	if p := m.Variables.FromSite(name); p != "" {
		return "environment.site " + p
	}
	for _, invoker := range Invokers {
		if p := m.Variables.OnlyBy(invoker, name); p != "" {
			return "environment.only." + invoker + " " + p
		}
	}
	return ""
}

// OnlyBy gives the pattern by which only this invoker has the variable, or "".
func (v ManifestVariables) OnlyBy(invoker, name string) string { return match(v.Only[invoker], name) }

// FromSite gives the pattern by which a variable is the site's to give, or "".
func (v ManifestVariables) FromSite(name string) string { return match(v.Site, name) }

// Lookup is a variable's value among those of a caller, "" without it. Of a
// name that stands twice the first counts.
func Lookup(caller []string, name string) string {
	for _, kv := range caller {
		if k, v, ok := strings.Cut(kv, "="); ok && k == name {
			return v
		}
	}
	return ""
}

// forbiddenBy gives the pattern that forbids name, or "". A glob such as
// "GIT_A*" is forbidden if the pattern covers all that it could match; one
// that is broader ("*") is allowed, and filtered name by name at run time.
func forbiddenBy(name string) string { return match(forbidden, name) }

// match gives the first pattern that name matches, or "".
func match(patterns []string, name string) string {
	for _, p := range patterns {
		if ok, _ := path.Match(p, name); ok {
			return p
		}
	}
	return ""
}

func matchAny(patterns []string, name string) bool { return match(patterns, name) != "" }
