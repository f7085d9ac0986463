package toolset

import (
	"os"
	"strings"
	"testing"

	"cc-ci-run/internal/toolset/toolsettest"
)

// small is a toolset without a mistake. Line numbers count from its first line.
const small = toolsettest.Tools + toolsettest.Tables

func TestToolsetOfTheProject(t *testing.T) {
	data, err := os.ReadFile("../../toolset.toml")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := ParseToolset("toolset.toml", data); err != nil {
		t.Error(err)
	}
}

// TestToolsetMistakes makes one mistake at a time and looks for the message
// with its line.
func TestToolsetMistakes(t *testing.T) {
	if _, err := ParseToolset("t.toml", []byte(small)); err != nil {
		t.Fatal(err)
	}
	for _, row := range []struct{ old, new, want string }{
		{`name     = "awk"`, `name     = "awk"` + "\ncolour = 1", `t.toml:10: tool.colour: unknown key`},
		{`[process]`, `[proces]`, `t.toml:42: proces: unknown key`},
		{`name     = "awk"`, `name     = "git"`, `t.toml:9: git: declared twice, first in line 2`},
		{`name     = "awk"`, `name     = "a wk"`, `t.toml:9: "a wk": not a name`},
		{`name     = "awk"`, ``, `t.toml:8: [[tool]] without a name`},
		{`commands = ["awk"]`, ``, `t.toml:8: awk: no commands`},
		{`commands = ["awk"]`, `commands = []`, `t.toml:8: awk: no commands`},
		{`commands = ["awk"]`, `commands = ["awk", "../x"]`, `t.toml:12: awk: "../x" is not a command's name`},
		{`commands = ["awk"]`, `commands = ["awk", "awk"]`, `t.toml:12: awk: command awk appears twice`},
		{`commands = ["awk"]`, `commands = "awk"`, `t.toml:12: `},
		{`files    = { awk = "/usr/bin/gawk" }`, `files    = { gawk = "/usr/bin/gawk" }`, `t.toml:13: awk: files names gawk, which is not one of its commands`},
		{`files    = { awk = "/usr/bin/gawk" }`, `files    = { awk = "gawk" }`, `t.toml:13: awk: files.awk = "gawk" is not an absolute path`},
		{`nix      = "gawk"`, `nix      = "ga wk"`, `t.toml:10: awk: nix = "ga wk" is not an attribute path`},
		{`debian   = "gawk"`, ``, `t.toml:8: awk: no debian package named`},
		{`why      = "tests use it"`, `why = " "`, `t.toml:14: awk: no why`},
		{`packages     = ["pytest"]`, `packages = ["pytest", "pytest"]`, `t.toml:20: python: package pytest appears twice`},
		{`packages     = ["pytest"]`, `packages = []`, `t.toml:20: python: no packages`},
		{`commands     = ["python3"]`, `commands = []`, `t.toml:19: python: commands must have python3`},
		{`requirements = "requirements.txt"`, ``, `t.toml:16: python: no requirements`},
		{`host   = "/usr/bin/chromium"`, `host = "chromium"`, `t.toml:27: browsers: host = "chromium" is not an absolute path`},
		{`"X_*"`, `"X_["`, `t.toml:31: environment.pass: "X_[": bad glob`},
		{`"X_*"`, `""`, `t.toml:31: environment.pass: "" is not a variable's name or a glob`},
		{`"X_*"`, `"LD_PRELOAD"`, `t.toml:31: environment.pass: LD_PRELOAD never passes`},
		{`"X_*"`, `"GIT_CONFIG_*"`, `t.toml:31: environment.pass: GIT_CONFIG_* never passes`},
		{`"X_*"`, `"PATH"`, `t.toml:31: environment.pass: PATH never passes`},
		{`"X_*"`, `"HOME"`, `t.toml:31: environment.pass: HOME appears twice`},
		{`require = ["HOME"]`, `require = ["USER"]`, `t.toml:32: environment.require: USER is not in environment.pass`},
		{`drone = ["DRONE"]`, `jenkins = ["J"]`, `t.toml:34: environment.only: "jenkins" is not an invoker`},
		{`TERM = "dumb"`, `LD_PRELOAD = "x"`, `t.toml:36: environment.default: LD_PRELOAD never passes`},
		{`TERM = "dumb"`, `SHELL = "x"`, `t.toml:36: environment.default: SHELL is fixed by environment.set already`},
		{`SHELL = "{bin}/bash"`, `PATH = "/bin"`, `t.toml:38: environment.set: PATH is set by cc-ci-run itself`},
		{`SHELL = "{bin}/bash"`, `CC_CI_RUN_INVOKER = "x"`, `t.toml:38: environment.set: CC_CI_RUN_INVOKER is set by cc-ci-run itself`},
		{`SHELL = "{bin}/bash"`, `"A B" = "x"`, `t.toml:38: environment.set: "A B" is not a variable's name`},
		{`SHELL = "{bin}/bash"`, `SHELL = "{bash}/bin/bash"`, `t.toml:38: environment.set: SHELL: unknown placeholder {bash}`},
		{`SHELL = "{bin}/bash"`, `SHELL = "a\u0000b"`, `t.toml:38: environment.set: SHELL holds a NUL byte`},
		{`umask  = "0022"`, `umask = "0922"`, `t.toml:43: process: umask = "0922" is not an octal mode`},
		{`umask  = "0022"`, ``, `t.toml:42: process: umask = "" is not an octal mode`},
		{`debian   = "gawk"`, `debian = "gawk -oX"`, `t.toml:11: awk: "-oX" is not a Debian package's name`},
		{`commands = ["awk"]`, `commands = ["awk", "python3"]`, `t.toml:12: awk: command python3 is [python]'s`},
		{`require = ["HOME"]`, `require = ["HOME", "HOME"]`, `t.toml:32: environment.require: HOME appears twice`},
		{`commands     = ["python3"]`, `commands = ["python3", "python3"]`, `t.toml:19: python: command python3 appears twice`},
		{`nofile = 1024`, `nofile = 3`, `t.toml:44: process: nofile = 3`},
		{`nofile = 1024`, `nofile = -1`, `t.toml:44: `},
		{`["/bin/sh"]`, `["bin/sh"]`, `t.toml:49: host: "bin/sh" is not a clean absolute path`},
		{`["/bin/sh"]`, `["/bin/../sh"]`, `t.toml:49: host: "/bin/../sh" is not a clean absolute path`},
		{`["/bin/sh"]`, `["/bin/sh", "/bin/sh"]`, `t.toml:49: host: /bin/sh appears twice`},
		{`["/bin/sh"]`, `["/bin/sh"`, `t.toml:`},
		{`["/bin/sh"]`, `["/bin/sh"]` + "\n[seal]\nexecute = [\"tmp\"]", `t.toml:51: seal: "tmp" is not a clean absolute path`},
		{`["/bin/sh"]`, `["/bin/sh"]` + "\n[seal]\nexecute = [\"/tmp/\"]", `t.toml:51: seal: "/tmp/" is not a clean absolute path`},
		{`["/bin/sh"]`, `["/bin/sh"]` + "\n[seal]\nexecute = [\"/\"]", `t.toml:51: seal: / is everything`},
		{`["/bin/sh"]`, `["/bin/sh"]` + "\n[seal]\nexecute = [\"/tmp\",\n\"/tmp\"]", `t.toml:52: seal: /tmp appears twice`},
		{`["/bin/sh"]`, `["/bin/sh"]` + "\n[seal]\nseal = 1", `t.toml:51: `},
		{`["/bin/sh"]`, `["/bin/sh"]` + "\n[seal]\nfirmly = true", `t.toml:51: seal.firmly: unknown key`},
		{`[host]`, `[process]`, `t.toml:`},
	} {
		t.Run(row.new, func(t *testing.T) {
			if !strings.Contains(small, row.old) {
				t.Fatalf("no %q in the toolset", row.old)
			}
			_, err := ParseToolset("t.toml", []byte(strings.Replace(small, row.old, row.new, 1)))
			if err == nil || !strings.Contains(err.Error(), row.want) {
				t.Errorf("%v\nwant %s", err, row.want)
			}
		})
	}
}

