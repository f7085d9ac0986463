package audit

import (
	"cmp"
	"context"
	"fmt"
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

// Packages looks packages up: [debian.Owners] and [debian.Known] do.
type Packages struct {
	// Owners are the installed packages that files are of.
	Owners func(ctx context.Context, files []string) map[string]string
	// Known are those of names by which a package can be installed.
	Known func(ctx context.Context, names []string) []string
}

// places are the files that a command of an installed package may be.
func places(command string) []string {
	var files []string
	for _, dir := range toolset.HostPath {
		files = append(files, filepath.Join(dir, command))
	}
	return files
}

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
		files = append(files, places(miss.Name)...)
	}
	var owners map[string]string
	var known []string
	if m.Backend == toolset.BackendHost && len(files) > 0 {
		owners = packages.Owners(ctx, files)
		// apt takes half a second for its lists; only if dpkg does not know all.
		names = slices.DeleteFunc(names, func(name string) bool {
			return slices.ContainsFunc(places(name), func(file string) bool { return owners[file] != "" })
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
	isTool := func(name string) bool {
		return slices.ContainsFunc(m.Tools, func(t toolset.ResolvedTool) bool { return t.Name == name })
	}
	if miss.isCommand() && isTool(name) {
		return Fix{Package: name, From: "declared, without this command", TOML: "# " + name + ": add it to the commands of [[tool]] " + name + "\n"}
	}
	if !miss.isCommand() {
		if owner := owners[miss.Name]; owner != "" {
			return Fix{Package: owner, From: "dpkg: it has this file"}
		}
		return Fix{From: "a path outside the toolset"}
	}
	for _, file := range places(name) {
		if owner := owners[file]; owner != "" {
			return Fix{Package: owner, From: "dpkg: it has " + file}
		}
	}
	if slices.Contains(known, name) {
		return Fix{Package: name, Guess: true, From: "apt: there is a package of this name"}
	}
	// A command of a family that the toolset has: git-foo beside git.
	if family, _, ok := strings.Cut(name, "-"); ok && isTool(family) {
		return Fix{Package: name, Guess: true, From: "its name, beside " + family + " of the toolset"}
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
