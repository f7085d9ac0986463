package report

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"flag"
	"fmt"
	"html"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode"
	"unicode/utf8"

	"cc-ci-run/internal/finding"
	"cc-ci-run/internal/host"
	"cc-ci-run/internal/state"
	"cc-ci-run/internal/sweep"
)

var keep = flag.String("keep", "", "also leave the example's report in this directory, to look at")

// pages reads a report.
func pages(t testing.TB, dir string) map[string]string {
	t.Helper()
	files, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	all := map[string]string{}
	for _, f := range files {
		data, err := os.ReadFile(filepath.Join(dir, f.Name()))
		if err != nil {
			t.Fatal(err)
		}
		all[f.Name()] = string(data)
	}
	return all
}

var (
	tags  = regexp.MustCompile(`<[^>]*>`)
	blank = regexp.MustCompile(`\s+`)
)

// text is what a person reads of a page.
func text(page string) string {
	_, body, _ := strings.Cut(page, "<body>")
	return html.UnescapeString(blank.ReplaceAllString(tags.ReplaceAllString(body, " "), " "))
}

// between is a part of a page's text.
func between(t *testing.T, s, from, to string) string {
	t.Helper()
	_, s, ok := strings.Cut(s, from)
	s, _, ok2 := strings.Cut(s, to)
	if !ok || !ok2 {
		t.Errorf("no %q … %q", from, to)
	}
	return s
}

// TestBelievable asks a report what an operator asks in the morning.
func TestBelievable(t *testing.T) {
	dir := believable(t).write()
	if *keep != "" {
		if err := os.CopyFS(*keep, os.DirFS(dir)); err != nil {
			t.Fatal(err)
		}
	}
	all := pages(t, dir)
	checkPages(t, all)

	index := text(all["index.html"])
	for _, want := range []string{
		"1 newly failing, 3 still failing, 1 fixed, 1 never run; git-lfs 3.7.1 → 3.4.0, perl u3 → u4",
		"Last sweep 2026-11-26 02:00, by systemd, took 1 h 23 min.",
	} {
		if !strings.Contains(index, want) {
			t.Errorf("the index lacks %q", want)
		}
	}
	for _, group := range []struct {
		from, to string
		has      []string
	}{
		{" newly failing 1 ", " still failing 3 ", []string{"gitea since 2026-11-26, 1 run", "1 failed, 4 passed", "test_lfs_roundtrip.py::test_lfs_roundtrip"}},
		{" still failing 3 ", " fixed 1 ", []string{"discourse since 2026-11-23, 4 runs", "matrix-synapse since 2026-11-25, 2 runs", "time limit of 1h0m0s reached", "nextcloud since 2026-11-15, 12 runs"}},
		{" fixed 1 ", " never run 1 ", []string{"hedgedoc since 2026-11-26, 1 run"}},
		{" never run 1 ", " passing 6 ", []string{"collabora", "no sweep has looked at it yet"}},
		{" passing 6 ", "Strips run", []string{"cryptpad", "keycloak", "mattermost", "1 flaky", "peertube", "3 min 56 s 5 passed 1.9× slower", "vaultwarden", "wordpress"}},
	} {
		part := between(t, index, group.from, group.to)
		for _, want := range group.has {
			if !strings.Contains(part, want) {
				t.Errorf("%s: lacks %q: %s", group.from, want, part)
			}
		}
	}
	for page, labels := range map[string][]string{
		"index.html":   {"30 runs: 1 failed, 29 passed; the last one failed", "30 runs: 2 failed, 28 passed; the last 2 failed", "30 runs: 30 passed", "no runs"},
		"r-gitea.html": {"30 runs: 1 failed, 29 passed; the last one failed", "30 runs: 30 passed"},
	} {
		for _, label := range labels {
			if !strings.Contains(all[page], `aria-label="`+label+`"`) {
				t.Errorf("%s: no strip says %q", page, label)
			}
		}
	}

	gitea := text(all["r-gitea.html"])
	for _, want := range []string{
		"newly failing , since 2026-11-26, 1 run: 1 of 5 tests failed",
		"sudo systemctl start nightly-sweep@gitea", "cc-ci-run sweep --recipes /srv/recipes --force gitea",
		"E Error: unknown flag: --fixup", "test session starts", "Canonical revision " + hash("gitea2")[:10],
		"environment: git-lfs 3.7.1 → 3.4.0, perl u3 → u4", "revision " + hash("gitea1")[:10] + " → " + hash("gitea2")[:10],
	} {
		if !strings.Contains(gitea, want) {
			t.Errorf("gitea's page lacks %q", want)
		}
	}
	if want := `href="https://git.example.org/recipes/gitea/commit/` + hash("gitea2") + `"`; !strings.Contains(all["r-gitea.html"], want) {
		t.Errorf("gitea's page lacks %s", want)
	}
	if !strings.Contains(text(all["r-nextcloud.html"]), "The first of these failures 2026-11-15 02:09, HOLD 1 of 7 tests failed: test_files.py::test_upload (1 failed, 6 passed) The same tests left the same messages.") {
		t.Error("nextcloud's page does not show the first failure")
	}
	for page, want := range map[string]string{
		"parity.html":       "command git-lfs",
		"audit.html":        "Undeclared executed by an absolute path /usr/bin/dpkg",
		"host.html":         "The host is healthy: 5 checks",
		"environments.html": "Changed: perl u2 → u3, + restic 0.18.1",
	} {
		if !strings.Contains(text(all[page]), want) {
			t.Errorf("%s lacks %q: %s", page, want, text(all[page]))
		}
	}
	if !strings.Contains(all["audit.html"], `<a href="r-gitea.html">gitea</a>`) {
		t.Error("the audit does not link to gitea")
	}
}

