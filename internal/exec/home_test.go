package exec

import (
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

func TestHomeOf(t *testing.T) {
	const lines = "root:x:0:0:root:/root:/bin/bash\n\n# 7:7\n+::::::\nsame:x:7:7::/first:/bin/sh\nalso:x:7:7::/second:/bin/sh\nno-home:x:8:8:::\nbroken:x:9\n-1:x:10:10::/no/shell:"
	for uid, want := range map[string]string{"0": "/root", "7": "/first", "8": "", "9": "", "10": "/no/shell", "1": "", "": ""} {
		if got := homeOf(lines, uid); got != want {
			t.Errorf("uid %q: %q, want %q", uid, got, want)
		}
	}
}

// Whatever is in the place of a file of ssh is named, and does not hold a run up.
func TestSSHFiles(t *testing.T) {
	dir := t.TempDir()
	if got := sshFilesIn(filepath.Join(dir, "none")); got == nil || len(got) != 0 {
		t.Errorf("no directory: %#v", got)
	}
	if err := os.WriteFile(filepath.Join(dir, "config"), []byte("Host *\n"), 0); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(filepath.Join(dir, "known_hosts"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Mkfifo(filepath.Join(dir, "id_rsa"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "authorized_keys"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	got := sshFilesIn(dir)
	var names []string
	for _, p := range got {
		names = append(names, filepath.Base(p.Name))
	}
	if strings.Join(names, " ") != "config id_rsa known_hosts" || !strings.HasPrefix(got[0].Value, "7 bytes, changed 20") {
		t.Errorf("%v", got)
	}
}
