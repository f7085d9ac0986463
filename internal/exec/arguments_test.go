package exec

import (
	"os"
	osexec "os/exec"
	"strings"
	"testing"
)

// No user of the machine reads a secret among the arguments, and the caller's copy stays.
func TestHideArgument(t *testing.T) {
	const url, secret = "https://user:s3cret@example.org/s3cret.git?t=s3cret", "s3cret"
	if os.Getenv("HIDE") != "" {
		value := os.Args[len(os.Args)-1]
		value = value[strings.Index(value, "https"):]
		kept := strings.Clone(value)
		HideArgument(os.Args, value, []string{secret, "", "absent"})
		shown, err := os.ReadFile("/proc/self/cmdline")
		t.Logf("%q, %v, kept %s", shown, err, kept)
		return
	}
	for _, argument := range []string{url, "--shared=" + url} {
		cmd := osexec.Command(os.Args[0], "-test.run=^TestHideArgument$", "-test.v", "--", "another s3cret", argument)
		cmd.Env = append(os.Environ(), "HIDE=1")
		out, err := cmd.CombinedOutput()
		want := strings.ReplaceAll(argument, secret, "xxxxxx") + `\x00"`
		if err != nil || !strings.Contains(string(out), want) || !strings.Contains(string(out), `another s3cret\x00`) || !strings.Contains(string(out), "kept "+url) {
			t.Errorf("%v: %s; should have %s", err, out, want)
		}
	}
}
