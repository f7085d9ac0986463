"""scripts/deploy: what it does in which order, with programs in the place of Nix and ssh.

nixos-rebuild can't run on a machine without NixOS, so this tries the script's own decisions only.
"""

import os
import subprocess
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parents[2] / "scripts" / "deploy"


@pytest.fixture
def deploy(tmp_path):
    """Runs it with the given exit statuses: {command's first words: [status, ...]}."""
    log = tmp_path / "log"
    log.touch()
    profile = tmp_path / "profile"
    profile.write_text("old")
    for name in ("nix", "nixos-rebuild", "ssh"):
        program = tmp_path / "bin" / name
        program.parent.mkdir(exist_ok=True)
        # The host's profile is a file here: a switch that gets so far makes it new, a rollback old.
        program.write_text(f"""#!/bin/sh
case "{name} $*" in *readlink*) cat {profile}; exit "$(cat {tmp_path}/reach 2>/dev/null || echo 0)";; esac
echo "{name} $*" >>{log}
n=$(grep -c "^{name} " {log})
status=$(sed -n "${{n}}p" {tmp_path}/{name}.status 2>/dev/null)
[ "$1" != eval ] || printf x86_64-linux
case "$*" in
*--rollback*) echo old >{profile} ;;
switch*) [ "$status" = 1 ] || echo new >{profile} ;;
esac
exit "${{status:-0}}"
""")
        program.chmod(0o755)

    def run(**statuses):
        for name, numbers in statuses.items():
            path = tmp_path / f"{name.replace('_', '-')}.status"
            path.write_text("".join(f"{n}\n" for n in numbers))
        path = f"{tmp_path / 'bin'}:{os.environ['PATH']}"
        environ = {**os.environ, "PATH": path, "CC_CI_RUN_PAUSE": "0"}
        done = subprocess.run([SCRIPT, "cc-ci"], env=environ, capture_output=True, text=True, check=False)
        words = [line.split()[:2] for line in log.read_text().splitlines()]
        return done, [" ".join(w) for w in words], log.read_text()

    return run


def test_healthy(deploy):
    done, words, log = deploy()
    assert done.returncode == 0
    assert words == ["nix eval", "nix build", "nixos-rebuild switch", "ssh root@cc-ci"]
    assert ".#checks.x86_64-linux.proofs" in log
    assert "cc-ci-run host --quiet --wait 5m" in log
    assert "--rollback" not in log


def test_a_proof_fails(deploy):
    done, words, _ = deploy(nix=[0, 1])
    assert done.returncode == 2
    assert "nixos-rebuild switch" not in words


@pytest.mark.parametrize("status", [1, 125, 127])
def test_not_healthy(deploy, status):
    done, words, log = deploy(ssh=[status, 0])
    assert done.returncode == 1
    assert words[-3:] == ["ssh root@cc-ci", "nixos-rebuild switch", "ssh root@cc-ci"]
    assert "switch --rollback --flake .#cc-ci --target-host root@cc-ci" in log
    assert "healthy as before" in done.stderr


def test_nothing_was_deployed(deploy):
    """What runs is not taken back to what ran before it."""
    done, words, log = deploy(nixos_rebuild=[1])
    assert done.returncode == 2
    assert words[-1] == "nixos-rebuild switch"
    assert "--rollback" not in log


def test_a_dropped_connection_is_no_reason(deploy):
    done, _, log = deploy(ssh=[255, 255, 0])
    assert done.returncode == 0
    assert "--rollback" not in log


def test_nobody_answers(deploy):
    done, _, log = deploy(ssh=[255] * 6)
    assert done.returncode == 3
    assert "--rollback" not in log


def test_the_rollback_ends_with_an_error(deploy):
    done, words, _ = deploy(ssh=[1, 1], nixos_rebuild=[0, 4])
    assert done.returncode == 1
    assert words[-1] == "ssh root@cc-ci"
    assert "still not healthy" in done.stderr


def test_a_unit_fails_but_the_host_is_well(deploy):
    done, words, _ = deploy(nixos_rebuild=[4])
    assert done.returncode == 0
    assert words.count("nixos-rebuild switch") == 1


def test_usage():
    done = subprocess.run([SCRIPT], capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert "usage" in done.stderr
