"""Docker on this host, for recipe_deployment.py: docker's client, and the owners and removal of objects.

Each object of a deployment (a service, container, network, volume, secret or config) is created with three
labels:

    cc-ci-run.deployment  the name of the deployment
    cc-ci-run.run         the run: the name of its result, which is the ID of its record unless --result names a file
    cc-ci-run.owner       the run's process, so that another run can tell whether that process is alive
"""

import contextlib
import json
import os
import shutil
import socket
import subprocess
import time
from pathlib import Path

DEFAULT_HOST = "unix:///run/docker.sock"
DEPLOYMENT, RUN, OWNER = "cc-ci-run.deployment", "cc-ci-run.run", "cc-ci-run.owner"
COMMAND_SECONDS = 60  # the limit of one docker command: if the daemon hangs, the tests must not hang
AGAIN_SECONDS = 5  # time limit of the next commands, once a command has not ended in time
REMOVAL_SECONDS = 120
KINDS = ("service", "container", "network", "config", "secret", "volume")  # the order of removal
WITH_ITS_VOLUMES = ("--force", "--volumes")


class DeploymentError(Exception):
    """Why something failed, in words for the recipe's author. `output`: what a docker command printed before."""

    def __init__(self, message, output=b""):
        super().__init__(message)
        self.output = (output or b"").decode(errors="replace")


class LateError(DeploymentError):
    """A command did not end within its time limit."""


def execute(name, command, limit, late, **options):
    """Run a command, and return its stdout. DeploymentError if it fails, LateError if it takes over `limit` seconds.

    name     the command in messages; the first word is the program
    late     the end of the message if it takes too long
    options  as for subprocess.run
    """
    try:
        done = subprocess.run(command, timeout=limit, check=False, **options)
    except subprocess.TimeoutExpired as error:
        raise LateError(f"{name} did not end within {limit} s{late}", error.stdout) from None
    except OSError as error:
        raise DeploymentError(f"{name.partition(' ')[0]} cannot be executed: {error.strerror}") from None
    if done.returncode != 0:
        said = (done.stderr or done.stdout or b"").decode(errors="replace").strip()
        raise DeploymentError(f"{name}: {said or f'exit status {done.returncode}'}", done.stdout)
    return (done.stdout or b"").decode(errors="replace")


