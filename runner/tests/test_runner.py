"""The runner, run as a caller runs it, on small recipes made for each test."""

import json
import os
import py_compile
import signal
import subprocess
import sys
import time
import xml.etree.ElementTree
from pathlib import Path

import pytest

RUNNER = Path(__file__).resolve().parent.parent / "run_recipe_ci.py"
PASS = "def test_pass(): pass\n"
FAIL = "def test_fail(): assert False\n"
SKIP = "import pytest\ndef test_skip(): pytest.skip('needs a moon')\n"


class Place:
    """A recipes folder, a HOME, a TMPDIR and a working directory, all empty at first."""

    def __init__(self, root):
        self.root = root
        self.recipes = root / "recipes"
        self.home = root / "home"
        self.tmp = root / "tmp"
        self.cwd = root / "cwd"
        for directory in (self.recipes, self.home, self.tmp, self.cwd):
            directory.mkdir()
        self.environ = {
            "PATH": os.environ["PATH"],
            "HOME": str(self.home),
            "TMPDIR": str(self.tmp),
        }

    def recipe(self, name="demo", **files):
        """A recipe with these files; `test_a="..."` is test_a.py."""
        folder = self.recipes / name
        folder.mkdir()
        for stem, text in files.items():
            (folder / f"{stem}.py").write_text(text)
        return folder

    def command(self, *arguments):
        return [sys.executable, RUNNER, "--recipes", self.recipes, *arguments]

    def run(self, *arguments, **environ):
        return subprocess.run(
            self.command(*arguments),
            cwd=self.cwd,
            env={**self.environ, **environ},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )


@pytest.fixture
def place(tmp_path):
    made = Place(tmp_path)
    yield made
    assert list(made.tmp.iterdir()) == [], "a run left something in TMPDIR"


# The result


def result_of(place, *arguments, **environ):
    """The exit status of a run of `demo`, and its result: (status, about, tests), or (status, None, None)."""
    path = place.root / "result.json"
    done = place.run("demo", *arguments, CC_CI_RUN_RESULT=str(path), **environ)
    assert not list(place.root.glob(".*")), "half a file was left"
    if not path.exists():
        return done.returncode, None, None
    results = json.loads(path.read_text())["results"]
    return done.returncode, results["extra"]["cc_ci_run"], {t["name"]: t for t in results["tests"]}


def test_result_has_each_test_with_outcome_and_reason(place):
    place.recipe(
        test_a="""
import pytest
def test_pass(): pass
def test_skip(): pytest.skip("needs  a\\nmoon")
@pytest.mark.xfail(reason="known")
def test_xfail(): assert False
def test_fail(): assert 1 == 2, 'say "ü"'
@pytest.fixture
def bad_before(): raise OSError("no disk")
def test_setup(bad_before): pass
@pytest.fixture
def bad_after():
    yield
    assert False, "left over"
def test_teardown(bad_after): pass
def test_subtests(subtests):
    with subtests.test("one"): assert "one" == "two"
    with subtests.test("two"): pass
""",
        test_b="import pytest\npytest.skip('all of it', allow_module_level=True)\n",
    )
    status, about, tests = result_of(place, "-k", "not test_pass", CC_CI_RUN_INVOKER="drone")
    assert status == 1
    assert about["complete"] and about["why"] == "" and about["exit_status"] == 1
    assert (about["recipe"], about["revision"], about["invoker"], about["deselected"]) == ("demo", "", "drone", 1)
    assert {name: (t["status"], t["rawStatus"], t["message"].splitlines()[0]) for name, t in tests.items()} == {
        "test_a.py::test_skip": ("skipped", "skipped", "needs a moon"),
        "test_a.py::test_xfail": ("other", "xfailed", "known"),
        "test_a.py::test_fail": ("failed", "failed", 'AssertionError: say "ü"'),
        "test_a.py::test_setup": ("failed", "error", "in setup: OSError: no disk"),
        "test_a.py::test_teardown": ("failed", "error", "in teardown: AssertionError: left over"),
        "test_a.py::test_subtests": ("failed", "failed", "AssertionError: assert 'one' == 'two'"),
        "test_b.py": ("skipped", "skipped", "all of it"),
    }
    junit = place.root / "result.xml"
    assert xml.etree.ElementTree.parse(junit).getroot()[0].get("failures") == "3"
    assert [path.stat().st_mode & 0o007 for path in (junit, junit.with_suffix(".json"))] == [0, 0]
    assert not junit.with_suffix(".current").exists()


