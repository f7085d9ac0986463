package exec

import (
	"strings"
	"unsafe"
)

// HideArgument overwrites secrets in an argument of this process with the letter x. Every
// user of the machine can read a process's arguments (/proc/PID/cmdline, ps). The kernel
// reads them from the memory of the process itself, where Go's os.Args are, too (proc(5)).
// For the moment between the process's start and this call, the secrets can be read.
//
// arguments must be os.Args. The argument is the one that is value, or ends with it, as in
// --flag=VALUE. Strings that share memory with it also change, so a caller that needs the
// value keeps a copy (strings.Clone).
func HideArgument(arguments []string, value string, secrets []string) {
	value = strings.Clone(value)
	for _, argument := range arguments {
		if value == "" || !strings.HasSuffix(argument, value) {
			continue
		}
		memory := unsafe.Slice(unsafe.StringData(argument), len(argument))[len(argument)-len(value):]
		for _, secret := range secrets {
			for from := 0; secret != ""; {
				i := strings.Index(value[from:], secret)
				if i < 0 {
					break
				}
				from += i
				from += copy(memory[from:], strings.Repeat("x", len(secret)))
			}
		}
	}
}
