package exec

import (
	"bytes"
	"encoding/binary"
	"io"
	"os"
	"slices"
	"strings"
)

// Executable lists the files and directories that a sealed run may execute, or
// execute what is below, absolute and without links in them, sorted:
//
//   - closure: what the toolset's commands are, and what those start by paths
//     of their own;
//   - of the host's paths the executable files, and the interpreters that those
//     name; not its directories, such as /tmp;
//   - execute: files and directories that are allowed besides.
//
// What the last two lead to is looked up now: it is this host's, and may have
// changed since the closure was made.
func Executable(closure, hostPaths, execute []string) []string {
	list := slices.Clone(closure)
	for _, p := range hostPaths {
		if real := Resolve(p); IsExecutable(real) {
			list = append(list, WithInterpreters(real)...)
		}
	}
	for _, p := range execute {
		if real := Resolve(p); real != "" {
			list = append(list, real)
		}
	}
	slices.Sort(list)
	return slices.Compact(list)
}

// IsExecutable says whether a path is a regular file that somebody may execute.
func IsExecutable(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.Mode().IsRegular() && info.Mode()&0o111 != 0
}

// maxInterpreters is how deep a script's interpreter may be a script: the
// kernel gives up after four (BINPRM_MAX_RECURSION), and a program that is its
// own interpreter must end.
const maxInterpreters = 6

// WithInterpreters lists a file and those that the kernel executes with it: the
// interpreter that it names, that one's, and so on, without links in them.
func WithInterpreters(file string) []string {
	var list []string
	for file != "" && len(list) < maxInterpreters && !slices.Contains(list, file) {
		list = append(list, file)
		file = Resolve(Interpreter(file))
	}
	return list
}

// Interpreter is the absolute path that a file names: of its first line (#!),
// or of the dynamic linker (PT_INTERP of its ELF header). Another file has
// none, "". (debug/elf would do, but it links decompressors and DWARF, whose
// start-up each run would pay for.)
func Interpreter(file string) string {
	f, err := os.Open(file)
	if err != nil {
		return ""
	}
	defer f.Close()
	head := make([]byte, 256) // as much of a first line as the kernel reads
	n, _ := io.ReadFull(f, head)
	head = head[:n]
	if line, ok := bytes.CutPrefix(head, []byte("#!")); ok {
		line, _, _ = bytes.Cut(line, []byte("\n"))
		if fields := strings.Fields(string(line)); len(fields) > 0 {
			return fields[0]
		}
		return ""
	}
	return linker(f, head)
}

// linker reads PT_INTERP, as elf(5) describes it.
func linker(f io.ReaderAt, head []byte) string {
	const (
		class64   = 2 // EI_CLASS
		bigEndian = 2 // EI_DATA
		ptInterp  = 3
	)
	if len(head) < 64 || string(head[:4]) != "\x7fELF" {
		return ""
	}
	var order binary.ByteOrder = binary.LittleEndian
	if head[5] == bigEndian {
		order = binary.BigEndian
	}
	wide := head[4] == class64
	// Fields of the file's header, and of a program header in it.
	var table, size, count, offset, length int64
	if wide {
		table, size, count = int64(order.Uint64(head[32:])), int64(order.Uint16(head[54:])), int64(order.Uint16(head[56:]))
	} else {
		table, size, count = int64(order.Uint32(head[28:])), int64(order.Uint16(head[42:])), int64(order.Uint16(head[44:]))
	}
	if size < 32 || size > 256 || wide && size < 56 || table < 0 {
		return ""
	}
	header := make([]byte, size)
	for i := range count {
		if _, err := f.ReadAt(header, table+i*size); err != nil {
			return ""
		}
		if order.Uint32(header) != ptInterp {
			continue
		}
		if wide {
			offset, length = int64(order.Uint64(header[8:])), int64(order.Uint64(header[32:]))
		} else {
			offset, length = int64(order.Uint32(header[4:])), int64(order.Uint32(header[16:]))
		}
		if offset < 0 || length < 0 || length > 4096 {
			return ""
		}
		path := make([]byte, length)
		if _, err := f.ReadAt(path, offset); err != nil {
			return ""
		}
		return strings.TrimRight(string(path), "\x00")
	}
	return ""
}
