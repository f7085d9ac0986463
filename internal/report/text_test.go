package report

import (
	"bytes"
	"strings"
	"testing"
	"time"

	"cc-ci-run/internal/sweep"
)

func TestShow(t *testing.T) {
	for in, want := range map[string]string{
		"plain\n\ttext":      "plain\n\ttext",
		"\x1b[1m\x00\x7f\r":  "␛[1m␀␡␍",
		"a\u202eb\u2069":     "a⟨U+202E⟩b⟨U+2069⟩",
		"\u0085\u200b\ufeff": "⟨U+0085⟩⟨U+200B⟩⟨U+FEFF⟩",
		"\xff\xc3":           "\uFFFD\uFFFD",
		"ä שלום 日本 ❤️":       "ä שלום 日本 ❤️",
	} {
		var b bytes.Buffer
		show(&b, []byte(in))
		if b.String() != want {
			t.Errorf("%q: %q, not %q", in, b.String(), want)
		}
	}
}

func TestLength(t *testing.T) {
	for d, want := range map[time.Duration]string{
		0: "0 s", 12 * time.Millisecond: "12 ms", 9400 * time.Millisecond: "9.4 s", 59700 * time.Millisecond: "1 min 00 s",
		61 * time.Second: "1 min 01 s", time.Hour: "1 h 00 min", 59*time.Minute + 59600*time.Millisecond: "1 h 00 min", 25*time.Hour + 61*time.Second: "25 h 01 min",
	} {
		if got := length(d); got != want {
			t.Errorf("%s: %q, not %q", d, got, want)
		}
	}
}

func TestCommand(t *testing.T) {
	for _, c := range []struct {
		want  string
		words []string
	}{
		{"cc-ci-run sweep --force gitea", []string{"cc-ci-run", "sweep", "--force", "gitea"}},
		{`x 'a b' 'it'\''s' '$(reboot)' ''`, []string{"x", "a b", "it's", "$(reboot)", ""}},
		{"", []string{"x", "a\u202eb"}},
		{"", []string{"x", "a\nb"}},
		{"", []string{"x", "\x1b"}},
	} {
		if got := command(c.words...); got != c.want {
			t.Errorf("%q: %s, not %s", c.words, got, c.want)
		}
	}
}

func TestLastLines(t *testing.T) {
	for _, c := range []struct {
		in   string
		n    int
		want string
		cut  bool
	}{
		{"a\r\nb\n\n", 10, "a\nb", false},
		{"first\nsecond\nthird\n", 14, "second\nthird", true},
		{strings.Repeat("x", 20), 5, "xxxxx", true},
		{"äää", 3, "\uFFFDä", true},
	} {
		if got, cut := lastLines([]byte(c.in), c.n); got != c.want || cut != c.cut {
			t.Errorf("%q: %q, %t", c.in, got, cut)
		}
	}
}

func TestCheckLink(t *testing.T) {
	for template, ok := range map[string]bool{
		"": true, "https://git.example.org/{recipe}/commit/{revision}": true, "http://localhost:3000/{run}": true,
		"javascript:alert(1)": false, "//example.org/": false, "/{recipe}": false, "https:": false, "%zz": false, "{recipe}://x": false, "data:text/html,x": false,
	} {
		if err := CheckLink(template); (err == nil) != ok {
			t.Errorf("%s: %v", template, err)
		}
	}
	if got := Fill("https://x/{recipe}/{revision}?{run}", "../a b", "?#", "{recipe}", ""); got != "https://x/..%2Fa%20b/%3F%23?%7Brecipe%7D" {
		t.Error(got)
	}
}

// TestSlower: only what lasts, and can be felt, is slower.
func TestSlower(t *testing.T) {
	runs := func(seconds ...float64) (list []sweep.Past) {
		for _, s := range seconds { // the newest first
			list = append(list, sweep.Past{Verdict: sweep.Promote, Took: time.Duration(s * float64(time.Second))})
		}
		return list
	}
	for want, list := range map[string][]sweep.Past{
		"2.0× slower": runs(20, 20, 20, 10, 10, 10),
		"":            runs(20, 10, 10, 10, 10, 10, 10),
	} {
		if got := slower(list); got != want {
			t.Errorf("%q, not %q", got, want)
		}
	}
	for _, list := range [][]sweep.Past{nil, runs(20, 10), runs(0.2, 0.2, 0.2, 0.1, 0.1, 0.1), runs(12, 12, 12, 10, 10, 10)} {
		if got := slower(list); got != "" {
			t.Errorf("%v: %q", list, got)
		}
	}
}
