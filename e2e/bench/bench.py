#!/usr/bin/env python3
"""Measures cc-ci-run against what it replaces: `make bench`.

    e2e/bench/bench.py [--rounds N] [--quick] [--only SECTION] BUILD OUT.json OUT.svg

BUILD has the programs that `make bench` builds. Everything that is compared runs in turns, round
by round, so that what else happens on the machine hits all alike; what is told is medians, with
the 10th and 90th percentile. Ratios are of overheads: what a wrapper takes above /bin/true, which
it ends in.
"""

import argparse
import contextlib
import json
import os
import platform
import pty
import random
import re
import select
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent


def quantiles(values):
    ordered = sorted(values)
    at = lambda q: ordered[min(len(ordered) - 1, int(q * len(ordered)))]
    return {"median": at(0.5), "p10": at(0.1), "p90": at(0.9)}


def start(argv, environ, stdout=None):
    """Wall and CPU time in µs, and page faults, of one process to its end."""
    null = os.open(os.devnull, os.O_RDWR)
    actions = [(os.POSIX_SPAWN_DUP2, null, 0), (os.POSIX_SPAWN_DUP2, stdout or null, 1)]
    actions.append((os.POSIX_SPAWN_DUP2, null, 2))
    began = time.perf_counter()
    pid = os.posix_spawn(argv[0], argv, environ, file_actions=actions)
    _, status, usage = os.wait4(pid, 0)
    wall = time.perf_counter() - began
    os.close(null)
    if status:
        sys.exit(f"bench: {argv}: status {status}")
    return {
        "wall": wall * 1e6,
        "cpu": (usage.ru_utime + usage.ru_stime) * 1e6,
        "faults": usage.ru_minflt + usage.ru_majflt,
    }


def interleaved(subjects, rounds, environ, measure=start):
    """{name: {measure: quantiles}}: each subject once a round, in another order each time, as a
    process also pays for what the one before it left behind."""
    seen = {name: [] for name in subjects}
    chance = random.Random(1)
    for _ in range(rounds):
        for name, argv in chance.sample(list(subjects.items()), len(subjects)):
            seen[name].append(measure(argv, environ))
    return {name: {key: quantiles([run[key] for run in runs]) for key in runs[0]} for name, runs in seen.items()}


def system_calls(argv, environ):
    """{name: count}, without the execve that starts it. How often threads wait for each other
    is chance: the fewest of some runs."""
    least = {}
    for _ in range(5):
        with tempfile.NamedTemporaryFile("r") as out:
            subprocess.run(
                ["strace", "-f", "-c", "-U", "calls,name", "-o", out.name, *argv],
                env=environ,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                check=True,
            )
            rows = [line.split() for line in out.read().splitlines()]
        calls = {row[1]: int(row[0]) for row in rows if row[0].isdigit() and row[1] != "total"}
        calls["execve"] -= 1
        if not least or sum(calls.values()) < sum(least.values()):
            least = calls
    return least


def whose_calls(calls):
    """{name: [Go's runtime's, ours]} of one run: what an empty Go program makes, and what is left
    of a run's without that and without those of /bin/true, which it becomes."""
    true, run = calls["/bin/true"], calls["cc-ci-run"]
    # Go's threads wait for and interrupt each other, the more often the longer a run takes.
    threads = ("futex", "nanosleep", "rt_sigreturn", "sched_yield", "tgkill")
    go = calls["empty program, Go"] | {name: run.get(name, 0) for name in threads}
    names = sorted(run, key=lambda n: (-go.get(n, 0), n))
    table = {n: [go.get(n, 0), run[n] - go.get(n, 0) - true.get(n, 0)] for n in names}
    return {n: counts for n, counts in table.items() if any(counts)}


def peak_memory(build, argv, environ):
    """In KiB. A small program of ours starts it: a child's peak begins with its parent's."""
    done = subprocess.run([build / "peak", *argv], env=environ, capture_output=True, check=True)
    return int(done.stdout.split()[-1])


def startup(build, rounds):
    home = os.environ.get("HOME", "/")
    # One LANG for all, as cc-ci-run fixes it.
    environ = {"HOME": home, "PATH": "/usr/bin:/bin", "LANG": "C.UTF-8", "TERM": "xterm"}
    environ |= {f"DRONE_VARIABLE_{n}": "some value of some length" for n in range(60)}
    environ["RAW_EXEC"] = "/usr/bin/true"
    with tempfile.TemporaryDirectory(prefix="cc-ci-run-bench-", dir="/dev/shm") as tmpfs:
        return measure_startup(build, rounds, environ, tmpfs)


