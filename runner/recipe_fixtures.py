"""The fixtures with which a recipe's tests deploy the recipe; docs/recipes.md shows how to use them.

    deployment           the recipe, deployed with its defaults: a Deployment
    deployments          makes more deployments: deployments.new(settings={…}, secrets={…})
    deployment_settings  a dict of settings for every deployment, which a recipe's conftest.py may define

The recipe is deployed when the first test asks for the fixture, and removed at the end of the session. Most
runs deploy nothing, so recipe_deployment, which does the work, is imported only then.
"""

import contextlib

import pytest

RUN_OF_SESSION = pytest.StashKey()


class Run:
    """What the fixtures below know of the run. `deployments` is None until a test asks for a deployment."""

    def __init__(self, recipe, folder, environ):
        self.recipe, self.folder, self.environ = recipe, folder, environ
        self.deployments = None

    def pytest_configure(self, config):
        config.stash[RUN_OF_SESSION] = self


@pytest.fixture(scope="session")
def deployment_settings():
    """The settings that the recipe's tests need: {name: value}. A recipe's conftest.py may define this fixture."""
    return {}


@pytest.fixture(scope="session")
def deployments(pytestconfig, deployment_settings, tmp_path_factory):
    """The run's Deployments, whose `new` deploys the recipe. Without a swarm, the test is skipped."""
    from recipe_deployment import Deployments, failing
    from recipe_swarm import Docker

    run = pytestconfig.stash[RUN_OF_SESSION]
    docker = Docker(dict(run.environ))
    with failing():
        reason = docker.why_no_swarm()
    if reason:
        pytest.skip(f"needs a Docker swarm, and {reason}; `make deployed` runs gitea's tests in a swarm made for them")
    say = sayer(pytestconfig.pluginmanager.getplugin("capturemanager"))
    run.deployments = Deployments(docker, run, tmp_path_factory, deployment_settings, say)
    with failing():
        run.deployments.remove_left_behind()
    yield run.deployments
    with failing():
        try:
            run.deployments.close()
        except (KeyboardInterrupt, pytest.exit.Exception):  # the run is ended from outside: remove all first
            run.deployments.close()
            raise


@pytest.fixture(scope="session")
def deployment(deployments):
    """The recipe, deployed with its defaults."""
    return deployments.new()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item):
    report = yield
    made = item.config.stash[RUN_OF_SESSION].deployments
    if report.failed and made:
        report.sections += [(f"deployment {one.name}", one.report()) for one in made.made]
    return report


def sayer(capture):
    """A function that shows a line of progress at once, although pytest captures what tests print."""

    def say(text):
        with capture.global_and_fixture_disabled() if capture else contextlib.nullcontext():
            print(f"run_recipe_ci: {text}", flush=True)

    return say
