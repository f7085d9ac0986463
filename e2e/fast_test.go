//go:build environment

package e2e

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"testing"
)

// The small program starts every child: none goes by way of the full one.
func TestPlainRunIsDirect(t *testing.T) {
	script := filepath.Join(t.TempDir(), "p.py")
	write(t, script, "pass", 0o644)
	state := t.TempDir()
	trace := filepath.Join(t.TempDir(), "trace")
	programs := func(args ...string) []string {
		t.Helper()
		argv := append([]string{"/usr/bin/strace", "-f", "-qq", "-e", "trace=execve", "-o", trace, binary(t)}, args...)
		if status, output := (start{argv: argv, env: []string{"HOME=/"}}).run(t); status != 0 {
			t.Fatalf("exit status %d: %s", status, output)
		}
		data, err := os.ReadFile(trace)
		if err != nil {
			t.Fatal(err)
		}
		var list []string
		for _, m := range regexp.MustCompile(`execve\("([^"]*)"`).FindAllStringSubmatch(string(data), -1) {
			list = append(list, filepath.Base(m[1]))
		}
		return slices.Compact(list) // the kernel starts a call once more that a signal interrupted
	}
	for _, row := range []struct {
		args  []string
		child string
	}{
		{[]string{"--state", state, script}, "python3"}, // the first run, which keeps the manifest
		{[]string{"--state", state, script}, "python3"},
		{[]string{"--no-record", script}, "python3"},
		{[]string{"--seal", "--no-record", script}, "python3"},
		{[]string{"--pty", "--no-record", script}, "python3"},
		{[]string{"exec", "--no-record", "true"}, "true"},
	} {
		args := row.args
		if got, want := programs(args...), []string{"cc-ci-run", row.child}; !slices.Equal(got, want) {
			t.Errorf("%q: %q, want %q", args, got, want)
		}
	}
}
