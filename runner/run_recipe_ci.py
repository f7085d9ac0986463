"""Run one recipe's tests: the script that `cc-ci-run` executes.

    cc-ci-run runner/run_recipe_ci.py gitea
    cc-ci-run runner/run_recipe_ci.py gitea -k lfs --junit report.xml -- --durations=5

pytest runs the tests in this process, not in a child. The first line on stdout names the
environment: the invoker and the fingerprint that cc-ci-run passes in CC_CI_RUN_INVOKER and
CC_CI_RUN_FINGERPRINT.

What belongs to a run, and what does not
----------------------------------------
- The recipe's own folder belongs to a run: its conftest.py and its pytest.ini. If the recipe has
  no pytest.ini, the pytest.ini beside this file is used.
- No other pytest.ini, pyproject.toml, tox.ini, setup.cfg or conftest.py is used, whether above the
  recipe, in the working directory or in HOME, and neither is any PYTEST_* variable. So the same
  recipe has the same tests wherever it is started from. The arguments after `--`, which go to
  pytest, cannot undo that.
- The caller's HOME is not used. As under Drone, each run has a new, empty HOME, so that a person's
  ~/.gitconfig, ~/.curlrc, ~/.jq or ~/.docker cannot make a test pass that fails at night. A test
  can write to HOME (`git config --global`, `git lfs install`); the next run does not see it.
- The runner writes nothing into the recipe's folder: no __pycache__, no .pytest_cache. The files of
  a run, tmp_path among them, are in one temporary directory. It is removed at the end, however the
  run ends, unless by SIGKILL.
- cc-ci-run sets everything else (PATH, variables, git's author, limits ...) before this script
  starts.

The result
----------
cc-ci-run names a file in CC_CI_RUN_RESULT. When pytest's session is over, the runner writes each
test's outcome to that file, and a JUnit report beside it; see recipe_result.py. If the variable is
not set, neither of these two files is written.

Exit status
-----------
The exit status is pytest's: 0 passed, 1 a test failed, 2 interrupted or an error in collection,
3 an internal error, 4 a usage error, 5 no tests. There are three additions:
- 1 if a test failed, even if a conftest.py changed the status to 0
- 2 for a mistake in this script's own arguments
- 5 if no test was executed: a run in which every test was skipped or deselected is not a pass
On SIGTERM and SIGHUP the runner names the test under way, with its stack, tears down the fixtures
and removes the temporary directory; then the process dies by that signal (128+N in a shell).
"""

import argparse
import contextlib
import faulthandler
import functools
import gc
import importlib.machinery
import os
import re
import shutil
import signal
import sys
import tempfile
import traceback
from pathlib import Path

HERE = Path(__file__).resolve().parent
TESTS_FAILED = 1
USAGE_ERROR = 2
NO_TEST_EXECUTED = 5
JUNIT = "junit.xml"  # in the run's directory
GRACE_SECONDS = 10  # for the fixtures' clean-up after a signal


class UsageError(Exception):
    """A mistake in the arguments, in words for the person who made it."""


def absolute_path(text):
    """A path that still means the same after a change of directory."""
    try:
        return Path(text).absolute()
    except OSError:
        message = f"{text}: the working directory is gone, so give an absolute path"
        raise argparse.ArgumentTypeError(message) from None


class Parser(argparse.ArgumentParser):
    def error(self, message):
        raise UsageError(f"{message} (--help shows the usage)")


def parse(argv):
    """The options, with what comes after the first `--` as pytest_args."""
    parser = Parser(
        prog="run_recipe_ci.py",
        usage="%(prog)s RECIPE [OPTION...] [-- PYTEST ARGS]",
        description="Run one recipe's tests with pytest.",
        epilog="Exit status: pytest's own; 2 usage error; 5 no test was executed.",
        allow_abbrev=False,
    )
    parser.add_argument("recipe", metavar="RECIPE", help="name of a folder in the recipes folder")
    parser.add_argument(
        "--recipes",
        metavar="DIR",
        type=absolute_path,
        default=HERE.parent / "recipes",
        help="the recipes folder (default: %(default)s)",
    )
    parser.add_argument("--junit", metavar="FILE", type=absolute_path, help="write a JUnit XML report")
    parser.add_argument("-k", metavar="EXPR", help="run only tests that match, as in pytest")
    parser.add_argument("-x", action="store_true", help="stop at the first failure")
    parser.add_argument("-v", action="count", default=0, help="more output; may be repeated")

    own, pytest_args = argv, []
    if "--" in argv:
        at = argv.index("--")
        own, pytest_args = argv[:at], argv[at + 1 :]
    options = parser.parse_args(own)
    options.pytest_args = pytest_args
    return options


