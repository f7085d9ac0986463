package sweep

import (
	"bytes"
	"cmp"
	"encoding/json"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"slices"
	"strconv"
	"strings"

	"cc-ci-run/internal/record"
	"cc-ci-run/internal/state"
)

// masked takes the place of a secret, as in Drone's logs.
const masked = "******"

// masker replaces the values that a site gives in what a run writes. As Drone
// does, it takes each line of a value by itself, and none of less than two
// characters. It knows a value also as JSON, XML, URLs, Python's repr and shells
// write it. A nil masker masks nothing.
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

// text masks a text.
func (m *masker) text(text string) string {
	if m == nil {
		return text
	}
	out, _ := m.mask([]byte(text), true)
	return string(out)
}

// result masks what a verdict can quote of a result: what tests wrote.
func (m *masker) result(r *record.Result) *record.Result {
	for i := range r.Results.Tests {
		t := &r.Results.Tests[i]
		t.Name, t.Message = m.text(t.Name), m.text(t.Message)
	}
	about := &r.Results.Extra.About
	about.Why, about.Running = m.text(about.Why), m.text(about.Running)
	return r
}

// spellings are the ways in which a value is written.
func spellings(value string) []string {
	var quoted bytes.Buffer
	encoder := json.NewEncoder(&quoted)
	encoder.SetEscapeHTML(false)
	_ = encoder.Encode(value) // of a string there is always JSON
	inJSON := strings.TrimSuffix(strings.TrimPrefix(strings.TrimSpace(quoted.String()), `"`), `"`)
	markup := []string{"&", "&amp;", "<", "&lt;", ">", "&gt;"}
	inXML := strings.NewReplacer(markup...).Replace(value)
	inAttribute := strings.NewReplacer(append(markup, `"`, "&quot;", "\t", "&#09;")...).Replace(value)
	inHTML := strings.NewReplacer(append(markup, `"`, "&quot;", "'", "&#x27;")...).Replace(value)
	backslash := strings.NewReplacer(`\`, `\\`, "\t", `\t`).Replace(value)
	single := strings.ReplaceAll(backslash, `'`, `\'`)
	inShell := strings.ReplaceAll(value, `'`, `'"'"'`)
	all := []string{value, inJSON, inXML, inAttribute, inHTML, backslash, single, inShell, strings.ReplaceAll(value, `'`, `'\''`)}
	for _, safe := range []string{"", "/"} {
		percent := percentEncoded(value, safe)
		all = append(all, percent, strings.ReplaceAll(percent, "%20", "+"))
	}
	for _, form := range slices.Clone(all) { // in ASCII
		all = append(all, escaped(form, `\u%04x`, `\u%04x\u%04x`), pythonASCII(form), bytesRepr(form))
	}
	return all
}

// percentEncoded is a value in a URL (RFC 3986), with some characters left alone.
func percentEncoded(value, safe string) string {
	var b strings.Builder
	for _, c := range []byte(value) {
		if c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || strings.IndexByte("-._~"+safe, c) >= 0 {
			b.WriteByte(c)
		} else {
			fmt.Fprintf(&b, "%%%02X", c)
		}
	}
	return b.String()
}

// escaped writes what is not ASCII as JSON does: with two escapes for a character
// beyond the first 65,536.
func escaped(value, one, two string) string {
	var b strings.Builder
	for _, r := range value {
		switch {
		case r < 0x80:
			b.WriteRune(r)
		case r < 0x10000:
			fmt.Fprintf(&b, one, r)
		default:
			r -= 0x10000
			fmt.Fprintf(&b, two, 0xd800+r>>10, 0xdc00+r&0x3ff)
		}
	}
	return b.String()
}

// pythonASCII writes what is not ASCII as Python's ascii() does.
func pythonASCII(value string) string {
	var b strings.Builder
	for _, r := range value {
		switch {
		case r < 0x80:
			b.WriteRune(r)
		case r < 0x100:
			fmt.Fprintf(&b, `\x%02x`, r)
		case r < 0x10000:
			fmt.Fprintf(&b, `\u%04x`, r)
		default:
			fmt.Fprintf(&b, `\U%08x`, r)
		}
	}
	return b.String()
}

// bytesRepr writes what is not ASCII as Python's repr of bytes does.
func bytesRepr(value string) string {
	var b strings.Builder
	for _, c := range []byte(value) {
		if c < 0x80 {
			b.WriteByte(c)
		} else {
			b.WriteString(`\x` + strconv.FormatInt(int64(c), 16))
		}
	}
	return b.String()
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

// ours are the keys of a result whose values no test writes.
var ours = []string{"reportFormat", "specVersion", "reportId", "timestamp", "generatedBy", "status", "rawStatus", "recipe", "revision", "invoker", "fingerprint"}

// json masks the texts of a result: not its keys, nor what says which run it is of.
func (m *masker) json(f *state.Folder, name string) error {
	return m.file(f, name, func(data []byte) ([]byte, error) {
		if err := state.Decode(f.Path(name), data, record.ResultSchema, &struct{}{}); err != nil {
			return nil, err // not what a test can make so large that nothing can hold it
		}
		var v any
		decoder := json.NewDecoder(bytes.NewReader(data))
		decoder.UseNumber()
		if err := decoder.Decode(&v); err != nil {
			return nil, err
		}
		var out bytes.Buffer
		encoder := json.NewEncoder(&out)
		encoder.SetEscapeHTML(false)
		encoder.SetIndent("", " ")
		err := encoder.Encode(m.values(v))
		return out.Bytes(), err
	})
}

func (m *masker) values(v any) any {
	switch v := v.(type) {
	case map[string]any:
		for key, value := range v {
			if !slices.Contains(ours, key) {
				v[key] = m.values(value)
			}
		}
	case []any:
		for i, value := range v {
			v[i] = m.values(value)
		}
	case string:
		return m.text(v)
	}
	return v
}

// xml masks the texts and attributes of a JUnit report.
func (m *masker) xml(f *state.Folder, name string) error {
	return m.file(f, name, func(data []byte) ([]byte, error) {
		var out bytes.Buffer
		decoder, encoder := xml.NewDecoder(bytes.NewReader(data)), xml.NewEncoder(&out)
		for {
			token, err := decoder.Token()
			if errors.Is(err, io.EOF) {
				err := encoder.Flush()
				return out.Bytes(), err
			}
			if err != nil {
				return nil, err
			}
			switch t := token.(type) {
			case xml.CharData:
				text, _ := m.mask(t, true)
				token = xml.CharData(text)
			case xml.StartElement:
				for i, a := range t.Attr {
					t.Attr[i].Value = m.text(a.Value)
				}
				token = t
			}
			if err := encoder.EncodeToken(token); err != nil {
				return nil, err
			}
		}
	})
}

// file changes a file in one step, if it is there. What cannot be masked is
// removed.
func (m *masker) file(f *state.Folder, name string, change func([]byte) ([]byte, error)) error {
	if m == nil {
		return nil
	}
	data, _, err := f.Read(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err == nil {
		data, err = change(data)
	}
	if err == nil {
		err = f.Put(name, data, 0o640)
	}
	if err != nil {
		err = fmt.Errorf("%s: was removed, as it could not be masked: %w", f.Path(name), err)
		return errors.Join(err, f.Remove(name))
	}
	return nil
}