# Each of these ends a run early with exit status 0, after a test that failed.
EARLY = {
    "a test": ("test_z", "import os\ndef test_z(): os._exit(0)\n"),
    "a thread": (
        "test_z",
        "import os, threading\ndef test_z():\n t = threading.Thread(target=os._exit, args=(0,)); t.start(); t.join()\n",
    ),
    "another program": ("test_z", "import os\ndef test_z(): os.execv('/bin/true', ['true'])\n"),
    "a fixture's teardown": (
        "test_z",
        "import os, pytest\n@pytest.fixture\ndef f():\n yield\n os._exit(0)\ndef test_z(f): pass\n",
    ),
    "pytest.exit": ("test_z", "import pytest\ndef test_z(): pytest.exit('enough', returncode=0)\n"),
    "the conftest, at the session's end": ("conftest", "import os\ndef pytest_sessionfinish(): os._exit(0)\n"),
    "the conftest, after it": ("conftest", "import os\ndef pytest_unconfigure(): os._exit(0)\n"),
    "the conftest, during import": ("conftest", "import os\nos._exit(0)\n"),
    "the conftest, in the loop": ("conftest", "def pytest_runtestloop(session): return True\n"),
    "shouldstop": (
        "conftest",
        "import pytest\n@pytest.hookimpl(trylast=True)\ndef pytest_runtest_logfinish(): pytest.exit('x', 0)\n",
    ),
}


EARLY |= {
    "the session's end, after an internal error": (
        "conftest",
        "def pytest_runtest_logfinish(): raise OSError\ndef pytest_sessionfinish(session): session.exitstatus = 0\n",
    ),
    "an outcome that is none": (
        "conftest",
        (
            "import pytest\n@pytest.hookimpl(hookwrapper=True)\ndef pytest_runtest_makereport():\n"
            " done = yield\n report = done.get_result()\n"
            " if report.failed: report.outcome = 'rerun'\n"
        ),
    ),
    "a second test of the same name": (
        "conftest",
        (
            "import pytest\nclass Item(pytest.Item):\n def runtest(self):\n"
            "  calls.append(1)\n  if len(calls) == 2: pytest.exit('enough', returncode=0)\ncalls = []\n"
            "class File(pytest.File):\n def collect(self):\n"
            "  for _ in range(3): yield Item.from_parent(self, name='case')\n"
            "def pytest_collect_file(file_path, parent):\n"
            " if file_path.name == 'conftest.py': return File.from_parent(parent, path=file_path)\n"
            "def pytest_collection_modifyitems(items): items[:] = [i for i in items if i.name == 'case']\n"
        ),
    ),
}


@pytest.mark.parametrize("way", EARLY)
def test_an_early_end_leaves_no_complete_result(place, way):
    name, source = EARLY[way]
    place.recipe(**{"test_a": FAIL + PASS, name: source})
    status, about, _tests = result_of(place)
    assert about is None or status != 0 or not about["complete"] and about["why"]
    for left in place.tmp.iterdir():
        subprocess.run(["rm", "-r", left], check=True)  # nobody was left to do it


def test_a_runner_that_a_test_starts_writes_no_result(place):
    place.recipe(
        test_a=f"""
import os, subprocess, sys
def test_ok(): pass
def test_nested():
    subprocess.run([sys.executable, {str(RUNNER)!r}, "--recipes", {str(place.recipes)!r}, "demo", "-k", "ok"], check=True)
    os._exit(0)
"""
    )
    _status, about, _tests = result_of(place)
    assert about is None
    for left in place.tmp.iterdir():
        subprocess.run(["rm", "-r", left], check=True)


def test_a_test_that_skips_a_part_of_itself(place):
    place.recipe(
        test_a="import pytest\ndef test_parts(subtests):\n with subtests.test('one'): pytest.skip('needs a moon')\n"
    )
    status, _about, tests = result_of(place)
    assert status == 0 and tests["test_a.py::test_parts"]["status"] == "skipped"
    assert tests["test_a.py::test_parts"]["message"] == "needs a moon"


