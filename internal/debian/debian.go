// Package debian asks Debian's package databases: dpkg's, of what is installed on
// this machine, and apt's, of what could be. On a machine without them nothing is
// known.
//
//	owners := debian.Owners(ctx, []string{"/usr/bin/git"})     // "/usr/bin/git" -> "git"
//	versions := debian.Versions(ctx, []string{"git"})          // "git" -> "1:2.39.5-0+deb12u2"
//	files, err := debian.Files(ctx, []string{"git"})           // also of what git depends on
//	known := debian.Known(ctx, []string{"git-lfs", "nonesuch"}) // "git-lfs"
//
// A package is named without its architecture.
package debian

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
)

const (
	dpkgQuery = "/usr/bin/dpkg-query"
	aptCache  = "/usr/bin/apt-cache"
)

// Here says whether this machine has dpkg.
func Here() bool {
	_, err := os.Stat(dpkgQuery)
	return err == nil
}

// Owners are the installed packages that files are of; a file that no package has is
// not in it. dpkg knows a file by the name that it was packaged under, which before
// the merge of / and /usr may have been /bin/… for what is in /usr/bin now.
func Owners(ctx context.Context, files []string) map[string]string {
	owners := map[string]string{}
	out, _ := ask(ctx, dpkgQuery, append([]string{"--search", "--"}, files...)...) // it fails if any file has no owner
	for line := range strings.Lines(out) {
		owner, file, ok := strings.Cut(strings.TrimSpace(line), ": ")
		owner, _, _ = strings.Cut(owner, ",")
		if ok && !strings.Contains(owner, " ") { // "diversion by dash from", "local diversion to"
			owners[file], _, _ = strings.Cut(owner, ":")
		}
	}
	return owners
}

// Versions are those of installed packages.
func Versions(ctx context.Context, packages []string) map[string]string {
	versions := map[string]string{}
	if len(packages) == 0 { // dpkg would show all
		return versions
	}
	out, _ := ask(ctx, dpkgQuery, append([]string{"--show", "--showformat=${Package} ${Version}\n", "--"}, packages...)...)
	for line := range strings.Lines(out) {
		name, version, _ := strings.Cut(strings.TrimSpace(line), " ")
		versions[name] = version
	}
	return versions
}

// Known are those of names by which a package can be installed.
func Known(ctx context.Context, names []string) (known []string) {
	out, _ := ask(ctx, aptCache, append([]string{"show", "--no-all-versions", "--"}, names...)...)
	for line := range strings.Lines(out) {
		if name, ok := strings.CutPrefix(line, "Package: "); ok {
			known = append(known, strings.TrimSpace(name))
		}
	}
	return known
}

// Files lists the files of installed packages and of all that these depend on, as
// they were packaged: directories, too, and not only what is there now. Of
// alternatives, and of packages that stand for a virtual one, all that are
// installed count.
func Files(ctx context.Context, packages []string) ([]string, error) {
	all, err := installed(ctx)
	if err != nil {
		return nil, err
	}
	instances := all.needed(packages)
	if len(instances) == 0 {
		return nil, nil
	}
	out, err := ask(ctx, dpkgQuery, append([]string{"--listfiles", "--"}, instances...)...)
	if err != nil {
		return nil, err
	}
	lines := strings.Split(out, "\n")
	return slices.DeleteFunc(lines, func(line string) bool { return !strings.HasPrefix(line, "/") }), nil // "diverted by dash to: /bin/sh.distrib"
}

// graph is what is installed, and needs what, by the names of packages.
type graph struct {
	depends   map[string][]string // those that it depends on, or could
	providers map[string][]string // those that stand for it, of a virtual package
	instances map[string][]string // its names with an architecture
}

func installed(ctx context.Context) (graph, error) {
	g := graph{map[string][]string{}, map[string][]string{}, map[string][]string{}}
	out, err := ask(ctx, dpkgQuery, "--show", "--showformat=${db:Status-Abbrev}\t${Package}\t${binary:Package}\t${Pre-Depends}, ${Depends}\t${Provides}\n")
	for line := range strings.Lines(out) {
		f := strings.Split(strings.TrimRight(line, "\n"), "\t")
		if len(f) != 5 || !strings.HasPrefix(f[0], "ii") {
			continue
		}
		name := f[1]
		g.instances[name] = append(g.instances[name], f[2])
		g.depends[name] = append(g.depends[name], names(f[3])...)
		for _, virtual := range names(f[4]) {
			g.providers[virtual] = append(g.providers[virtual], name)
		}
	}
	return g, err
}

// needed are the instances of packages and of all that these depend on, sorted.
func (g graph) needed(packages []string) []string {
	seen := map[string]bool{}
	var instances []string
	for left := slices.Clone(packages); len(left) > 0; {
		name := left[len(left)-1]
		left = left[:len(left)-1]
		if seen[name] {
			continue
		}
		seen[name] = true
		instances = append(instances, g.instances[name]...)
		left = append(append(left, g.depends[name]...), g.providers[name]...)
	}
	slices.Sort(instances)
	return instances
}

// names are those in a field like "a (>= 1), b:any | c".
func names(field string) []string {
	var names []string
	for _, one := range strings.FieldsFunc(field, func(r rune) bool { return r == ',' || r == '|' }) {
		if one = strings.TrimSpace(one); one != "" {
			names = append(names, one[:strings.IndexAny(one+" ", " (:")])
		}
	}
	return names
}

// ask runs one of Debian's programs, and gives what it prints even if it fails. Where
// the program is not installed it says nothing.
func ask(ctx context.Context, program string, args ...string) (string, error) {
	if _, err := os.Stat(program); err != nil {
		return "", nil
	}
	cmd := exec.CommandContext(ctx, program, args...)
	cmd.Env = []string{"LC_ALL=C", "PATH=/usr/bin:/bin"}
	out, err := cmd.Output()
	if err != nil {
		var exit *exec.ExitError
		if errors.As(err, &exit) {
			err = fmt.Errorf("%w: %s", err, bytes.TrimSpace(exit.Stderr))
		}
		err = fmt.Errorf("%s %s: %w", program, args[0], err)
	}
	return string(out), err
}
