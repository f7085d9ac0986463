package sweep

import (
	"bytes"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"cc-ci-run/internal/record"
	"cc-ci-run/internal/state"
)

const secret = `p"a's&s<w>ö$ \ /@é` + "\U0001F511"

// However the writes are cut, a value is found in what they make together.
func TestMaskedAcrossWrites(t *testing.T) {
	m := newMasker([]string{"A=abc", "B=abcdef", "C=x", "D=", "E=one line\nsecond"})
	text := "x abc abcdef abcde one line\nsecond abc"
	want := "x ****** ****** ******de ****** ******"
	for cut := range len(text) {
		var out bytes.Buffer
		w := m.writer(&out)
		for _, part := range []string{text[:cut], text[cut:]} {
			if _, err := w.Write([]byte(part)); err != nil {
				t.Fatal(err)
			}
		}
		if w.Close() != nil || out.String() != want {
			t.Fatalf("cut at %d: %q, want %q", cut, out.String(), want)
		}
	}
	if newMasker([]string{"A=", "B=x"}) != nil {
		t.Error("values of less than two characters are masked")
	}
}

// What Python's own functions make of a value is known.
func TestMaskedSpellings(t *testing.T) {
	python, err := exec.LookPath("python3")
	if err != nil {
		t.Skip("needs python3")
	}
	cmd := exec.Command(python, "-c", `
import html, json, os, shlex, sys, urllib.parse, xml.sax.saxutils as sax
s = os.environ["S"]
forms = [s, repr(s), ascii(s), json.dumps(s), json.dumps(s, ensure_ascii=False), repr(s.encode()), html.escape(s), sax.escape(s),
         urllib.parse.quote(s), urllib.parse.quote(s, safe=""), urllib.parse.quote_plus(s), shlex.quote(s), str([s]), f"{s!r}"]
for f in forms: print("<" + f + ">")
`)
	cmd.Env = []string{"S=" + secret, "PYTHONIOENCODING=utf-8"}
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	for i, line := range strings.Split(strings.TrimSpace(newMasker([]string{"S=" + secret}).text(string(out))), "\n") {
		if rest := strings.Trim(strings.ReplaceAll(line, masked, ""), `<>'"b[]`); rest != "" || !strings.Contains(line, masked) {
			t.Errorf("form %d: %s", i, line)
		}
	}
}

// A value that is also a word of the report's own form does not destroy it.
func TestMaskedResult(t *testing.T) {
	where := state.Dir(t.TempDir())
	if err := where.Make(state.Logs); err != nil {
		t.Fatal(err)
	}
	dir := where.Path(state.Logs, "")
	f, err := where.Open(state.Logs)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	m := newMasker([]string{"A=gitea", "B=tests", "C=ci", "D=" + secret, "E=true", "F=passed", "G=testcase"})
	r := record.Unfinished(record.About{Recipe: "gitea", Running: "test_it[" + secret + "]", Why: "gitea " + secret}, ruleClock, ruleClock)
	data, err := json.Marshal(r)
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "r.json")
	for name, content := range map[string]string{path: string(data), filepath.Join(dir, "r.xml"): `<testsuite><testcase name="a gitea"><failure message="tests ci">p&quot;x gitea</failure></testcase></testsuite>`} {
		if err := os.WriteFile(name, []byte(content), 0o640); err != nil {
			t.Fatal(err)
		}
	}
	if err := m.json(f, "r.json"); err != nil {
		t.Fatal(err)
	}
	got, err := record.ReadResult(f, "r.json")
	if err != nil || got.About().Recipe != "gitea" || got.Results.Tests[0].Name != "test_it[******]" || got.About().Why != "****** ******" || got.Results.Tests[0].Status != "other" {
		t.Errorf("%+v, %v", got, err)
	}
	if err := m.xml(f, "r.xml"); err != nil {
		t.Fatal(err)
	}
	report, _ := os.ReadFile(filepath.Join(dir, "r.xml"))
	if want := `<testsuite><testcase name="a ******"><failure message="****** ******">p&#34;x ******</failure></testcase></testsuite>`; string(report) != want {
		t.Errorf("%s", report)
	}
	// What is not the form that it should be is not kept.
	if err := os.WriteFile(path, []byte("{"), 0o640); err != nil {
		t.Fatal(err)
	}
	if err := m.json(f, "r.json"); err == nil {
		t.Error("half a file was masked")
	}
	if _, err := os.Stat(path); err == nil {
		t.Error("and is kept")
	}
}
