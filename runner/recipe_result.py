"""The result of a run: a CTRF file and a JUnit file beside it.

cc-ci-run names the CTRF file in CC_CI_RUN_RESULT. The runner writes the file in one step when pytest's
session is over, so the file is never half-written. A run that ended before that (os._exit in a test, a
crash, SIGKILL) leaves no file. A run that SIGTERM or SIGHUP ended leaves a file that says so. The exit
status alone would not tell these cases from others.

CTRF is the Common Test Report Format (https://ctrf.io, version 1.0.0). Fields that CTRF does not have
are below `results.extra.cc_ci_run`:

    schema      the version of these fields: 1
    recipe      the recipe's name
    revision    the commit of the recipe's git work tree; "" for a plain folder (`tree-…` is the sweep's name)
    invoker     drone, systemd or manual
    fingerprint the fingerprint of the environment
    complete    true if pytest ended by itself and each test that was collected has an outcome
    why         if `complete` is false: what ended the run
    running     if `complete` is false: the test that was under way when the run ended, "" for none
    exit_status the exit status of the run
    deselected  how many tests were collected, then left out (by -k, for example)
    errors      the errors of collection, each a string

The plugin pytest-json-ctrf was tried and is not used: it writes the file before all fixtures are torn
down, and not in one step; it does not report errors of collection; and it adds a fixture to every test.

While tests run, a file beside the result (named `.current` instead of `.json`) names the test under way.
It is for a caller that has to kill a run that reacts to no signal, and that wants to name the test.
"""

import contextlib
import json
import os
import subprocess
import tempfile
import time
from collections import Counter
from pathlib import Path

import pytest

SCHEMA = 1
MODE = 0o640  # a failure's message may hold what a site keeps secret
MAX_TEXT = 64 << 10  # characters of one message or trace: a result is read whole
# Of several reports of one test (its phases, subtests), the worst counts.
RANK = ["passed", "other", "failed"]