def find_recipe(recipes, name):
    """The folder of recipe `name`, or a UsageError that names the recipes there are."""
    # isprintable also keeps newlines and undecodable bytes out of the line that names the run.
    if not name or name.startswith(".") or "/" in name or not name.isprintable():
        raise UsageError(f"{name!r} is not the name of a recipe: it is a folder's plain name")
    try:
        names = sorted(
            entry.name for entry in recipes.iterdir() if entry.is_dir() and not entry.name.startswith((".", "__"))
        )
    except OSError as error:
        raise UsageError(f"can't read the recipes folder {recipes}: {error.strerror}") from None
    if name not in names:
        import difflib  # here, as a run without a mistake need not wait for it

        nearest = difflib.get_close_matches(name, names, n=1)
        hint = f"; did you mean {nearest[0]}?" if nearest else ""
        there = ", ".join(names) or "none"
        raise UsageError(f"no recipe {name} in {recipes}{hint} (there are: {there})")
    return (recipes / name).resolve()


def empty_report(path):
    """Make the report an empty file, so that no older one is taken for this run's."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"")
    except OSError as error:
        raise UsageError(f"can't write the report {path}: {error.strerror}") from None


def environment_line(recipe, environ):
    """Which environment this run is in, in one line."""
    invoker = environ.get("CC_CI_RUN_INVOKER", "")
    fingerprint = environ.get("CC_CI_RUN_FINGERPRINT", "")
    if re.fullmatch("[a-z]+", invoker) and re.fullmatch("[0-9a-f]{64}", fingerprint):
        where = f"invoker {invoker}, environment {fingerprint[:12]}"
    else:
        where = "outside cc-ci-run: environment undeclared"
    return f"run_recipe_ci: recipe {recipe}, {where}"


def ignore_bytecode():
    """Import what is not the interpreter's own, or installed for it, from source only.

    The sweep's hash of a recipe leaves out compiled files in __pycache__, since any run of Python makes
    them. So none of them may be executed: one that is older than it seems, or was made by hand, would
    run code that the hash has not seen.
    """
    sys.dont_write_bytecode = True
    installed = tuple(path.rstrip("/") + "/" for path in sys.path if path != str(HERE))
    loader = importlib.machinery.SourceFileLoader
    with_bytecode = loader.get_code

    def get_code(self, fullname):
        path = self.get_filename(fullname)
        if path.startswith(installed):
            return with_bytecode(self, fullname)
        return self.source_to_code(self.get_data(path), path)

    loader.get_code = get_code  # of the class, as modules are also loaded without a search for them


def isolate(environ, run_dir):
    """Take out of `environ` what would change a run, and give it a HOME in run_dir."""
    for name in [name for name in environ if name.startswith(("PYTEST_", "XDG_"))]:
        del environ[name]
    environ.pop("GIT_CONFIG_GLOBAL", None)
    environ["GIT_CONFIG_NOSYSTEM"] = "1"
    environ["GIT_ATTR_NOSYSTEM"] = "1"
    home = run_dir / "home"
    home.mkdir()
    environ["HOME"] = str(home)
    environ["PYTHONPYCACHEPREFIX"] = str(run_dir / "pycache")  # for the tests' own interpreters
    try:
        os.getcwd()
    except OSError:
        os.chdir(run_dir)  # pytest can't start in a directory that was deleted


def pytest_arguments(options, recipe, run_dir, junit):
    """pytest's arguments. Of an option given twice the last counts: isolation comes last."""
    ini = recipe / "pytest.ini"
    if not ini.is_file():
        ini = HERE / "pytest.ini"
    return [
        f"--basetemp={run_dir / 'tmp'}",
        "-rfEs",  # why a test was skipped is part of the result
        *["-v"] * options.v,
        *["-x"] * options.x,
        *(["-k", options.k] if options.k is not None else []),
        *([f"--junitxml={run_dir / JUNIT}"] if junit else []),
        *options.pytest_args,
        f"--config-file={ini}",
        f"--rootdir={recipe}",
        f"--confcutdir={recipe}",
        "-pno:cacheprovider",
        str(recipe),
    ]


class Collector:
    """A pytest plugin that turns the collector of garbage on again: see run()."""

    def pytest_runtestloop(self):
        # What is there by now stays; collections need not look at it again.
        gc.freeze()
        gc.enable()