def measure_startup(build, rounds, environ, tmpfs):
    # Two arguments: with exactly one, which could be --help, /bin/true reads all of the locale's
    # files, and only what hands it on would pay for that.
    script = ["./x.py", "gitea"]
    subjects = {
        "/bin/true": ["/usr/bin/true", *script],
        "empty program, C, static": [str(build / "empty-c")],
        "empty program, Go": [str(build / "empty-go")],
        "makeBinaryWrapper's C": [str(build / "wrapper-c")],
        "one execve, Go": [str(build / "raw-go")],
        "env -i PATH=…": ["/usr/bin/env", "-i", f"PATH={build}", "/usr/bin/true", *script],
        "legacy bash wrapper": [str(build / "legacy.sh"), *script],
        "bash, the same work": [str(build / "same.sh"), *script],
        "cc-ci-run": [str(build / "cc-ci-run"), *script],
        "cc-ci-run, record on a tmpfs": [str(build / "cc-ci-run"), "--state", tmpfs, *script],
        "cc-ci-run --no-record": [str(build / "cc-ci-run"), "--no-record", *script],
        "cc-ci-run, host backend": [str(build / "cc-ci-run-host"), *script],
        "cc-ci-run exec": [str(build / "cc-ci-run"), "exec", "true", *script],
    }
    os.chdir(build)
    for name, argv in subjects.items():  # the first time keeps the manifest, and warms caches
        start(argv, environ)
    result = interleaved(subjects, rounds, environ)
    calls = {name: system_calls(argv, environ) for name, argv in subjects.items()}
    for name, argv in subjects.items():
        result[name]["calls"] = sum(calls[name].values())
        result[name]["memory"] = peak_memory(build, argv, environ)
    floor = result["/bin/true"]["wall"]["median"]
    legacy = result["legacy bash wrapper"]["wall"]["median"] - floor
    for entry in result.values():
        entry["overhead"] = (entry["wall"]["median"] - floor) / legacy
    return result, whose_calls(calls)


def first_test(build, rounds):
    """From the start of the command to the first line of the first test, in ms."""
    stamp = build / "stamp"
    runner = ROOT / "runner" / "run_recipe_ci.py"
    python = ROOT / "build" / "toolset" / "bin" / "python3"
    recipes = build / "recipes"
    subjects = {
        "cc-ci-run": [ROOT / "build" / "cc-ci-run", runner, "--recipes", recipes, "one"],
        "legacy wrapper, pytest as a process of its own": [
            build / "legacy-python.sh",
            build / "old_runner.py",
            recipes / "one",
        ],
        "legacy wrapper, our runner": [build / "legacy-python.sh", runner, "--recipes", recipes, "one"],
        "python -m pytest, no wrapper": [python, "-m", "pytest", recipes / "one"],
    }
    parts = {
        "python -c pass": [python, "-c", "pass"],
        "… import pytest": [python, "-c", "import pytest"],
        "… collect one test": [python, "-m", "pytest", "-q", "--co", recipes / "one"],
    }
    environ = {**os.environ}

    def measure(argv, environ):
        began = time.time()
        run = start([str(a) for a in argv], environ)
        is_part = argv in parts.values()
        end = began + run["wall"] / 1e6 if is_part else float(stamp.read_text())
        return {"ms": (end - began) * 1e3}

    result = interleaved(subjects | parts, rounds, environ, measure)
    return {name: values["ms"] for name, values in result.items()}


def spawning(build, rounds):
    """1,000 × `git --version`, from Python and from bash, with PATHs of several lengths; in ms."""
    one = str(ROOT / "build" / "toolset" / "bin")
    many = ":".join(str(build / "path" / str(n)) for n in range(15))
    host = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
    python = "import subprocess\nfor _ in range(1000): subprocess.run(['git', '--version'], stdout=subprocess.DEVNULL)"
    # Bash remembers where a command is, unless told not to.
    bash = "set +h; for ((n = 0; n < 1000; n++)); do git --version >/dev/null; done"
    result = {}
    for language, argv in {
        "Python": [one + "/python3", "-c", python],
        "bash": ["/bin/bash", "-c", bash],
    }.items():
        paths = {"one directory": one, "15 store directories": many, "the host's PATH": host}
        seen = {name: [] for name in paths}
        for _ in range(rounds):
            for name, path in paths.items():
                seen[name].append(start(argv, {"PATH": path, "HOME": "/"})["wall"] / 1e3)
        result[language] = {name: quantiles(values) for name, values in seen.items()}
    return result


