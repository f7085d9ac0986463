package cli

import (
	"bytes"
	"os"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/creack/pty"
)

// A table fits the terminal that it is shown on; a file gets a line for each row.
func TestTableFitsTheTerminal(t *testing.T) {
	long := strings.Repeat("word ", 40)
	path := "/" + strings.Repeat("x", 100)
	for name, c := range map[string]struct {
		columns uint16
		row     []string
		fits    bool
	}{
		"short":                {80, []string{"HOLD", "gitea", "1s", "1 failed"}, true},
		"one long cell":        {80, []string{"HOLD", "gitea", "1s", long}, true},
		"two long cells":       {80, []string{"HOLD", long, "1s", long}, true},
		"not ASCII":            {80, []string{"HOLD", "gitea", "1s", strings.Repeat("wört ", 40)}, true},
		"a long word is whole": {80, []string{"HOLD", "gitea", "1s", "see " + path + " for more"}, false},
		"a narrow terminal":    {40, []string{"HOLD", "gitea", "1s", long}, true},
		"a very narrow one":    {3, []string{"HOLD", "gitea", "1s", long}, false},
		"of unknown width":     {0, []string{"HOLD", "gitea", "1s", long}, false},
		"empty cells":          {80, []string{"HOLD", "", "", long}, true},
	} {
		t.Run(name, func(t *testing.T) {
			screen, terminal, err := pty.Open()
			if err != nil {
				t.Fatal(err)
			}
			defer screen.Close()
			defer terminal.Close()
			if err := pty.Setsize(terminal, &pty.Winsize{Rows: 24, Cols: c.columns}); err != nil {
				t.Fatal(err)
			}
			shown := show(t, terminal, c.row)
			if words := strings.Fields(strings.Join(c.row, " ")); len(strings.Fields(shown)) != len(words)+4 {
				t.Errorf("words were lost:\n%s", shown)
			}
			fits := true
			for line := range strings.Lines(shown) {
				fits = fits && utf8.RuneCountInString(strings.TrimRight(line, " \n")) <= int(c.columns)
			}
			if fits != c.fits {
				t.Errorf("fits into %d columns: %v, want %v:\n%s", c.columns, fits, c.fits, shown)
			}
			if strings.Contains(strings.Join(c.row, " "), path) && !strings.Contains(shown, path) {
				t.Errorf("the path cannot be copied:\n%s", shown)
			}

			file, err := os.Create(t.TempDir() + "/table")
			if err != nil {
				t.Fatal(err)
			}
			defer file.Close()
			if lines := strings.Count(show(t, file, c.row), "\n"); lines != 2 {
				t.Errorf("a file got %d lines, want 2", lines)
			}
		})
	}
}

func show(t *testing.T, stdout *os.File, row []string) string {
	t.Helper()
	var text bytes.Buffer
	p := Process{Stdout: stdout, Environ: []string{"NO_COLOR=1"}}
	if err := p.table(&text, "VERDICT|RECIPE|TIME|WHY", [][]string{append([]string(nil), row...)}); err != nil {
		t.Fatal(err)
	}
	return text.String()
}

// A dry run that is like a unit runs nothing and writes nothing, whatever the unit's words.
func TestDryLike(t *testing.T) {
	for words, want := range map[string]string{
		"":                                    "sweep --dry-run --junit= --output=table",
		"--junit /srv/j.xml -o json --jobs 2": "sweep --junit /srv/j.xml -o json --jobs 2 --dry-run --junit= --output=table",
		"--force -- gitea":                    "sweep --force --dry-run --junit= --output=table -- gitea",
	} {
		if got := strings.Join(dryLike(strings.Fields(words), "table"), " "); got != want {
			t.Errorf("%q: %s, want %s", words, got, want)
		}
	}
}
