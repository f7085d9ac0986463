package audit

import (
	"cmp"
	"context"
	"fmt"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"cc-ci-run/internal/toolset"
)

// Fix is how what is missing would get into the toolset.
type Fix struct {
	// Package is what would bring it, as the backend calls it; "" if nothing
	// is known.
	Package string `json:"package"`
	// Guess says that Package was concluded from names, not looked up.
	Guess bool `json:"guess"`
	// From says where Package is from.
	From string `json:"from"`
	// TOML are lines for toolset.toml; "" for what is not a command.
	TOML string `json:"toml"`
}

// String is the fix in a few words.
func (m Fix) String() string {
	switch {
	case m.Package == "":
		return m.From
	case m.Guess:
		return m.Package + "? (a guess from " + m.From + ")"
	}
	return m.Package + " (" + m.From + ")"
}

// Packages looks packages up.
type Packages interface {
	// Owners are the installed packages that files are of.
	Owners(ctx context.Context, files []string) map[string]string
	// Known are those of names by which a package can be installed.
	Known(ctx context.Context, names []string) []string
}

// Debian is the package database of this machine.
type Debian struct{}

// Owners is [Packages.Owners], asked of dpkg.
func (Debian) Owners(ctx context.Context, files []string) map[string]string {
	owners := map[string]string{}
	for line := range strings.Lines(output(ctx, "/usr/bin/dpkg-query", append([]string{"--search", "--"}, files...)...)) {
		owner, file, ok := strings.Cut(strings.TrimSpace(line), ": ")
		owner, _, _ = strings.Cut(owner, ",")
		if ok && !strings.Contains(owner, " ") { // "diversion by dash from", "local diversion to"
			owners[file], _, _ = strings.Cut(owner, ":") // without its architecture
		}
	}
	return owners
}

// Known is [Packages.Known], asked of apt's lists.
func (Debian) Known(ctx context.Context, names []string) (known []string) {
	for line := range strings.Lines(output(ctx, "/usr/bin/apt-cache", append([]string{"show", "--no-all-versions", "--"}, names...)...)) {
		if name, ok := strings.CutPrefix(line, "Package: "); ok {
			known = append(known, strings.TrimSpace(name))
		}
	}
	return known
}

func output(ctx context.Context, command string, args ...string) string {
	cmd := exec.CommandContext(ctx, command, args...)
	cmd.Env = []string{"LC_ALL=C", "PATH=/usr/bin:/bin"}
	out, _ := cmd.Output() // no such program or no such package: no answer
	return string(out)
}

// places are where a package of Debian's puts a command. dpkg knows a file by
// the name it was packaged under, which before the merge of / and /usr may
// have been /bin/….
var places = []string{"/usr/bin/", "/usr/sbin/", "/bin/", "/sbin/"}

// Suggest fills in the fixes of what is missing.
func (r *Report) Suggest(ctx context.Context, m *toolset.Manifest, packages Packages) {
	// A test may look for any number of names.
	const most = 200
	var files, names []string
	for _, miss := range r.Missing[:min(most, len(r.Missing))] {
		if !miss.isCommand() {
			files = append(files, miss.Name)
			continue
		}
		names = append(names, miss.Name)
		for _, dir := range places {
			files = append(files, dir+miss.Name)
		}
	}
	var owners map[string]string
	var known []string
	if m.Backend == toolset.BackendHost && len(files) > 0 {
		owners = packages.Owners(ctx, files)
		// apt takes half a second for its lists; only if dpkg does not know all.
		names = slices.DeleteFunc(names, func(name string) bool {
			return slices.ContainsFunc(places, func(dir string) bool { return owners[dir+name] != "" })
		})
		if len(names) > 0 {
			known = packages.Known(ctx, names)
		}
	}
	for i := range r.Missing {
		miss := &r.Missing[i]
		miss.Fix = fix(m, owners, known, miss)
		if i < most && miss.isCommand() && miss.Fix.TOML == "" {
			miss.Fix.TOML = lines(miss, r.Run.Recipe)
		}
	}
}