// TestEmpty: a state directory without any sweep has a page that says so.
func TestEmpty(t *testing.T) {
	e := newExample(t)
	if err := os.RemoveAll(e.dir.Path("sweep.git", "")); err != nil {
		t.Fatal(err)
	}
	all := pages(t, e.write())
	checkPages(t, all)
	for _, want := range []string{"no recipe was swept yet", "cc-ci-run sweep"} {
		if !strings.Contains(text(all["index.html"]), want) {
			t.Errorf("the index lacks %q: %s", want, text(all["index.html"]))
		}
	}
}

// TestUnderWay: while a sweep runs, the index says which recipes do.
func TestUnderWay(t *testing.T) {
	e := newExample(t)
	for _, recipe := range []string{"a/b", "c"} {
		e.tell(story{recipe: recipe, tests: []string{"test_a"}, nights: []string{"p"}, revision: hash2, env: hash2})
		note, err := json.Marshal(map[string]string{"result": e.dir.Path(state.Logs, filepath.Join(url.PathEscape(recipe), "1.json"))})
		e.must(err)
		e.must(e.dir.Put(state.Running, url.PathEscape(recipe), note))
	}
	e.must(e.dir.Put(state.Running, "damaged", nil))
	e.flush()
	e.summary = &sweep.Summary{Schema: 1, Invoker: "systemd", Started: midnight}
	all := pages(t, e.write())
	checkPages(t, all)
	if want := "A sweep by systemd began at 2026-11-26 02:00 and has not ended. Under way now: a/b , c ."; !strings.Contains(text(all["index.html"]), want) {
		t.Error(text(all["index.html"]))
	}
	if want := `<a href="r-a%252Fb.html">a/b</a>`; !strings.Contains(all["index.html"], want) {
		t.Errorf("no link %s", want)
	}
}