class Result:
    """A pytest plugin that notes each test's outcome, and writes the files."""

    def __init__(self, path, recipe, folder, environ):
        self.path = path  # None: nothing is written
        self._owner = os.getpid()  # a test may fork, and its child go on with the session
        self._start = time.time()
        self._about = {
            "recipe": recipe,
            "revision": revision(folder) if path else "",
            "invoker": environ.get("CC_CI_RUN_INVOKER", ""),
            "fingerprint": environ.get("CC_CI_RUN_FINGERPRINT", ""),
        }
        self._tests = {}
        self.running = ""  # the test under way, for people
        self._errors = []
        self._deselected = 0
        self._collected = None
        self._interrupted = False
        self.session_status = None  # pytest's own word, before a conftest changes it
        self._fd = self._open_current()
        self._now("the start of pytest")

    # What happens, as pytest tells it

    def pytest_collection(self):
        self._now("the collection")

    def pytest_collection_finish(self, session):
        self._collected = [item.nodeid for item in session.items]

    def pytest_deselected(self, items):
        self._deselected += len(items)

    def pytest_collectreport(self, report):
        if report.failed:
            self._errors.append(text(report.longreprtext))
        elif report.skipped:
            test = self._test(report.nodeid)
            test.update(status="skipped", rawStatus="skipped", message=skip_reason(report))
            test["over"] += 1

    def pytest_runtest_logstart(self, nodeid):
        self._now(nodeid)
        self._test(nodeid)["start"] = milliseconds(time.time())

    def pytest_runtest_logreport(self, report):
        test = self._test(report.nodeid)
        test["duration"] += milliseconds(report.duration)
        status, raw = outcome(report)
        if status == "skipped" and hasattr(report, "context"):  # a subtest
            test["part"] = skip_reason(report)
            return
        if status == "skipped" and test["status"] is None:
            test.update(status=status, rawStatus=raw, message=skip_reason(report))
        elif status in RANK and RANK.index(status) > rank(test):
            test.update(status=status, rawStatus=raw)
            if status == "failed":
                test["message"] = text(failure(report))
                test["trace"] = text("\n".join([report.longreprtext, *deployments(report)]))
            elif raw == "xfailed":
                test["message"] = text(report.wasxfail)
        test["called"] |= report.when == "call" and status != "skipped"
        if report.when == "teardown":
            test["over"] += 1
            test["stop"] = milliseconds(time.time())

    def pytest_runtest_logfinish(self):
        self._now("the end of the session")

    def pytest_keyboard_interrupt(self, excinfo):
        self._interrupted = excinfo.type is KeyboardInterrupt  # and not pytest.exit

    @pytest.hookimpl(tryfirst=True)
    def pytest_sessionfinish(self, exitstatus):
        self.session_status = int(exitstatus)

    # What came of it

    def failed(self):
        """How many tests failed, with the errors of the collection."""
        return sum(test["status"] == "failed" for test in self._tests.values()) + len(self._errors)

    def executed(self):
        """How many tests' functions were called, and did not skip themselves."""
        return sum(test["called"] for test in self._tests.values())

    def not_executed(self):
        """Why the other tests were not executed, for people."""
        reasons = {}
        for test in self._tests.values():
            if test["status"] == "skipped":
                reasons[test["message"]] = reasons.get(test["message"], 0) + 1
        parts = [f"{count} skipped ({reason})" for reason, count in reasons.items()]
        if self._deselected:
            parts.append(f"{self._deselected} deselected")
        return ", ".join(parts) or "it has none, or none was run"

    def incomplete(self):
        """Why the result is not complete, or ""."""
        if self._interrupted:
            return "ended by SIGINT"
        if self.session_status is None or self._collected is None:
            return "pytest's session did not end"
        if self._errors:
            return f"{len(self._errors)} errors in the collection"
        # Two tests of one name are two.
        left = [
            nodeid for nodeid, count in Counter(self._collected).items() if not settled(self._tests.get(nodeid), count)
        ]
        if left:
            return f"pytest ended before {len(left)} of {len(self._collected)} tests, the first {left[0]}"
        return ""

    def write(self, status, junit, ended="", running="", stack=""):
        """Write the files. If pytest did not end by itself: what ended it, during which test, and where."""
        if self.path is None or os.getpid() != self._owner:
            return
        why = ended or self.incomplete()
        if running in self._tests and self._tests[running]["status"] != "failed":
            self._tests[running].update(status="other", rawStatus="ended", message=text(ended), trace=text(stack))
        about = {"schema": SCHEMA, **self._about, "complete": not why, "why": why, "running": running}
        about |= {"exit_status": status, "deselected": self._deselected, "errors": self._errors}
        data = json.dumps(self._ctrf(about), ensure_ascii=False, indent=1)
        write_in_one_step(self.path, data.encode(errors="backslashreplace") + b"\n")
        if junit.is_file():
            write_in_one_step(self.path.with_suffix(".xml"), junit.read_bytes())
        self._close_current()

    def _ctrf(self, about):
        import uuid  # here, as it takes long to import

        tests = [in_ctrf(test) for test in self._tests.values()]
        counts = {s: 0 for s in ("passed", "failed", "pending", "skipped", "other")}
        for test in tests:
            counts[test["status"]] += 1
        return {
            "reportFormat": "CTRF",
            "specVersion": "1.0.0",
            "reportId": str(uuid.uuid4()),
            "timestamp": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            "generatedBy": "run_recipe_ci.py",
            "results": {
                "tool": {"name": "pytest"},
                "summary": {
                    "tests": len(tests),
                    **counts,
                    "start": milliseconds(self._start),
                    "stop": milliseconds(time.time()),
                },
                "tests": tests,
                "extra": {"cc_ci_run": about},
            },
        }

    def _test(self, nodeid):
        new = {"name": nodeid, "status": None, "rawStatus": "", "duration": 0, "called": False, "over": 0, "part": ""}
        return self._tests.setdefault(nodeid, new)

    # The test under way. The file is held open, as a test may change the directory's name or mode.

    def _open_current(self):
        if self.path is None:
            return None
        try:
            fd = os.open(self.path.with_suffix(".current"), os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, MODE)
        except FileExistsError:
            self.path = None  # a test started the runner: the result is the outer run's
            return None
        except OSError:
            return None
        self._inode = os.fstat(fd).st_ino
        return fd

    def _now(self, what):
        if os.getpid() != self._owner:
            return
        self.running = what
        if self._fd is not None:
            with contextlib.suppress(OSError):
                if os.fstat(self._fd).st_ino != self._inode:
                    return  # a test closed it, and the number is another file's
                os.ftruncate(self._fd, 0)
                os.pwrite(self._fd, what.encode(errors="backslashreplace"), 0)

    def _close_current(self):
        if self._fd is not None:
            with contextlib.suppress(OSError):
                os.close(self._fd)
                self.path.with_suffix(".current").unlink()
            self._fd = None