def terminal(build, size):
    """Throughput of output in MB/s, memory, and the time of one keystroke's echo in µs."""
    program = str(ROOT / "build" / "cc-ci-run")
    script = build / "output.py"
    result = {}
    for kind in ("lines", "blocks"):
        inner = [str(script), kind, str(size)]
        python = str(ROOT / "build" / "toolset" / "bin" / "python3")
        subjects = {
            "cc-ci-run --pty": [program, "--no-record", "--pty", *inner],
            "script -qec": ["/usr/bin/script", "-qec", " ".join([python, *inner]), os.devnull],
            "plain, a pipe": [program, "--no-record", *inner],
        }
        seen = {name: [] for name in subjects}
        for _ in range(3):
            for name, argv in subjects.items():
                read, write = os.pipe()
                reader = subprocess.Popen(["/usr/bin/wc", "-c"], stdin=read, stdout=subprocess.DEVNULL)
                os.close(read)
                wall = start(argv, {**os.environ, "HOME": "/"}, stdout=write)["wall"]
                os.close(write)
                reader.wait()
                seen[name].append(size / wall)
        result[kind] = {name: quantiles(values) for name, values in seen.items()}
    memory = {}
    for megabytes in (1, size >> 20):
        argv = [program, "--no-record", "--pty", str(script), "lines", str(megabytes << 20)]
        memory[f"{megabytes} MiB"] = peak_memory(build, argv, {**os.environ, "HOME": "/"})
    result["memory of cc-ci-run --pty, KiB"] = memory
    result["keystroke"] = {
        name: quantiles(keystrokes(argv))
        for name, argv in {
            "cc-ci-run --pty": [program, "--no-record", "--pty", str(build / "echo.py")],
            "script -qec": ["/usr/bin/script", "-qec", f"{python} {build / 'echo.py'}", os.devnull],
        }.items()
    }
    return result


def keystrokes(argv, count=300):
    """Typed on an outer terminal, how long until it is echoed there; in µs."""
    pid, fd = pty.fork()
    if pid == 0:
        os.environ["HOME"] = "/"
        os.execv(argv[0], argv)
    wait_for(fd, b"ready")
    times = []
    for n in range(count):
        key = bytes([97 + n % 26])
        began = time.perf_counter()
        os.write(fd, key)
        wait_for(fd, key)
        times.append((time.perf_counter() - began) * 1e6)
    os.write(fd, b"Q")  # it ends
    for _ in range(100):
        if os.waitpid(pid, os.WNOHANG)[0]:
            break
        time.sleep(0.05)
    else:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
    os.close(fd)
    return times


def wait_for(fd, text):
    seen = b""
    while text not in seen:
        if not select.select([fd], [], [], 20)[0]:
            sys.exit(f"bench: no {text} on the terminal, but {seen}")
        seen += os.read(fd, 4096)


def sweeping(build, rounds):
    """Seconds for 8 recipes that wait half a second each, and for 10,000 that did not change."""
    full = str(ROOT / "build" / "cc-ci-run-full")
    runner = str(build / "wait" / "runner" / "runner.py")
    result = {}
    subjects = {}
    for jobs in (1, 2, 4):
        subjects[f"cc-ci-run-full sweep --jobs {jobs}"] = [
            *(full, "sweep", "--force", "--recipes", str(build / "wait" / "recipes")),
            *("--runner", runner, "--jobs", str(jobs), "--state", str(build / "wait" / f"state{jobs}")),
        ]
    subjects["bash loop"] = [str(build / "wait" / "loop.sh")]
    environ = {**os.environ, "HOME": "/"}
    seen = interleaved(subjects, rounds, environ)
    for name, values in seen.items():
        result[name] = {key: value / 1e6 for key, value in values["wall"].items()}
    many = build / "many"
    skip = [full, "sweep", "--recipes", str(many / "recipes"), "--runner", runner]
    skip += ["--jobs", "2", "--state", str(many / "state")]
    if not (many / "state").exists():
        make_many(many, runner, skip, environ)
    loop = [str(many / "loop.sh")]
    seen = interleaved({"10,000 skips": skip, "10,000 skips, bash loop": loop}, 3, environ)
    for name, values in seen.items():
        result[name] = {key: value / 1e6 for key, value in values["wall"].items()}
    return result