// hostile are names and texts of people who mean harm.
var hostile = []string{
	`<script>alert(1)</script>`, `"><img src=x onerror=alert(1)>`, `' onmouseover='alert(1)`, `javascript:alert(1)`,
	`data:text/html,<script>alert(1)</script>`, `https://evil.example/`, `//evil.example/`, `../../etc/passwd`, `..`, `%2e%2e%2fx`, `a%b`, `a&b;c`, `#top`, `?q`,
	`</title><script>alert(1)</script>`, `</style><style>@import url(https://evil.example/)</style>`, `</pre><iframe src="https://evil.example/">`,
	`--><script>alert(1)</script><!--`, `<!-- cc-ci-run report`, `<svg onload=alert(1)>`, `<base href="https://evil.example/">`,
	`<meta http-equiv=refresh content="0;url=https://evil.example/">`, `<link rel=stylesheet href="https://evil.example/x.css">`,
	`<form action="https://evil.example/"><button autofocus>`, `<video src="https://evil.example/" autoplay>`, `<a href="https://evil.example/" ping="https://evil.example/">x</a>`,
	`{{.}}`, `{{template "top"}}`, `&lt;b&gt;`, `&#x3c;script&#x3e;`, "a\nb", "a\r\nb", "tab\tbed", "\x1b[31mred\x1b[0m", "\x1b]0;title\x07", "\x00nul", "bell\x07\x08\x7f", "c1\u0085\u009b31m",
	"\u202Egpj.exe", "\u2066isolated\u2069", "zero\u200bwidth\u200d\ufeff", "tags\U000E0041\U000E0042", "line\u2028sep\u2029", "hangul\u3164filler", "\xff\xfe\x80", "\xed\xa0\x80",
	"Z" + strings.Repeat("\u0301\u0335", 200), "שלום", strings.Repeat("long", 2000), strings.Repeat("W", 5000), "index", "", " ", ".", "-rf", "--", "$(reboot)", "`reboot`", "it's", "a;b|c",
}

// hostileExample has each of them in each place in which somebody else has a word.
func hostileExample(t testing.TB) *example {
	e := newExample(t)
	for i, text := range hostile {
		m := e.manifest("git 1", strings.ToValidUTF8(text, "?")+" "+text)
		e.current = m
		recipe := text
		if recipe == "" { // there is no such folder, nor ref
			recipe = "empty"
		}
		e.tell(story{
			recipe: recipe, tests: []string{text, "test_" + text, fmt.Sprint("test_plain", i)}, nights: nights("ppp", 2, "fpp", 2, "spp", 1, "ffp", 1),
			revision: func(n int) string { return fmt.Sprintf("%s%08d", text, n/3) },
			env:      func(n int) string { return []string{m.Fingerprint(), text}[n/3] },
			text:     text,
		})
	}
	e.flush()
	e.changes = hostile
	e.summary = &sweep.Summary{Schema: 1, Invoker: hostile[0], Started: midnight, Ended: midnight.Add(time.Hour), Recipes: hostile[1], Failure: strings.Join(hostile, " ")}
	e.report = &host.Report{Time: midnight}
	for _, text := range hostile {
		e.report.Results = append(e.report.Results, finding.Finding{Verdict: finding.Fault, What: text, State: text, Fix: text})
	}
	return e
}

// TestHostile: whatever others write is text on a page, and nothing of it is hidden.
func TestHostile(t *testing.T) {
	e := hostileExample(t)
	all := pages(t, e.write())
	checkPages(t, all)
	for _, want := range []string{"␛[31mred␛[0m", "⟨U+202E⟩gpj.exe", "zero⟨U+200B⟩width⟨U+200D⟩", "a␊b", "c1⟨U+0085⟩⟨U+009B⟩31m", "שלום", "<script>alert(1)</script>", "{{.}}", "&lt;b&gt;"} {
		if n := strings.Count(text(all["index.html"]), want); n == 0 {
			t.Errorf("the index does not show %q", want)
		}
	}
	if page := all[recipeFile("../../etc/passwd")]; !strings.Contains(page, "../../etc/passwd") {
		t.Error("no page of ../../etc/passwd")
	}
	for name, page := range all {
		if len(page) > 400<<10 {
			t.Errorf("%s has %d bytes", name, len(page))
		}
	}
}