def outcome(report):
    """CTRF's status for one report, and pytest's own word. ("", "") if the report decides nothing."""
    if hasattr(report, "wasxfail"):
        if report.skipped:
            return "other", "xfailed"
        return ("passed", "xpassed") if report.when == "call" else ("", "")
    if report.failed:
        return "failed", "failed" if report.when == "call" else "error"
    if report.skipped:
        return "skipped", "skipped"
    # What a plugin calls otherwise ("rerun") is no outcome: another report follows, or the test has none.
    return ("passed", "passed") if report.when == "call" and report.outcome == "passed" else ("", "")


def settled(test, count):
    """Whether a test has an outcome, and its fixtures were torn down, as often as it was collected."""
    return test is not None and test["over"] >= count and test["status"] is not None


def rank(test):
    return RANK.index(test["status"]) if test["status"] in RANK else -1


def in_ctrf(test):
    """A test as CTRF has it: without our own marks, `pending` if it has no outcome."""
    shown = {key: value for key, value in test.items() if key not in ("called", "over", "part")}
    if shown["status"] == "passed" and test["part"]:
        # A test that skipped a part of itself did not pass as a whole.
        shown.update(status="skipped", rawStatus="a subtest was skipped", message=test["part"])
    if shown["status"] is None:
        shown.update(status="pending", rawStatus="not run")
    return shown


def skip_reason(report):
    if isinstance(report.longrepr, tuple):
        _file, _line, reason = report.longrepr
    else:
        reason = report.longreprtext
    return text(" ".join(reason.removeprefix("Skipped: ").split()))


def failure(report):
    """The line that says what failed."""
    crash = getattr(report.longrepr, "reprcrash", None)
    message = crash.message if crash else report.longreprtext
    prefix = {"setup": "in setup: ", "teardown": "in teardown: "}.get(report.when, "")
    return prefix + message


def deployments(report):
    """What the deployments that a failed test used said: recipe_fixtures.py adds it to the report."""
    return [f"--- {title}\n{content}" for title, content in report.sections if title.startswith("deployment ")]


def text(value):
    if len(value) <= MAX_TEXT:
        return value
    return value[: MAX_TEXT // 2] + f"\n... {len(value) - MAX_TEXT} characters left out ...\n" + value[-MAX_TEXT // 2 :]


def milliseconds(seconds):
    return round(seconds * 1000)


def revision(folder):
    """The commit of a folder that is a git work tree of its own, or ""."""
    if not (folder / ".git").exists():
        return ""
    # Whoever owns it: nothing of the work tree is executed to answer this.
    command = ["git", "-c", "safe.directory=*", "-C", folder, "rev-parse", "--verify", "--quiet", "HEAD"]
    with contextlib.suppress(OSError):
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
        return done.stdout.strip()
    return ""


def write_in_one_step(path, data):
    """Replace a file: a reader sees the earlier one, this one or none, also after a crash."""
    fd, temporary = tempfile.mkstemp(prefix=".", dir=path.parent)
    try:
        with os.fdopen(fd, "wb") as file:
            os.fchmod(fd, MODE)
            file.write(data)
            file.flush()
            os.fsync(fd)
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
