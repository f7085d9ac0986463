package audit

import (
	"context"
	"fmt"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"

	"cc-ci-run/internal/env"
)

// Mend is how what is missing would get into the toolset.
type Mend struct {
	// Package is what would bring it, as the backend calls it; "" if nothing
	// is known.
	Package string `json:"package"`
	// Guess says that Package was concluded from names, not looked up.
	Guess bool `json:"guess"`
	// From says where Package is from.
	From string `json:"from"`
	// TOML are lines for toolset.toml; "" for what is no command.
	TOML string `json:"toml"`
}

// String is the mend in a few words.
func (m Mend) String() string {
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
		if ok && !strings.HasPrefix(line, "diversion by") {
			owner, _, _ = strings.Cut(owner, ",")
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

// Suggest fills in the mends of what is missing.
func (r *Report) Suggest(ctx context.Context, m *env.Manifest, packages Packages) {
	var files, names []string
	for _, miss := range r.Missing {
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
	if m.Backend == env.BackendHost && len(files) > 0 {
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
		miss.Mend = mend(m, owners, known, miss)
		if miss.isCommand() && miss.Mend.TOML == "" {
			miss.Mend.TOML = lines(miss, r.Run.Recipe)
		}
	}
}

// isCommand says that it was looked for in the bin directory.
func (m *Miss) isCommand() bool { return !strings.Contains(m.Name, "/") && env.IsCommand(m.Name) }

func mend(m *env.Manifest, owners map[string]string, known []string, miss *Miss) Mend {
	name := filepath.Base(miss.Name)
	for _, a := range m.Absent {
		if slices.Contains(a.Commands, name) {
			return Mend{Package: a.Name, From: "declared; built --without " + a.Name, TOML: "# " + name + ": nothing to add; build without --without " + a.Name + "\n"}
		}
	}
	if !miss.isCommand() {
		if owner := owners[miss.Name]; owner != "" {
			return Mend{Package: owner, From: "dpkg: it has this file"}
		}
		return Mend{From: "a path outside the toolset"}
	}
	for _, dir := range places {
		if owner := owners[dir+name]; owner != "" {
			return Mend{Package: owner, From: "dpkg: it has " + dir + name}
		}
	}
	if slices.Contains(known, name) {
		return Mend{Package: name, Guess: true, From: "apt: there is a package of this name"}
	}
	// A command of a family that the toolset has: git-foo beside git.
	if family, _, ok := strings.Cut(name, "-"); ok {
		for _, t := range m.Tools {
			if t.Name == family {
				return Mend{Package: name, Guess: true, From: "its name, beside " + t.Name + " of the toolset"}
			}
		}
	}
	if m.Backend == env.BackendNix {
		return Mend{Package: name, Guess: true, From: "its name alone"}
	}
	return Mend{From: "no package of this name is known"}
}

// lines are a [[tool]] for toolset.toml.
func lines(miss *Miss, recipe string) string {
	debian := fmt.Sprintf("%q", miss.Mend.Package)
	if miss.Mend.Guess || miss.Mend.Package == "" {
		debian += " # guess: " + miss.Mend.From
	}
	return fmt.Sprintf("[[tool]]\nname     = %q\nnix      = %q # guess: its name\ndebian   = %s\ncommands = [%q]\nwhy      = %q\n",
		miss.Name, miss.Name, debian, miss.Name, recipe+": looked for by "+Programs(miss.By)+" (cc-ci-run audit)")
}
