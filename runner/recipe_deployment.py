"""Deploys a recipe to this host's Docker swarm for its tests: see the fixtures in recipe_fixtures.py.

docs/recipes.md says what is deployed, when a deployment is ready or has failed, and who removes what a killed
run leaves. recipe_compose.py changes the compose files; recipe_swarm.py runs docker, and knows the owners of
objects.
"""

import contextlib
import functools
import os
import re
import secrets as random_secrets
import string
import subprocess
import tarfile
import time

import pytest
from recipe_compose import Stack
from recipe_swarm import DEPLOYMENT, OWNER, RUN, DeploymentError, owner

RESTARTS = 10  # a test fails when a service has failed this often: some services fail until their database answers
REJECTIONS = 3  # a test fails when the daemon has refused this often to start a service: its image is missing, say
PORT_TRIES = 3  # another process can take a free port before the service starts
LOG_LINES = 50
LOG_CHARACTERS = 16 << 10
LEFT_BEHIND_SECONDS = 30  # time limit of the removal of another run's deployment
POLL_SECONDS = 1
NOWHERE = "node.id==none"  # a constraint that no node satisfies
PORT_TAKEN = re.compile(r"port is already allocated|address already in use|host-mode port already in use")


@contextlib.contextmanager
def failing():
    """Turns a DeploymentError into the failure of the test, without a traceback through this file."""
    try:
        yield
    except DeploymentError as error:
        raise pytest.fail.Exception(str(error), pytrace=False) from None  # `from None`: else pytest shows it twice


class PortTakenError(DeploymentError):
    """A service cannot have its port, because another process has it."""


class Deployments:
    """The deployments of one run. `made` has those that are not yet removed."""

    def __init__(self, docker, run, tmp_path_factory, settings, say):
        self.made = []
        self.say = say  # shows a line of progress
        self._docker, self._run, self._settings = docker, run, settings
        self._tmp_path_factory = tmp_path_factory
        self._refused = set()  # names of other runs' deployments that could not be removed
        self._owner = os.getpid()
        self._labels = {RUN: run_id(run.environ), OWNER: owner(self._owner)}

    def new(self, settings=None, secrets=None):
        """Deploy the recipe, and wait until all its services are healthy.

        settings  {name: value}: they override deployment_settings and .env.sample
        secrets   {name in compose.yml: value}: used in place of random values. A deployment that restores a
                  backup may need the secrets of the deployment that made the backup.
        """
        __tracebackhide__ = True
        with failing():
            for more_tries in reversed(range(PORT_TRIES)):
                one = self._prepare(settings or {}, secrets or {})
                self.made.append(one)
                try:
                    one.deploy()
                    return one
                except BaseException as error:
                    with contextlib.suppress(DeploymentError):  # close() tries again
                        one.remove()
                    if not more_tries or not isinstance(error, PortTakenError):
                        raise
                    self.say(f"{one.name}: another process has taken a port; deploying again with other ports")

    def remove_left_behind(self):
        """Remove the deployments of runs that have ended."""
        for name in sorted(set(self._docker.left_behind()) - self._refused):
            self.say(f"removing the deployment {name}, which a killed run left")
            try:
                self._docker.remove(f"{DEPLOYMENT}={name}", limit=LEFT_BEHIND_SECONDS)
            except DeploymentError as error:
                self._refused.add(name)  # trying again at the end would only take as long again
                self.say(f"{name} is left: {error}")  # not this recipe's fault

    def close(self):
        """Remove the deployments of this run, and once more those of runs that have ended."""
        if os.getpid() != self._owner:
            return  # a child that a test forked: the deployments are its parent's
        errors = []
        for one in list(self.made):
            try:
                one.remove()
            except DeploymentError as error:
                errors.append(f"{error}\nthe deployment {one.name} is left; the next run that deploys removes it")
        if errors:
            raise DeploymentError("\n".join(errors))
        self.remove_left_behind()

    def _prepare(self, settings, secrets):
        name = f"cc-ci-{re.sub('[^a-z0-9]+', '-', self._run.recipe.lower())[:16].strip('-')}-{os.urandom(4).hex()}"
        labels = {DEPLOYMENT: name, **self._labels}
        return Deployment(self, self._docker, self._run.folder, name, self._settings | settings, secrets, labels)

    def directory(self):
        """A new directory, which the run removes at its end."""
        return self._tmp_path_factory.mktemp("deployment")


