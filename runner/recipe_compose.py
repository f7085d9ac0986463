"""A recipe's compose files, changed so that tests can deploy them: recipe_deployment.py lists the changes."""

import math
import re
import socket

from recipe_swarm import DeploymentError

TIMEOUT_SECONDS = 300  # the time limit of a deployment whose recipe has no setting TIMEOUT
SECRET_LENGTH = 32
WEB_PORT = re.compile(r"traefik\..*\.loadbalancer\.server\.port")


class Stack:
    """What is given to `docker stack deploy`: files (their texts), settings, secrets and ports.

    files     the compose files' paths
    texts     their changed contents
    settings  the values of the variables in them
    ports     {(service, port in the container): port of the host}
              (in an upgrade, the argument `ports` has the ports of the old version, which are kept)
    images    the services' images
    secrets   {name in the files: name in the swarm} of the secrets that must exist before the deployment
    lengths   {name in the files: length of the secret}
    web       the key in `ports` of the recipe's page, or None
    """

    def __init__(self, folder, name, settings, environ, labels, ports):
        self.name = name
        sample, self.lengths = read_settings(folder / ".env.sample")
        versions, _ = read_settings(folder / "abra.sh")
        self.settings = {**environ, **sample, **versions, **settings, "STACK_NAME": name}
        self.ports, self.secrets, self.images, self.web = dict(ports), {}, [], None
        self.files = [folder / file for file in self.settings.get("COMPOSE_FILE", "compose.yml").split(":")]
        self._folder, self._given, self._labels = folder, settings, labels
        contents = [read_yaml(file) for file in self.files]
        for content in contents:
            self._make_over(content)
        if self.web and "DOMAIN" not in settings:
            self.settings["DOMAIN"] = f"127.0.0.1:{self.ports[self.web]}"
        self.texts = [to_yaml(content) for content in contents]

    @property
    def timeout(self):
        """How many seconds a deployment may take."""
        given = str(self.settings.get("TIMEOUT", ""))
        return int(given) if given.isdecimal() and int(given) else TIMEOUT_SECONDS

    def _make_over(self, content):
        # A section that does not have the shape of a compose file's is not changed: docker reports the mistake.
        changes = {
            "services": self._service,
            "networks": self._network_or_volume,
            "volumes": self._network_or_volume,
            "configs": self._file,
            "secrets": self._secret,
        }
        for section, change in changes.items():
            entries = content.get(section) if isinstance(content, dict) else None
            for name, entry in entries.items() if isinstance(entries, dict) else ():
                entries[name] = {} if entry is None else entry
                if isinstance(entries[name], dict):
                    change(name, entries[name])

    def _network_or_volume(self, _name, entry):
        entry.pop("external", None)
        if not self._expand(entry.get("name", "")).startswith(self.name):
            entry.pop("name", None)  # other deployments would use the same object
        entry["labels"] = pairs(entry.get("labels")) | self._labels

    def _file(self, _name, entry):
        """A config, or a secret whose value is in a file of the recipe."""
        if isinstance(entry.get("file"), str):
            entry["file"] = self._absolute(entry["file"])
        if not entry.get("external"):
            entry["labels"] = pairs(entry.get("labels")) | self._labels

    def _secret(self, name, entry):
        if entry.get("external"):
            wanted = self._expand(entry.get("name") or name)
            self.secrets[name] = wanted if wanted.startswith(self.name) else f"{self.name}_{wanted}"
            entry.update(external=True, name=self.secrets[name])
        else:
            self._file(name, entry)

    def _service(self, name, entry):
        entry["labels"] = pairs(entry.get("labels")) | self._labels  # for the service's containers
        deploy = entry["deploy"] = entry.get("deploy") or {}
        if not isinstance(deploy, dict):
            return
        self.images.append(self._expand(entry.get("image", "")))
        labels = pairs(deploy.get("labels"))
        for label, value in labels.items():
            if WEB_PORT.fullmatch(self._expand(label)) and self._expand(value).isdecimal():
                self.web = self.web or (name, int(self._expand(value)))
        labels |= {label: "false" for label in labels if label == "traefik.enable"}
        deploy["labels"] = labels | self._labels
        self._publish(name, entry, deploy)
        self._hasten(entry.get("healthcheck"))
        if isinstance(entry.get("env_file"), str):
            entry["env_file"] = [entry["env_file"]]
        for key in ("env_file", "volumes"):
            if isinstance(entry.get(key), list):
                entry[key] = [self._absolute(one) if key == "env_file" else self._mount(one) for one in entry[key]]

    def _publish(self, name, entry, deploy):
        ports = entry.get("ports") or []
        if not isinstance(ports, list):
            return
        ports = [long_form(port) for port in ports]
        if not all(self._expand(port.get("target", "")).isdecimal() for port in ports):
            return
        if self.web and self.web[0] == name and all(self._expand(p["target"]) != str(self.web[1]) for p in ports):
            ports.append({"target": self.web[1]})
        for port in ports:
            key = name, int(self._expand(port["target"]))
            variable = re.match(r"\$\{?(\w+)", str(port.get("published", "")))
            variable = variable.group(1) if variable else ""
            if variable in self._given:
                self.ports[key] = int(self._given[variable])
            elif key not in self.ports:
                self.ports[key] = free_port()
            if variable:
                self.settings[variable] = str(self.ports[key])  # the recipe may use the variable elsewhere, too
            port.update(target=key[1], published=self.ports[key], mode="host")
        if ports:
            entry["ports"] = ports
            if isinstance(deploy.setdefault("update_config", {}), dict):
                deploy["update_config"]["order"] = "stop-first"

    def _hasten(self, check):
        """Run a health check every second; the service may be unhealthy for as long as the recipe allows."""
        if not isinstance(check, dict):
            return
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
        return str((self._folder / self._expand(path)).absolute()) if isinstance(path, str) else path

    def _expand(self, text):
        return expand(str(text), self.settings)