def test_a_status_that_a_conftest_changed(place):
    place.recipe(test_a=FAIL, conftest="def pytest_sessionfinish(session): session.exitstatus = 0\n")
    status, _about, tests = result_of(place)
    assert status == 1 and tests["test_a.py::test_fail"]["status"] == "failed"


def test_a_forked_child_writes_no_result(place):
    # The child goes on with the session that it inherited, and ends first.
    place.recipe(
        test_a="""
import os
def test_fork():
    pid = os.fork()
    if pid:
        os.waitpid(pid, 0)
        assert not os.path.exists(os.environ["CC_CI_RUN_RESULT"])
        assert os.path.isdir(os.environ["HOME"]), "the child cleaned up what is its parent's"
def test_after(): pass
"""
    )
    status, about, tests = result_of(place)
    assert status == 0 and about["complete"]
    assert [t["status"] for t in tests.values()] == ["passed", "passed"]


@pytest.mark.parametrize("hang", ["time.sleep(1000)", "threading.Lock().acquire(), threading.Lock().acquire(), lock()"])
def test_a_signal_names_the_test_under_way(place, hang):
    place.recipe(
        test_a=f"""
import pathlib, threading, time
def lock():
    held = threading.Lock()
    held.acquire()
    held.acquire()
def test_before(): pass
def test_hangs():
    pathlib.Path({str(place.cwd / "ready")!r}).touch()
    {hang}
def test_after(): pass
"""
    )
    path = place.root / "result.json"
    environ = {**place.environ, "CC_CI_RUN_RESULT": str(path)}
    child = subprocess.Popen(
        place.command("demo"), cwd=place.cwd, env=environ, stderr=subprocess.PIPE, text=True, stdout=subprocess.DEVNULL
    )
    while not (place.cwd / "ready").exists():
        time.sleep(0.02)
    assert path.with_suffix(".current").read_text() == "test_a.py::test_hangs"
    child.terminate()
    _out, stderr = child.communicate()
    assert child.returncode == -signal.SIGTERM
    assert "ended by SIGTERM during test_a.py::test_hangs" in stderr
    assert "in test_hangs" in stderr, "the stack"
    results = json.loads(path.read_text())["results"]
    about, tests = results["extra"]["cc_ci_run"], {t["name"]: t for t in results["tests"]}
    assert (about["complete"], about["why"], about["running"]) == (False, "ended by SIGTERM", "test_a.py::test_hangs")
    assert tests["test_a.py::test_before"]["status"] == "passed"
    assert (
        tests["test_a.py::test_hangs"]["status"] == "other"
        and "in test_hangs" in tests["test_a.py::test_hangs"]["trace"]
    )


def test_result_that_cant_be_written(place):
    place.recipe(test_a=PASS)
    done = place.run("demo", CC_CI_RUN_RESULT=str(place.root / "none" / "result.json"))
    assert done.returncode == 0
    assert "a report was not written: " in done.stderr


@pytest.mark.parametrize("owner", [None, 65534])
def test_revision_of_the_recipe(place, owner):
    folder = place.recipe(test_a=PASS)
    git = ["git", "-C", folder, "-c", "user.name=a", "-c", "user.email=a@b"]
    for arguments in (["init", "-q"], ["add", "."], ["commit", "-qm", "one"]):
        subprocess.run([*git, *arguments], check=True)
    commit = subprocess.run([*git, "rev-parse", "HEAD"], check=True, capture_output=True, text=True).stdout.strip()
    if owner is not None:
        if os.getuid() != 0:
            pytest.skip("giving a folder to another user needs root")
        subprocess.run(["chown", "-R", str(owner), folder], check=True)
    assert result_of(place)[1]["revision"] == commit


# What a sweep's hash leaves out is not executed