// Of these alone pages may consist.
var (
	okTag       = regexp.MustCompile(`^<(/?(?:html|head|body|meta|title|link|style|header|nav|main|footer|section|h1|h2|h3|p|a|b|i|em|bdi|small|span|ul|ol|li|dl|dt|dd|div|pre|code|details|summary|svg|polyline|circle)|!doctype)((?: [a-zA-Z-]+(?:="[^"<>]*"|=[a-z]+)?)*)/?>$`)
	okAttribute = regexp.MustCompile(`([a-zA-Z-]+)(?:=("[^"]*"|[a-z]+))?`)
	attributes  = map[string]bool{
		"html": true, "lang": true, "charset": true, "http-equiv": true, "content": true, "name": true, "rel": true, "href": true, "class": true, "id": true, "tabindex": true,
		"aria-label": true, "aria-labelledby": true, "aria-current": true, "aria-hidden": true, "role": true, "open": true, "viewBox": true, "points": true, "cx": true, "cy": true, "r": true,
	}
)

// checkPages looks at each page of a report as a browser would: its markup is of the
// templates alone, its policy allows what it has, and each of its links leads somewhere.
func checkPages(t *testing.T, all map[string]string) {
	t.Helper()
	ids := map[string]map[string]bool{}
	type ref struct{ page, href string }
	var refs []ref
	for name, page := range all {
		ids[name] = map[string]bool{}
		checkCharacters(t, name, page)
		before, rest, ok := strings.Cut(page, "<style>")
		style, after, ok2 := strings.Cut(rest, "</style>")
		if !ok || !ok2 {
			t.Errorf("%s: no style", name)
			continue
		}
		sum := sha256.Sum256([]byte(style))
		if want := "sha256-" + base64.StdEncoding.EncodeToString(sum[:]); !strings.Contains(html.UnescapeString(before), want) {
			t.Errorf("%s: the policy does not allow the style", name)
		}
		markup := before + after
		end := strings.LastIndex(markup, keyBefore)
		if end < 0 {
			t.Errorf("%s: no key", name)
			continue
		}
		markup = markup[:end]
		for i := strings.IndexByte(markup, '<'); i >= 0; {
			to := strings.IndexByte(markup[i:], '>')
			tag := okTag.FindStringSubmatch(markup[i : i+to+1])
			if tag == nil {
				t.Errorf("%s: %.200q is none of the templates'", name, markup[i:i+to+1])
				break
			}
			for _, a := range okAttribute.FindAllStringSubmatch(strings.ReplaceAll(tag[2], "&#", ""), -1) {
				if !attributes[a[1]] {
					t.Errorf("%s: attribute %q in %.200q", name, a[1], markup[i:i+to+1])
				}
				value := html.UnescapeString(strings.Trim(regexp.MustCompile(a[1]+`=("[^"]*"|[a-z]+)`).FindString(tag[2]), `"`))
				value = strings.TrimPrefix(strings.TrimPrefix(value, a[1]+"="), `"`)
				switch a[1] {
				case "href":
					refs = append(refs, ref{name, value})
				case "id":
					if ids[name][value] {
						t.Errorf("%s: the id %q is there twice", name, value)
					}
					ids[name][value] = true
				}
			}
			next := strings.IndexByte(markup[i+1:], '<')
			if next < 0 {
				break
			}
			i += 1 + next
		}
	}
	linked := map[string]bool{"index.html": true}
	for _, r := range refs {
		switch {
		case strings.HasPrefix(r.href, "https://git.example.org/recipes/"), strings.HasPrefix(r.href, "data:image/svg+xml,"):
			continue
		}
		file, id, _ := strings.Cut(r.href, "#")
		if strings.ContainsAny(file, ":/?") {
			t.Errorf("%s: links to %q", r.page, r.href)
			continue
		}
		file = unescape(t, file)
		if file == "" {
			file = r.page
		} else if r.page != file {
			linked[file] = true
		}
		if _, ok := all[file]; !ok || id != "" && !ids[file][id] {
			t.Errorf("%s: the link %q leads nowhere", r.page, r.href)
		}
	}
	for name := range all {
		if !linked[name] {
			t.Errorf("no page links to %s", name)
		}
	}
}

