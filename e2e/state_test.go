//go:build environment

package e2e

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
)

func statusOf(s *os.ProcessState) int {
	if w := s.Sys().(syscall.WaitStatus); w.Signaled() {
		return 128 + int(w.Signal())
	}
	return s.ExitCode()
}

// perl starts a program with process state that no shell can give.
func perl(code string) []string {
	return []string{"/usr/bin/perl", "-MPOSIX", "-e", code + `; exec { $ARGV[0] } @ARGV or die $!`}
}

func sh(code string) []string { return []string{"/bin/bash", "-c", code + `; exec "$@"`, "sh"} }

// TestSameProcessStateFromAnywhere: what a caller leaves behind in the
// process does not reach the child.
func TestSameProcessStateFromAnywhere(t *testing.T) {
	s := start{env: []string{"HOME=/"}}
	plain := probeRun(t, nil, s)
	if plain.NoNewPrivs != "1" {
		t.Error("a test could gain privileges")
	}
	if plain.SigBlk != strings.Repeat("0", 16) || plain.Umask != "0022" || !slices.Equal(plain.FDs, []int{0, 1, 2}) {
		t.Errorf("blocked %s, umask %s, descriptors %v", plain.SigBlk, plain.Umask, plain.FDs)
	}
	for name, before := range map[string][]string{
		"SIGPIPE ignored":           perl(`$SIG{PIPE} = "IGNORE"`),
		"SIGINT and SIGQUIT":        perl(`$SIG{INT} = $SIG{QUIT} = "IGNORE"`),
		"SIGCHLD ignored":           perl(`$SIG{CHLD} = "IGNORE"`),
		"every signal ignored":      perl(`for (keys %SIG) { $SIG{$_} = "IGNORE" unless /^(HUP|NUM\d+|KILL|STOP|CLD|IOT|POLL|UNUSED|RTM.*)$/ }`),
		"SIGTERM, SIGUSR1 blocked":  perl(`sigprocmask(SIG_BLOCK, POSIX::SigSet->new(SIGTERM, SIGUSR1))`),
		"every signal blocked":      perl(`my $s = POSIX::SigSet->new; $s->fillset; sigprocmask(SIG_BLOCK, $s)`),
		"umask 077":                 sh("umask 077"),
		"umask 0":                   sh("umask 0"),
		"soft limit of files 256":   sh("ulimit -Sn 256"),
		"soft limit of files: hard": sh("ulimit -Sn hard"),
		"core files":                sh("ulimit -c unlimited"),
		"no core files":             sh("ulimit -c 0"),
		"open descriptors":          sh("exec 3</etc/passwd 4>/dev/null 17<&3 200<&3"),
	} {
		t.Run(name, func(t *testing.T) {
			got := probeRun(t, before, s)
			if got.SigIgn != plain.SigIgn || got.SigBlk != plain.SigBlk {
				t.Errorf("signals ignored %s, blocked %s, want %s, %s", got.SigIgn, got.SigBlk, plain.SigIgn, plain.SigBlk)
			}
			if got.Umask != plain.Umask {
				t.Errorf("umask %s, want %s", got.Umask, plain.Umask)
			}
			if got.Limits != plain.Limits {
				t.Errorf("limits:\n%swant\n%s", got.Limits, plain.Limits)
			}
			if !slices.Equal(got.FDs, plain.FDs) {
				t.Errorf("descriptors %v, want %v", got.FDs, plain.FDs)
			}
		})
	}
}

// A hard limit below the declared one stays where the kernel says so; the
// soft limit goes as high as it may.
func TestLowerHardLimit(t *testing.T) {
	got := probeRun(t, sh("ulimit -n 300; ulimit -Sn 200"), start{env: []string{"HOME=/"}})
	if !strings.Contains(got.Limits, "Max open files            300                  300") &&
		!strings.Contains(got.Limits, "Max open files            65536                65536") { // with CAP_SYS_RESOURCE
		t.Errorf("limits:\n%s", got.Limits)
	}
}

