// Package config reads TOML files strictly and names the place of every
// mistake in them, so that a person finds all of them in one go.
//
//	file, err := config.Decode("sweep.toml", data, &form)
//	if err != nil { … }                        // not TOML at all
//	file.Fail("jobs", "jobs = %d: at least one", n)
//	timeout := file.Duration("timeout", form.Timeout, time.Hour)
//	return file.Err()                          // all mistakes, in the order of lines
package config

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/hashicorp/go-multierror"
	"github.com/pelletier/go-toml/v2"
	"github.com/pelletier/go-toml/v2/unstable"
)

// File is a file that was read, with the mistakes in it.
type File struct {
	name  string
	lines map[string]int // where each key is, see keyLines
	errs  *multierror.Error
}

// Decode reads data into v. Keys that v does not know are mistakes. A file that is
// not TOML, or in which a value has the wrong type, gives one error and no File.
// name is how errors call it.
func Decode(name string, data []byte, v any) (*File, error) {
	f := &File{name: name}
	dec := toml.NewDecoder(bytes.NewReader(data)).DisallowUnknownFields()
	var unknown *toml.StrictMissingError
	var bad *toml.DecodeError
	switch err := dec.Decode(v); {
	case err == nil:
	case errors.As(err, &unknown):
		for _, e := range unknown.Errors {
			line, _ := e.Position()
			f.errs = multierror.Append(f.errs, fmt.Errorf("%s:%d: %s: unknown key", name, line, strings.Join(e.Key(), ".")))
		}
	case errors.As(err, &bad):
		line, _ := bad.Position()
		return nil, fmt.Errorf("%s:%d: %s", name, line, strings.TrimPrefix(bad.Error(), "toml: "))
	default:
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	f.lines = keyLines(data)
	return f, nil
}

// Fail notes a mistake, as Errorf words it.
func (f *File) Fail(key, format string, args ...any) {
	f.errs = multierror.Append(f.errs, f.Errorf(key, format, args...))
}

// Errorf is an error at the place of key, or of the nearest key above it:
// "FILE:LINE: …".
func (f *File) Errorf(key, format string, args ...any) error {
	at := key
	for at != "" && f.lines[at] == 0 {
		at = at[:max(0, strings.LastIndexAny(at, ".["))]
	}
	return fmt.Errorf("%s:%d: %s", f.name, max(1, f.lines[at]), fmt.Sprintf(format, args...))
}

// Duration is the length of time that key has, or otherwise if the file does not
// have the key.
func (f *File) Duration(key, text string, otherwise time.Duration) time.Duration {
	if !f.Has(key) {
		return otherwise
	}
	d, err := time.ParseDuration(text)
	if err != nil || d <= 0 {
		f.Fail(key, "%s = %q is not a length of time (like \"1h30m\")", key, text)
	}
	return d
}

// Err is all mistakes, in the order of the file; nil if there is none.
func (f *File) Err() error {
	if f.errs == nil {
		return nil
	}
	line := func(err error) int {
		_, rest, _ := strings.Cut(err.Error(), ":")
		number, _, _ := strings.Cut(rest, ":")
		n, _ := strconv.Atoi(number)
		return n
	}
	slices.SortStableFunc(f.errs.Errors, func(a, b error) int {
		if d := line(a) - line(b); d != 0 {
			return d
		}
		return strings.Compare(a.Error(), b.Error())
	})
	return f.errs
}

// Has says whether a key, or a table of that name, is in the file. Keys
// are written as in "tool[3].commands[0]".
func (f *File) Has(key string) bool { return f.lines[key] != 0 }

// Line is where a key is, counted from 1; 0 if it is not there.
func (f *File) Line(key string) int { return f.lines[key] }

// keyLines maps each key of a TOML document to its line, counted from 1:
// "tool[3]" and "environment" for table headers, "tool[3].commands" for keys,
// "tool[3].commands[0]" for elements. go-toml gives no positions for values
// that decode well, so errors of our own rules look them up here. A document
// that does not parse gives what came before the mistake.
func keyLines(data []byte) map[string]int {
	lines := map[string]int{}
	count := map[string]int{} // [[header]] -> how many so far
	prefix := ""
	var p unstable.Parser
	p.Reset(data)

	keyOf := func(n *unstable.Node) (key string, line int) {
		var parts []string
		for it := n.Key(); it.Next(); {
			if line == 0 {
				line = p.Shape(it.Node().Raw).Start.Line
			}
			parts = append(parts, string(it.Node().Data))
		}
		return strings.Join(parts, "."), line
	}
	var value func(key string, n *unstable.Node)
	value = func(key string, n *unstable.Node) {
		switch n.Kind {
		case unstable.Array:
			i := 0
			for it := n.Children(); it.Next(); i++ {
				at := fmt.Sprintf("%s[%d]", key, i)
				if r := it.Node().Raw; r.Length > 0 {
					lines[at] = p.Shape(r).Start.Line
				}
				value(at, it.Node())
			}
		case unstable.InlineTable:
			for it := n.Children(); it.Next(); {
				k, line := keyOf(it.Node())
				lines[key+"."+k] = line
				value(key+"."+k, it.Node().Value())
			}
		}
	}
	for p.NextExpression() {
		n := p.Expression()
		switch n.Kind {
		case unstable.ArrayTable, unstable.Table:
			key, line := keyOf(n)
			if n.Kind == unstable.ArrayTable {
				count[key]++
				key = fmt.Sprintf("%s[%d]", key, count[key]-1)
			} else if i := strings.LastIndex(key, "."); i > 0 && count[key[:i]] > 0 { // [tool.files] below [[tool]]
				key = fmt.Sprintf("%s[%d]%s", key[:i], count[key[:i]]-1, key[i:])
			}
			lines[key], prefix = line, key+"."
		case unstable.KeyValue:
			key, line := keyOf(n)
			lines[prefix+key] = line
			value(prefix+key, n.Value())
		}
	}
	return lines
}
