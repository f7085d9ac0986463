package exec

import (
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
)

func TestHomeIn(t *testing.T) {
	const lines = "root:x:0:0:root:/root:/bin/bash\n\n# 7:7\n+::::::\nsame:x:7:7::/first:/bin/sh\nalso:x:7:7::/second:/bin/sh\nno-home:x:8:8:::\nbroken:x:9\n-1:x:10:10::/no/shell:"
	for uid, want := range map[string]string{"0": "/root", "7": "/first", "8": "", "9": "", "10": "/no/shell", "1": ""} {
		if got, found := homeIn(lines, uid); got != want || found != (want != "" || uid == "8") {
			t.Errorf("uid %q: %q, %t, want %q", uid, got, found, want)
		}
	}
}

// The home is found in a password database of any size, or the error says why not.
func TestHomeOf(t *testing.T) {
	const me = "me:x:7:7::/home/me:/bin/sh"
	others := func(bytes int) string {
		const other = "other:x:70007:7:Somebody else:/home/other:/bin/sh\n"
		return strings.Repeat(other, bytes/len(other)+1)
	}
	text := func(content string) func(string) error {
		return func(path string) error { return os.WriteFile(path, []byte(content), 0o644) }
	}
	rows := map[string]struct {
		put        func(path string) error
		want, says string
	}{
		"none":                          {func(string) error { return nil }, "", ""},
		"empty":                         {text(""), "", ""},
		"short":                         {text("root:x:0:0:root:/root:/bin/bash\n" + me + "\n"), "/home/me", ""},
		"without its last newline":      {text("root:x:0:0:root:/root:/bin/bash\n" + me), "/home/me", ""},
		"larger than 1 MiB":             {text(others(3<<20) + me + "\n" + others(1<<20)), "/home/me", ""},
		"larger, without the user":      {text(others(3 << 20)), "", ""},
		"a long line":                   {text("long:x:8:8:" + strings.Repeat("x", 100_000) + ":/:\n" + me + "\n"), "/home/me", ""},
		"a long line, of the user":      {text("me:x:7:7:" + strings.Repeat("x", 100_000) + ":/home/me:\n"), "/home/me", ""},
		"a line without end":            {text(strings.Repeat("x", 2<<20) + "\n" + me + "\n"), "", "has a line of more than 1 MiB"},
		"zeros":                         {func(path string) error { return errors.Join(text("")(path), os.Truncate(path, 1<<40)) }, "", "has a line of more than 1 MiB"},
		"a file of newlines":            {text(strings.Repeat("\n", 2<<20) + me), "/home/me", ""},
		"too large":                     {text(others(maxPasswd) + me), "", "its first 64 MiB do not have the user"},
		"a FIFO":                        {func(path string) error { return syscall.Mkfifo(path, 0o644) }, "", "is not a regular file"},
		"a directory":                   {func(path string) error { return os.Mkdir(path, 0o755) }, "", "is not a regular file"},
		"a link to an endless file":     {func(path string) error { return os.Symlink("/dev/zero", path) }, "", "is not a regular file"},
		"a link to a password database": {func(path string) error { return errors.Join(text(me)(path+".real"), os.Symlink(path+".real", path)) }, "/home/me", ""},
		"links in a circle":             {func(path string) error { return os.Symlink(path, path) }, "", "too many levels of symbolic links"},
	}
	for n := range 60 { // wherever a part ends
		rows["of parts "+strconv.Itoa(n)] = struct {
			put        func(path string) error
			want, says string
		}{text(strings.Repeat("#", 4<<10-n) + "\n" + me + "\n"), "/home/me", ""}
	}
	for name, row := range rows {
		path := filepath.Join(t.TempDir(), "passwd")
		if err := row.put(path); err != nil {
			t.Fatal(err)
		}
		got, err := homeOf(path, "7")
		if got != row.want || (err == nil) != (row.says == "") || err != nil && !strings.Contains(err.Error(), path+": "+row.says) {
			t.Errorf("%s: %q, %v, want %q, %q", name, got, err, row.want, row.says)
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
