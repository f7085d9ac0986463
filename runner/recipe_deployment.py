"""The fixture `deployment`: the recipe, deployed to this host's Docker swarm for its tests.

    def test_answers(deployment):
        urllib.request.urlopen(deployment.url)

The recipe is deployed when the first test asks for it. It is removed at the end, however the session ends.
docs/recipes.md shows how to write a recipe's tests. The fixtures:

    deployment           the recipe with its defaults: a Deployment
    deployments          makes others: deployments.new(settings={…}, secrets={…})
    deployment_settings  a dict of settings for all of them, which a recipe's conftest.py may define

What is deployed
----------------
compose.yml, or the files that COMPOSE_FILE in .env.sample names. The values of its variables come from
.env.sample and abra.sh, as with abra. A variable that neither has comes from the run's environment. Each
deployment has a STACK_NAME, a DOMAIN and ports of its own, so that it disturbs no other one:

- Each port that the recipe publishes becomes a free port of the host, in mode `host`. So does the port of the
  page, which a label of traefik names (`…loadbalancer.server.port=N`). DOMAIN is 127.0.0.1 with that port.
- Each external secret is made, as abra does: with as many random letters and digits as .env.sample says
  (`SECRET_NAME_VERSION=v1 # length=N`).
- A network or volume from outside the stack (`external: true`) becomes one of the stack, and `traefik.enable`
  becomes false, so that production's proxy does not learn of the deployment.
- A service stops before its next version starts, as both have the same port.
- Health checks run each second. A service may be unhealthy for as long as the recipe says.

Nothing stays
-------------
A run that is killed leaves its deployments. The next run, of whatever recipe, removes them before its first
deployment and at its end. It removes those whose run's process has ended for certain, and nothing else: see
recipe_swarm.py.
"""

import contextlib
import functools
import os
import re
import subprocess
import time

import pytest
from recipe_swarm import DEPLOYMENT, OWNER, RUN, DeploymentError, Docker, owner

RESTARTS = 10  # how often a service may fail before it is given up: some fail until their database answers
REJECTIONS = 3  # how often the daemon may refuse to start a service, for want of its image, say
PORT_TRIES = 3  # a port that was free can be taken by the time that the service starts
LOG_LINES = 50
POLL_SECONDS = 0.5
PORT_TAKEN = re.compile(r"port is already allocated|address already in use|host-mode port already in use")


RUN_OF_SESSION = pytest.StashKey()


class Run:
    """What the fixtures below need to know of the run. `deployments`: those that were made, once there are any."""

    def __init__(self, recipe, folder, environ):
        self.recipe, self.folder, self.environ = recipe, folder, environ
        self.deployments = None

    def pytest_configure(self, config):
        config.stash[RUN_OF_SESSION] = self


@pytest.fixture(scope="session")
def deployment_settings():
    """Settings of the recipe that its tests need: {name: value}. Define it in conftest.py."""
    return {}


@pytest.fixture(scope="session")
def deployments(pytestconfig, deployment_settings, tmp_path_factory):
    """Makes deployments of the recipe: see Deployments.new. Without a swarm, the test is skipped."""
    run = pytestconfig.stash[RUN_OF_SESSION]
    docker = Docker(dict(run.environ))
    with failing():
        reason = docker.why_no_swarm()
    if reason:
        pytest.skip(f"needs a Docker swarm, and {reason}; `make deployed` runs the tests with one of its own")
    say = sayer(pytestconfig.pluginmanager.getplugin("capturemanager"))
    run.deployments = Deployments(docker, run, tmp_path_factory, deployment_settings, say)
    with failing():
        run.deployments.remove_left_behind()
    yield run.deployments
    with failing():
        run.deployments.close()


@pytest.fixture(scope="session")
def deployment(deployments):
    """The recipe, deployed with its defaults."""
    return deployments.new()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item):
    report = yield
    made = item.config.stash[RUN_OF_SESSION].deployments
    if report.failed and made and "deployments" in getattr(item, "fixturenames", ()):
        report.sections += [(f"deployment {one.name}", one.report()) for one in made.made]
    return report


def sayer(capture):
    """A function that shows a line of progress at once, although pytest captures what tests print."""

    def say(text):
        with capture.global_and_fixture_disabled() if capture else contextlib.nullcontext():
            print(f"run_recipe_ci: {text}", flush=True)

    return say


@contextlib.contextmanager
def failing():
    """Makes a DeploymentError the failure of a test: its own words, without a trace through this file."""
    try:
        yield
    except DeploymentError as error:
        raise pytest.fail.Exception(str(error), pytrace=False) from None  # `from`: or the message is there twice


