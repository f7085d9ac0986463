package audit

import (
	"context"
	"slices"
	"strings"
	"testing"

	"cc-ci-run/internal/toolset"
	"cc-ci-run/internal/toolset/toolsettest"
)

// database is a package database: the owners of files, and what could be
// installed. It notes what it was asked.
type database struct {
	owners map[string]string
	known  []string
	asked  []string // of apt
	files  []string // of dpkg
}

func (d *database) packages() Packages { return Packages{d.ownersOf, d.knownOf} }

func (d *database) ownersOf(_ context.Context, files []string) map[string]string {
	d.files = append(d.files, files...)
	return d.owners
}

func (d *database) knownOf(_ context.Context, names []string) (known []string) {
	d.asked = append(d.asked, names...)
	for _, n := range names {
		if slices.Contains(d.known, n) {
			known = append(known, n)
		}
	}
	return known
}

func TestSuggest(t *testing.T) {
	debian := func() *database {
		return &database{
			owners: map[string]string{"/usr/bin/hg": "mercurial", "/sbin/mkfs.ext4": "e2fsprogs", "/opt/x/tool": "xtool", "/usr/bin/abra": "other"},
			known:  []string{"socat", "git-lfs"},
		}
	}
	for _, row := range []struct {
		name, backend, path string
		want                Fix // but for TOML
		text                string
		debian              string // the line for toolset.toml
	}{
		{"dpkg knows whose it is", toolset.BackendHost, "B/hg", Fix{Package: "mercurial", From: "dpkg: it has /usr/bin/hg"}, "mercurial (dpkg: it has /usr/bin/hg)", `debian   = "mercurial"`},
		{"dpkg knows it by its place of old", toolset.BackendHost, "B/mkfs.ext4", Fix{Package: "e2fsprogs", From: "dpkg: it has /sbin/mkfs.ext4"}, "e2fsprogs (dpkg: it has /sbin/mkfs.ext4)", `debian   = "e2fsprogs"`},
		{"apt knows the name", toolset.BackendHost, "B/socat", Fix{Package: "socat", Guess: true, From: "apt: there is a package of this name"}, "socat? (a guess from apt: there is a package of this name)", `debian   = "socat" # guess: apt: there is a package of this name`},
		{"DEFECT-3", toolset.BackendHost, "B/git-lfs", Fix{Package: "git-lfs", Guess: true, From: "apt: there is a package of this name"}, "git-lfs? (a guess from apt: there is a package of this name)", `debian   = "git-lfs" # guess: apt: there is a package of this name`},
		{"of the family of a tool", toolset.BackendHost, "B/git-annex", Fix{Package: "git-annex", Guess: true, From: "its name, beside git of the toolset"}, "git-annex? (a guess from its name, beside git of the toolset)", `debian   = "git-annex" # guess: its name, beside git of the toolset`},
		{"of no tool's family", toolset.BackendHost, "B/hg-annex", Fix{From: "no package of this name is known"}, "no package of this name is known", `debian   = "" # no package of this name is known`},
		{"DEFECT-3 under Nix", toolset.BackendNix, "B/git-lfs", Fix{Package: "git-lfs", Guess: true, From: "its name, beside git of the toolset"}, "git-lfs? (a guess from its name, beside git of the toolset)", `nix      = "git-lfs" # guess: its name`},
		{"under Nix nothing is known but the name", toolset.BackendNix, "B/hg", Fix{Package: "hg", Guess: true, From: "its name alone"}, "hg? (a guess from its name alone)", `nix      = "hg" # guess: its name`},
		{"left out by --without", toolset.BackendHost, "B/abra", Fix{Package: "abra", From: "declared; built --without abra"}, "abra (declared; built --without abra)", "# abra: nothing to add; build without --without abra"},
		{"left out, called by a path", toolset.BackendNix, "/usr/bin/abra", Fix{Package: "abra", From: "declared; built --without abra"}, "abra (declared; built --without abra)", "# abra: nothing to add; build without --without abra"},
		{"a tool of the toolset without the command of its name", toolset.BackendHost, "B/ripgrep", Fix{Package: "ripgrep", From: "declared, without this command"}, "ripgrep (declared, without this command)", "# ripgrep: add it to the commands of [[tool]] ripgrep"},
		{"a path that dpkg knows", toolset.BackendHost, "/opt/x/tool", Fix{Package: "xtool", From: "dpkg: it has this file"}, "xtool (dpkg: it has this file)", ""},
		{"a path that nobody knows", toolset.BackendHost, "/opt/y", Fix{From: "a path outside the toolset"}, "a path outside the toolset", ""},
	} {
		p := newPlace(t, row.backend)
		r := p.report(p.notFound(row.path, "D/files/git"))
		db := debian()
		r.Suggest(t.Context(), p.m, db.packages())
		got := r.Missing[0].Fix
		if row.want.TOML = got.TOML; got != row.want || got.String() != row.text {
			t.Errorf("%s: %+v, want %+v (%s)", row.name, got, row.want, row.text)
		}
		if (got.TOML != "") != (row.debian != "") || !slices.Contains(strings.Split(got.TOML, "\n"), row.debian) {
			t.Errorf("%s: lines to paste:\n%swant %s", row.name, got.TOML, row.debian)
		}
		if row.backend == toolset.BackendNix && len(db.files)+len(db.asked) > 0 {
			t.Errorf("%s: asked Debian of %v %v", row.name, db.files, db.asked)
		}
	}
}

