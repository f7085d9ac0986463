package sweep

import (
	"bytes"
	"cmp"
	"encoding/json"
	"io"
	"net/url"
	"os"
	"slices"
	"strings"

	"github.com/google/renameio/v2"
)

// masked takes the place of a secret, as in Drone's logs.
const masked = "******"

// masker replaces the values that a site gives in what a run writes. As Drone
// does, it takes each line of a value by itself, and none of less than two
// characters. It knows a value also as JSON, XML, URLs and Python's repr write it.
type masker struct {
	forms [][]byte  // longest first
	first [256]bool // bytes that one begins with
}

// newMasker is for values as "NAME=VALUE"; nil if there is nothing to mask.
func newMasker(site []string) *masker {
	forms := map[string]bool{}
	for _, kv := range site {
		_, value, _ := strings.Cut(kv, "=")
		for _, line := range append(strings.Split(value, "\n"), value) {
			if line = strings.TrimSpace(line); len(line) > 1 {
				for _, form := range spellings(line) {
					forms[form] = true
				}
			}
		}
	}
	if len(forms) == 0 {
		return nil
	}
	m := &masker{}
	for form := range forms {
		m.forms = append(m.forms, []byte(form))
		m.first[form[0]] = true
	}
	slices.SortFunc(m.forms, func(a, b []byte) int { return cmp.Or(len(b)-len(a), bytes.Compare(a, b)) })
	return m
}

// mask replaces the values in text, the longest that is at each place. Unless
// it is the end, it leaves the rest, at whose places more text could make one.
func (m *masker) mask(text []byte, end bool) (out, rest []byte) {
	limit := len(text)
	if !end {
		limit = max(0, limit-len(m.forms[0])+1)
	}
	from, i := 0, 0
next:
	for i < limit {
		if m.first[text[i]] {
			for _, form := range m.forms {
				if bytes.HasPrefix(text[i:], form) {
					out = append(append(out, text[from:i]...), masked...)
					i += len(form)
					from = i
					continue next
				}
			}
		}
		i++
	}
	return append(out, text[from:i]...), text[i:]
}

// spellings are the ways in which a value is written.
func spellings(value string) []string {
	var quoted bytes.Buffer
	encoder := json.NewEncoder(&quoted)
	encoder.SetEscapeHTML(false)
	_ = encoder.Encode(value) // of a string there is always JSON
	inJSON := strings.Trim(strings.TrimSpace(quoted.String()), `"`)
	inXML := strings.NewReplacer("&", "&amp;", "<", "&lt;", ">", "&gt;")
	inAttribute := strings.NewReplacer("&", "&amp;", "<", "&lt;", ">", "&gt;", `"`, "&quot;", "\n", "&#10;", "\r", "&#13;", "\t", "&#09;")
	inRepr := strings.NewReplacer(`\`, `\\`, `'`, `\'`, "\n", `\n`, "\t", `\t`)
	plainRepr := strings.NewReplacer(`\`, `\\`, "\n", `\n`, "\t", `\t`)
	repr := []string{inRepr.Replace(value), plainRepr.Replace(value)}
	all := []string{value, inJSON, inXML.Replace(value), inAttribute.Replace(value), url.QueryEscape(value), url.PathEscape(value), url.UserPassword("", value).String()[1:]}
	for _, r := range repr { // a repr within JSON or XML
		escaped, _ := json.Marshal(r)
		all = append(all, r, strings.Trim(string(escaped), `"`), inXML.Replace(r), inAttribute.Replace(r))
	}
	return all
}

// writer masks what passes through it. Close writes the rest, which may have
// been the start of a value.
func (m *masker) writer(w io.Writer) io.WriteCloser {
	if m == nil {
		return nopCloser{w}
	}
	return &maskWriter{masker: m, w: w}
}

type nopCloser struct{ io.Writer }

func (nopCloser) Close() error { return nil }

type maskWriter struct {
	*masker
	w    io.Writer
	held []byte
}

func (m *maskWriter) Write(p []byte) (int, error) {
	out, rest := m.mask(append(m.held, p...), false)
	m.held = slices.Clone(rest)
	_, err := m.w.Write(out)
	return len(p), err
}

func (m *maskWriter) Close() error {
	out, _ := m.mask(m.held, true)
	m.held = nil
	_, err := m.w.Write(out)
	return err
}

// file masks a file in one step, if it is there.
func (m *masker) file(path string) error {
	if m == nil {
		return nil
	}
	data, err := os.ReadFile(path)
	if err != nil {
		return nil // there is none
	}
	if text, _ := m.mask(data, true); !bytes.Equal(text, data) {
		return renameio.WriteFile(path, text, 0o640, renameio.WithStaticPermissions(0o640))
	}
	return nil
}
