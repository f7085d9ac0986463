"""The parts of the fixture `deployment` that need no daemon; e2e has the tests with one."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

RUNNER = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(RUNNER))

import recipe_compose
import recipe_swarm

LABELS = {"cc-ci-run.run": "r"}


def stack(folder, compose, settings=None, environ=None, ports=None, **files):
    (folder / "compose.yml").write_text(compose)
    for name, text in files.items():
        (folder / {"sample": ".env.sample", "abra": "abra.sh"}[name]).write_text(text)
    return recipe_compose.Stack(folder, "demo-1", settings or {}, environ or {}, LABELS, ports or {})


def content(made):
    (text,) = made.texts
    return yaml.safe_load(text)


# Settings


@pytest.mark.parametrize(
    ("line", "value"),
    [
        ("A=b", "b"),
        ("export A=b", "b"),
        ("  A=b c  ", "b c"),
        ("A=b # a comment", "b"),
        ("A=b#c", "b"),
        ("A=", ""),
        ("A= # a comment", ""),
        ('A="b # c" # a comment', "b # c"),
        ("A='b \"c\"'", 'b "c"'),
        ("A=$B/${C}", "b/"),
        ("A='$B'", "$B"),
        ('A="$B:c"', "b:c"),
        ("A=https://x.example/?a=b", "https://x.example/?a=b"),
    ],
)
def test_settings(tmp_path, line, value):
    (tmp_path / "f").write_text(f"# a comment\n\nB=b\n{line}\n#A=not this\nnot an assignment\n")
    assert recipe_compose.read_settings(tmp_path / "f")[0] == {"A": value, "B": "b"}


def test_lengths_of_secrets(tmp_path):
    (tmp_path / "f").write_text("SECRET_A_B_VERSION=v1 # length=7\nSECRET_C_VERSION=v1\nX=1 # length=9\n")
    assert recipe_compose.read_settings(tmp_path / "f")[1] == {"a_b": 7, "c": 32}


@pytest.mark.parametrize(
    ("text", "expanded"),
    [
        ("$A", "a"),
        ("${A}", "a"),
        ("$$A", "$A"),
        ("${A:-d}", "a"),
        ("${EMPTY:-d}", "d"),
        ("${EMPTY-d}", ""),
        ("${NONE:-d:e}", "d:e"),
        ("${NONE-d}", "d"),
        ("$NONE", ""),
        ("x_${A}_$A.y", "x_a_a.y"),
        ("100%", "100%"),
    ],
)
def test_variables(text, expanded):
    assert recipe_compose.expand(text, {"A": "a", "EMPTY": ""}) == expanded


def test_what_a_setting_comes_from(tmp_path):
    made = stack(
        tmp_path,
        "services: {}\n",
        settings={"A": "test"},
        environ={"A": "run", "B": "run", "C": "run", "D": "run", "STACK_NAME": "production"},
        sample="A=sample\nB=sample\nTIMEOUT=7\n",
        abra="export C=abra\nB=not exported\n",
    )
    assert [made.settings[name] for name in "ABCD"] == ["test", "sample", "abra", "run"]
    assert made.settings["STACK_NAME"] == "demo-1"
    assert made.timeout == 7


# Compose files


@pytest.mark.parametrize(
    ("port", "long"),
    [
        ("22", [{"target": "22"}]),
        ("80:8080", [{"target": "8080", "published": "80"}]),
        ("127.0.0.1:80:8080/udp", [{"target": "8080", "published": "80", "protocol": "udp"}]),
        ("${P:-80}:8080", [{"target": "8080", "published": "${P:-80}"}]),
        ("${P:-80}:${T:-8080}", [{"target": "8080", "published": "${P:-80}"}]),
        ("7-8:17-18", [{"target": "17", "published": "7-8"}, {"target": "18", "published": "7-8"}]),
        ({"target": "22", "mode": "ingress"}, [{"target": "22", "mode": "ingress"}]),
        ({"published": "22"}, [{"target": "", "published": "22"}]),
        ("x-y", [{"target": "x-y"}]),
    ],
)
def test_port(port, long):
    assert recipe_compose.long_forms(port, lambda text: recipe_compose.expand(text, {})) == long


def test_ports_are_free_ones_of_the_host(tmp_path):
    compose = """
