//go:build environment

package e2e

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// TestNixFaults puts faults back into a copy of this tree, one at a time: the
// proofs must then fail, and say why. The first rows were found only by a real
// nixpkgs, since the stand-in for it was less strict; the others are of their
// kind.
func TestNixFaults(t *testing.T) {
	if os.Getenv("STAND_IN") == "" {
		t.Skip("needs the stand-in for nixpkgs: make faults")
	}
	tree := copyOfTree(t)
	prove := func(last string) string {
		cmd := exec.Command("scripts/prove", last)
		cmd.Dir = tree
		out, err := cmd.CombinedOutput()
		if err == nil {
			return ""
		}
		return string(out)
	}
	if out := prove("flake"); out != "" {
		t.Fatalf("without a fault: %s", out)
	}
	for _, row := range []struct {
		name, file string
		old, new   string // old is a regular expression; "" is the end of the file
		last       string // the step that must fail
		want       string
	}{
		{"abra is not brought along", "nix/extra.nix", `abra = ./abra.nix;`, "", "flake", `abra: nix = "abra": nixpkgs has no such attribute`},
		{
			"a test wants the host's shell", "internal/exec/executable_test.go", "",
			"\nfunc TestHost(t *testing.T) {\n\tif got := Interpreter(\"/bin/sh\"); got == \"\" {\n\t\tt.Error(\"no dynamic linker\")\n\t}\n}\n",
			"proofs", "no dynamic linker",
		},
		{"a test wants a program of the host", "internal/exec/executable_test.go", "", "\nfunc TestHost(t *testing.T) {\n\tif _, err := os.Stat(\"/usr/bin/env\"); err != nil {\n\t\tt.Error(err)\n\t}\n}\n", "proofs", "/usr/bin/env: no such file"},
		{"the proofs are impure", "nix/tests/default.nix", `inherit \(pkgs.stdenv.hostPlatform\) system;`, "system = builtins.currentSystem;", "flake", "currentSystem"},
		{"the proofs look for nixpkgs by themselves", "nix/tests/default.nix", `inherit \(pkgs\) lib;`, "inherit (import <nixpkgs> { }) lib;", "flake", "nixpkgs"},
		{"the proofs read a file that is only evaluated", "nix/tests/default.nix", `declared = readFile ([^;]*);`, `declared = readFile (builtins.toFile "x" (readFile $1));`, "flake", "is not valid"},
		{"the proofs read packages of the dev shell", "nix/tests/default.nix", `shell.nativeBuildInputs`, "shell.packages", "flake", "attribute 'packages' missing"},
		{"a package as a variable", "nix/toml.nix", `isText = .*`, "isText = _: false;", "flake", "overflow|infinite recursion"},
		{"a variable that is null", "nix/toml.nix", `keys = .*`, "keys = attrNames;", "flake", "null|rendered:"},
		{"a variable that Python's wrapper sets", "toolset.toml", `PYTHONNOUSERSITE( *)= "true"`, `PYTHONNOUSERSITE$1= "1"`, "flake", "Python's wrapper sets true"},
		{"an app without a description", "flake.nix", `meta.description = .*;`, "", "flake", "lacks attribute 'meta'"},
		{"a host that warns", "nix/hosts/common.nix", `imports = \[ ../modules \];`, "imports = [ ../modules ];\n  warnings = [ \"mind this\" ];", "flake", "mind this"},
		{"a host with an assertion that fails", "nix/hosts/common.nix", `(virtualisation.docker = [{]\s*)enable = true;`, "${1}enable = false;", "flake", "virtualisation.docker.enable"},
		{"a host without leave for an unfree license", "nix/hosts/common.nix", `nixpkgs.config.allowUnfreePredicate = .*`, "", "flake", "drone-runner-exec has an unfree license"},
		{"an option that NixOS lacks", "nix/hosts/common.nix", `liveRestore = false;`, "};\n  services.nonesuch = {", "flake", "services.nonesuch"},
		{"a program without a name", "nix/package.nix", `mainProgram = .*`, "", "flake", "no meta.mainProgram"},
		{"a Go that nixpkgs lacks", "go.mod", `\ngo [0-9.]+`, "\ngo 1.99", "flake", "needs Go 1.99, but this nixpkgs has 1"},
		{"an impure disk", "nix/hosts/cc-ci-hetzner/configuration.nix", `device = "/dev/sda";`, `device = builtins.readFile /etc/hostname;`, "flake", "access to absolute path|forbidden"},
		{"a swap device that throws", "nix/hosts/cc-ci/configuration.nix", `swapDevices = .*`, `swapDevices = throw "no swap";`, "flake", "no swap"},
		{"a mistyped option below one that exists", "nix/hosts/common.nix", `liveRestore`, "liveRestor", "flake", "virtualisation.docker.liveRestor"},
		{"a user without a kind", "nix/modules/harness.nix", `isSystemUser = true;`, "", "flake", "isSystemUser"},
		{"a port as text", "nix/hosts/common.nix", `\b443\b`, `"443"`, "flake", "firewall.allowedTCPPorts"},
		{"a unit's key that is null", "nix/modules/drone-runner.nix", `RestartSec = 15;`, "RestartSec = null;", "flake", "RestartSec"},
		{"a unit's own variable comes second", "nix/modules/host.nix", `config.systemd.globalEnvironment // (config.systemd.services.[$][{]unit[}].environment);`, `$1 // config.systemd.globalEnvironment;`, "flake", "host.toml: nightly-sweep.service has the environment"},
		{"a default that Python's wrapper sets", "toolset.toml", `\[environment.default\]`, "[environment.default]\nNIX_PYTHONPREFIX = \"x\"", "flake", "NIX_PYTHONPREFIX"},
		{"a package that is broken", "nix/abra.nix", `mainProgram = "abra";`, `mainProgram = "abra"; broken = true;`, "flake", "abra is marked as broken"},
		{"a package of another platform", "nix/package.nix", `platforms = .*`, `platforms = [ "riscv64-linux" ];`, "flake", "cc-ci-run is not available on"},
		{"a host that a pipeline misspells", ".drone.yml", `nixosConfigurations.cc-ci.config`, "nixosConfigurations.cc-cj.config", "flake", "what .drone.yml builds is there"},
		{"a check that deploy misspells", "scripts/deploy", `[$]system.proofs`, "$$system.proof", "flake", "what scripts/deploy builds is there"},
		{"a check that is gone", "flake.nix", `vm = .*`, "", "flake", "checks are the package, the proofs and the NixOS test"},
		{"an app of another type", "flake.nix", `type = "app";`, `type = "application";`, "flake", "app"},
		{"a NixOS test that is not Python", "nix/tests/vm.nix", `def by_hand\(\) -> str:`, "def by_hand() -> str", "flake", "the script of nix/tests/vm.nix is wrong"},
		{"a NixOS test with an unknown name", "nix/tests/vm.nix", `found\(by_hand\(\)\)`, "found(by_nobody())", "flake", "by_nobody"},
		{"a build that uses what stdenv lacks", "nix/package.nix", `postInstall = ''`, "postInstall = ''\n    type wget", "proofs", "wget"},
		{"a name that nixpkgs lacks", "toolset.toml", `nix( *)= "jq"`, `nix$1= "jquery"`, "flake", `jq: nix = "jquery": nixpkgs has no such attribute`},
		{"an output that has no commands", "toolset.toml", `nix( *)= "xz"`, `nix$1= "xz.dev"`, "flake", `xz`},
		{"a Python package that nixpkgs lacks", "toolset.toml", `packages( *)= \["pytest"`, `packages$1= ["pytest-nonesuch", "pytest"`, "flake", "nixpkgs' Python has no package pytest-nonesuch"},
		{"a toolset that Nix judges", "nix/toolset.nix", `texts \(tool.commands or null\)`, "tool.commands", "flake", "attribute 'commands' missing"},
		{"a toolset that cc-ci-run refuses", "toolset.toml", `nofile( *)= \d+`, "nofile$1= 3", "proofs", `toolset.toml:\d+: process: nofile = 3: Python alone needs more`},
		{"a sweep that cannot make cgroups", "nix/modules/harness.nix", `KillMode = `, "ProtectControlGroups = true;\n    KillMode = ", "flake", "nightly-sweep.service cannot make a cgroup for each run"},
		{"a sweep whose cgroup is not its own", "nix/modules/nightly-sweep.nix", `Delegate = true;`, "", "flake", "nightly-sweep.service cannot make a cgroup for each run"},
		{"a recipe by hand without the night's variables", "nix/modules/nightly-sweep.nix", `environment(\n *enableDefaultPath)`, "$1", "flake", `nightly-sweep@.service lacks Environment="HOME=`},
		{"a recipe by hand with flags of its own", "nix/modules/nightly-sweep.nix", ` --force -- %i`, " --force --seal -- %i", "flake", "nightly-sweep@.service has ExecStart="},
		{"a recipe by hand without what a site adds", "nix/modules/nightly-sweep.nix", `= night.serviceConfig // `, "= removeAttrs night.serviceConfig [ \"MemoryMax\" ] // ", "flake", "nightly-sweep@.service lacks MemoryMax=4G"},
		{"options that the page does not have", "nix/modules/host.nix", `default = "hourly";`, `default = "daily";`, "flake", "run `make options`"},
	} {
		t.Run(row.name, func(t *testing.T) {
			path := filepath.Join(tree, row.file)
			good, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			defer func() {
				if err := os.WriteFile(path, good, 0o644); err != nil {
					t.Error(err)
				}
			}()
			bad := append(bytes.Clone(good), row.new...)
			if row.old != "" {
				bad = regexp.MustCompile(row.old).ReplaceAll(good, []byte(row.new))
			}
			if bytes.Equal(good, bad) {
				t.Fatalf("%s has no %s", row.file, row.old)
			}
			if err := os.WriteFile(path, bad, 0o644); err != nil {
				t.Fatal(err)
			}
			out := prove(row.last)
			if out == "" {
				t.Error("went unnoticed")
			} else if !regexp.MustCompile(row.want).MatchString(out) {
				t.Errorf("%s is not in %s", row.want, out)
			}
		})
	}
}

// copyOfTree is a git work tree with the files of this one, as they are.
func copyOfTree(t *testing.T) string {
	t.Helper()
	tree := t.TempDir()
	run := func(dir, name string, args ...string) string {
		cmd := exec.Command(name, args...)
		cmd.Dir = dir
		out, err := cmd.Output()
		if err != nil {
			t.Fatalf("%s %s: %v", name, strings.Join(args, " "), err)
		}
		return string(out)
	}
	for _, file := range strings.Split(strings.TrimSuffix(run("..", "git", "ls-files", "-z"), "\x00"), "\x00") {
		data, err := os.ReadFile(filepath.Join("..", file))
		if err != nil {
			continue // removed, and not committed yet
		}
		info, err := os.Stat(filepath.Join("..", file))
		if err != nil {
			t.Fatal(err)
		}
		if err := os.MkdirAll(filepath.Join(tree, filepath.Dir(file)), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(tree, file), data, info.Mode()); err != nil {
			t.Fatal(err)
		}
	}
	run(tree, "git", "init", "-q")
	run(tree, "git", "add", ".")
	return tree
}
