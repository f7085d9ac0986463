"""What an operator does with the deployed recipe: upgrade, back up, restore, remove."""

import dataclasses
import json
import os
import secrets

import pytest

CONTENT = "kept\n"


@pytest.fixture
def kept(run, deployed, instance):
    """The API path of a file in a new repository. The test checks that the file keeps its content."""
    name = f"kept-{secrets.token_hex(4)}"
    instance.api("POST", "/user/repos", {"name": name, "auto_init": True})
    path = f"/repos/{instance.user}/{name}"
    content = run("base64", input=CONTENT).strip()
    instance.api("POST", f"{path}/contents/file", {"content": content, "message": "A file"})
    yield f"{path}/raw/file"
    instance.api("DELETE", path)


def test_upgrade_keeps_the_data(run, deployed, instance, kept):
    settings = {"GITEA_APP_NAME": "After the upgrade"}
    if image := os.environ.get("GITEA_NEXT_IMAGE"):
        settings["GITEA_IMAGE"] = image
    deployed.upgrade(**settings)

    assert "<title>After the upgrade" in run("curl", "--fail", "--silent", f"{deployed.url}/?").replace("\n", "")
    assert instance.api("GET", kept) == CONTENT


def test_backup_is_restored_into_a_new_deployment(run, deployed, deployments, instance, kept, tmp_path):
    backup = tmp_path / "backup.tar"
    deployed.backup(backup)
    assert instance.api("GET", kept) == CONTENT, "the deployment does not serve its data after a backup"

    restored = deployments.new(secrets=deployed.secrets)
    restored.restore(backup)
    there = dataclasses.replace(instance, url=restored.url)
    assert there.api("GET", kept) == CONTENT
    assert json.loads(there.api("GET", "/user"))["is_admin"]

    restored.remove()
    for kind in ("service", "container", "network", "volume", "secret", "config"):
        everything = ["--all"] if kind == "container" else []
        left = run("docker", kind, "ls", *everything, "--filter", f"label=cc-ci-run.deployment={restored.name}", "-q")
        assert left == "", f"a {kind} of {restored.name} is left"
