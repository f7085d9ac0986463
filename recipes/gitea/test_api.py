"""curl and jq against the instance's API."""

import re


def test_version(run, instance):
    version = run("jq", "--raw-output", ".version", input=instance.api("GET", "/version"))
    assert re.match(r"\d+\.\d+", version)


def test_user(run, instance):
    login = run("jq", "--raw-output", ".login", input=instance.api("GET", "/user"))
    assert login == f"{instance.user}\n"


def test_repository(run, instance, repository):
    answer = instance.api("GET", f"/repos/{instance.user}/{repository.name}")
    assert run("jq", "--compact-output", "[.private, .empty]", input=answer) == "[true,true]\n"
