// Package systemd asks systemd about units.
//
//	conn, noBus, err := systemd.Connect(ctx)
//	unit, err := systemd.Unit(ctx, conn, "nightly-sweep.service")
//	unit.Text("ActiveState")             // "active"
//	unit.Programs("ExecStart")           // files that it starts
//
// What else can be asked or told is the connection's (package dbus).
package systemd

import (
	"context"
	"strings"
	"time"

	"github.com/coreos/go-systemd/v22/dbus"
)

// Connect reaches systemd by D-Bus. If D-Bus does not answer, noBus says why, and
// root still reaches systemd by a socket of its own. The connection outlives ctx,
// which bounds the connecting alone: whoever ran out of time can still clear up.
func Connect(ctx context.Context) (conn *dbus.Conn, noBus, err error) {
	life, end := context.WithCancel(context.WithoutCancel(ctx)) // the library closes a connection with its context
	defer context.AfterFunc(ctx, end)()
	if conn, noBus = dbus.NewSystemConnectionContext(life); noBus == nil {
		return conn, nil, nil
	}
	conn, err = dbus.NewSystemdConnectionContext(life)
	return conn, noBus, err
}

// Properties are a unit's, by systemd's names (org.freedesktop.systemd1(5)). One
// that the unit does not have, or that is of another type, is as good as empty.
type Properties map[string]any

// Unit gives the properties of a unit. There are some of any name: of a unit that
// systemd does not know, LoadState is not "loaded".
func Unit(ctx context.Context, conn *dbus.Conn, name string) (Properties, error) {
	return conn.GetAllPropertiesContext(ctx, name)
}

// Text is the value of a property that is a string.
func (p Properties) Text(name string) string { s, _ := p[name].(string); return s }

// List is the value of a property that is a list of strings.
func (p Properties) List(name string) []string { l, _ := p[name].([]string); return l }

// Bool is the value of a property that is true or false.
func (p Properties) Bool(name string) bool { b, _ := p[name].(bool); return b }

// Number is the value of a property that is a number.
func (p Properties) Number(name string) int64 {
	switch n := p[name].(type) {
	case int32:
		return int64(n)
	case uint32:
		return int64(n)
	case uint64:
		return int64(n)
	}
	return 0
}

// Time is the value of a property that is a time; zero where systemd has none (0,
// or "never").
func (p Properties) Time(name string) time.Time {
	n, _ := p[name].(uint64)
	if n == 0 || n == ^uint64(0) {
		return time.Time{}
	}
	return time.UnixMicro(int64(n)).UTC()
}

// Command is the first command of ExecStart= and the like, with its arguments.
func (p Properties) Command(name string) (argv []string) {
	commands, _ := p[name].([][]any)
	if len(commands) > 0 && len(commands[0]) > 1 {
		argv, _ = commands[0][1].([]string)
	}
	return argv
}

// Files are the paths of EnvironmentFiles.
func (p Properties) Files(name string) (paths []string) {
	files, _ := p[name].([][]any)
	for _, file := range files {
		if len(file) > 0 {
			if path, ok := file[0].(string); ok {
				paths = append(paths, path)
			}
		}
	}
	return paths
}

// Programs are the files that ExecStart= and the like start.
func (p Properties) Programs(name string) []string {
	commands, _ := p[name].([][]any)
	var programs []string
	for _, command := range commands {
		if len(command) > 0 {
			path, _ := command[0].(string)
			programs = append(programs, path)
		}
	}
	return programs
}

// Variables reads the plain form of an EnvironmentFile= (systemd.exec(5)): a NAME=VALUE in
// each line, with quotes around the value or without. It gives NAME=VALUE without the quotes, in
// the file's order. Escapes, and lines that go on in the next one, are not understood.
func Variables(text string) (list []string) {
	for line := range strings.Lines(text) {
		name, value, ok := strings.Cut(strings.TrimSpace(line), "=")
		if !ok || strings.HasPrefix(name, "#") || strings.HasPrefix(name, ";") {
			continue
		}
		if n := len(value); n >= 2 && (value[0] == '"' || value[0] == '\'') && value[n-1] == value[0] {
			value = value[1 : n-1]
		}
		list = append(list, name+"="+value)
	}
	return list
}
