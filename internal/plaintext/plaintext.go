// Package plaintext makes texts that somebody else wrote fit for a line of a message: the output
// of a test, the answer of a server, the name of a machine.
package plaintext

import (
	"strings"
	"unicode"
	"unicode/utf8"
)

// Printable gives a text for one line of a terminal or a journal: each character that cannot be
// printed becomes a space, and each byte that is not UTF-8 a question mark.
func Printable(text string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsPrint(r) {
			return r
		}
		return ' '
	}, strings.ToValidUTF8(text, "?"))
}

// Shorten gives a text; if the text is longer than most characters, only so many of them
// and "…".
func Shorten(text string, most int) string {
	if runes := []rune(text); len(runes) > most {
		return string(runes[:most]) + "…"
	}
	return text
}

// Brief gives a text on one line, of at most so many characters, with the "…" if the text
// was cut.
func Brief(text string, most int) string {
	if text = Printable(text); utf8.RuneCountInString(text) > most {
		return Shorten(text, most-1)
	}
	return text
}
