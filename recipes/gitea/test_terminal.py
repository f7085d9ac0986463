"""`script` of util-linux gives a command a terminal, as tests of abra's dialogues need it."""

import re
import subprocess


def test_script_gives_a_terminal(run):
    output = run("script", "-qec", "test -t 0 && test -t 1 && tty", "/dev/null")
    assert re.search(r"^/dev/pts/\d+\s*$", output, re.MULTILINE)


def test_script_passes_the_status_on():
    done = subprocess.run(["script", "-qec", "exit 7", "/dev/null"], stdin=subprocess.DEVNULL, check=False)
    assert done.returncode == 7