// unescape turns a URL's path into a file's name, as a browser and nginx do.
func unescape(t *testing.T, path string) string {
	t.Helper()
	var b strings.Builder
	for i := 0; i < len(path); i++ {
		if path[i] != '%' {
			b.WriteByte(path[i])
			continue
		}
		var c byte
		if _, err := fmt.Sscanf(path[i+1:i+3], "%02x", &c); err != nil {
			t.Errorf("%q: %v", path, err)
		}
		b.WriteByte(c)
		i += 2
	}
	return b.String()
}

// checkCharacters finds what a reader could not see.
func checkCharacters(t *testing.T, name, page string) {
	t.Helper()
	if !utf8.ValidString(page) {
		t.Errorf("%s: not UTF-8", name)
	}
	for i, r := range page {
		if r != '\n' && r != '\t' && unicode.In(r, unicode.C, unicode.Zl, unicode.Zp) || r == '\u3164' {
			t.Errorf("%s: %U at %d", name, r, i)
			return
		}
	}
}

// TestAgain: only what changed is written again, and only our own pages are removed.
func TestAgain(t *testing.T) {
	e := newExample(t)
	plain := func(recipe, nights string) {
		e.tell(story{recipe: recipe, tests: []string{"test_a"}, nights: strings.Fields(nights), revision: func(int) string { return hash(recipe) }, env: func(int) string { return hash("env") }, text: "no"})
	}
	plain("one", "p p p")
	plain("two", "p p p")
	plain("three", "p p f")
	e.flush()
	dir := filepath.Join(t.TempDir(), "a", "b")
	write := func(s Source) map[string]os.FileInfo {
		t.Helper()
		if err := Write(t.Context(), s, dir); err != nil {
			t.Fatal(err)
		}
		files := map[string]os.FileInfo{}
		for name := range pages(t, dir) {
			f, err := os.Open(filepath.Join(dir, name))
			e.must(err)
			t.Cleanup(func() { f.Close() }) // while a file is open, no other one gets its inode's number
			info, err := f.Stat()
			e.must(err)
			files[name] = info
		}
		return files
	}
	changed := func(a, b map[string]os.FileInfo) (list []string) {
		for name, info := range b {
			if a[name] == nil || !os.SameFile(a[name], info) {
				list = append(list, name)
			}
		}
		for name := range a {
			if b[name] == nil {
				list = append(list, "removed "+name)
			}
		}
		slices.Sort(list)
		return list
	}
	expect := func(when string, got []string, want ...string) {
		t.Helper()
		if !slices.Equal(got, want) {
			t.Errorf("%s, written: %q, not %q", when, got, want)
		}
	}

	first := write(e.source())
	again := write(e.source())
	expect("nothing changed", changed(first, again))

	e.must(os.WriteFile(filepath.Join(dir, "notes.txt"), []byte("mine"), 0o644))
	e.must(os.WriteFile(filepath.Join(dir, "r-mine.html"), []byte("<!-- mine -->"), 0o644))
	e.must(os.WriteFile(filepath.Join(dir, unfinished+"x"), nil, 0o644))
	before := pages(t, dir)
	plain("two", "p p p f")
	e.flush()
	third := write(e.source())
	delete(third, "notes.txt")
	delete(third, "r-mine.html")
	expect("two fails", changed(again, third), "index.html", "r-two.html")
	for _, name := range []string{"notes.txt", "r-mine.html"} {
		if pages(t, dir)[name] != before[name] {
			t.Errorf("%s, which is not ours, changed", name)
		}
	}

	e.run("update-ref", "-d", "refs/cc-ci/sweep/one")
	fourth := write(e.source())
	delete(fourth, "notes.txt")
	delete(fourth, "r-mine.html")
	expect("one is gone", changed(third, fourth), "index.html", "removed r-one.html")

	// A page that somebody cut off, or replaced by a link, is written again.
	e.must(os.Truncate(filepath.Join(dir, "r-two.html"), 1000))
	outside := filepath.Join(t.TempDir(), "outside")
	e.must(os.WriteFile(outside, []byte("mine"), 0o644))
	e.must(os.Remove(filepath.Join(dir, "r-three.html")))
	e.must(os.Symlink(outside, filepath.Join(dir, "r-three.html")))
	fifth := write(e.source())
	delete(fifth, "notes.txt")
	delete(fifth, "r-mine.html")
	expect("two pages are damaged", changed(fourth, fifth), "r-three.html", "r-two.html")
	if data, _ := os.ReadFile(outside); string(data) != "mine" {
		t.Error("a link was followed")
	}
	other := e.source()
	other.Version = "1.1"
	if got := changed(fifth, write(other)); !slices.Contains(got, "r-two.html") || !slices.Contains(got, "parity.html") {
		t.Errorf("another version, written: %q", got)
	}
}