// All mistakes are reported at once, in the order of the file.
func TestToolsetMistakesTogether(t *testing.T) {
	bad := strings.NewReplacer(
		`commands = ["git"]`, `commands = []`+"\nspeed = 1",
		`"X_*"`, `"["`,
		`umask  = "0022"`, `umask = "x"`,
	).Replace(small)
	_, err := ParseToolset("t.toml", []byte(bad))
	if err == nil {
		t.Fatal("no error")
	}
	text, last := err.Error(), -1
	for _, want := range []string{"t.toml:1: git: no commands", "t.toml:6: tool.speed: unknown key", "bad glob", "octal"} {
		at := strings.Index(text, want)
		if at < last {
			t.Errorf("%q is missing or out of order in\n%s", want, text)
		}
		last = at
	}
}

func FuzzParseToolset(f *testing.F) {
	f.Add([]byte(small))
	if data, err := os.ReadFile("../../toolset.toml"); err == nil {
		f.Add(data)
	}
	f.Add([]byte("[[tool]]\nfiles.a.b = 1\n[[tool.x]]\n[tool.files]\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		declared, err := ParseToolset("t.toml", data)
		if err == nil && len(declared.Packages()) == 0 && len(declared.Tools) == 0 {
			t.Error("an empty toolset was accepted")
		}
		if err != nil && !strings.Contains(err.Error(), "t.toml:") {
			t.Errorf("no place in %v", err)
		}
	})
}
