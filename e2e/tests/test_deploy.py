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
    for name in ("nix", "nixos-rebuild", "ssh"):
        program = tmp_path / "bin" / name
        program.parent.mkdir(exist_ok=True)
        program.write_text(f"""#!/bin/sh
echo "{name} $*" >>{log}
n=$(grep -c "^{name} " {log})
status=$(sed -n "${{n}}p" {tmp_path}/{name}.status 2>/dev/null)
[ "$1" != eval ] || printf x86_64-linux
exit "${{status:-0}}"
""")
        program.chmod(0o755)

    def run(**statuses):
        for name, numbers in statuses.items():
            path = tmp_path / f"{name.replace('_', '-')}.status"
            path.write_text("".join(f"{n}\n" for n in numbers))
        environ = {**os.environ, "PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}"}
        done = subprocess.run(
            [SCRIPT, "cc-ci"], env=environ, capture_output=True, text=True, check=False
        )
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
    assert done.returncode == 1
    assert "nixos-rebuild switch" not in words


def test_not_healthy(deploy):
    done, words, log = deploy(ssh=[1, 0])
    assert done.returncode == 1
    assert words[-3:] == ["ssh root@cc-ci", "nixos-rebuild switch", "ssh root@cc-ci"]
    assert "switch --rollback --flake .#cc-ci --target-host root@cc-ci" in log
    assert "healthy as before" in done.stderr


def test_switch_fails_and_nothing_answers(deploy):
    done, words, _ = deploy(nixos_rebuild=[4], ssh=[255, 255])
    assert done.returncode == 1
    assert words.count("nixos-rebuild switch") == 2
    assert "still not healthy" in done.stderr


def test_switch_fails_but_the_host_is_well(deploy):
    done, words, _ = deploy(nixos_rebuild=[4])
    assert done.returncode == 4
    assert words.count("nixos-rebuild switch") == 1


def test_usage():
    done = subprocess.run([SCRIPT], capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert "usage" in done.stderr