def test_compiled_files_are_not_executed(place):
    folder = place.recipe(
        test_a="""
import subprocess, sys
import helper, importlib.util, package.inner, pathlib
def test_file():
    spec = importlib.util.spec_from_file_location("other", pathlib.Path(__file__).with_name("helper.py"))
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert module.value == "source"
def test_import(): assert helper.value == package.inner.value == "source"
def test_own_interpreter():
    code = "import helper; print(helper.value)"
    assert subprocess.check_output([sys.executable, "-c", code], cwd=sys.path[0], text=True) == "source\\n"
""",
        helper='value = "source"\n',
        conftest="",
    )
    (folder / "package").mkdir()
    (folder / "package" / "inner.py").write_text('value = "source"\n')
    evil = place.root / "evil.py"
    evil.write_text('value = "compiled"\ndef test_import(): assert False\n')
    for source in [*folder.rglob("*.py")]:
        python = sys.implementation.cache_tag
        for tag in (python, f"{python}-pytest-{pytest.__version__}"):
            compiled = source.parent / "__pycache__" / f"{source.stem}.{tag}.pyc"
            # Never held against its source; pytest does so by size and time.
            py_compile.compile(evil, compiled, invalidation_mode=py_compile.PycInvalidationMode.UNCHECKED_HASH)
            if "pytest" in tag:
                data, stat = bytearray(compiled.read_bytes()), source.stat()
                data[4:16] = bytes(4) + int(stat.st_mtime).to_bytes(4, "little") + stat.st_size.to_bytes(4, "little")
                compiled.write_bytes(data)
    status, _about, tests = result_of(place)
    assert (status, [t["status"] for t in tests.values()]) == (0, ["passed"] * 3)


# Which environment


def test_first_line_names_invoker_and_environment(place):
    place.recipe(test_a=PASS)
    done = place.run("demo", CC_CI_RUN_INVOKER="systemd", CC_CI_RUN_FINGERPRINT="4f0c" + "12345678" * 7 + "abcd")
    first = done.stdout.splitlines()[0]
    assert first == "run_recipe_ci: recipe demo, invoker systemd, environment 4f0c12345678"


@pytest.mark.parametrize(
    "environ",
    [
        {},
        {"CC_CI_RUN_INVOKER": "manual"},
        {"CC_CI_RUN_INVOKER": "manual", "CC_CI_RUN_FINGERPRINT": "4f0c"},
        {"CC_CI_RUN_INVOKER": "man\nual", "CC_CI_RUN_FINGERPRINT": "a" * 64},
    ],
)
def test_undeclared_environment_is_said_and_the_run_goes_on(place, environ):
    place.recipe(test_a=PASS)
    done = place.run("demo", **environ)
    first = done.stdout.splitlines()[0]
    assert first == "run_recipe_ci: recipe demo, outside cc-ci-run: environment undeclared"
    assert done.returncode == 0


# Status


@pytest.mark.parametrize(
    ("source", "status"),
    [
        pytest.param(PASS, 0, id="passed"),
        pytest.param(FAIL, 1, id="failed"),
        pytest.param(PASS + SKIP, 0, id="one of two skipped"),
        pytest.param("import missing_module\n", 2, id="not collected"),
        pytest.param("import pytest\n@pytest.mark.xfail\ndef test_x(): assert 0\n", 0, id="expected to fail"),
    ],
)
def test_status_is_pytests(place, source, status):
    place.recipe(test_a=source)
    assert place.run("demo").returncode == status


NOT_EXECUTED = "run_recipe_ci: no test of demo was executed, so this is not a pass: "


def test_garbage_is_collected_while_tests_run(place):
    place.recipe(test_a="import gc\ndef test():\n    assert gc.isenabled()\n")
    assert place.run("demo").returncode == 0


@pytest.mark.parametrize(
    ("source", "arguments", "why"),
    [
        pytest.param("", [], "it has none, or none was run", id="no test"),
        pytest.param(SKIP, [], "1 skipped (needs a moon)", id="skipped in the test"),
        pytest.param(
            "import pytest\npytest.skip('no\\n sun', allow_module_level=True)\n",
            [],
            "1 skipped (no sun)",
            id="module skipped",
        ),
        pytest.param(
            "import pytest\n@pytest.mark.skipif(True, reason='no sea')\n"
            "@pytest.mark.parametrize('n', [1, 2])\ndef test_n(n): pass\n",
            [],
            "2 skipped (no sea)",
            id="marked",
        ),
        pytest.param(PASS + FAIL, ["-k", "nothing"], "2 deselected", id="deselected"),
        pytest.param(PASS + SKIP, ["-k", "skip"], "1 skipped (needs a moon), 1 deselected", id="both"),
        pytest.param(PASS, ["--", "--collect-only"], "it has none, or none was run", id="only collected"),
        pytest.param(
            "import pytest\n@pytest.mark.xfail(run=False)\ndef test_x(): pass\n",
            [],
            "it has none, or none was run",
            id="marked as not to run",
        ),
    ],
)
def test_no_test_executed_is_not_a_pass(place, source, arguments, why):
    place.recipe(test_a=source)
    done = place.run("demo", *arguments)
    assert done.stderr == f"{NOT_EXECUTED}{why}\n"
    assert done.returncode == 5


