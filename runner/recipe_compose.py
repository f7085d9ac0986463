"""A recipe's compose files, changed so that tests can deploy them: docs/recipes.md lists the changes."""

import math
import re
import socket

import recipe_yaml
import yaml
from recipe_swarm import DeploymentError

TIMEOUT_SECONDS = 300  # the time limit of a deployment whose recipe has no setting TIMEOUT
SECRET_LENGTH = 32
WEB_PORT = re.compile(r"traefik\..*\.loadbalancer\.server\.port")


class Stack:
    """What is given to `docker stack deploy`: files (their texts), settings, secrets and ports.

    folder    the recipe's folder
    names     the compose files' paths, relative to `folder`
    files     the same paths, with `folder`
    texts     their changed contents
    settings  all variables of the run, overridden by those of the recipe and of the test
    own       the names that .env.sample, abra.sh or the test sets, and STACK_NAME and DOMAIN
    ports     {(service, port in the container): port of the host}; those in the argument `ports` are kept
    images    the services' images
    volumes   {name in the files: name in the swarm}
    secrets   {name in the files: name in the swarm} of the secrets that must exist before the deployment
    web       the key in `ports` of the recipe's page, or None
    """

    def __init__(self, folder, name, settings, environ, labels, ports=()):
        self.name = name
        settings = {key: str(value) for key, value in settings.items()}
        sample, self._lengths = read_settings(folder / ".env.sample")
        versions, _ = read_settings(folder / "abra.sh", exported=True)
        self.settings = {**environ, **sample, **versions, **settings, "STACK_NAME": name}
        self.own = {*sample, *versions, *settings, "STACK_NAME", "DOMAIN"}
        self.ports, self.secrets, self.volumes, self.images, self.web = dict(ports), {}, {}, [], None
        self.names = self.settings.get("COMPOSE_FILE", "compose.yml").split(":")
        self.files = [folder / name for name in self.names]
        self.folder, self._given, self._environ, self._labels = folder, settings, environ, labels
        contents = [read_compose(file) for file in self.files]
        for content in contents:
            self._make_over(content)
        if "DOMAIN" not in settings:
            self.settings["DOMAIN"] = f"127.0.0.1:{self.ports[self.web]}" if self.web else "127.0.0.1"
        self.texts = [recipe_yaml.dump(content) for content in contents]

    @property
    def timeout(self):
        """How many seconds a deployment may take."""
        given = str(self.settings.get("TIMEOUT", ""))
        return int(given) if given.isdecimal() and int(given) else TIMEOUT_SECONDS

    def changed(self, settings):
        """The stack with other settings, and with the same ports."""
        return Stack(self.folder, self.name, self._given | settings, self._environ, self._labels, self.ports)

    def secret_length(self, name):
        return self._lengths.get(name, SECRET_LENGTH)

    def _make_over(self, content):
        if not isinstance(content, dict):
            return
        content.setdefault("version", "3.8")  # docker 20.10 takes a file without a version for one of version 1
        if content.get("networks") is None:
            content["networks"] = {}
        if isinstance(content["networks"], dict):
            content["networks"].setdefault("default", {})  # docker makes it for services that name no network
        # A section that does not have the shape of a compose file's is not changed: docker reports the mistake.
        changes = {
            "services": self._service,
            "networks": self._network,
            "volumes": self._volume,
            "configs": self._file,
            "secrets": self._secret,
        }
        for section, change in changes.items():
            entries = content.get(section)
            for name, entry in entries.items() if isinstance(entries, dict) else ():
                entries[name] = {} if entry is None else entry
                if isinstance(entries[name], dict):
                    change(name, entries[name])

    def _network(self, _name, entry):
        entry.pop("external", None)
        self._own(entry)

    def _volume(self, name, entry):
        entry.pop("external", None)
        self._own(entry)
        self.volumes[name] = self._expand(entry.get("name") or f"{self.name}_{name}")

    def _file(self, _name, entry):
        """A config, or a secret whose value is in a file of the recipe."""
        if isinstance(entry.get("file"), str):
            entry["file"] = self._absolute(entry["file"])
        if not truth(entry.get("external")):
            self._own(entry)

    def _secret(self, name, entry):
        if truth(entry.get("external")):
            wanted = self._expand(entry.get("name") or name)
            self.secrets[name] = wanted if wanted.startswith(self.name) else f"{self.name}_{wanted}"
            entry.update(external=True, name=self.secrets[name])
        else:
            self._file(name, entry)

    def _own(self, entry):
        """Give an object the labels, and a name that no other deployment has."""
        if not self._expand(entry.get("name", "")).startswith(self.name):
            entry.pop("name", None)  # docker makes one of the stack's name
        self._label(entry)

    def _label(self, entry, more=()):
        """Add labels, if the labels that are there have the shape of labels."""
        labels = entry.get("labels")
        if labels is None or isinstance(labels, list | dict):
            entry["labels"] = pairs(labels) | dict(more) | self._labels

    def _service(self, name, entry):
        self._label(entry)  # for the service's containers
        if entry.get("deploy") is None:
            entry["deploy"] = {}
        deploy = entry["deploy"]
        if not isinstance(deploy, dict):
            return
        if entry.get("image"):  # a second file of the recipe may change other things of the service only
            self.images.append(self._expand(entry["image"]))
        labels = pairs(deploy.get("labels"))
        self._label(deploy, {"traefik.enable": "false"} if "traefik.enable" in labels else ())
        self._publish(name, entry, deploy, self._web_port(labels))
        self._hasten(entry.get("healthcheck"))
        if isinstance(entry.get("env_file"), str):
            entry["env_file"] = [entry["env_file"]]
        for key, change in (("env_file", self._absolute), ("volumes", self._mount)):
            if isinstance(entry.get(key), list):
                entry[key] = [change(one) for one in entry[key]]

    def _web_port(self, labels):
        """The port in a service's container that answers for its page, as a label of traefik says, or None."""
        for label, value in labels.items():
            if WEB_PORT.fullmatch(self._expand(label)) and self._expand(value).isdecimal():
                return int(self._expand(value))
        return None

    def _publish(self, name, entry, deploy, web):
        ports = entry.get("ports") or []
        if not isinstance(ports, list):
            return
        ports = [one for port in ports for one in long_forms(port, self._expand)]
        if not all(str(port.get("target", "")).isdecimal() for port in ports):
            return
        if web and all(int(port["target"]) != web for port in ports):
            ports.append({"target": web})
        for port in ports:
            key = name, int(port["target"])
            variable = re.match(r"\$\{?(\w+)", str(port.get("published", "")))
            variable = variable.group(1) if variable else ""
            if self._given.get(variable, "").isdecimal():
                self.ports[key] = int(self._given[variable])
            elif key not in self.ports:
                self.ports[key] = free_port(self.ports.values())
            if variable:
                self.settings[variable] = str(self.ports[key])  # the recipe may use the variable elsewhere, too
            port.update(target=key[1], published=self.ports[key], mode="host")
        if web:
            self.web = self.web or (name, web)
        if ports:
            entry["ports"] = ports
            replicas = self._expand(deploy.get("replicas", 1))
            if replicas.isdecimal() and int(replicas) > 1:
                deploy["replicas"] = 1  # only one task can have a port of the host
            if isinstance(deploy.setdefault("update_config", {}), dict):
                deploy["update_config"].update(order="stop-first", monitor="1s")

    def _hasten(self, check):
        """Run a health check every second; the service may be unhealthy for as long as the recipe allows."""
        if not isinstance(check, dict) or ("interval" not in check and len(self.files) > 1):
            return  # a second file that changes the command only
        interval = seconds(self._expand(check.get("interval", "30s")))  # 30 s and 3 are docker's defaults
        retries = self._expand(check.get("retries", 3))
        if interval and interval > 1 and retries.isdecimal():
            check.update(interval="1s", retries=math.ceil(interval * int(retries)))

    def _mount(self, mount):
        """An entry of a service's `volumes`: a volume, or a folder of the recipe, whose path becomes absolute."""
        if isinstance(mount, str) and mount.startswith("."):
            source, colon, rest = mount.partition(":")
            return self._absolute(source) + colon + rest
        if isinstance(mount, dict) and str(mount.get("source", "")).startswith("."):
            return mount | {"source": self._absolute(mount["source"])}
        return mount

    def _absolute(self, path):
        """The absolute form of a path in the recipe: docker reads the changed compose files in another folder."""
        return str((self.folder / self._expand(path)).absolute()) if isinstance(path, str) else path

    def _expand(self, text):
        return expand(str(text), self.settings)


