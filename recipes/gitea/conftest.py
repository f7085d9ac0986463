"""What gitea's tests share: commands, the instance to test, a repository on it, a browser.

The instance is the recipe itself, deployed to this host's Docker swarm, unless GITEA_URL, GITEA_USER
and GITEA_PASSWORD name an instance that already runs. git and curl get the password from their
environment or standard input, never as an argument or in a URL, which every user of the machine can read.
"""

import json
import os
import re
import secrets
import shlex
import subprocess
from dataclasses import dataclass, field

import pytest
from playwright.sync_api import sync_playwright

ADMINISTRATOR = "witness"

# git and git-lfs run this helper to get a name and a password; sh expands the variables, git does not.
CREDENTIAL_HELPER = """!f() { printf 'username=%s\\npassword=%s\\n' "$WITNESS_USER" "$WITNESS_PASSWORD"; }; f"""


@dataclass(frozen=True)
class Instance:
    """A running Gitea, and one of its users."""

    url: str
    user: str
    password: str = field(repr=False)  # pytest shows the values of arguments in a traceback

    def git_environment(self):
        """Variables that make git and git-lfs log in to this instance, and only to this instance."""
        return {
            "GIT_CONFIG_COUNT": "1",
            "GIT_CONFIG_KEY_0": f"credential.{self.url}.helper",
            "GIT_CONFIG_VALUE_0": CREDENTIAL_HELPER,
            "WITNESS_USER": self.user,
            "WITNESS_PASSWORD": self.password,
        }

    def api(self, method, path, body=None):
        """Call the API with curl, and return the answer as text."""
        quoted = f"{self.user}:{self.password}".replace("\\", "\\\\").replace('"', '\\"')
        command = ["curl", "--fail-with-body", "--silent", "--show-error", "--config", "-"]
        command += ["--request", method, f"{self.url}/api/v1{path}"]
        if body is not None:
            command += ["--header", "Content-Type: application/json", "--data", json.dumps(body)]
        return run(*command, input=f'user = "{quoted}"\n')


@dataclass(frozen=True)
class Repository:
    """A private repository, empty at first."""

    name: str
    url: str
    page: str


def run(*command, cwd=None, env=None, input=None):
    """Run a command, which must succeed, and return its stdout. `env` is added to os.environ."""
    __tracebackhide__ = True  # pytest then shows the line of the caller
    done = subprocess.run(
        command,
        cwd=cwd,
        env={**os.environ, **(env or {})},
        input=input,
        stdin=subprocess.DEVNULL if input is None else None,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, f"{shlex.join(command)} ended with {done.returncode}\n{done.stdout}{done.stderr}"
    return done.stdout


@pytest.fixture(name="run", scope="session")
def run_fixture():
    """The function `run`, for tests."""
    return run


@pytest.fixture(scope="session")
def deployment_settings():
    """The deployed Gitea serves HTTP, because no proxy in front of it adds TLS."""
    return {"GITEA_SCHEME": "http"}


@pytest.fixture(scope="session")
def instance(request):
    """The instance that GITEA_URL names, or the deployed recipe. Without both, the test is skipped."""
    url, user, password = (os.environ.get(name) for name in ("GITEA_URL", "GITEA_USER", "GITEA_PASSWORD"))
    if not url:
        return new_administrator(request.getfixturevalue("deployment"))
    if not (user and password):
        pytest.fail("GITEA_URL is set, but not both GITEA_USER and GITEA_PASSWORD", pytrace=False)
    return Instance(url.rstrip("/"), user, password)


@pytest.fixture(scope="session")
def deployed(request):
    """The deployed recipe, for tests of the deployment. They are skipped if GITEA_URL names another instance."""
    if os.environ.get("GITEA_URL"):
        pytest.skip("tests a deployment of the recipe: unset GITEA_URL, which names another instance")
    return request.getfixturevalue("deployment")


@pytest.fixture(scope="session")
def maybe_instance(request):
    """The instance, or None where a test that needs an instance is skipped."""
    try:
        return request.getfixturevalue("instance")
    except pytest.skip.Exception:
        return None


def new_administrator(deployment):
    """Create the first user of a deployed Gitea, with a password that Gitea makes up."""
    create = ["gitea", "admin", "user", "create", "--admin", "--username", ADMINISTRATOR]
    create += ["--email", f"{ADMINISTRATOR}@localhost.invalid", "--random-password", "--must-change-password=false"]
    said = deployment.run("app", *create)
    password = re.search(r"random password is '(.+)'$", said, re.MULTILINE)
    assert password, f"gitea did not say the new user's password: {said}"
    return Instance(deployment.url, ADMINISTRATOR, password.group(1))


@pytest.fixture
def repository(instance):
    """A new repository on the instance, deleted after the test."""
    name = f"witness-{secrets.token_hex(4)}"
    instance.api("POST", "/user/repos", {"name": name, "private": True})
    page = f"{instance.url}/{instance.user}/{name}"
    yield Repository(name, f"{page}.git", page)
    instance.api("DELETE", f"/repos/{instance.user}/{name}")


@pytest.fixture
def page():
    """A new page in a browser, which is launched with nothing but the defaults, as any recipe would."""
    with sync_playwright() as playwright, playwright.chromium.launch() as browser:
        yield browser.new_page()