def test_skips_are_shown_with_their_reason(place):
    place.recipe(test_a=PASS + SKIP)
    assert "needs a moon" in place.run("demo").stdout


# Arguments


@pytest.mark.parametrize("name", ["", ".", "..", ".git", "a/b", "/etc", "../demo", "a\nb"])
def test_name_that_is_no_plain_name(place, name):
    place.recipe(test_a=PASS)
    done = place.run(name)
    assert done.stderr.startswith("run_recipe_ci: ")
    assert "is not the name of a recipe" in done.stderr
    assert (done.returncode, done.stdout) == (2, "")


def test_unknown_recipe_names_the_nearest_and_all(place):
    place.recipe("gitea", test_a=PASS)
    place.recipe("nextcloud", test_a=PASS)
    (place.recipes / ".hidden").mkdir()
    (place.recipes / "README").touch()
    done = place.run("gitae")
    assert done.stderr == (
        f"run_recipe_ci: no recipe gitae in {place.recipes}; did you mean gitea? (there are: gitea, nextcloud)\n"
    )
    assert (done.returncode, done.stdout) == (2, "")


def test_no_recipes_folder(place):
    place.recipes.rmdir()
    done = place.run("demo")
    assert done.stderr.startswith("run_recipe_ci: can't read the recipes folder")
    assert done.returncode == 2


@pytest.mark.parametrize("arguments", [[], ["demo", "other"], ["demo", "--nope"], ["demo", "-k"]])
def test_usage_error(place, arguments):
    done = place.run(*arguments)
    assert done.stderr.startswith("run_recipe_ci: ")
    assert (done.returncode, done.stdout) == (2, "")


def test_help_needs_no_pytest():
    done = subprocess.run([sys.executable, "-I", "-S", RUNNER, "--help"], capture_output=True, text=True, check=False)
    assert done.stdout.startswith("usage: run_recipe_ci.py RECIPE")
    assert done.returncode == 0


def test_names_with_spaces(place):
    place.recipe("my recipe", test_a=PASS)
    done = place.run("my recipe", "--junit", "a report.xml")
    assert done.stdout.startswith("run_recipe_ci: recipe my recipe, ")
    assert done.returncode == 0
    assert (place.cwd / "a report.xml").is_file()


def test_junit_report(place):
    place.recipe(test_a=PASS + FAIL)
    assert place.run("demo", "--junit", "report.xml").returncode == 1
    report = xml.etree.ElementTree.parse(place.cwd / "report.xml")
    assert report.find(".//testsuite").attrib["failures"] == "1"


def test_report_that_cant_be_written(place):
    place.recipe(test_a=PASS)
    done = place.run("demo", "--junit", ".")
    assert done.stderr.startswith("run_recipe_ci: can't write the report ")
    assert (done.returncode, done.stdout) == (2, "")


def test_options_reach_pytest(place):
    place.recipe(test_a=FAIL + "def test_late(): pass\n")
    done = place.run("demo", "-x", "-v", "--", "--durations=1", "--durations-min=0")
    assert "test_a.py::test_fail FAILED" in done.stdout
    assert "slowest 1 durations" in done.stdout
    assert "test_late" not in done.stdout


