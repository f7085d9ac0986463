package report

import (
	"bytes"
	"errors"
	"fmt"
	"net/url"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"
)

// show copies a page, and makes each character visible that has no shape of its own:
// control characters, and those that hide text or turn its direction. Line feeds and
// tabs stay. The templates have none of these characters, so all come from outside.
func show(to *bytes.Buffer, page []byte) {
	for len(page) > 0 {
		n := 0
		for n < len(page) && plain(page[n]) {
			n++
		}
		to.Write(page[:n])
		if page = page[n:]; len(page) == 0 {
			return
		}
		r, size := utf8.DecodeRune(page)
		switch {
		case r == utf8.RuneError: // also where the bytes are no character
			to.WriteRune(r)
		case r < ' ':
			to.WriteRune('\u2400' + r) // ESC becomes ␛
		case r == 0x7f:
			to.WriteRune('\u2421')
		case hidden(r):
			fmt.Fprintf(to, "⟨U+%04X⟩", r)
		default:
			to.Write(page[:size])
		}
		page = page[size:]
	}
}

func plain(b byte) bool { return b >= ' ' && b < 0x7f || b == '\n' || b == '\t' }

// hidden says whether a character is not seen: controls, formats (the bidirectional ones
// are among them), separators of lines, and blanks that are none.
func hidden(r rune) bool {
	return unicode.In(r, unicode.Cc, unicode.Cf, unicode.Zl, unicode.Zp, unicode.Bidi_Control, unicode.Other_Default_Ignorable_Code_Point, unicode.Variation_Selector) && r != emojiStyle
}

// emojiStyle follows a character that is to be drawn as a picture.
const emojiStyle = '\uFE0F'

// maxName is how many characters of a name are shown, of a recipe, a test or the like.
const maxName = 300

// name is a name of somebody else's, as it is shown: on one line, not endless.
func name(s string) string {
	if len(s) <= maxName && isPlain(s) && !strings.ContainsAny(s, "\n\t") { // as nearly all are
		return s
	}
	s = oneLine.Replace(s)
	if utf8.RuneCountInString(s) > maxName {
		s = string([]rune(s)[:maxName]) + "…"
	}
	return stack(s)
}

var oneLine = strings.NewReplacer("\n", "␊", "\t", "␉")

func isPlain(s string) bool {
	for i := range len(s) {
		if !plain(s[i]) {
			return false
		}
	}
	return true
}

// maxMarks is how many marks are put on one letter. More would cover the lines above.
const maxMarks = 4

// stack leaves out marks on a letter that has too many.
func stack(s string) string {
	if isPlain(s) {
		return s
	}
	n := 0
	return strings.Map(func(r rune) rune {
		if !unicode.Is(unicode.M, r) {
			n = 0
			return r
		}
		if n++; n > maxMarks {
			return -1
		}
		return r
	}, s)
}

// lastLines is the end of an output, at most n bytes from the beginning of a line on.
func lastLines(data []byte, n int) (text string, cut bool) {
	if cut = len(data) > n; cut {
		data = data[len(data)-n:]
		if i := bytes.IndexByte(data, '\n'); i >= 0 && i < len(data)-1 {
			data = data[i+1:]
		}
	}
	return lines(data), cut
}

// firstLines is the beginning of a text.
func firstLines(data []byte, n int) (text string, cut bool) {
	if cut = len(data) > n; cut {
		data = data[:n]
	}
	return lines(data), cut
}

// lines is text of many lines, whose ends are those of a terminal or of a file.
func lines(data []byte) string {
	text := strings.ReplaceAll(string(data), "\r\n", "\n")
	return stack(strings.ToValidUTF8(strings.TrimRight(text, "\n"), "\uFFFD"))
}

// length is a length of time for people.
func length(d time.Duration) string {
	switch {
	case d <= 0:
		return "0 s"
	case d < time.Second:
		return fmt.Sprintf("%d ms", d.Milliseconds())
	case d < 10*time.Second:
		return fmt.Sprintf("%.1f s", d.Seconds())
	}
	switch d = d.Round(time.Second); {
	case d < time.Minute:
		return fmt.Sprintf("%.0f s", d.Seconds())
	case d < time.Hour:
		return fmt.Sprintf("%d min %02d s", int(d.Minutes()), int(d.Seconds())%60)
	}
	return fmt.Sprintf("%d h %02d min", int(d.Hours()), int(d.Minutes())%60)
}

// plural is a number of things.
func plural(n int, thing string) string {
	if n == 1 {
		return "1 " + thing
	}
	return fmt.Sprintf("%d %ss", n, thing)
}

// short is the beginning of a hash.
func short(hash string) string {
	if len(hash) > 10 && isPlain(hash) {
		return name(hash[:10])
	}
	return name(fmt.Sprintf("%.10s", hash))
}

// at is a time, in the report's zone; "" for none.
func (s Source) at(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return t.In(s.Zone).Format("2006-01-02 15:04")
}

func (s Source) day(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return t.In(s.Zone).Format(time.DateOnly)
}

// CheckLink says what is wrong with a [Source]'s RecipeURL or BuildURL.
func CheckLink(template string) error {
	if template == "" {
		return nil
	}
	u, err := url.Parse(Fill(template, "recipe", "revision", "run", "machine"))
	if err != nil || u.Scheme != "https" && u.Scheme != "http" || u.Host == "" {
		return errors.New("must be a URL of http or https, with {recipe}, {revision}, {run} and {machine} where these belong")
	}
	return nil
}

// Fill fills in a template of links. A value stays within its place in the URL.
func Fill(template, recipe, revision, run, machine string) string {
	return strings.NewReplacer(
		"{recipe}", url.PathEscape(recipe), "{revision}", url.PathEscape(revision),
		"{run}", url.PathEscape(run), "{machine}", url.PathEscape(machine),
	).Replace(template)
}

// command is a command line for a person's shell; "" if its words cannot be shown, and so
// not be copied.
func command(words ...string) string {
	for i, word := range words {
		var shown bytes.Buffer
		show(&shown, []byte(word))
		if shown.String() != word || stack(word) != word || strings.ContainsAny(word, "\n\t") {
			return ""
		}
		if word == "" || strings.ContainsFunc(word, func(r rune) bool {
			return !(r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune("@%+=:,./_-", r))
		}) {
			words[i] = "'" + strings.ReplaceAll(word, "'", `'\''`) + "'"
		}
	}
	return strings.Join(words, " ")
}