class Deployments:
    """The deployments of one run. `made` has those that were not removed."""

    def __init__(self, docker, run, tmp_path_factory, settings, say):
        self.made = []
        self.say = say  # shows a line of progress
        self._docker, self._run, self._settings = docker, run, settings
        self._tmp_path_factory = tmp_path_factory
        self._labels = {RUN: run_id(run.environ), OWNER: owner(os.getpid())}

    def new(self, settings=None, secrets=None):
        """Deploy the recipe, and wait until all its services are healthy.

        settings  {name: value}: these come before deployment_settings and .env.sample
        secrets   {name in compose.yml: value}: these instead of random ones, as a restored volume needs
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
                    if not more_tries or not PORT_TAKEN.search(str(error)):
                        raise
                    self.say(f"{one.name}: a port was taken meanwhile; trying other ports")

    def remove_left_behind(self):
        """Remove the deployments of runs that have ended."""
        for name in self._docker.left_behind():
            self.say(f"removing the deployment {name} of a run that was killed")
            self._docker.remove(f"{DEPLOYMENT}={name}")

    def close(self):
        """Remove the deployments of this run, and once more those of runs that have ended."""
        errors = []
        for one in list(self.made):
            try:
                one.remove()
            except DeploymentError as error:
                errors.append(f"{error}\n{one.name} stays, and the next run removes it")
        if errors:
            raise DeploymentError("\n".join(errors))
        self.remove_left_behind()

    def _prepare(self, settings, secrets):
        name = f"cc-ci-{re.sub('[^a-z0-9]+', '-', self._run.recipe.lower())[:16].strip('-')}-{os.urandom(4).hex()}"
        labels = {DEPLOYMENT: name, **self._labels}
        given = {key: str(value) for key, value in {**self._settings, **settings}.items()}
        return Deployment(self, self._docker, self._run.folder, name, given, secrets, labels)

    def directory(self):
        """A new directory, which the run removes at its end."""
        return self._tmp_path_factory.mktemp("deployment")


def run_id(environ):
    """The ID of the run's record, or one from the time outside cc-ci-run."""
    result = os.path.basename(environ.get("CC_CI_RUN_RESULT", ""))
    return os.path.splitext(result)[0] or time.strftime("%Y%m%dT%H%M%SZ", time.gmtime()) + f"-{os.getpid()}"