ASSIGNMENT = re.compile(
    r"""\s*(?P<export>export\s+)?(?P<name>[A-Za-z_]\w*)="""
    r"""(?:"(?P<double>[^"]*)"|'(?P<single>[^']*)'|(?P<bare>[^#\s]*(?:\s+[^#\s]+)*))\s*(?P<comment>\#.*)?"""
)


def read_settings(path, exported=False):
    """The assignments in a file such as .env.sample: ({name: value}, {name of a secret: its length}).

    A value may have variables of earlier lines. With `exported`, only assignments with `export` count.
    """
    values, lengths = {}, {}
    for line in path.read_text(errors="replace").splitlines() if path.is_file() else ():
        found = ASSIGNMENT.fullmatch(line)
        if not found or (exported and not found["export"]):
            continue
        value = found["single"]
        if value is None:
            value = expand(found["bare"] if found["double"] is None else found["double"], values)
        values[found["name"]] = value
        secret = re.fullmatch(r"SECRET_(\w+)_VERSION", found["name"])
        if secret:
            length = re.search(r"length=(\d+)", found["comment"] or "")
            lengths[secret.group(1).lower()] = int(length.group(1)) if length else SECRET_LENGTH
    return values, lengths


def read_compose(path):
    try:
        return recipe_yaml.load(path.read_text())
    except (OSError, UnicodeDecodeError) as error:
        raise DeploymentError(f"{path}: {getattr(error, 'strerror', None) or error}") from None
    except RecursionError:
        raise DeploymentError(f"{path}: an alias contains itself") from None
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f":{mark.line + 1}" if mark else ""
        raise DeploymentError(f"{path}{line}: {getattr(error, 'problem', None) or error}") from None