def test_deleted_working_directory(place):
    place.recipe(test_a=PASS)
    gone = place.root / "gone"
    script = f'mkdir "{gone}" && cd "{gone}" && rmdir "{gone}" && "$@"'
    for arguments, status in [([], 0), (["--junit", "report.xml"], 2)]:
        done = subprocess.run(
            ["sh", "-c", script, "sh", *place.command("demo", *arguments)],
            env=place.environ,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == status, done.stderr


# What belongs to a run


def poison(folder):
    """Everything by which a folder can take part in a pytest run that doesn't isolate itself."""
    folder.mkdir(exist_ok=True)
    (folder / "conftest.py").write_text("raise SystemExit('a conftest.py from elsewhere ran')\n")
    (folder / "pytest.ini").write_text("[pytest]\naddopts = --no-such-option\n")
    (folder / "tox.ini").write_text("[pytest]\naddopts = --no-such-option\n")
    (folder / "setup.cfg").write_text("[tool:pytest]\naddopts = --no-such-option\n")
    (folder / "pyproject.toml").write_text("[tool.pytest.ini_options]\naddopts = '--no-such-option'\n")
    for module in ("pytest", "conftest_plugin", "sitecustomize"):
        (folder / f"{module}.py").write_text("raise SystemExit('a module from elsewhere ran')\n")


def test_nothing_around_the_recipe_takes_part(place):
    recipe = place.recipe(test_a=PASS)
    for folder in (place.root, place.recipes, place.home, place.cwd):
        poison(folder)
    done = place.run("demo")
    assert f"\nrootdir: {recipe}\n" in done.stdout
    assert "1 passed" in done.stdout, done.stdout + done.stderr


def test_pytest_variables_take_no_part(place):
    place.recipe(test_a="import os\ndef test_a(): assert 'PYTEST_DEBUG_TEMPROOT' not in os.environ\n")
    done = place.run(
        "demo",
        PYTEST_ADDOPTS="--no-such-option",
        PYTEST_PLUGINS="no_such_plugin",
        PYTEST_DEBUG_TEMPROOT="/nonexistent",
    )
    assert "1 passed" in done.stdout, done.stdout + done.stderr


def test_pytest_arguments_dont_undo_the_isolation(place):
    place.recipe(test_a=PASS)
    poison(place.root)
    poison(place.recipes)
    done = place.run(
        "demo",
        "--",
        f"--rootdir={place.root}",
        f"--confcutdir={place.root}",
        "-c",
        str(place.root / "pytest.ini"),
        "-pcacheprovider",
    )
    assert "1 passed" in done.stdout, done.stdout + done.stderr


def test_the_recipes_own_files_take_part(place):
    folder = place.recipe(
        conftest="import pytest\n@pytest.fixture\ndef answer(): return 42\n",
        helper="QUESTION = 'six by nine'\n",
        check_a="import helper\ndef test_answer(answer): assert answer == 42 and helper.QUESTION\n",
    )
    (folder / "pytest.ini").write_text("[pytest]\npython_files = check_*.py\n")
    done = place.run("demo")
    assert "1 passed" in done.stdout, done.stdout + done.stderr


def test_unknown_marker_is_an_error(place):
    place.recipe(test_a="import pytest\n@pytest.mark.slwo\ndef test_a(): pass\n")
    assert place.run("demo").returncode == 2


def test_the_recipe_is_left_untouched(place):
    folder = place.recipe(test_a=PASS + FAIL, conftest="", helper="")
    before = sorted(folder.rglob("*"))
    place.run("demo")
    assert sorted(folder.rglob("*")) == before


def test_a_recipe_that_cant_be_written_to(place):
    folder = place.recipe(test_a="def test_a(tmp_path): (tmp_path / 'a').touch()\n")
    folder.chmod(0o555)
    assert place.run("demo").returncode == 0


# git


def test_a_persons_git_configuration_is_not_seen(place):
    (place.home / ".gitconfig").write_text("[core]\n\tpager = leaked\n[demo]\n\tkey = leaked\n")
    (place.home / ".config/git").mkdir(parents=True)
    (place.home / ".config/git/config").write_text("[demo]\n\tkey = leaked\n")
    (place.home / ".config/git/ignore").write_text("*\n")
    (place.home / ".config/git/attributes").write_text("* filter=leaked\n")
    place.recipe(
        test_a="""
import subprocess

def git(*command, cwd):
    return subprocess.run(["git", *command], cwd=cwd, capture_output=True, text=True).stdout

def test_git(tmp_path):
    git("init", cwd=tmp_path)
    (tmp_path / "a").touch()
    assert git("status", "--porcelain", cwd=tmp_path) == "?? a\\n"
    assert git("check-attr", "filter", "a", cwd=tmp_path) == "a: filter: unspecified\\n"
    assert "leaked" not in git("config", "--list", cwd=tmp_path)
"""
    )
    done = place.run("demo")
    assert done.returncode == 0, done.stdout


def test_home_is_fresh_and_forgotten(place):
    (place.home / ".jq").write_text('def length: "LEAKED";')
    place.recipe(
        test_a="""
import os, pathlib, subprocess

def test_home():
    home = pathlib.Path(os.environ["HOME"])
    assert list(home.iterdir()) == []
    done = subprocess.run(["jq", "length"], input=b"[1]", capture_output=True)
    assert done.stdout == b"1\\n"
    (home / "left").touch()
"""
    )
    for _ in range(2):
        done = place.run("demo")
        assert done.returncode == 0, done.stdout
    assert [path.name for path in place.home.iterdir()] == [".jq"]


def test_global_git_configuration_works_and_is_forgotten(place):
    (place.home / ".gitconfig").write_text("")
    source = """
import subprocess

def test_git():
    git = ["git", "config", "--global", "demo.key"]
    assert subprocess.run(git).returncode == 1, "kept from an earlier run"
    subprocess.run([*git, "value"], check=True)
    assert subprocess.run(git, capture_output=True).stdout == b"value\\n"
"""
    place.recipe(test_a=source)
    for _ in range(2):
        done = place.run("demo")
        assert done.returncode == 0, done.stdout
    assert (place.home / ".gitconfig").read_text() == ""


# Signals

STARTED = """
import pathlib, subprocess, time, pytest
root = pathlib.Path({root!r})

@pytest.fixture
def thing(tmp_path):
    yield tmp_path
    (root / "torn down").touch()

def test_long(thing):
    (root / "started").touch()
    {wait}
"""


def start_long_test(place, wait="time.sleep(60)", run=(sys.executable, RUNNER)):
    """The process of a run that is in the middle of a test."""
    place.recipe(test_a=STARTED.format(root=str(place.root), wait=wait))
    process = subprocess.Popen(
        [*run, "--recipes", place.recipes, "demo"],
        cwd=place.cwd,
        env=place.environ,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    limit = time.monotonic() + 30
    while not (place.root / "started").exists():
        assert process.poll() is None
        assert time.monotonic() < limit
        time.sleep(0.02)
    time.sleep(0.1)  # it says so just before it waits
    return process


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGHUP])
@pytest.mark.parametrize("wait", ["time.sleep(60)", "subprocess.run(['sleep', '60'])"])
def test_a_signal_ends_the_run_in_order(place, signum, wait):
    process = start_long_test(place, wait)
    process.send_signal(signum)
    process.send_signal(signum)  # as when a parent passes on what the whole group got
    assert process.wait(30) == -signum
    assert (place.root / "torn down").exists()