class OrderlyEnd:
    """Makes SIGTERM and SIGHUP tear the fixtures down first, and only then end the process."""

    def __init__(self, exit_pytest, result):
        self.signum = None  # the signal that came
        self.running = ""  # the test under way then
        self.stack = ""  # where the main thread was then
        self.clean_up = lambda: None
        self._exit_pytest = exit_pytest
        self._result = result
        self._in_pytest = False
        # Under nohup, SIGHUP stays ignored.
        self._handled = [
            signum for signum in (signal.SIGTERM, signal.SIGHUP) if signal.getsignal(signum) is signal.SIG_DFL
        ]
        # pytest puts stderr elsewhere while a test runs; the stacks go to the log.
        stderr = os.dup(2)
        for signum in self._handled:
            signal.signal(signum, self._on_signal)
            # Shows the stacks at once, also when the main thread does not come back to Python.
            faulthandler.register(signum, stderr, all_threads=True, chain=True)
        # A test may fork without exec (multiprocessing). A signal to that child is the child's
        # alone; blocked meanwhile, it can't come before the child has the default back.
        os.register_at_fork(
            before=functools.partial(signal.pthread_sigmask, signal.SIG_BLOCK, self._handled),
            after_in_parent=self._unblock,
            after_in_child=self._forget,
        )

    def call(self, run_pytest):
        """run_pytest(), which a signal ends. Before and after it, a signal is only noted."""
        self._in_pytest = True
        try:
            return run_pytest() if self.signum is None else None
        except BaseException:
            if self.signum is None:
                raise
            return None
        finally:
            self._in_pytest = False

    def die(self):
        """Die by the signal that came, as the caller expects of a process that it terminated."""
        with contextlib.suppress(OSError, ValueError):
            sys.stdout.flush()
        signal.signal(self.signum, signal.SIG_DFL)
        signal.raise_signal(self.signum)

    @property
    def name(self):
        return signal.Signals(self.signum).name

    def _on_signal(self, signum, frame):
        if self.signum is not None:
            return  # often sent twice: to the group, and passed on by a parent
        self.signum = signum
        self.running = self._result.running
        self.stack = "".join(traceback.format_stack(frame))
        faulthandler.unregister(signum)  # once is enough
        signal.signal(signal.SIGALRM, self._on_alarm)
        signal.alarm(GRACE_SECONDS)
        if self._in_pytest:
            self._exit_pytest(f"ended by {self.name}")

    def _on_alarm(self, _signum, _frame):
        """A fixture didn't return in time, or a test swallowed pytest's exit."""
        self.clean_up()
        self.die()

    def _unblock(self):
        signal.pthread_sigmask(signal.SIG_UNBLOCK, self._handled)

    def _forget(self):
        for signum in self._handled:
            signal.signal(signum, signal.SIG_DFL)
        self._unblock()


def run(options, recipe):
    """Run pytest on the recipe; its status, or 5 when no test was executed."""
    # pytest's modules make tens of thousands of objects that stay: to look for garbage among them
    # would take a tenth of the time to the first test. Tests run with the collector on.
    gc.disable()
    ignore_bytecode()
    import _pytest.assertion.rewrite
    import pytest  # here, so that --help and mistakes are answered at once
    import recipe_fixtures
    import recipe_result

    owner = os.getpid()
    path = os.environ.get("CC_CI_RUN_RESULT")
    result = recipe_result.Result(Path(path) if path else None, options.recipe, recipe, os.environ)
    end = OrderlyEnd(pytest.exit, result)
    with tempfile.TemporaryDirectory(prefix="cc-ci-run-", ignore_cleanup_errors=True) as name:
        junit = Path(name) / JUNIT
        end.clean_up = functools.partial(end_early, result, end, junit)
        isolate(os.environ, Path(name))
        # pytest keeps compiled test modules of its own in __pycache__.
        _pytest.assertion.rewrite.get_cache_dir = lambda _file: Path(name) / "pycache"
        # HOME is the run's by now.
        plugins = [Collector(), result, recipe_fixtures, recipe_fixtures.Run(options.recipe, recipe, os.environ)]
        arguments = pytest_arguments(options, recipe, Path(name), path or options.junit)
        status = end.call(lambda: pytest.main(arguments, plugins))
        if os.getpid() != owner:
            os._exit(1)  # a child that a test forked came all the way: the session is its parent's
        if end.signum is not None:
            end_early(result, end, junit)
            end.die()
        status = judge(options.recipe, int(status), result)
        write(result.write, status, junit)
        if options.junit and junit.is_file():
            write(shutil.copyfile, junit, options.junit)
    return status


def end_early(result, end, junit):
    """What is left to do when a signal ends a run."""
    ended = f"ended by {end.name}"
    if end.running:
        tell(f"{ended} during {end.running}")
    write(result.write, 128 + end.signum, junit, ended, end.running, end.stack)
    shutil.rmtree(junit.parent, ignore_errors=True)


def judge(recipe, status, result):
    """The exit status: pytest's, unless that says that all is well and it is not."""
    if status == 0 and result.session_status not in (0, None):
        tell(f"pytest ended with {result.session_status}, though its exit status is 0: a conftest changed it")
        return result.session_status
    if status == 0 and result.failed():
        tell(f"{result.failed()} tests of {recipe} failed, though pytest's exit status is 0: a conftest changed it")
        return TESTS_FAILED
    if status in (0, NO_TEST_EXECUTED) and result.executed() == 0:
        sys.stdout.flush()
        tell(f"no test of {recipe} was executed, so this is not a pass: {result.not_executed()}")
        return NO_TEST_EXECUTED
    return status


def write(write_file, *arguments):
    """Write a report. That this fails does not change what the tests have shown."""
    try:
        write_file(*arguments)
    except OSError as error:
        tell(f"a report was not written: {error}")


def tell(message):
    print(f"run_recipe_ci: {message}", file=sys.stderr)


def main(argv):
    try:
        options = parse(argv)
        recipe = find_recipe(options.recipes, options.recipe)
        if options.junit:
            empty_report(options.junit)
    except UsageError as error:
        tell(error)
        return USAGE_ERROR
    print(environment_line(options.recipe, os.environ), flush=True)
    return run(options, recipe)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