def run_id(environ):
    """The ID of the run's record. Outside cc-ci-run there is none: then an ID made of the time and the PID."""
    result = os.path.basename(environ.get("CC_CI_RUN_RESULT", ""))
    return (
        re.sub(r"[^\w.%-]", "_", os.path.splitext(result)[0])
        or time.strftime("%Y%m%dT%H%M%SZ", time.gmtime()) + f"-{os.getpid()}"
    )


class Deployment:
    """The recipe as one stack of the swarm.

    name      its name: STACK_NAME
    url       the address of the recipe's page, whose port a label of the recipe names
    secrets   {name in compose.yml: value}
    settings  {name: value} of the variables that the compose files can use
    """

    def __init__(self, deployments, docker, folder, name, settings, secrets, labels):
        self.name, self.secrets = name, dict(secrets)
        self._made = set()  # the names of the secrets that are in the swarm
        self._all, self._docker = deployments, docker
        self._label = f"{DEPLOYMENT}={name}"  # of all its objects
        self._labels = as_options("label", labels)
        self._abra = deploys_with_abra(docker.environ)
        self._stack = Stack(folder, name, settings, docker.environ, labels)

    @property
    def url(self):
        __tracebackhide__ = True
        with failing():
            if not self._stack.web:
                label = "traefik.http.services.….loadbalancer.server.port"
                raise DeploymentError(f"{self.name} has no page: no service has a label {label}, which names its port")
            return f"http://127.0.0.1:{self._stack.ports[self._stack.web]}"

    @property
    def settings(self):
        return self._stack.settings

    def port(self, service, target):
        """The port of this host that leads to a port of a service."""
        __tracebackhide__ = True
        with failing():
            if (service, target) not in self._stack.ports:
                there = ", ".join(f"{name} {port}" for name, port in self._stack.ports) or "none"
                raise DeploymentError(f"{self.name} publishes no port {target} of {service} (there are: {there})")
            return self._stack.ports[service, target]

    def run(self, service, *command, input=None):
        """Run a command in the container of a service, and return its stdout. `input` is text for its stdin."""
        __tracebackhide__ = True
        with failing():
            (container, *_) = self._containers(service) or [None]
            if container is None:
                raise DeploymentError(f"{self.name}: no container of {service} is running\n{self.report()}")
            data = None if input is None else input.encode()
            return self._docker(
                "exec", "--interactive", container, *command, input=data or b"", limit=self._stack.timeout
            )

    def upgrade(self, **settings):
        """Deploy the stack again with other settings (another image, say), and wait until it is healthy.

        If that fails, the next upgrade starts from the settings before this one.
        """
        __tracebackhide__ = True
        earlier = self._stack
        with failing():
            self._stack = earlier.changed(settings)
            try:
                self.deploy()
            except BaseException:
                self._stack = earlier
                raise

    def backup(self, file):
        """Write the contents of all volumes to a file, a tar archive. The services stop meanwhile."""
        __tracebackhide__ = True
        with failing(), open(file, "wb") as archive, self._stopped() as volumes, self._holder(volumes) as holder:
            self._docker("cp", f"{holder}:/volumes/.", "-", stdout=archive, limit=self._stack.timeout)

    def restore(self, file):
        """Replace the contents of all volumes with those of a file that backup() wrote. The services stop meanwhile."""
        __tracebackhide__ = True
        with failing(), open(file, "rb") as archive:
            saved = top_names(file)
            with self._stopped() as volumes:
                if saved != set(volumes):
                    names = f"{', '.join(sorted(saved)) or 'none'}, and the recipe has {', '.join(sorted(volumes))}"
                    raise DeploymentError(f"{file} is a backup of other volumes: {names}")
                for volume in self._docker.inspect("volume", volumes.values()):
                    options = as_options("label", volume["Labels"]) + as_options("opt", volume["Options"])
                    self._docker("volume", "rm", volume["Name"])
                    self._docker("volume", "create", f"--driver={volume['Driver']}", *options, volume["Name"])
                with self._holder(volumes) as holder:
                    self._docker("cp", "-", f"{holder}:/volumes", stdin=archive, limit=self._stack.timeout)

    def remove(self):
        """Remove the stack, its volumes with their data, and its secrets."""
        self._docker.remove(self._label)
        with contextlib.suppress(ValueError):
            self._all.made.remove(self)

    def report(self):
        """For people: the state of the services, the ends of their logs, and the last output of their health checks."""
        state = "table {{.Name}}\t{{.DesiredState}}\t{{.CurrentState}}\t{{.Error}}"
        parts = {"docker stack ps": lambda: self._docker("stack", "ps", self.name, "--no-trunc", "--format", state)}
        with contextlib.suppress(DeploymentError):  # the first part says why docker does not answer
            for service in self._services():
                name = service["Spec"]["Name"]
                parts[f"docker service logs {name}"] = functools.partial(self._logs, name)
        parts["health checks"] = self._health
        return "\n".join(f"== {title}\n{words_of(part).rstrip()}" for title, part in parts.items())

    def _logs(self, service):
        # docker writes to its stderr what the service wrote to its own stderr: most errors.
        command = ("service", "logs", "--raw", "--tail", LOG_LINES, service)
        try:
            logs = self._docker(*command, limit=15, stderr=subprocess.STDOUT)
        except DeploymentError as error:  # docker 20.10 does not end after a very long line
            logs = f"{error.output}\n{error}"
        return logs[-LOG_CHARACTERS:]

    def deploy(self):
        """Give the stack to docker, and wait until it is healthy. DeploymentError if it does not become healthy."""
        before = {service["Spec"]["Name"]: service for service in self._services()}
        self._make_secrets()
        self._give()
        updates = {}
        for service in self._services():
            name, now = service["Spec"]["Name"], update_of(service)
            old = before.get(name)
            earlier = update_of(old or {}).get("StartedAt")
            # A rollback may be over by now, and the template the old one again.
            begun = now.get("StartedAt") not in (None, earlier)
            if old and (begun or old["Spec"]["TaskTemplate"] != service["Spec"]["TaskTemplate"]):
                updates[name] = earlier
        self._wait(updates, first=not before)

    def _give(self):
        """Give the stack to docker or abra."""
        directory = self._all.directory()
        if self._abra:
            import recipe_abra

            recipe_abra.deploy(directory, self._stack)
            return
        written = [directory / f"{number}.yml" for number in range(len(self._stack.texts))]
        try:
            for file, text in zip(written, self._stack.texts, strict=True):
                file.write_text(text)
            files = [word for file in written for word in ("--compose-file", file)]
            resolve = [] if self._images_are_elsewhere() else ["--resolve-image", "never"]
            self._docker(
                "stack", "deploy", *resolve, *files, self.name, environ=self._stack.settings, limit=self._stack.timeout
            )
        except DeploymentError as error:
            message = str(error)
            for file, of_recipe in zip(written, self._stack.files, strict=True):
                message = message.replace(str(file), str(of_recipe))
            raise DeploymentError(f"{', '.join(map(str, self._stack.files))}: {message}") from None

    def _make_secrets(self):
        there = {secret["Name"] for secret in self._rows("secret")}
        for name, wanted in self._stack.secrets.items():
            if wanted in there:
                continue
            if name not in self.secrets or name in self._made:  # a new version has a new value
                self.secrets[name] = random_text(self._stack.secret_length(name))
            self._made.add(name)
            self._docker("secret", "create", *self._labels, wanted, "-", input=self.secrets[name].encode())

    def _images_are_elsewhere(self):
        """Whether docker must ask a registry for an image. For an image that only this host has, it must not ask."""
        return any(not self._docker.inspect("image", [image]) for image in self._stack.images)

    def _wait(self, updates, first):
        """Wait until all services are ready.

        updates  {name of a service that is being updated: when its update before that one started, or None}
        first    whether the services start for the first time, so that another process may have a port of theirs
        """
        until = time.monotonic() + self._stack.timeout
        troubles = {}  # {(service, "Failed" or "Rejected"): IDs of its tasks}
        shown = ""
        while waiting := self._waiting_for(updates):
            self._look_for_trouble(troubles, first)
            if time.monotonic() > until:
                why = f"not healthy after {self._stack.timeout} s (the setting TIMEOUT): {', '.join(waiting)}"
                raise DeploymentError(self._failure(why))
            if shown != (shown := f"{self.name}: waiting for {', '.join(waiting)}"):
                self._all.say(shown)
            time.sleep(POLL_SECONDS)

    def _waiting_for(self, updates):
        """The services that are not ready, each with the reason. Swarm counts a task as running once it is healthy."""
        waiting = []
        for row in self._rows("service"):
            now, _, wanted = row["Replicas"].partition(" ")[0].partition("/")
            if now != wanted:
                waiting.append(f"{self._short(row['Name'])} ({now} of {wanted} healthy)")
        for service in self._services() if updates else ():
            name, update = service["Spec"]["Name"], update_of(service)
            if name not in updates or replicas_of(service) == 0:
                continue
            state = update.get("State", "") if update.get("StartedAt") != updates[name] else ""
            if state.startswith(("paused", "rollback")):
                why = f"the update of {name} ended in state {state}: {update.get('Message', '')}"
                raise DeploymentError(self._failure(why))
            if state != "completed":
                waiting.append(f"{self._short(name)} (being updated)")
        return waiting

    def _look_for_trouble(self, troubles, first):
        """Give up early where waiting will not help."""
        for task in self._tasks():
            state = task["CurrentState"].partition(" ")[0]
            name = task["Name"].lstrip(" \\_")
            if first and PORT_TAKEN.search(task["Error"]):
                raise PortTakenError(self._failure(f"{name}: {task['Error']}"))
            limit = {"Failed": RESTARTS, "Rejected": REJECTIONS}.get(state)
            if limit is None:
                continue
            seen = troubles.setdefault((name, state), set())
            seen.add(task["ID"])
            if len(seen) >= limit:
                raise DeploymentError(self._failure(f"{name} {state.lower()} {limit} times: {task['Error']}"))

    def _running(self):
        """Whether swarm counts a task of the services as running."""
        return any(not row["Replicas"].startswith("0/") for row in self._rows("service"))

    def _tasks(self):
        try:
            return self._docker.rows("stack", "ps", self.name, "--no-trunc")
        except DeploymentError as error:
            if "nothing found in stack" not in str(error):  # swarm has yet to make the first task
                raise
            return []

    def _failure(self, why):
        return f"the deployment {self.name} failed: {why}\n{self.report()}"

    def _short(self, service):
        """The name of a service in the compose files."""
        return service.removeprefix(f"{self.name}_")

    # What docker says about the deployment

    def _rows(self, kind):
        """What `docker KIND ls` prints of the deployment's objects."""
        return self._docker.rows(kind, "ls", "--filter", f"label={self._label}")

    def _inspected(self, kind):
        """What `docker KIND inspect` prints of the deployment's objects."""
        return self._docker.inspect(kind, self._docker.ids(kind, self._label))

    def _services(self):
        return self._inspected("service")

    def _containers(self, service):
        name = f"label=com.docker.swarm.service.name={self.name}_{service}"
        return self._docker("container", "ls", "--quiet", "--filter", name).split()

    def _health(self):
        lines = []
        for container in self._inspected("container"):
            state = container["State"]
            last = ((state.get("Health") or {}).get("Log") or [{}])[-1]
            lines.append(f"{container['Name'].lstrip('/')}: {state['Status']}, exit code {state['ExitCode']}")
            if last:
                lines.append(f"  {state['Health']['Status']}: exit code {last['ExitCode']}: {last['Output'].strip()}")
        return "\n".join(lines)

    # Volumes

    @contextlib.contextmanager
    def _stopped(self):
        """Stops the services, and starts them again at the end; gives {name of a volume in the files: name}."""
        if not self._stack.volumes:
            raise DeploymentError(f"{self.name} has no volumes")
        services = {service["ID"]: replicas_of(service) for service in self._services()}
        try:
            for service, replicas in services.items():
                self._scale(service, ["--constraint-add", NOWHERE] if replicas is None else ["--replicas", 0])
            until = time.monotonic() + self._stack.timeout
            # Swarm learns of a container's end a moment later; until then it would count as a healthy task.
            while self._rows("container") or self._running():
                if time.monotonic() > until:
                    raise DeploymentError(self._failure(f"the services did not stop within {self._stack.timeout} s"))
                time.sleep(POLL_SECONDS)
            for container in self._docker.ids("container", self._label):
                with contextlib.suppress(DeploymentError):  # swarm removes it, too
                    self._docker("container", "rm", container)  # an ended container still holds its volumes
            there = self._docker.ids("volume", self._label)
            yield {name: volume for name, volume in self._stack.volumes.items() if volume in there}
        finally:
            for service, replicas in services.items():
                self._scale(service, ["--constraint-rm", NOWHERE] if replicas is None else ["--replicas", replicas])
            self._wait({}, first=False)

    def _scale(self, service, options):
        self._docker("service", "update", "--detach", *options, service)

    @contextlib.contextmanager
    def _holder(self, volumes):
        """A container that never runs and has the volumes below /volumes, where `docker cp` reads and writes them."""
        mounts = [f"--volume={volume}:/volumes/{name}" for name, volume in volumes.items()]
        image = self._stack.images[0]
        holder = self._docker("container", "create", *self._labels, *mounts, "--entrypoint=none", image).strip()
        try:
            yield holder
        finally:
            self._docker("container", "rm", holder)


