//go:build environment

package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// What scripts/deploy does in which order, with programs in the place of Nix and
// ssh: nixos-rebuild runs only on NixOS, so these are the script's own decisions.
func TestDeploy(t *testing.T) {
	const (
		build    = "nix build"
		rebuild  = "nixos-rebuild switch"
		before   = "ssh root@cc-ci cc-ci-run host --output json"
		after    = "ssh root@cc-ci cc-ci-run host --quiet --wait 5m --before /dev/stdin < {report}"
		afterAll = "ssh root@cc-ci cc-ci-run host --quiet --wait 5m --before /dev/stdin < {}" // the host gave no report, so every fault counts
		plainAll = "ssh root@cc-ci cc-ci-run host --quiet < {}"
		plain    = "ssh root@cc-ci cc-ci-run host --quiet < {report}"
		rollback = "nixos-rebuild switch --rollback --flake .#cc-ci --target-host root@cc-ci"
	)
	for _, row := range []struct {
		name     string
		statuses map[string][]int // of a program's first, second … call; 0 after them
		status   int
		calls    []string // what each begins with, after "nix eval"
		says     string
	}{
		{"healthy", nil, 0, []string{build + " --no-link .#nixosConfigurations.\"cc-ci\".config.system.build.toplevel .#checks.x86_64-linux.proofs", before, rebuild, after}, "cc-ci is healthy"},
		{"a proof fails", map[string][]int{"nix": {0, 1}}, 2, []string{build}, ""},
		{"wrong before, and no worse", map[string][]int{"ssh": {1, 0}}, 0, []string{build, before, rebuild, after}, "cc-ci is not healthy now: only what gets worse will count"},
		{"unknown before, and no worse", map[string][]int{"ssh": {125, 0}}, 0, []string{build, before, rebuild, after}, "no worse than before"},
		{"got worse", map[string][]int{"ssh": {0, 1, 0}}, 1, []string{build, before, rebuild, after, rollback, after}, "cc-ci is as before"},
		{"wrong before, and got worse", map[string][]int{"ssh": {1, 1, 0}}, 1, []string{build, before, rebuild, after, rollback, after}, "cc-ci is as before"},
		{"cc-ci-run host cannot tell", map[string][]int{"ssh": {0, 125, 0}}, 1, []string{build, before, rebuild, after, rollback, after}, "cc-ci is as before"},
		{"no cc-ci-run there", map[string][]int{"ssh": {127, 127, 127, 0}}, 1, []string{build, before, rebuild, afterAll, rollback, afterAll, plainAll}, "cc-ci is as before"},
		// What runs is not taken back to what ran before it.
		{"nothing was deployed", map[string][]int{"nixos-rebuild": {1}}, 2, []string{build, before, rebuild}, "nothing was deployed"},
		{"a dropped connection is tried again, and nothing is rolled back", map[string][]int{"ssh": {255, 0, 255, 255, 0}}, 0, []string{build, before, before, rebuild, after, after, after}, "cc-ci is healthy"},
		{"nobody answers", map[string][]int{"ssh": {0, 255, 255, 255, 255, 255, 255}}, 3, []string{build, before, rebuild, after, after, after, after, after, after}, "left as it is"},
		{"the rollback ends with an error", map[string][]int{"ssh": {0, 1, 1, 1}, "nixos-rebuild": {0, 4}}, 1, []string{build, before, rebuild, after, rollback, after, plain}, "not as before"},
		{"a unit fails but the host is well", map[string][]int{"nixos-rebuild": {4}}, 0, []string{build, before, rebuild, after}, "cc-ci is healthy"},
	} {
		t.Run(row.name, func(t *testing.T) {
			status, output, calls := deploy(t, row.statuses, "cc-ci")
			if status != row.status || !strings.Contains(output, row.says) {
				t.Errorf("exit status %d, want %d and %q: %s", status, row.status, row.says, output)
			}
			want := append([]string{"nix eval"}, row.calls...)
			if !slices.EqualFunc(calls, want, strings.HasPrefix) || slices.Contains(calls, rollback) != slices.Contains(want, rollback) {
				t.Errorf("called\n%s\nwant\n%s", strings.Join(calls, "\n"), strings.Join(want, "\n"))
			}
		})
	}
	if status, output, calls := deploy(t, nil); status == 0 || !strings.Contains(output, "usage") || len(calls) > 0 {
		t.Errorf("without HOST: exit status %d, %s", status, output)
	}
}

// deploy runs scripts/deploy and gives its exit status, its output and what it
// called. The host's profile is a file here: a switch that gets so far makes it
// new, a rollback old.
func deploy(t *testing.T, statuses map[string][]int, args ...string) (status int, output string, calls []string) {
	t.Helper()
	dir := t.TempDir()
	write(t, dir+"/profile", "old\n", 0o644)
	write(t, dir+"/log", "", 0o644)
	for _, name := range []string{"nix", "nixos-rebuild", "ssh"} {
		write(t, filepath.Join(dir, "bin", name), `#!/bin/sh
cd `+dir+`
name=${0##*/}
case $* in *readlink*) exec cat profile ;; esac
reads=
[ $name != ssh ] || reads=$(cat)
echo "$name $*${reads:+ < $reads}" >>log
status=$(sed -n "$(grep -c "^$name " log)p" $name.status)
[ "$1" != eval ] || printf x86_64-linux
case $*,$status in
*--output\ json,127 | *,255) ;;
*--output\ json,1*) echo '{report}' ;;
*--output\ json,*) echo '{report}"healthy": true' ;;
esac
case $* in
*--rollback*) echo old >profile ;;
switch*) [ "$status" = 1 ] || echo new >profile ;;
esac
exit ${status:-0}
`, 0o755)
		lines := strings.Trim(fmt.Sprint(statuses[name]), "[]")
		write(t, filepath.Join(dir, name+".status"), strings.ReplaceAll(lines, " ", "\n")+"\n", 0o644)
	}
	status, output = start{
		argv: append([]string{"../scripts/deploy"}, args...),
		env:  []string{"PATH=" + dir + "/bin:/usr/bin:/bin", "CC_CI_RUN_PAUSE=0"},
	}.run(t)
	log, err := os.ReadFile(dir + "/log")
	if err != nil {
		t.Fatal(err)
	}
	return status, output, slices.DeleteFunc(strings.Split(string(log), "\n"), func(line string) bool { return line == "" })
}