// TestPages: thousands of recipes have an index of several pages, each of some size.
func TestPages(t *testing.T) {
	e := many(t, 1003)
	dir := filepath.Join(t.TempDir(), "report")
	e.must(Write(t.Context(), e.source(), dir))
	all := pages(t, dir)
	checkPages(t, all)
	rows := 0
	for _, name := range []string{"index.html", "index-2.html", "index-3.html"} {
		rows += strings.Count(all[name], `<a class="name"`)
		if len(all[name]) > 2<<20 {
			t.Errorf("%s has %d bytes", name, len(all[name]))
		}
	}
	if rows != 1003 || all["index-4.html"] != "" {
		t.Errorf("%d rows", rows)
	}
}

// many is an example of n recipes, each with 30 runs of 5 tests; one of 20 fails.
func many(t testing.TB, n int) *example {
	e := newExample(t)
	e.current = e.manifest("git 2.51", "jq 1.8")
	print := e.current.Fingerprint()
	tests := []string{"test_api.py::test_login", "test_api.py::test_version", "test_deployment.py::test_healthy", "test_deployment.py::test_upgrade", "test_page.py::test_front_page"}
	good, bad := nights("ppppp", 30), nights("ppppp", 25, "ppfpp", 5)
	output := strings.Repeat("a line of what a test printed, and which nobody will read\n", 200)
	for i := range n {
		recipe := fmt.Sprintf("recipe-%05d", i)
		s := story{recipe: recipe, tests: tests, nights: good, revision: func(int) string { return hash(recipe) }, env: func(int) string { return print }}
		if i%20 == 0 {
			s.nights, s.text = bad, output
		}
		e.tell(s)
	}
	e.flush()
	return e
}

// TestDamaged: what memory cannot give is told on the page.
func TestDamaged(t *testing.T) {
	e := newExample(t)
	e.tell(story{recipe: "whole", tests: []string{"test_a"}, nights: []string{"p"}, revision: hash2, env: hash2})
	e.remember(sweep.State{Recipe: "other", Last: sweep.Result{Verdict: sweep.Promote}}, sweep.History{}, nil)
	e.flush()
	e.run("update-ref", "refs/cc-ci/sweep/renamed", "refs/cc-ci/sweep/other")
	all := pages(t, e.write())
	checkPages(t, all)
	if got := text(all["r-renamed.html"]); !strings.Contains(got, "memory lost") || !strings.Contains(got, `of the recipe "other"`) {
		t.Error(got)
	}
}

func hash2(int) string { return hash("x") }

func BenchmarkWrite(b *testing.B) {
	e := many(b, 10_000)
	for b.Loop() {
		dir := filepath.Join(b.TempDir(), "report")
		e.must(Write(b.Context(), e.source(), dir))
		b.StopTimer()
		info, err := os.Stat(filepath.Join(dir, "index.html"))
		e.must(err)
		b.ReportMetric(float64(info.Size()), "index-bytes")
		e.must(os.RemoveAll(dir))
		b.StartTimer()
	}
}

// BenchmarkAgain is for a report in which nothing changed.
func BenchmarkAgain(b *testing.B) {
	e := many(b, 10_000)
	dir := filepath.Join(b.TempDir(), "report")
	e.must(Write(b.Context(), e.source(), dir))
	for b.Loop() {
		e.must(Write(b.Context(), e.source(), dir))
	}
}