class Deployment:
    """The recipe as one stack of the swarm.

    name      its name: STACK_NAME
    url       the address of its page, "" if no label of the recipe names a port for it
    secrets   {name in compose.yml: value}
    settings  {name: value} of all variables of the compose files
    """

    def __init__(self, deployments, docker, folder, name, settings, secrets, labels):
        from recipe_compose import Stack  # here, as most runs deploy nothing

        self.name, self.secrets = name, dict(secrets)
        self._all, self._docker, self._labels = deployments, docker, labels
        self._given = settings
        self._make = lambda ports: Stack(folder, name, self._given, docker.environ, labels, ports)
        self._stack = self._make({})

    @property
    def url(self):
        return f"http://127.0.0.1:{self.port(*self._stack.web)}" if self._stack.web else ""

    @property
    def settings(self):
        return self._stack.settings

    def port(self, service, target):
        """The port of this host that leads to a port of a service."""
        return self._stack.ports[service, target]

    def run(self, service, *command, input=None):
        """Run a command in the container of a service; what it wrote to stdout. `input` is text for its stdin."""
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
        """Deploy the stack again with other settings (another image, say), and wait until that is done."""
        __tracebackhide__ = True
        with failing():
            self._given |= {key: str(value) for key, value in settings.items()}
            self._stack = self._make(self._stack.ports)
            self.deploy()

    def backup(self, file):
        """Write the contents of all volumes to a file, a tar archive. The services stop meanwhile."""
        __tracebackhide__ = True
        with failing(), self._stopped() as volumes, self._holder(volumes) as holder, open(file, "wb") as archive:
            self._docker("cp", f"{holder}:/volumes/.", "-", stdout=archive, limit=self._stack.timeout)

    def restore(self, file):
        """Replace the contents of all volumes with those of a file that backup() wrote."""
        __tracebackhide__ = True
        with failing(), self._stopped() as volumes:
            for volume in self._docker.inspect("volume", [f"{self.name}_{name}" for name in volumes]):
                labels = [f"--label={key}={value}" for key, value in (volume["Labels"] or {}).items()]
                options = [f"--opt={key}={value}" for key, value in (volume["Options"] or {}).items()]
                self._docker("volume", "rm", volume["Name"])
                self._docker("volume", "create", f"--driver={volume['Driver']}", *options, *labels, volume["Name"])
            with self._holder(volumes) as holder, open(file, "rb") as archive:
                self._docker("cp", "-", f"{holder}:/volumes", stdin=archive, limit=self._stack.timeout)

    def remove(self):
        """Remove the stack, its volumes with their data, and its secrets."""
        self._docker.remove(f"{DEPLOYMENT}={self.name}")
        with contextlib.suppress(ValueError):
            self._all.made.remove(self)

    def report(self):
        """The state of the services, and what they said last, for people."""
        state = "table {{.Name}}\t{{.DesiredState}}\t{{.CurrentState}}\t{{.Error}}"
        parts = [("docker stack ps", lambda: self._docker("stack", "ps", self.name, "--no-trunc", "--format", state))]
        for service in self._docker_quietly(self._services, []):
            name = service["Spec"]["Name"]
            parts.append((f"docker service logs {name}", functools.partial(self._logs, name)))
        parts.append(("health checks", self._health))
        return "\n".join(f"== {title}\n{self._docker_quietly(part, '', tell=True).rstrip()}" for title, part in parts)

    def _logs(self, service):
        # docker writes to its stderr what the service wrote to its own: most errors.
        command = ("service", "logs", "--raw", "--tail", LOG_LINES, service)
        return self._docker(*command, limit=15, stderr=subprocess.STDOUT)

    # How it is deployed

    def deploy(self):
        """Give the stack to docker, and wait. DeploymentError if it does not become healthy."""
        before = {service["Spec"]["Name"]: service for service in self._services()}
        self._make_secrets()
        files = []
        directory = self._all.directory()
        for number, text in enumerate(self._stack.texts):
            file = directory / f"{number}.yml"
            file.write_text(text)
            files += ["--compose-file", file]
        resolve = [] if self._images_are_elsewhere() else ["--resolve-image", "never"]
        try:
            self._docker(
                "stack", "deploy", *resolve, *files, self.name, environ=self._stack.settings, limit=self._stack.timeout
            )
        except DeploymentError as error:
            message = str(error)
            for number, file in enumerate(self._stack.files):
                message = message.replace(str(directory / f"{number}.yml"), str(file))
            raise DeploymentError(f"{', '.join(map(str, self._stack.files))}: {message}") from None
        self._wait(before, first=not before)

    def _make_secrets(self):
        there = {
            secret["Name"]
            for secret in self._docker.rows("secret", "ls", "--filter", f"label={DEPLOYMENT}={self.name}")
        }
        labels = [f"--label={key}={value}" for key, value in self._labels.items()]
        for name, wanted in self._stack.secrets.items():
            if wanted not in there:
                value = self.secrets.setdefault(name, random_text(self._stack.lengths.get(name)))
                self._docker("secret", "create", *labels, wanted, "-", input=value.encode())

    def _images_are_elsewhere(self):
        """Whether a registry has to be asked. docker cannot ask one for an image that was only made here."""
        return any(not self._docker.inspect("image", [image]) for image in self._stack.images)

    def _wait(self, before, first):
        """Wait until the services are as the stack wants them.

        before  {name: service} before the stack was given to docker
        first   whether the services start for the first time, so that a port may be taken
        """
        until = time.monotonic() + self._stack.timeout
        troubles = {}  # {(service, "Failed" or "Rejected"): IDs of its tasks}
        shown = ""
        while waiting := self._waiting_for(before):
            self._look_for_trouble(troubles, first)
            if time.monotonic() > until:
                why = f"not healthy after {self._stack.timeout} s (the setting TIMEOUT): {', '.join(waiting)}"
                raise DeploymentError(self._failure(why))
            if shown != (shown := f"{self.name}: waiting for {', '.join(waiting)}"):
                self._all.say(shown)
            time.sleep(POLL_SECONDS)

    def _waiting_for(self, before):
        """The services that are not ready, each with what it lacks. A task runs, for swarm, once it is healthy."""
        waiting = []
        for row in self._docker.rows("service", "ls", "--filter", f"label={DEPLOYMENT}={self.name}"):
            now, _, wanted = row["Replicas"].partition(" ")[0].partition("/")
            if now != wanted:
                waiting.append(f"{row['Name'].removeprefix(self.name + '_')} ({now} of {wanted} healthy)")
        for service in self._services() if before else ():
            old = before.get(service["Spec"]["Name"])
            if old is None or old["Spec"]["TaskTemplate"] == service["Spec"]["TaskTemplate"]:
                continue
            update, earlier = service.get("UpdateStatus") or {}, old.get("UpdateStatus") or {}
            begun = update.get("StartedAt") != earlier.get("StartedAt")
            state = update.get("State", "") if begun else ""
            if state.startswith(("paused", "rollback")):
                why = f"the update of {service['Spec']['Name']} ended as {state}: {update.get('Message', '')}"
                raise DeploymentError(self._failure(why))
            if state != "completed":
                waiting.append(f"{service['Spec']['Name'].removeprefix(self.name + '_')} (its update)")
        return waiting

    def _look_for_trouble(self, troubles, first):
        """Give up early where waiting will not help."""
        for task in self._docker.rows("stack", "ps", self.name, "--no-trunc"):
            state = task["CurrentState"].partition(" ")[0]
            name = task["Name"].lstrip(" \\_")
            if first and PORT_TAKEN.search(task["Error"]):
                raise DeploymentError(self._failure(f"{name}: {task['Error']}"))
            limit = {"Failed": RESTARTS, "Rejected": REJECTIONS}.get(state)
            if limit is None:
                continue
            seen = troubles.setdefault((name, state), set())
            seen.add(task["ID"])
            if len(seen) >= limit:
                raise DeploymentError(self._failure(f"{name} {state.lower()} {limit} times: {task['Error']}"))

    def _failure(self, why):
        return f"{self.name} was not deployed: {why}\n{self.report()}"

    # What docker has of it

    def _services(self):
        return self._docker.inspect("service", self._docker.ids("service", f"{DEPLOYMENT}={self.name}"))

    def _containers(self, service):
        name = f"label=com.docker.swarm.service.name={self.name}_{service}"
        return self._docker("container", "ls", "--quiet", "--filter", name).split()

    def _health(self):
        lines = []
        for container in self._docker.inspect("container", self._docker.ids("container", f"{DEPLOYMENT}={self.name}")):
            state = container["State"]
            last = ((state.get("Health") or {}).get("Log") or [{}])[-1]
            lines.append(f"{container['Name'].lstrip('/')}: {state['Status']}, exit code {state['ExitCode']}")
            if last:
                lines.append(f"  {state['Health']['Status']}: exit code {last['ExitCode']}: {last['Output'].strip()}")
        return "\n".join(lines)

    def _docker_quietly(self, ask, otherwise, tell=False):
        """What docker answers; if that fails, `otherwise` or docker's message: a report has to be complete."""
        try:
            return ask()
        except DeploymentError as error:
            return str(error) if tell else otherwise

    # Volumes

    @contextlib.contextmanager
    def _stopped(self):
        """Stops the services, and starts them again; gives the names of the volumes."""
        services = {s["ID"]: s["Spec"]["Mode"].get("Replicated", {}).get("Replicas") for s in self._services()}
        replicas = {service: number for service, number in services.items() if number}
        self._scale(dict.fromkeys(replicas, 0))
        until = time.monotonic() + self._stack.timeout
        mine = f"label={DEPLOYMENT}={self.name}"
        while self._docker("container", "ls", "--quiet", "--filter", mine):
            if time.monotonic() > until:
                raise DeploymentError(self._failure(f"the services did not stop within {self._stack.timeout} s"))
            time.sleep(POLL_SECONDS)
        for container in self._docker.ids("container", f"{DEPLOYMENT}={self.name}"):
            with contextlib.suppress(DeploymentError):  # swarm removes it, too
                self._docker("container", "rm", container)  # one that has ended still holds its volumes
        volumes = self._docker.inspect("volume", self._docker.ids("volume", f"{DEPLOYMENT}={self.name}"))
        try:
            yield [volume["Name"].removeprefix(f"{self.name}_") for volume in volumes]
        finally:
            self._scale(replicas)
            self._wait({}, first=False)

    def _scale(self, replicas):
        for service, number in replicas.items():
            self._docker("service", "update", "--detach", "--replicas", number, service)

    @contextlib.contextmanager
    def _holder(self, volumes):
        """A container that never runs, and has the volumes in /volumes: `docker cp` reads and writes them by it."""
        labels = [f"--label={key}={value}" for key, value in self._labels.items()]
        mounts = [f"--volume={self.name}_{volume}:/volumes/{volume}" for volume in volumes]
        image = self._stack.images[0]
        holder = self._docker("container", "create", *labels, *mounts, "--entrypoint=none", image).strip()
        try:
            yield holder
        finally:
            self._docker("container", "rm", holder)


def random_text(length):
    import secrets
    import string

    return "".join(secrets.choice(string.ascii_letters + string.digits) for _ in range(length or 32))
