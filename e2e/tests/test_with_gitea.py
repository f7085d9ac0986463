"""with-gitea where it fails or is interrupted; a stand-in for Gitea is enough for that.

With the real one, `make witness` uses it.
"""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

WITH_GITEA = Path(__file__).resolve().parent.parent / "with-gitea"

# Does as Gitea does as far as with-gitea sees it, and leaves its process id in `note`.
STAND_IN = """#!/usr/bin/env python3
import configparser, http.server, os, pathlib, sys
directory = pathlib.Path(os.environ["GITEA_WORK_DIR"])
if sys.argv[1] == "admin":
    print("generated random password is 'it's a \\\\ secret'")
    sys.exit({admin_status})
config = configparser.ConfigParser()
config.read_string("[root]" + (directory / "app.ini").read_text())

class Healthy(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()

server = config["server"]
pathlib.Path({note!r}).write_text(str(os.getpid()))
address = (server["HTTP_ADDR"], server.getint("HTTP_PORT"))
http.server.HTTPServer(address, Healthy).serve_forever()
"""


class Place:
    """A TMPDIR, and the program that is given as Gitea."""

    def __init__(self, root):
        self.tmp = root / "tmp"
        self.tmp.mkdir()
        self.program = root / "gitea"
        self.note = root / "note"

    def write_program(self, text):
        self.program.write_text(text)
        self.program.chmod(0o755)

    def stand_in(self, admin_status=0):
        self.note.touch()
        self.note.chmod(0o666)  # nobody writes it when this is root
        self.write_program(STAND_IN.format(note=str(self.note), admin_status=admin_status))

    def start(self, *command, new_session=False):
        return subprocess.Popen(
            [sys.executable, WITH_GITEA, "--gitea", self.program, "--", *command],
            # Debian's Python: one in root's home couldn't be run by nobody.
            env={"PATH": "/usr/bin:/bin", "TMPDIR": str(self.tmp)},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=new_session,
        )

    def run(self, *command):
        """(status, stdout, stderr)"""
        process = self.start(*command)
        stdout, stderr = process.communicate(timeout=60)
        return process.returncode, stdout, stderr

    def assert_nothing_left(self):
        assert list(self.tmp.iterdir()) == []
        if self.note.exists() and (pid := self.note.read_text()):
            with pytest.raises(ProcessLookupError):
                os.kill(int(pid), 0)


@pytest.fixture
def place():
    # Not tmp_path: no one but its owner may enter that, and root's Gitea is nobody's.
    root = Path(tempfile.mkdtemp(prefix="test-with-gitea-"))
    root.chmod(0o755)
    made = Place(root)
    yield made
    made.assert_nothing_left()
    shutil.rmtree(root)


def test_command_finds_the_instance_and_its_status_is_passed_on(place):
    place.stand_in()
    script = 'echo "$GITEA_USER $GITEA_PASSWORD $GITEA_URL"; exit 3'
    status, stdout, stderr = place.run("sh", "-c", script)
    assert stdout.startswith("witness it's a \\ secret http://127.0.0.1:")
    assert status == 3
    assert "secret" not in stderr


def test_command_that_dies_by_a_signal(place):
    place.stand_in()
    status, _, _ = place.run("sh", "-c", "kill -KILL $$")
    assert status == 128 + signal.SIGKILL


@pytest.mark.parametrize(("command", "status"), [("/nonexistent", 127), ("/etc", 126)])
def test_command_that_cant_be_started(place, command, status):
    place.stand_in()
    got, _, stderr = place.run(command)
    assert f"with-gitea: can't run {command}: " in stderr
    assert got == status


def test_no_program(place):
    status, _, stderr = place.run("true")
    assert stderr == f"with-gitea: there is no {place.program}: e2e/build-gitea makes it\n"
    assert status == 125


def test_no_command(place):
    status, _, stderr = place.run()
    assert "no COMMAND after --" in stderr
    assert status == 2


def test_program_that_cant_be_run(place):
    place.program.touch()
    status, _, stderr = place.run("true")
    assert "Permission denied" in stderr
    assert status == 125


def test_program_that_dies_at_once_shows_the_end_of_its_log(place):
    place.write_program("#!/bin/sh\nseq 100\necho no database >&2\nexit 4\n")
    status, _, stderr = place.run("true")
    assert "with-gitea: Gitea ended with status 4; the end of its log:\n82\n83\n" in stderr
    assert "\n100\nno database\n" in stderr
    assert status == 125


def test_no_user_could_be_created(place):
    place.stand_in(admin_status=1)
    status, _, stderr = place.run("true")
    assert "with-gitea: no user could be created: status 1\n" in stderr
    assert "secret" not in stderr
    assert status == 125


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_command_and_gitea(place, signum):
    place.stand_in()
    process = place.start("sh", "-c", "echo $$; exec sleep 60")
    command = int(process.stdout.readline())
    process.send_signal(signum)
    process.communicate(timeout=30)
    assert process.returncode == -signum
    with pytest.raises(ProcessLookupError):
        os.kill(command, 0)


def test_ctrl_c_reaches_command_once(place):
    place.stand_in()
    script = "trap 'echo INT' INT; trap 'echo TERM' TERM; echo ready; sleep 1; sleep 0.1"
    process = place.start("sh", "-c", script, new_session=True)
    assert process.stdout.readline() == "ready\n"
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does
    stdout, _ = process.communicate(timeout=30)
    assert stdout == "INT\n"
    assert process.returncode == -signal.SIGINT


def test_a_signal_before_gitea_is_up(place):
    place.write_program("#!/bin/sh\nexec sleep 60\n")
    process = place.start("true")
    assert process.stderr.readline().startswith("with-gitea: starting Gitea")
    time.sleep(0.3)
    process.terminate()
    _, stderr = process.communicate(timeout=30)
    assert "with-gitea: interrupted\n" in stderr
    assert process.returncode == -signal.SIGTERM
