"""Deploys a stack with abra, where the variable DEPLOY_WITH asks for abra: see docs/recipes.md.

abra deploys apps. An app is a file of settings, ABRA_DIR/servers/SERVER/APP.env, that names a recipe; a recipe is a
git repository in ABRA_DIR/recipes. The server `default` is this host. Each deployment of a test has an ABRA_DIR of its
own, without a person's files.

abra was not available where this file was written and tested: in the tests, a script of our own takes its place.
"""

import re
import shutil
import subprocess

from recipe_swarm import DeploymentError, execute

OPTIONS = (
    "--chaos",  # the recipe as it is in its folder, not one of its published versions
    "--force",  # abra otherwise refuses an app that is deployed, as in an upgrade
    "--no-domain-checks",  # 127.0.0.1 has no DNS record
    "--no-converge-checks",  # recipe_deployment waits for the services itself
    "--offline",  # neither the catalogue nor the recipe is fetched
    "--no-input",
)
SPECIAL = re.compile(r'["\\$`]')


def deploy(directory, stack):
    """Write the files that abra reads to a directory, and deploy them. `stack` is a recipe_compose.Stack."""
    abra = shutil.which("abra", path=stack.settings.get("PATH"))
    if not abra:
        raise DeploymentError(
            "DEPLOY_WITH is 'abra', and this environment has no abra: build it with abra, or unset DEPLOY_WITH"
        )
    recipe, servers = directory / "recipes" / stack.folder.name, directory / "servers" / "default"
    sample = stack.folder / ".env.sample"
    files = dict(zip(stack.names, stack.texts, strict=True))
    files[".env.sample"] = sample.read_text(errors="replace") if sample.is_file() else ""
    for name, text in files.items():
        (recipe / name).parent.mkdir(parents=True, exist_ok=True)
        (recipe / name).write_text(text)
    servers.mkdir(parents=True)
    (servers / f"{stack.name}.env").write_text(dotenv({**app_settings(stack), "TYPE": stack.folder.name}))
    git = ("git", "-C", recipe)
    for command in ((*git, "init", "--quiet"), (*git, "add", "--all"), (*git, "commit", "--quiet", "--message=test")):
        run(command, stack)
    run((abra, "app", "deploy", stack.name, *OPTIONS), stack, ABRA_DIR=str(directory))


def run(command, stack, **variables):
    """Run a command. Its environment is the stack's settings, which include the run's variables."""
    execute(
        command[0].rpartition("/")[2],
        command,
        stack.timeout,
        " (the setting TIMEOUT)",
        env=stack.settings | variables,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )


def app_settings(stack):
    """The settings of the app: the recipe's own, and variables of the run that the recipe's compose files mention."""
    words = set(re.findall(r"\w+", " ".join(stack.texts)))
    return {name: value for name, value in stack.settings.items() if name in stack.own or name in words}


def dotenv(settings):
    """Lines NAME="VALUE", with a backslash before each special character of a value."""
    quoted = {name: SPECIAL.sub(r"\\\g<0>", value).replace("\n", r"\n") for name, value in settings.items()}
    return "".join(f'{name}="{value}"\n' for name, value in quoted.items())
