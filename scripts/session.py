#!/usr/bin/env python3
"""Record the terminal session that README.md shows, and draw it: `make session`.

    scripts/session.py CAST SVG           record the session into CAST, then draw it
    scripts/session.py --draw CAST SVG    only draw the CAST that is there

To record, the script clones the last commit, builds the clone, and runs COMMANDS there, each on a
pseudo-terminal. CAST holds the bytes that the commands wrote, in asciinema's format: `asciinema
play CAST` shows them. The same CAST always gives the same SVG. The SVG holds text, in the reader's
monospace font, and is dark where the reader has asked for dark pages.
"""

import argparse
import html
import itertools
import json
import os
import pty
import shutil
import subprocess
import sys
import termios
import time
from pathlib import Path

import pyte

ROOT = Path(__file__).resolve().parent.parent
CLONE = Path("/tmp/ci")  # a short name: paths below it appear in the output
COLUMNS, LINES = 108, 40

COMMANDS = [
    "cc-ci-run runner/run_recipe_ci.py gitea -k lfs -- -q",
    "cc-ci-run env --explain | grep -wE 'VERDICT|GIT_AUTHOR_NAME|PATH|HOME|API_TOKEN|LD_LIBRARY_PATH'",
    "cc-ci-run sweep",
    "make build WITHOUT=abra,git-lfs   # git-lfs is missing, as it was at night",
    "cc-ci-run sweep",
    "grep -hA1 '^E .*Error' build/state/sweep/logs/gitea/*.log",
]

CHARACTER, LINE, MARGIN = 8.0, 18, 14  # pixels; CHARACTER fits the widest usual font at 13 pixels
STYLE = """\
svg{--back:#f6f8fa;--text:#1f2328;--red:#cf222e;--green:#116329;--brown:#7d4e00;--blue:#0550ae;--magenta:#8250df;--cyan:#1b7c83}
@media(prefers-color-scheme:dark){svg{--back:#161b22;--text:#e6edf3;--red:#ff7b72;--green:#56d364;--brown:#e3b341;--blue:#79c0ff;--magenta:#d2a8ff;--cyan:#56d4dd}}
rect{fill:var(--back);stroke:#8b949e}
text{fill:var(--text);font:13px ui-monospace,SFMono-Regular,Menlo,Consolas,"DejaVu Sans Mono",monospace;white-space:pre}
.bold{font-weight:bold}
"""
COLOURS = ("red", "green", "brown", "blue", "magenta", "cyan")
STYLE += "".join(f".{colour}{{fill:var(--{colour})}}\n" for colour in COLOURS)


def environment():
    """The commands' variables: this process's, a terminal's, and two that cc-ci-run must drop."""
    ours = {"TERM": "xterm-256color", "API_TOKEN": "x", "LD_LIBRARY_PATH": "/opt/lib"}
    path = f"{CLONE / 'build'}:{os.environ['PATH']}"
    invokers = ("CC_CI_RUN", "DRONE", "GITEA_", "INVOCATION_ID", "MAKE", "MFLAGS", "NO_COLOR")
    passed = {name: value for name, value in os.environ.items() if not name.startswith(invokers)}
    return {**passed, **ours, "PATH": path}


def run(command, write):
    """Run a command on a pseudo-terminal; pass its output to write() until it ends."""
    pid, terminal = pty.fork()
    if pid == 0:
        termios.tcsetwinsize(0, (LINES, COLUMNS))
        os.chdir(CLONE)
        os.execvpe("bash", ["bash", "-c", command], environment())
    while True:
        try:
            data = os.read(terminal, 65536)
        except OSError:  # EIO: the command and its children have closed the terminal
            break
        write(data)
    os.close(terminal)
    os.waitpid(pid, 0)


def record(cast):
    CLONE.mkdir()  # fails if the directory exists, because it is removed below
    try:
        subprocess.run(["git", "clone", "--quiet", ROOT, CLONE], check=True)
        subprocess.run(["make", "build"], cwd=CLONE, env=environment(), stdout=sys.stderr, check=True)
        began = time.monotonic()
        with cast.open("w", encoding="utf-8") as file:

            def write(data):
                text = data.decode("utf-8", "replace")
                file.write(json.dumps([round(time.monotonic() - began, 3), "o", text]) + "\n")

            file.write(json.dumps({"version": 2, "width": COLUMNS, "height": LINES}) + "\n")
            for command in COMMANDS:
                write(f"\x1b[01m$ {command}\x1b[0m\r\n".encode())
                run(command, write)
                write(b"\r\n")
    finally:
        shutil.rmtree(CLONE)


def draw(cast):
    """The lines of the SVG: the whole terminal, as it looked when the session ended."""
    head, *events = map(json.loads, cast.read_text(encoding="utf-8").splitlines())
    screen = pyte.Screen(head["width"], 1000)
    stream = pyte.Stream(screen)
    for _, _, text in events:
        stream.feed(text)
    rows = [[screen.buffer[y][x] for x in range(screen.columns)] for y in range(screen.cursor.y - 1)]
    width, height = COLUMNS * CHARACTER + 2 * MARGIN, len(rows) * LINE + 2 * MARGIN
    yield f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:g} {height:g}" role="img">'
    yield f"<title>A terminal session with cc-ci-run</title>\n<style>\n{STYLE}</style>"
    yield f'<rect x="0.5" y="0.5" width="{width - 1:g}" height="{height - 1:g}" rx="8"/>'
    for number, row in enumerate(rows, 1):
        spans = itertools.groupby(row, lambda cell: (cell.fg.removeprefix("bright"), cell.bold))
        line = "".join(span("".join(cell.data for cell in cells), *look) for look, cells in spans)
        if line.strip():
            yield f'<text x="{MARGIN}" y="{MARGIN + number * LINE - 5}">{line.rstrip()}</text>'
    yield "</svg>"


def span(text, colour, bold):
    classes = [colour] * (colour in COLOURS) + ["bold"] * bold
    text = html.escape(text, quote=False)
    return f'<tspan class="{" ".join(classes)}">{text}</tspan>' if classes and text.strip() else text


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--draw", action="store_true", help="draw CAST as it is; record nothing")
    parser.add_argument("cast", type=Path, metavar="CAST")
    parser.add_argument("svg", type=Path, metavar="SVG")
    arguments = parser.parse_args()
    if not arguments.draw:
        record(arguments.cast)
    arguments.svg.write_text("\n".join(draw(arguments.cast)) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