class Docker:
    """Docker's client, which reaches the daemon that DOCKER_HOST names."""

    def __init__(self, environ):
        self.environ = environ
        self.host = environ.get("DOCKER_HOST") or DEFAULT_HOST
        self._program = shutil.which("docker", path=environ.get("PATH")) or "docker"
        self._hangs = False  # whether the last command did not end in time

    def __call__(
        self, *arguments, limit=COMMAND_SECONDS, environ=None, input=None, stdin=None, stdout=None, stderr=None
    ):
        """Run `docker ARGUMENTS…` and return its stdout. DeploymentError if it fails or takes over `limit` seconds.

        environ, input, stdin, stdout, stderr: as for subprocess.run
        """
        name = "docker " + " ".join(word for word in map(str, arguments[:2]) if not word.startswith("-"))
        if self._hangs:
            limit = min(limit, AGAIN_SECONDS)
        self._hangs = False
        try:
            return execute(
                name,
                [self._program, *map(str, arguments)],
                limit,
                f": does the daemon at {self.host} hang?",
                env=self.environ if environ is None else environ,
                input=input,
                **({} if input is not None else {"stdin": stdin or subprocess.DEVNULL}),
                stdout=stdout or subprocess.PIPE,
                stderr=stderr or subprocess.PIPE,
            )
        except LateError:
            self._hangs = True
            raise

    def rows(self, *arguments):
        """The objects that a docker command prints, one as JSON on each line."""
        lines = self(*arguments, "--format", "{{json .}}").splitlines()
        return [json.loads(line) for line in lines if line.strip()]

    def inspect(self, kind, ids):
        """The objects with these IDs or names, without those that no longer exist."""
        if not ids:
            return []
        try:
            return json.loads(self(kind, "inspect", *ids))
        except DeploymentError as error:
            if "no such" not in str(error).lower():
                raise
            return json.loads(error.output or "[]")

    def ids(self, kind, label):
        """The IDs of all objects of a kind that have a label: `NAME`, or `NAME=VALUE`."""
        stopped_too = ["--all"] if kind == "container" else []
        return self(kind, "ls", "--quiet", *stopped_too, "--filter", f"label={label}").split()

    def why_no_swarm(self):
        """Why this machine has no swarm that this user can deploy to; "" if it has one.

        DeploymentError if there is a daemon, but it does not answer.
        """
        if self.host.startswith("unix://"):
            path = Path(self.host.removeprefix("unix://"))
            if not path.exists():
                return f"there is no daemon at {path}"
            if not os.access(path, os.R_OK | os.W_OK):
                return f"only root and the group {group_of(path)} may use {path}"
        (info,) = self.rows("info")
        if info.get("ServerErrors"):  # newer clients: no answer, and yet exit status 0
            raise DeploymentError(f"docker info: {' '.join(info['ServerErrors'])}")
        if not info["Swarm"].get("ControlAvailable"):
            return f"the daemon at {self.host} is not a swarm's manager (`docker swarm init` makes it one)"
        return ""

    def remove(self, label, limit=REMOVAL_SECONDS):
        """Remove all objects that have a label. What is still in use (by a container that is ending) is tried again."""
        until = time.monotonic() + limit
        while True:
            left, refusals = False, []
            for kind in KINDS:
                ids = self.ids(kind, label)
                if not ids:
                    continue
                left = True
                try:
                    self(kind, "rm", *(WITH_ITS_VOLUMES if kind == "container" else ()), *ids)
                except DeploymentError as error:
                    refusals.append(str(error))
            if not left:
                return
            if time.monotonic() > until:
                raise DeploymentError(f"objects with the label {label} could not be removed: {'; '.join(refusals)}")
            time.sleep(0.2)

    def left_behind(self):
        """The names of the deployments whose run has ended."""
        names = set()
        for kind in KINDS:
            for thing in self.inspect(kind, self.ids(kind, OWNER)):
                labels = labels_of(thing)
                if has_ended(labels.get(OWNER, "")):
                    names.add(labels.get(DEPLOYMENT, ""))
        return sorted(names - {""})


def group_of(path):
    import grp

    with contextlib.suppress(KeyError):
        return grp.getgrgid(path.stat().st_gid).gr_name
    return str(path.stat().st_gid)


def labels_of(thing):
    """The labels of an object, from what `docker KIND inspect` prints."""
    places = ((thing.get("Spec") or {}).get("Labels"), (thing.get("Config") or {}).get("Labels"), thing.get("Labels"))
    return next(filter(None, places), {})


# The value of the label OWNER: "MACHINE BOOT PID_NAMESPACE PID START"


def owner(pid):
    """The value of the label OWNER for a process of this machine."""
    return f"{machine()} {boot()} {os.stat('/proc/self/ns/pid').st_ino} {pid} {start(pid)}"


def machine():
    with contextlib.suppress(OSError):
        name = Path("/etc/machine-id").read_text().strip()
        if name:
            return name
    return socket.gethostname()


def boot():
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def start(pid):
    """When a process started, in ticks since boot (field 22 of /proc/PID/stat).

    "?" if /proc does not show that; "ended" if the process is a zombie, for which its parent has yet to wait.
    """
    with contextlib.suppress(OSError, IndexError):
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return "ended" if fields[0] in "ZX" else fields[19]
    return "?"


def has_ended(label):
    """Whether the process in a label OWNER has ended for certain. A process that cannot be seen counts as alive."""
    theirs, mine = label.split(), owner(os.getpid()).split()
    if len(theirs) != len(mine) or theirs[0] != mine[0]:
        return False  # the process is on another machine, or another program wrote the label
    if theirs[1] != mine[1]:
        return True  # the machine has rebooted since
    if theirs[2] != mine[2] or not theirs[3].isdecimal():
        return False
    try:
        os.kill(int(theirs[3]), 0)
    except ProcessLookupError:
        return True
    except (PermissionError, OverflowError):
        pass
    now = start(theirs[3])
    # If the two differ, another process has this number now.
    return now == "ended" or ("?" not in (now, theirs[4]) and now != theirs[4])