def make_many(many, runner, skip, environ):
    """10,000 recipes, promoted: one really, the others' memory made after it."""
    recipes, known = many / "recipes", many / "known"
    (recipes / "r00000").mkdir(parents=True)
    known.mkdir()
    (recipes / "r00000" / "test.txt").write_text("the same")
    start(skip, environ)
    git = ["git", f"--git-dir={many / 'state' / 'sweep.git'}"]
    state = subprocess.run(
        [*git, "show", "refs/cc-ci/sweep/r00000:state.json"], check=True, capture_output=True, text=True
    ).stdout
    commits = []
    for n in range(10_000):
        name = f"r{n:05d}"
        (recipes / name).mkdir(exist_ok=True)
        (recipes / name / "test.txt").write_text("the same")
        content = state.replace("r00000", name)
        (known / name).write_text(content)  # for the loop in Bash
        if n > 0:
            commits.append(
                f"commit refs/cc-ci/sweep/{name}\ncommitter bench <bench> 0 +0000\ndata 0\n"
                f"M 100644 inline state.json\ndata {len(content.encode())}\n{content}\n"
            )
    subprocess.run([*git, "fast-import", "--quiet"], check=True, input="".join(commits), text=True)
    subprocess.run([*git, "pack-refs", "--all"], check=True)


def remembering():
    """Milliseconds of Go's benchmarks: 10,000 recipes that are skipped, shown and written as pages."""
    pattern = "^Benchmark(Skip|Hash|Status|Verdict|Sync|Write|Again)$"
    argv = ["go", "test", "-run", "^$", "-bench", pattern, "-benchtime", "5x", "-timeout", "1h"]
    done = subprocess.run(
        [*argv, "./internal/sweep", "./internal/report"], cwd=ROOT, check=True, capture_output=True, text=True
    )
    found = re.findall(r"^Benchmark(\w+?)(?:-\d+)?\s+\d+\s+(\d+(?:\.\d+)?) ns/op", done.stdout, re.MULTILINE)
    return {name: float(nanoseconds) / 1e6 for name, nanoseconds in found}


@contextlib.contextmanager
def gitea():
    """The variables that name a real Gitea, which runs meanwhile; none if it was not built."""
    program = ROOT / "build" / "gitea"
    if not program.exists():
        yield {}
        return
    tell = "import json, os, sys; print(json.dumps(dict(os.environ)), flush=True); sys.stdin.read()"
    argv = [ROOT / "build" / "with-gitea", "--gitea", program, "--", sys.executable, "-c", tell]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        line = process.stdout.readline()
        if not line:
            sys.exit("bench: no Gitea could be started: its message is above")
        yield {k: v for k, v in json.loads(line).items() if k.startswith("GITEA_")}
        process.stdin.close()  # with-gitea's command ends, so it stops Gitea


def start_and_tell(argv, environ):
    """As start, but if it fails its output is shown: a recipe's tests may have a reason."""
    with tempfile.TemporaryFile() as output:
        try:
            return start(argv, environ, stdout=output.fileno())
        except SystemExit:
            output.seek(0)
            sys.stderr.write(output.read().decode(errors="replace"))
            raise