def deploys_with_abra(environ):
    """Whether the variable DEPLOY_WITH asks for abra; DeploymentError if it names another tool."""
    tool = environ.get("DEPLOY_WITH") or "docker"
    if tool not in ("docker", "abra"):
        raise DeploymentError(f"DEPLOY_WITH is {tool!r}: set it to docker or abra, or unset it")
    return tool == "abra"


def update_of(service):
    """What swarm says of a service's last update; {} if there was none."""
    return service.get("UpdateStatus") or {}


def replicas_of(service):
    """How many tasks a service wants; None if it wants one on each node."""
    return service["Spec"]["Mode"].get("Replicated", {}).get("Replicas")


def words_of(ask):
    """What `ask` returns, or docker's message if it fails: a report goes on without one of its parts."""
    try:
        return ask()
    except DeploymentError as error:
        return str(error)


def as_options(name, pairs):
    """Options of docker's, such as --label=KEY=VALUE."""
    return [f"--{name}={key}={value}" for key, value in (pairs or {}).items()]


def top_names(file):
    """The names at the top of a tar archive."""
    try:
        with tarfile.open(file) as archive:
            names = [name.removeprefix("./").partition("/")[0] for name in archive.getnames()]
    except tarfile.TarError as error:
        raise DeploymentError(f"{file} is not a backup: {error}") from None
    return set(names) - {"", "."}


def random_text(length):
    return "".join(random_secrets.choice(string.ascii_letters + string.digits) for _ in range(length))