// nohup works: an ignored SIGHUP is the one that stays ignored.
func TestIgnoredHangupStays(t *testing.T) {
	got := probeRun(t, perl(`$SIG{HUP} = "IGNORE"`), start{env: []string{"HOME=/"}})
	if !strings.HasSuffix(got.SigIgn, "1") {
		t.Errorf("signals ignored: %s, want SIGHUP among them", got.SigIgn)
	}
}

// TestSameEnvironmentFromAnywhere: neither the place nor the way to start
// changes what the child is given.
func TestSameEnvironmentFromAnywhere(t *testing.T) {
	s := start{env: []string{"HOME=/"}}
	plain := probeRun(t, nil, s)
	gone := filepath.Join(t.TempDir(), "gone")
	for name, before := range map[string][]string{
		"from /":                    sh("cd /"),
		"a deleted directory":       sh("mkdir " + gone + " && cd " + gone + " && rmdir " + gone),
		"closed stdin":              sh("exec <&-"),
		"closed stdout":             sh("exec >&-"),
		"closed stderr":             sh("exec 2>&-"),
		"all three closed":          sh("exec <&- >&- 2>&-"),
		"nice":                      {"/usr/bin/nice", "-n", "5"},
		"setsid":                    {"/usr/bin/setsid", "--wait"},
		"env -i":                    {"/usr/bin/env", "-i", "HOME=/"},
		"another user":              {"/usr/bin/setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"},
		"no_new_privs, no capacity": {"/usr/bin/setpriv", "--no-new-privs", "--bounding-set=-all"},
		"argv[0] is nonsense":       {"/bin/bash", "-c", `exec -a /nonexistent/python "$@"`, "sh"},
	} {
		t.Run(name, func(t *testing.T) {
			if name == "another user" {
				needOthers(t)
			}
			got := probeRun(t, before, s)
			if got.Environ != plain.Environ {
				t.Errorf("environment:\n%q\nwant\n%q", got.vars(t), plain.vars(t))
			}
			if got.SigIgn != plain.SigIgn || got.Umask != plain.Umask || !slices.Equal(got.FDs, plain.FDs) {
				t.Errorf("ignored %s, umask %s, descriptors %v", got.SigIgn, got.Umask, got.FDs)
			}
		})
	}
}

// needOthers skips a test that another user cannot take.
func needOthers(t testing.TB) {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("becoming another user needs root")
	}
	for dir := filepath.Dir(binary(t)); dir != "/"; dir = filepath.Dir(dir) {
		if info, err := os.Stat(dir); err != nil || info.Mode()&0o001 == 0 {
			t.Skipf("%s lets no other user in: clone the project elsewhere", dir)
		}
	}
}

// What another user may not read is said clearly.
func TestUnreadable(t *testing.T) {
	needOthers(t)
	dir := t.TempDir()
	path := filepath.Join(dir, "secret.py")
	write(t, path, "print('read')\n", 0o600)
	for d := dir; d != os.TempDir() && d != "/"; d = filepath.Dir(d) {
		_ = os.Chmod(d, 0o755)
	}
	// The program itself where everybody gets to it.
	program := filepath.Join(dir, "cc-ci-run")
	data, err := os.ReadFile(binary(t))
	if err != nil {
		t.Fatal(err)
	}
	write(t, program, string(data), 0o755)
	run := func() (int, string) {
		return start{
			argv: []string{"/usr/bin/setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", program, "--no-record", path},
			env:  []string{"HOME=/"},
		}.run(t)
	}
	if status, output := run(); status != 126 || !strings.Contains(output, "secret.py: cannot be read: permission denied") {
		t.Errorf("a script: exit status %d: %s", status, output)
	}
	plan := filepath.Join(filepath.Dir(binary(t)), "toolset", "manifest.plan")
	if err := os.Chmod(plan, 0o600); err != nil {
		t.Fatal(err)
	}
	defer os.Chmod(plan, 0o644)
	if status, output := run(); status != 125 || !strings.Contains(output, plan+": permission denied; it must be readable for everybody who runs tests") {
		t.Errorf("the compiled manifest: exit status %d: %s", status, output)
	}
}
