package env

import (
	"os"
	"path/filepath"
	"slices"
	"testing"
)

// A file's interpreter, by its first line or its program header.
func TestInterpreter(t *testing.T) {
	dir := t.TempDir()
	for content, want := range map[string]string{
		"#!/bin/sh\n": "/bin/sh", "#! /usr/bin/perl -w\n": "/usr/bin/perl", "#!\t/x": "/x", "#!": "", "#!\n/bin/sh": "", "": "", "x": "", "\x7fELF": "",
	} {
		path := filepath.Join(dir, "file")
		if err := os.WriteFile(path, []byte(content), 0o755); err != nil {
			t.Fatal(err)
		}
		if got := interpreter(path); got != want {
			t.Errorf("%q: %q, want %q", content, got, want)
		}
	}
	if got := interpreter("/bin/sh"); !filepath.IsAbs(got) {
		t.Errorf("/bin/sh: %q, want the dynamic linker", got)
	}
}

// Host paths: programs with what executes them, and no directory. What
// [seal] execute names: directories as well, with links resolved.
func TestExecutable(t *testing.T) {
	dir := t.TempDir()
	store, tmp, link := filepath.Join(dir, "store"), filepath.Join(dir, "tmp"), filepath.Join(dir, "link")
	script, data := filepath.Join(dir, "script"), filepath.Join(dir, "data")
	for _, d := range []string{store, tmp} {
		if err := os.Mkdir(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for path, mode := range map[string]os.FileMode{script: 0o755, data: 0o644} {
		if err := os.WriteFile(path, []byte("#!/bin/sh\n"), mode); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink(tmp, link); err != nil {
		t.Fatal(err)
	}
	m := &Manifest{Closure: []string{store}, Host: Host{Paths: []string{script, data, dir, "/nonexistent"}}, Seal: Seal{Execute: []string{link}}}
	m.index()
	list := m.Executable()
	sh, err := filepath.EvalSymlinks("/bin/sh")
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{store, tmp, script, sh} {
		if !slices.Contains(list, want) {
			t.Errorf("%s is missing in %q", want, list)
		}
	}
	if len(list) != 5 || !slices.IsSorted(list) { // and sh's dynamic linker
		t.Errorf("%q", list)
	}
	for path, want := range map[string]bool{
		filepath.Join(store, "bin/x"): true, filepath.Join(tmp, "a"): true, tmp: true, script: true, sh: true,
		data: false, dir: false, filepath.Join(dir, "storey"): false, "/": false, "/nonexistent": false,
	} {
		if m.MayExecute(path) != want {
			t.Errorf("%s: %t, want %t", path, !want, want)
		}
	}
}

// Debian's fields of dependencies.
func TestPackageNames(t *testing.T) {
	got := packageNames("libc6 (>= 2.36), perl:any, default-mta | mail-transport-agent, , x")
	if want := []string{"libc6", "perl", "default-mta", "mail-transport-agent", "x"}; !slices.Equal(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
}
