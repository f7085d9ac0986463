package exec

import (
	"bytes"
	"debug/elf"
	"encoding/binary"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// dynamicProgram is an ELF file whose program header names a dynamic linker,
// and nothing else. Programs of the host will not do: in Nix's sandbox /bin/sh
// is static, and there is no other.
func dynamicProgram(t *testing.T, linker string) string {
	t.Helper()
	const headerSize, progSize = 64, 56
	var file bytes.Buffer
	for _, part := range []any{
		elf.Header64{
			Ident: [elf.EI_NIDENT]byte{0x7f, 'E', 'L', 'F', byte(elf.ELFCLASS64), byte(elf.ELFDATA2LSB), byte(elf.EV_CURRENT)},
			Type:  uint16(elf.ET_EXEC), Machine: uint16(elf.EM_X86_64), Version: uint32(elf.EV_CURRENT),
			Phoff: headerSize, Ehsize: headerSize, Phentsize: progSize, Phnum: 1, Shentsize: 64,
		},
		elf.Prog64{Type: uint32(elf.PT_INTERP), Off: headerSize + progSize, Filesz: uint64(len(linker)) + 1},
		append([]byte(linker), 0),
	} {
		if err := binary.Write(&file, binary.LittleEndian, part); err != nil {
			t.Fatal(err)
		}
	}
	return file.String()
}

// A file's interpreter, by its first line or its program header.
func TestInterpreter(t *testing.T) {
	dir := t.TempDir()
	for content, want := range map[string]string{
		"#!/bin/sh\n": "/bin/sh", "#! /usr/bin/perl -w\n": "/usr/bin/perl", "#!\t/x": "/x", "#!": "", "#!\n/bin/sh": "", "": "", "x": "", "\x7fELF": "",
		dynamicProgram(t, "/lib/ld.so"): "/lib/ld.so",
	} {
		path := filepath.Join(dir, "file")
		if err := os.WriteFile(path, []byte(content), 0o755); err != nil {
			t.Fatal(err)
		}
		if got := Interpreter(path); got != want {
			t.Errorf("%q: %q, want %q", content, got, want)
		}
	}
}

// It agrees with debug/elf on this machine's own programs.
func TestInterpreterOfPrograms(t *testing.T) {
	for _, path := range []string{"/proc/self/exe", "/bin/sh", "/usr/bin/env", "/usr/bin/git"} {
		program, err := elf.Open(path)
		if err != nil {
			continue
		}
		want := ""
		for _, p := range program.Progs {
			if p.Type == elf.PT_INTERP {
				data, _ := io.ReadAll(p.Open())
				want = strings.TrimRight(string(data), "\x00")
			}
		}
		program.Close()
		if got := Interpreter(path); got != want {
			t.Errorf("%s: %q, want %q", path, got, want)
		}
	}
}

// Host paths: programs with what executes them, and no directory. What
// [seal] execute names: directories as well, with links resolved.
func TestExecutable(t *testing.T) {
	dir := t.TempDir()
	store, tmp, link := filepath.Join(dir, "store"), filepath.Join(dir, "tmp"), filepath.Join(dir, "link")
	script, data := filepath.Join(dir, "script"), filepath.Join(dir, "data")
	shell, linker := filepath.Join(dir, "shell"), filepath.Join(dir, "linker")
	for _, d := range []string{store, tmp} {
		if err := os.Mkdir(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for _, file := range []struct {
		path, content string
		mode          os.FileMode
	}{
		{script, "#!" + shell + "\n", 0o755},
		{data, "#!" + shell + "\n", 0o644},
		{shell, dynamicProgram(t, linker), 0o755},
		{linker, "", 0o755},
	} {
		if err := os.WriteFile(file.path, []byte(file.content), file.mode); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink(tmp, link); err != nil {
		t.Fatal(err)
	}
	list := Executable([]string{store}, []string{script, data, dir, "/nonexistent"}, []string{link})
	want := []string{linker, script, shell, store, tmp}
	if !slices.Equal(list, want) {
		t.Errorf("%q, want %q", list, want)
	}
}