def read_settings(path):
    """The assignments in a file such as .env.sample: ({name: value}, {name of a secret: its length})."""
    values, lengths = {}, {}
    for line in path.read_text().splitlines() if path.is_file() else ():
        found = re.fullmatch(
            r"""\s*(?:export\s+)?([A-Za-z_]\w*)=(?:"([^"]*)"|'([^']*)'|([^#\s]*(?:\s+[^#\s]+)*))\s*(#.*)?""", line
        )
        if not found:
            continue
        name, *value, comment = found.groups()
        values[name] = next((v for v in value if v is not None), "")
        secret = re.fullmatch(r"SECRET_(\w+)_VERSION", name)
        if secret:
            length = re.search(r"length=(\d+)", comment or "")
            lengths[secret.group(1).lower()] = int(length.group(1)) if length else SECRET_LENGTH
    return values, lengths


def read_yaml(path):
    import yaml  # here, because most runs deploy nothing

    class Loader(yaml.SafeLoader):
        """Reads YAML as docker does: 22:22 is a text, not a number to the base of 60."""

    for letter, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items():
        numbers = ("tag:yaml.org,2002:int", "tag:yaml.org,2002:float")
        Loader.yaml_implicit_resolvers[letter] = [
            (tag, re.compile(rf"(?!.*:)(?:{form.pattern})", re.VERBOSE) if tag in numbers else form)
            for tag, form in resolvers
        ]
    try:
        return copied(yaml.load(path.read_text(), Loader))
    except (OSError, UnicodeDecodeError) as error:
        raise DeploymentError(f"{path}: {getattr(error, 'strerror', None) or error}") from None
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f":{mark.line + 1}" if mark else ""
        raise DeploymentError(f"{path}{line}: {getattr(error, 'problem', None) or error}") from None


def copied(content):
    """A copy in which YAML aliases are copies, too: else a change of one service would change another one."""
    if isinstance(content, dict):
        return {key: copied(value) for key, value in content.items()}
    return [copied(value) for value in content] if isinstance(content, list) else content


def to_yaml(content):
    import yaml

    return yaml.safe_dump(content, sort_keys=False)


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


def long_form(port):
    """A port as a dict; a compose file may have `[[ADDRESS:]PUBLISHED:]TARGET[/PROTOCOL]` instead."""
    if isinstance(port, dict):
        return dict(port)
    text, slash, protocol = str(port).partition("/")
    *before, target = re.split(r":(?![^{]*\})", text)  # do not split ${A:-1}
    long = {"target": target}
    if before:
        long["published"] = before[-1]
    if slash:
        long["protocol"] = protocol
    return long


def seconds(duration):
    """A duration of a compose file (1m30s) in seconds, or None."""
    if not re.fullmatch(r"(\d+(\.\d+)?(h|m|s|ms|us))+", duration):
        return None
    units = {"h": 3600, "m": 60, "s": 1, "ms": 1e-3, "us": 1e-6}
    return sum(float(number) * units[unit] for number, unit in re.findall(r"([\d.]+)(h|ms|us|m|s)", duration))


def free_port():
    """A port of this host that nobody uses at this moment."""
    with socket.socket() as probe:
        probe.bind(("", 0))
        return probe.getsockname()[1]