def auditing(build, less):
    """Whole runs, in ms: plain, audited, sealed, both, and under strace."""
    program = str(ROOT / "build" / "cc-ci-run")
    state = ["--state", str(build / "state")]
    strace = ["/usr/bin/strace", "-f", "--seccomp-bpf", "-qq", "-e", "trace=execve,execveat", "-o", os.devnull]
    ways = {
        "plain": [program, *state],
        "audited": [program, "audit", *state],
        "audited --looks=false": [program, "audit", "--looks=false", *state],
        "sealed": [program, "--seal", *state],
        "audited and sealed": [program, "audit", "--seal", *state],
        "strace --seccomp-bpf": [*strace, program, *state],
    }
    result = {}
    with gitea() as instance:
        environ = {"HOME": os.environ.get("HOME", "/"), "PATH": "/usr/bin:/bin"} | instance
        runner = ROOT / "runner" / "run_recipe_ci.py"
        recipe = "the gitea recipe, a real Gitea" if instance else "the gitea recipe, no instance"
        works = {
            "200 × git --version": ([build / "spawn.py"], 30),
            recipe: ([runner, "gitea"], 7),
            "computing, no spawns": ([build / "compute.py"], 10),
        }
        for work, (script, rounds) in works.items():
            subjects = {name: [*way, *map(str, script)] for name, way in ways.items()}
            seen = interleaved(subjects, max(3, rounds // less), environ, start_and_tell)
            walls = {n: {k: v / 1e3 for k, v in values["wall"].items()} for n, values in seen.items()}
            for entry in walls.values():
                entry["ratio"] = entry["median"] / walls["plain"]["median"]
            result[work] = walls
    return result


def table(title, head, rows):
    print(f"\n{title}")
    rows = [head, *rows]
    widths = [max(len(str(row[i])) for row in rows) for i in range(len(head))]
    for row in rows:
        first, *rest = row
        cells = [str(c).rjust(w) for c, w in zip(rest, widths[1:], strict=True)]
        print("  " + str(first).ljust(widths[0]) + "  " + "  ".join(cells))


def spread(q, digits=0):
    return f"{q['median']:.{digits}f} ({q['p10']:.{digits}f}-{q['p90']:.{digits}f})"


def show_startup(r):
    rows = [
        (
            name,
            spread(e["wall"]),
            f"{e['overhead']:.2f}",
            spread(e["cpu"]),
            f"{e['faults']['median']:.0f}",
            e["calls"],
            e["memory"],
        )
        for name, e in r["start-up"].items()
    ]
    head = ("start-up, ending in /bin/true", "wall µs", "overhead", "CPU µs", "faults", "calls", "KiB")
    table("Start-up. Overhead is wall time above /bin/true, the legacy bash wrapper's being 1.", head, rows)
    calls = r["system calls"]
    rows = [(n, go or "", ours or "") for n, (go, ours) in calls.items()]
    rows.append(("all", *(sum(c[i] for c in calls.values()) for i in (0, 1))))
    table("System calls of one run of cc-ci-run", ("", "Go's runtime", "ours"), rows)


def show_first_test(r):
    base = r["first test"]["legacy wrapper, pytest as a process of its own"]["median"]
    table(
        "Time to the first test, ms",
        ("", "ms", "of legacy"),
        [(n, spread(q), f"{q['median'] / base:.2f}") for n, q in r["first test"].items()],
    )


def show_spawning(r):
    for language, paths in r["spawning"].items():
        base = paths["15 store directories"]["median"]
        rows = [(n, spread(q), f"{q['median'] / base:.2f}") for n, q in paths.items()]
        table(f"1,000 × git --version from {language}, ms", ("PATH", "ms", "of 15"), rows)


def show_terminal(r):
    for kind in ("lines", "blocks"):
        base = r["terminal"][kind]["script -qec"]["median"]
        rows = [(n, spread(q), f"{q['median'] / base:.2f}") for n, q in r["terminal"][kind].items()]
        table(f"Output in {kind}, MB/s", ("", "MB/s", "of script"), rows)
    rows = [(n, spread(q)) for n, q in r["terminal"]["keystroke"].items()]
    table("One keystroke's echo, µs", ("", "µs"), rows)
    print("  memory:", r["terminal"]["memory of cc-ci-run --pty, KiB"], "KiB")


def show_sweep(r):
    table("Sweeps, s", ("", "s"), [(n, spread(q, 2)) for n, q in r["sweep"].items()])


def show_memory(r):
    m = r["memory"]
    rows = [
        ("10,000 unchanged recipes are skipped", m["Skip"]),
        ("of that, their folders are hashed", m["Hash"]),
        ("sweep status, of 10,000 recipes with 30 runs each", m["Status"]),
        ("one verdict, remembered on the disk", m["Verdict"]),
        ("what the disk needs for as many files, each synced", m["Sync"]),
        ("the pages, of 10,000 recipes with 30 runs each", m["Write"]),
        ("the pages again, if nothing changed", m["Again"]),
    ]
    table("The sweep's memory, ms", ("what", "ms"), [(what, f"{value:.1f}") for what, value in rows])


def show_audit(r):
    for work, ways in r["audit and seal"].items():
        rows = [(n, spread(e), f"{e['ratio']:.2f}") for n, e in ways.items()]
        table(f"Audit and seal: {work}, ms", ("", "ms", "of plain"), rows)


SHOW = {
    "start-up": show_startup,
    "first test": show_first_test,
    "spawning": show_spawning,
    "terminal": show_terminal,
    "sweep": show_sweep,
    "memory": show_memory,
    "audit and seal": show_audit,
}


def plot(r, file):
    """The start-up's overheads, and the ratios of audit and seal, as bars."""
    shown = [n for n in r["start-up"] if n != "/bin/true" and not n.startswith("empty")]
    groups = {
        "Start-up above /bin/true; the legacy bash wrapper is 1": {n: r["start-up"][n]["overhead"] for n in shown}
    }
    for work, ways in r["audit and seal"].items():
        groups[f"Whole run, {work}; plain is 1"] = {n: e["ratio"] for n, e in ways.items() if n != "plain"}
    width, row, left = 720, 26, 230
    height = sum(row * len(bars) + 46 for bars in groups.values()) + 4
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" font-family="sans-serif" font-size="13">',
        f'<rect width="{width}" height="{height}" fill="white"/>',
    ]
    top = 0
    for title, bars in groups.items():
        scale = (width - left - 60) / max(*bars.values(), 1)
        lines.append(f'<text x="10" y="{top + 20}">{title}</text>')
        for i, (name, value) in enumerate(bars.items()):
            y = top + 34 + i * row
            colour = "#2a7" if name.startswith(("cc-ci-run", "audited", "sealed")) else "#889"
            lines += [
                f'<text x="{left - 8}" y="{y + 15}" text-anchor="end">{name}</text>',
                f'<rect x="{left}" y="{y + 3}" width="{value * scale:.1f}" height="{row - 8}" fill="{colour}"/>',
                f'<text x="{left + value * scale + 6:.1f}" y="{y + 15}">{value:.2f}</text>',
            ]
        bottom = top + 34 + len(bars) * row
        lines.append(
            f'<line x1="{left + scale:.1f}" x2="{left + scale:.1f}" y1="{top + 30}" y2="{bottom + 4}" stroke="#c33" stroke-dasharray="4 3"/>'
        )
        top = bottom + 12
    lines.append("</svg>")
    file.write_text("\n".join(lines) + "\n")


def main():
    parser = argparse.ArgumentParser(description="Measure cc-ci-run against what it replaces.")
    parser.add_argument("--rounds", type=int, default=300)
    parser.add_argument("--quick", action="store_true", help="a tenth of it, to try the bench")
    parser.add_argument("--only", choices=SHOW, help="one section, in the table and OUT.json; no plot")
    parser.add_argument("build", type=Path)
    parser.add_argument("json", type=Path)
    parser.add_argument("svg", type=Path)
    o = parser.parse_args()
    build = o.build.resolve()
    out, svg = o.json.resolve(), o.svg.resolve()
    less = 10 if o.quick else 1
    r = {"machine": f"{os.cpu_count()} cores, Linux {platform.release().split('-')[0]}, {platform.machine()}"}
    measure = {
        "start-up": lambda: startup(build, max(10, o.rounds // less)),
        "first test": lambda: first_test(build, max(3, 30 // less)),
        "spawning": lambda: spawning(build, max(1, 5 // less)),
        "terminal": lambda: terminal(build, (1 << 30) // less),
        "sweep": lambda: sweeping(build, max(1, 3 // less)),
        "memory": remembering,
        "audit and seal": lambda: auditing(build, less),
    }
    sections = [o.only] if o.only else list(SHOW)
    for name in sections:
        print(f"bench: {name}", file=sys.stderr, flush=True)
        r[name] = measure[name]()
        if name == "start-up":
            r[name], r["system calls"] = r[name]
    for name in sections:
        SHOW[name](r)
    print(f"\nMeasured on {r['machine']}: medians (10th-90th percentile), all in turns in one run.")
    out.write_text(json.dumps(r, indent=1) + "\n")
    if not o.only:
        plot(r, svg)


if __name__ == "__main__":
    main()