// isCommand says that it was looked for in the bin directory.
func (m *Miss) isCommand() bool { return !strings.Contains(m.Name, "/") && toolset.IsCommand(m.Name) }

func fix(m *toolset.Manifest, owners map[string]string, known []string, miss *Miss) Fix {
	name := filepath.Base(miss.Name)
	for _, a := range m.Absent {
		if slices.Contains(a.Commands, name) {
			return Fix{Package: a.Name, From: "declared; built --without " + a.Name, TOML: "# " + name + ": nothing to add; build without --without " + a.Name + "\n"}
		}
	}
	if miss.isCommand() && slices.ContainsFunc(m.Tools, func(t toolset.ResolvedTool) bool { return t.Name == name }) {
		return Fix{Package: name, From: "declared, without this command", TOML: "# " + name + ": add it to the commands of [[tool]] " + name + "\n"}
	}
	if !miss.isCommand() {
		if owner := owners[miss.Name]; owner != "" {
			return Fix{Package: owner, From: "dpkg: it has this file"}
		}
		return Fix{From: "a path outside the toolset"}
	}
	for _, dir := range places {
		if owner := owners[dir+name]; owner != "" {
			return Fix{Package: owner, From: "dpkg: it has " + dir + name}
		}
	}
	if slices.Contains(known, name) {
		return Fix{Package: name, Guess: true, From: "apt: there is a package of this name"}
	}
	// A command of a family that the toolset has: git-foo beside git.
	if family, _, ok := strings.Cut(name, "-"); ok {
		for _, t := range m.Tools {
			if t.Name == family {
				return Fix{Package: name, Guess: true, From: "its name, beside " + t.Name + " of the toolset"}
			}
		}
	}
	if m.Backend == toolset.BackendNix {
		return Fix{Package: name, Guess: true, From: "its name alone"}
	}
	return Fix{From: "no package of this name is known"}
}

// lines are a [[tool]] for toolset.toml.
func lines(miss *Miss, recipe string) string {
	debian := `""`
	if toolset.IsDebian(miss.Fix.Package) {
		debian = quote(miss.Fix.Package)
	}
	switch {
	case miss.Fix.Package == "":
		debian += " # " + miss.Fix.From
	case miss.Fix.Guess:
		debian += " # guess: " + miss.Fix.From
	}
	return fmt.Sprintf("[[tool]]\nname     = %s\nnix      = %s # guess: its name\ndebian   = %s\ncommands = [%s]\nwhy      = %s\n",
		quote(toolName(miss.Name)), quote(attribute(miss.Name)), debian, quote(miss.Name), quote(recipe+": looked for by "+Programs(miss.By)+" (cc-ci-run audit)"))
}

// toolName is how a tool is called that brings a command: as the command, but
// for what no name can have.
func toolName(command string) string {
	name := strings.TrimLeft(strings.Map(func(r rune) rune {
		if strings.ContainsRune("@[", r) {
			return '-'
		}
		return r
	}, command), "._+-")
	return cmp.Or(name, "tool")
}

// attribute is the one of nixpkgs that a command's name suggests. A dot would
// lead into it, and a digit cannot begin one: nixpkgs has nodejs_22, _7zz.
func attribute(command string) string {
	name := strings.TrimRight(strings.Map(func(r rune) rune {
		switch r {
		case '.':
			return '_'
		case '+', '@', '[':
			return '-'
		}
		return r
	}, command), "-")
	if !toolset.IsAttribute(name) {
		name = "_" + name
	}
	return name
}

// quote writes a string as TOML's basic ones are, which are not Go's: there is
// no \x. What a terminal would not show as itself is escaped, too.
func quote(s string) string {
	var b strings.Builder
	b.WriteByte('"')
	for _, r := range s { // what is no UTF-8 comes as U+FFFD
		switch {
		case r == '"' || r == '\\':
			b.WriteByte('\\')
			b.WriteRune(r)
		case strconv.IsPrint(r):
			b.WriteRune(r)
		case r < 1<<16:
			fmt.Fprintf(&b, `\u%04X`, r)
		default:
			fmt.Fprintf(&b, `\U%08X`, r)
		}
	}
	b.WriteByte('"')
	return b.String()
}
