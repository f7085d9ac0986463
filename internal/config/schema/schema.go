// Package schema is for tests: it holds the JSON Schemas in docs/schemas, by which
// editors complete our TOML files, against the Go types that read these files.
package schema

import (
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"reflect"
	"slices"
	"strings"
)

// Differences lists in what the schema in a file differs from the type of form:
// keys that only one has, and kinds of values.
func Differences(file string, form any) ([]string, error) {
	data, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	var s node
	if err := json.Unmarshal(data, &s); err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	return s.compare("", reflect.TypeOf(form)), nil
}

// node is as much of a JSON Schema as ours have.
type node struct {
	Type       string          `json:"type"`
	Properties map[string]node `json:"properties"`
	Items      *node           `json:"items"`
	Additional json.RawMessage `json:"additionalProperties"`
}

func (n node) compare(at string, t reflect.Type) []string {
	for t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	want := map[reflect.Kind]string{
		reflect.String: "string", reflect.Bool: "boolean", reflect.Int: "integer", reflect.Uint64: "integer",
		reflect.Slice: "array", reflect.Map: "object", reflect.Struct: "object",
	}[t.Kind()]
	if n.Type != want {
		return []string{fmt.Sprintf("%s: the schema has a %q, the reader a %s", at, n.Type, t)}
	}
	switch t.Kind() {
	case reflect.Slice:
		if n.Items == nil {
			return []string{at + ": no items in the schema"}
		}
		return n.Items.compare(at+"[]", t.Elem())
	case reflect.Map:
		var values node
		if json.Unmarshal(n.Additional, &values) != nil {
			return []string{at + ": the schema has no additionalProperties"}
		}
		return values.compare(at+".*", t.Elem())
	case reflect.Struct:
		return n.compareKeys(at, t)
	}
	return nil
}

func (n node) compareKeys(at string, t reflect.Type) (list []string) {
	if string(n.Additional) != "false" {
		list = append(list, at+": the schema allows unknown keys, the reader does not")
	}
	fields := keys(t)
	for _, key := range slices.Sorted(maps.Keys(fields)) {
		property, ok := n.Properties[key]
		if !ok {
			list = append(list, at+"."+key+": the schema lacks it")
			continue
		}
		list = append(list, property.compare(at+"."+key, fields[key])...)
	}
	for _, key := range slices.Sorted(maps.Keys(n.Properties)) {
		if _, ok := fields[key]; !ok {
			list = append(list, at+"."+key+": the reader does not know it")
		}
	}
	return list
}

// keys are the TOML keys of a struct, with the types of their values; those of a
// struct in it are its own.
func keys(t reflect.Type) map[string]reflect.Type {
	all := map[string]reflect.Type{}
	for i := range t.NumField() {
		f := t.Field(i)
		name, _, _ := strings.Cut(f.Tag.Get("toml"), ",")
		switch {
		case name == "" && f.Anonymous:
			for key, of := range keys(f.Type) {
				if _, own := all[key]; !own {
					all[key] = of
				}
			}
		case name != "" && name != "-" && f.IsExported():
			all[name] = f.Type
		}
	}
	return all
}