services:
  app:
    image: x
    ports:
      - 22:22
      - target: 2222
        published: ${SSH_PORT}
    deploy:
      update_config: {order: start-first}
      labels:
        - traefik.enable=true
        - traefik.http.services.${STACK_NAME}.loadbalancer.server.port=3000
"""
    made = stack(tmp_path, compose)
    app = content(made)["services"]["app"]
    assert made.web == ("app", 3000)
    assert set(made.ports) == {("app", 22), ("app", 2222), ("app", 3000)}
    assert len(set(made.ports.values())) == 3
    assert made.settings["SSH_PORT"] == str(made.ports["app", 2222])
    assert made.settings["DOMAIN"] == f"127.0.0.1:{made.ports['app', 3000]}"
    assert [(port["target"], port["mode"]) for port in app["ports"]] == [(22, "host"), (2222, "host"), (3000, "host")]
    assert [port["published"] for port in app["ports"]] == list(made.ports.values())
    assert app["deploy"]["update_config"]["order"] == "stop-first"
    assert app["deploy"]["labels"]["traefik.enable"] == "false"
    again = stack(tmp_path, compose, ports=made.ports)
    assert again.ports == made.ports, "an upgrade has other ports"
    given = stack(tmp_path, compose, settings={"SSH_PORT": "7", "DOMAIN": "x.example"})
    assert given.ports["app", 2222] == 7
    assert given.settings["DOMAIN"] == "x.example"


def test_everything_has_the_labels(tmp_path):
    made = content(
        stack(
            tmp_path,
            """
services:
  a: {image: x, labels: [a=b], deploy: &deploy {labels: {c: d}}}
  b: {image: x, deploy: *deploy}
networks: {proxy: {external: true, name: proxy}, internal: }
volumes: {data: , shared: {name: shared, labels: {e: f}}, own: {name: "${STACK_NAME}_own"}}
configs: {c: {name: "${STACK_NAME}_c_v1", file: c.tmpl}, d: {name: shared_v1, file: d}}
secrets: {s: {file: ./s, name: shared_v1}, t: {external: true, name: "${STACK_NAME}_t_v1"}, u: {external: true}}
""",
        )
    )
    assert made["services"]["a"]["labels"] == {"a": "b", **LABELS}
    assert made["services"]["a"]["deploy"]["labels"] == {"c": "d", **LABELS}
    assert made["services"]["b"]["labels"] == LABELS
    assert made["networks"] == {name: {"labels": LABELS} for name in ("proxy", "internal", "default")}
    assert made["volumes"]["data"] == {"labels": LABELS}
    assert made["volumes"]["shared"] == {"labels": {"e": "f", **LABELS}}
    assert made["volumes"]["own"] == {"name": "${STACK_NAME}_own", "labels": LABELS}
    assert made["configs"]["c"] == {"name": "${STACK_NAME}_c_v1", "file": f"{tmp_path}/c.tmpl", "labels": LABELS}
    assert made["configs"]["d"] == {"file": f"{tmp_path}/d", "labels": LABELS}, "it would be another stack's, too"
    assert made["secrets"]["s"] == {"file": f"{tmp_path}/s", "labels": LABELS}
    assert made["secrets"]["t"] == {"external": True, "name": "demo-1_t_v1"}
    assert made["secrets"]["u"] == {"external": True, "name": "demo-1_u"}


@pytest.mark.parametrize(
    ("check", "made"),
    [
        ({"interval": "15s", "retries": 10}, {"interval": "1s", "retries": 150}),
        ({"interval": "1m30s"}, {"interval": "1s", "retries": 270}),
        ({}, {"interval": "1s", "retries": 90}),
        ({"interval": "${I}", "retries": "${R}"}, {"interval": "1s", "retries": 8}),
        ({"interval": "500ms", "retries": 2}, {"interval": "500ms", "retries": 2}),
        ({"interval": "soon", "retries": 2}, {"interval": "soon", "retries": 2}),
        ({"disable": True}, {"disable": True, "interval": "1s", "retries": 90}),
        ("x", "x"),
    ],
)
def test_health_checks_are_quick(tmp_path, check, made):
    compose = yaml.safe_dump({"services": {"app": {"image": "x", "healthcheck": check}}})
    app = content(stack(tmp_path, compose, settings={"I": "2s", "R": "4"}))["services"]["app"]
    assert app["healthcheck"] == made


def test_paths_are_the_recipes(tmp_path):
    compose = """