def test_a_test_that_doesnt_let_go_is_ended_all_the_same(place):
    wait = "\n    while True:\n        try: time.sleep(60)\n        except BaseException: pass"
    impatient = "import run_recipe_ci as r, sys; r.GRACE_SECONDS = 1; r.main(sys.argv[1:])"
    place.environ["PYTHONPATH"] = str(RUNNER.parent)
    place.environ["PYTHONDONTWRITEBYTECODE"] = "1"
    process = start_long_test(place, wait, [sys.executable, "-c", impatient])
    process.terminate()
    assert process.wait(30) == -signal.SIGTERM


def test_sigint_is_pytests(place):
    process = start_long_test(place)
    process.send_signal(signal.SIGINT)
    assert process.wait(30) == 2


def test_an_interrupted_run_says_so(place):
    place.recipe(test_a="import os, signal\ndef test_a(): os.kill(os.getpid(), signal.SIGINT)\n")
    status, about, _tests = result_of(place)
    assert (status, about["complete"], about["why"]) == (2, False, "ended by SIGINT")


def test_nohup_keeps_a_run_alive(place):
    process = start_long_test(place, "time.sleep(1)", ["nohup", sys.executable, RUNNER])
    process.send_signal(signal.SIGHUP)
    assert process.wait(30) == 0


def test_terminating_a_forked_child_ends_only_the_child(place):
    place.recipe(
        test_a="""
import multiprocessing, signal, time

def child(started):
    started.set()
    time.sleep(60)

def test_child(tmp_path):
    fork = multiprocessing.get_context("fork")
    started = fork.Event()
    process = fork.Process(target=child, args=(started,))
    process.start()
    assert started.wait(10)
    process.terminate()
    process.join(5)
    assert process.exitcode == -signal.SIGTERM
    assert tmp_path.is_dir()
"""
    )
    done = place.run("demo")
    assert done.returncode == 0, done.stdout
