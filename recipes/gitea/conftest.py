"""What gitea's tests share: commands, the instance to test, a repository on it, a browser.

The instance is the recipe itself, deployed to this host's Docker swarm, unless GITEA_URL, GITEA_USER
and GITEA_PASSWORD name one that runs already. The password reaches git and curl by their environment
or standard input, never by an argument or a URL: those are there for every user of the machine to read.
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

# git and git-lfs ask this for a name and a password; sh expands the variables, git doesn't.
CREDENTIAL_HELPER = """!f() { printf 'username=%s\\npassword=%s\\n' "$WITNESS_USER" "$WITNESS_PASSWORD"; }; f"""


@dataclass(frozen=True)
class Instance:
    """A running Gitea and a user of it."""

    url: str
    user: str
    password: str = field(repr=False)  # pytest shows the values of arguments in a traceback

    def git_environment(self):
        """Variables with which git and git-lfs log in to this instance, and to no other."""
        return {
            "GIT_CONFIG_COUNT": "1",
            "GIT_CONFIG_KEY_0": f"credential.{self.url}.helper",
            "GIT_CONFIG_VALUE_0": CREDENTIAL_HELPER,
            "WITNESS_USER": self.user,
            "WITNESS_PASSWORD": self.password,
        }

    def api(self, method, path, body=None):
        """Call the API with curl; what it answered, as text."""
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
    """Run a command, which must succeed; what it wrote to stdout. `env` adds to os.environ."""
    __tracebackhide__ = True  # the caller's line says more
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
    """How the recipe is deployed for these tests: by HTTP, as no proxy brings TLS."""
    return {"GITEA_SCHEME": "http"}


@pytest.fixture(scope="session")
def instance(request):
    """The instance that the environment names, or the deployed recipe. With neither, the test is skipped."""
    url, user, password = (os.environ.get(name) for name in ("GITEA_URL", "GITEA_USER", "GITEA_PASSWORD"))
    if not url:
        return new_administrator(request.getfixturevalue("deployment"))
    if not (user and password):
        pytest.fail("GITEA_URL is set, but not both GITEA_USER and GITEA_PASSWORD", pytrace=False)
    return Instance(url.rstrip("/"), user, password)


@pytest.fixture(scope="session")
def maybe_instance(request):
    """The instance, or None."""
    try:
        return request.getfixturevalue("instance")
    except pytest.skip.Exception:
        return None


def new_administrator(deployment):
    """A deployed Gitea with its first user, whose password Gitea makes up."""
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
    """A new page in a browser, launched as any recipe would: with nothing but the defaults."""
    with sync_playwright() as playwright, playwright.chromium.launch() as browser:
        yield browser.new_page()