services:
  app:
    image: x
    env_file: app.env
    volumes: ["./etc:/etc/app:ro", "data:/data", "/srv:/srv", {type: bind, source: ./x, target: /x}]
"""
    app = content(stack(tmp_path, compose))["services"]["app"]
    assert app["env_file"] == [f"{tmp_path}/app.env"]
    assert app["volumes"][:3] == [f"{tmp_path}/etc:/etc/app:ro", "data:/data", "/srv:/srv"]
    assert app["volumes"][3]["source"] == f"{tmp_path}/x"


def test_one_task_has_the_ports(tmp_path):
    made = content(stack(tmp_path, "services: {a: {ports: ['1'], deploy: {replicas: 2}}, b: {deploy: {replicas: 2}}}"))
    assert made["services"]["a"]["deploy"]["replicas"] == 1
    assert made["services"]["b"]["deploy"]["replicas"] == 2


def test_the_page_is_the_first_port_that_can_be_published(tmp_path):
    label = "labels: ['traefik.http.services.a.loadbalancer.server.port=80']"
    made = stack(tmp_path, f"services: {{a: {{ports: [x], deploy: {{{label}}}}}, b: {{deploy: {{{label}}}}}}}")
    assert made.web == ("b", 80)


@pytest.mark.parametrize("service", ["labels: 7", "deploy: false", "deploy: {labels: 7}"])
def test_mistakes_stay(tmp_path, service):
    made = content(stack(tmp_path, f"services: {{a: {{image: x, {service}}}}}"))["services"]["a"]
    assert made["labels" if service == "labels: 7" else "deploy"] in (
        7,
        False,
        {"labels": 7, "update_config": {}},
        {"labels": 7},
    )


@pytest.mark.parametrize(
    "scalar",
    ["08", '"08"', "1e3", '"1e3"', "0o17", "22:22", '"22:22"', "yes", '"yes"', "true", '"true"', "1.10", "2024-01-01"]
    + ['""', '"null"', "null", '"a: b"', '"# x"', "${A:-1}", '"$$"', '"a\\nb"', "'it''s'"],
)
def test_scalars_stay(tmp_path, scalar):
    """docker's YAML library and Python's disagree about some of these, so no scalar may get or lose its quotes."""
    made = stack(tmp_path, f"services:\n  a:\n    environment:\n      A: {scalar}\n")
    written = scalar if not scalar.startswith("'") else '"it\'s"'
    assert f"A: {written}\n" in made.texts[0]


def test_a_second_file_keeps_the_health_check_of_the_first(tmp_path):
    (tmp_path / "more.yml").write_text("services: {app: {healthcheck: {test: [x]}}}\n")
    made = stack(
        tmp_path,
        "services: {app: {image: x, healthcheck: {interval: 10s, retries: 60}}}\n",
        sample='COMPOSE_FILE="compose.yml"\nCOMPOSE_FILE="$COMPOSE_FILE:more.yml"\n',
    )
    one, more = (yaml.safe_load(text)["services"]["app"] for text in made.texts)
    assert (one["healthcheck"], more["healthcheck"]) == ({"interval": "1s", "retries": 600}, {"test": ["x"]})
    assert made.images == ["x"]


@pytest.mark.parametrize(
    "compose",
    [
        "",
        "a text",
        "[a, list]",
        "services: 7",
        "services: [app]",
        "services: {app: 7, web: }",
        "services: {app: {ports: 7, deploy: 7, volumes: 7, labels: 7, env_file: 7}}",
        "services: {app: {ports: [[1]], deploy: {labels: 7, update_config: 7}}}",
        "services: {app: {ports: [x, {published: 1}, '']}}",
        "services: {app: {deploy: {labels: ['traefik.a.loadbalancer.server.port=x']}}}",
        "networks: 7\nvolumes: [a]\nconfigs: {a: 7}\nsecrets: {a: [7], b: {file: 7}}",
        "configs: {1: {file: x}}\n2: 3",
    ],
)
def test_what_is_wrong_is_left_for_docker_to_say(tmp_path, compose):
    assert len(stack(tmp_path, compose).texts) == 1


@pytest.mark.parametrize(
    ("compose", "message"),
    [
        (b"services:\n  app: [\n", r"compose.yml:3: "),
        (b"services:\n\tapp:\n", r"compose.yml:2: "),
        (b"\xff", r"compose.yml: "),
        (b"a: *b", r"compose.yml:1: found undefined alias"),
        (b"a: &a [*a]", r"compose.yml: an alias contains itself"),
        (b"a: !!python/object:os.system {}", r"compose.yml:1: could not determine a constructor"),
    ],
)
def test_what_is_not_yaml(tmp_path, compose, message):
    (tmp_path / "compose.yml").write_bytes(compose)
    with pytest.raises(recipe_swarm.DeploymentError, match=message):
        recipe_compose.read_compose(tmp_path / "compose.yml")


def test_missing_compose_file(tmp_path):
    with pytest.raises(recipe_swarm.DeploymentError, match=r"compose.more.yml: No such file or directory"):
        stack(tmp_path, "services: {}\n", sample="COMPOSE_FILE=compose.yml:compose.more.yml\n")


# Whose a deployment is


@pytest.fixture
def child():
    """A process that lives until the test ends it."""
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        yield process
        process.stdin.close()


def test_the_owner_lives_until_it_ends(child):
    label = recipe_swarm.owner(child.pid)
    assert not recipe_swarm.has_ended(label)
    child.stdin.close()
    child.wait()
    assert recipe_swarm.has_ended(label)


@pytest.mark.parametrize(
    ("field", "value", "ended"),
    [
        (0, "another-machine", False),
        (1, "another-boot", True),
        (2, "1", False),
        (3, "4194305", True),  # above the largest PID
        (3, "x", False),
        (3, "99999999999999999999999", False),
        (4, "1", True),  # another process had the number
        (4, "?", False),
        (4, "ended", True),
    ],
)
def test_other_owners(field, value, ended):
    parts = recipe_swarm.owner(os.getpid()).split()
    parts[field] = value
    assert recipe_swarm.has_ended(" ".join(parts)) == ended


def test_a_zombie_has_ended(child):
    label = recipe_swarm.owner(child.pid)
    child.kill()
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)  # nobody has waited for it yet
    assert recipe_swarm.has_ended(label)


@pytest.mark.parametrize("label", ["", "x", "a b c d", "a b c d e f"])
def test_not_an_owner(label):
    assert not recipe_swarm.has_ended(label)


# Without a daemon


@pytest.mark.parametrize(
    ("host", "status", "said"),
    [
        (
            "unix:///nonexistent/docker.sock",
            5,
            "needs a Docker swarm, and there is no daemon at /nonexistent/docker.sock; `make deployed`",
        ),
        ("unix://{socket}", 1, "docker info: "),
        ("tcp://127.0.0.1:1", 1, "docker info: "),
    ],
)
def test_without_a_daemon(tmp_path, host, status, said):
    import socket

    path = tmp_path / "docker.sock"
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(path))  # nobody listens
    recipe = tmp_path / "recipes" / "demo"
    recipe.mkdir(parents=True)
    (recipe / "test_a.py").write_text("def test_a(deployment): pass\n")
    result = tmp_path / "result.json"
    done = subprocess.run(
        [sys.executable, RUNNER / "run_recipe_ci.py", "--recipes", recipe.parent, "demo"],
        env={**os.environ, "DOCKER_HOST": host.format(socket=path), "CC_CI_RUN_RESULT": str(result)},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    (test,) = json.loads(result.read_text())["results"]["tests"]
    assert done.returncode == status, done.stdout
    assert said in test["message"]
    assert "Traceback" not in done.stdout