// apt takes long: it is asked only of what dpkg does not know, and nobody is
// asked if nothing is missing.
func TestSuggestAsksLittle(t *testing.T) {
	p := newPlace(t, toolset.BackendHost)
	db := &database{owners: map[string]string{"/bin/hg": "mercurial"}}
	p.report(p.executed("B/git", "")).Suggest(t.Context(), p.m, db.packages())
	if db.files != nil {
		t.Errorf("dpkg was asked of %v", db.files)
	}
	p.report(p.notFound("B/hg", "")).Suggest(t.Context(), p.m, db.packages())
	if db.asked != nil {
		t.Errorf("apt was asked of %v", db.asked)
	}
	p.report(p.notFound("B/hg", ""), p.notFound("B/socat", ""), p.notFound("/opt/y", "")).Suggest(t.Context(), p.m, db.packages())
	if !slices.Equal(db.asked, []string{"socat"}) {
		t.Errorf("apt was asked of %v", db.asked)
	}
}

// The lines can be pasted, whatever the command, the recipe and the program
// that looked for it are called.
func TestLinesArePasted(t *testing.T) {
	for _, recipe := range hostile {
		for _, program := range hostile {
			pasted(t, "git-lfs", recipe, program, "its name")
		}
	}
	for _, command := range []string{"git-lfs", "g++", "[", "[x", "7z", ".hidden", "_x", "python3.12", "mkfs.ext4", "a@b", "X", "x-", "..."} {
		if !toolset.IsCommand(command) {
			t.Fatalf("%s is not a command", command)
		}
		for _, from := range []string{"", "its name"} {
			pasted(t, command, "gitea", "git", from)
		}
	}
}

var hostile = []string{
	"gitea", `quo"te`, `back\slash`, "new\nline", "\r", "tab\t", "\x00", "bell\a\v", "\x1b[31mred", "\x7f", "not UTF-8 \xff\xfe", "\u0085\u009b", "\u202eleft", "\u2028", "\U000e0001", "ü😀", `'''`, `"""`, "# [[tool]]", "",
}

// So can every character of the first planes' beginnings.
func TestEveryCharacterIsPasted(t *testing.T) {
	var all strings.Builder
	for r := rune(0); r < 0x3000; r++ {
		all.WriteRune(r)
	}
	for r := rune(0x1f000); r < 0x1f100; r++ {
		all.WriteRune(r)
	}
	pasted(t, "git-lfs", all.String(), "git", "")
}

// pasted parses what a report of one missing command would have pasted.
func pasted(t *testing.T, command, recipe, program, guess string) {
	t.Helper()
	miss := &Miss{Name: command, By: map[string]int{program: 1}}
	if guess != "" {
		miss.Fix = Fix{Package: command, Guess: true, From: guess}
	}
	text := lines(miss, recipe)
	toolset, err := toolset.ParseToolset("toolset.toml", []byte(text+toolsettest.Tables))
	if err != nil {
		t.Errorf("%q of %q by %q: %v\n%s", command, recipe, program, err, text)
		return
	}
	want := strings.ToValidUTF8(recipe, "\ufffd") + ": looked for by " + strings.ToValidUTF8(program, "\ufffd") + " (cc-ci-run audit)"
	// Of what is no UTF-8 each byte is a character of its own.
	want = strings.ReplaceAll(want, "\ufffd", "\ufffd\ufffd")
	if tool := toolset.Tools[0]; len(toolset.Tools) != 1 || !slices.Equal(tool.Commands, []string{command}) || tool.Why != want {
		t.Errorf("%q of %q by %q came out as %+v, want why %q", command, recipe, program, tool, want)
	}
	if strings.ContainsFunc(text, func(r rune) bool { return r != '\n' && (r < ' ' || r >= 0x7f && r < 0xa0) }) {
		t.Errorf("control characters would reach the terminal: %q", text)
	}
}

// What a tool and an attribute of nixpkgs are called is not what a command is
// called.
func TestNames(t *testing.T) {
	for command, want := range map[string][2]string{
		"git-lfs": {"git-lfs", "git-lfs"}, "7z": {"7z", "_7z"}, "g++": {"g++", "g"}, "[": {"tool", "_"}, "nodejs.22": {"nodejs.22", "nodejs_22"}, ".x": {"x", "_x"},
	} {
		if got := [2]string{toolName(command), attribute(command)}; got != want {
			t.Errorf("%s: %q, want %q", command, got, want)
		}
	}
}