def expand(text, settings):
    """A text of a compose file with its variables replaced: $A, ${A}, ${A:-default}, ${A-default}; $$ is a $."""

    def value(found):
        name = found["plain"] or found["braced"]
        if not name:
            return "$"
        given = settings.get(name)
        if given is None or (found["how"] == ":-" and not given):
            return found["default"] or ""
        return given

    variable = r"\$(?:\$|(?P<plain>[A-Za-z_]\w*)|\{(?P<braced>[A-Za-z_]\w*)(?:(?P<how>:?-)(?P<default>[^}]*))?\})"
    return re.sub(variable, value, text)


def pairs(labels):
    """Labels as a dict; a compose file may have a list of `NAME=VALUE` instead."""
    if isinstance(labels, list):
        return dict(str(label).partition("=")[::2] for label in labels)
    return dict(labels) if isinstance(labels, dict) else {}


def truth(value):
    """Whether a compose file's value is true, or something else than false."""
    return value not in (None, False, "", "false", "no", "off")


def long_forms(port, expanded):
    """A port as dicts; a compose file may have `[[ADDRESS:]PUBLISHED:]TARGET[/PROTOCOL]` instead, with ranges."""
    if isinstance(port, dict):
        return [{**port, "target": expanded(port.get("target", ""))}]
    text, slash, protocol = str(port).partition("/")
    *before, target = re.split(r":(?![^{]*\})", text)  # do not split ${A:-1}
    long = {"published": before[-1]} if before else {}
    if slash:
        long["protocol"] = protocol
    first, dash, last = expanded(target).partition("-")
    if not dash or not first.isdecimal() or not last.isdecimal():
        return [{"target": expanded(target), **long}]
    return [{"target": str(number), **long} for number in range(int(first), int(last) + 1)]


def seconds(duration):
    """A duration of a compose file (1m30s) in seconds, or None."""
    if not re.fullmatch(r"(\d+(\.\d+)?(h|m|s|ms|us))+", duration):
        return None
    units = {"h": 3600, "m": 60, "s": 1, "ms": 1e-3, "us": 1e-6}
    return sum(float(number) * units[unit] for number, unit in re.findall(r"([\d.]+)(h|ms|us|m|s)", duration))


def free_port(others):
    """A port of this host that nobody uses at this moment, and that is not among others."""
    while True:
        with socket.socket() as probe:
            probe.bind(("", 0))
            port = probe.getsockname()[1]
        if port not in others:
            return port
