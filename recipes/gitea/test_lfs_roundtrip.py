"""The test of DEFECT-3: test_lfs_roundtrip passed under Drone and failed at night, where git-lfs was missing.

The tests do not check first whether a tool exists, and are not skipped if a tool is missing: in a wrong
environment they must fail.
"""

import hashlib
import os

import pytest


@pytest.fixture
def remote(run, request, maybe_instance, tmp_path):
    """(URL, environment for git): a repository on the instance; without an instance, a bare local repository."""
    if maybe_instance is not None:
        repository = request.getfixturevalue("repository")
        return repository.url, maybe_instance.git_environment()
    bare = tmp_path / "remote.git"
    run("git", "init", "--quiet", "--bare", "--initial-branch=main", bare)
    return bare.as_uri(), {}


@pytest.fixture
def remote_by_ssh(run, deployed, instance, repository, tmp_path):
    """(URL, environment for git): a repository on the deployed Gitea, which git reaches by ssh with a new key."""
    key = tmp_path / "key"
    run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", key)
    instance.api("POST", "/user/keys", {"title": repository.name, "key": key.with_suffix(".pub").read_text()})
    port = deployed.port("app", 2222)
    # Without these options ssh uses the user's own files: it takes the home directory from the password
    # database, whatever HOME is.
    ssh = f"ssh -F /dev/null -i {key} -o IdentitiesOnly=yes -o IdentityAgent=none -p {port}"
    ssh += f" -o UserKnownHostsFile={tmp_path}/known_hosts -o StrictHostKeyChecking=accept-new"
    return f"ssh://git@127.0.0.1:{port}/{instance.user}/{repository.name}.git", {"GIT_SSH_COMMAND": ssh}


def test_lfs_roundtrip(run, remote, tmp_path):
    roundtrip(run, remote, tmp_path)


def test_lfs_roundtrip_by_ssh(run, remote_by_ssh, tmp_path):
    roundtrip(run, remote_by_ssh, tmp_path)


def roundtrip(run, remote, tmp_path):
    url, env = remote
    # Random, so that no server can have the object already; longer than any other git object.
    content = os.urandom(1 << 20)
    oid = hashlib.sha256(content).hexdigest()
    pointer = f"version https://git-lfs.github.com/spec/v1\noid sha256:{oid}\nsize {len(content)}\n"
    run("git", "lfs", "install")

    here = tmp_path / "here"
    run("git", "init", "--quiet", "--initial-branch=main", here)
    run("git", "lfs", "track", "*.bin", cwd=here)
    (here / "data.bin").write_bytes(content)
    run("git", "add", ".gitattributes", "data.bin", cwd=here)
    run("git", "commit", "--quiet", "--message=An LFS-tracked file", cwd=here)
    assert run("git", "cat-file", "blob", "HEAD:data.bin", cwd=here) == pointer
    run("git", "push", "--quiet", url, "main", cwd=here, env=env)

    # The remote has the pointer in git, and the content in no git object.
    there = tmp_path / "there"
    run("git", "clone", "--quiet", url, there, env={**env, "GIT_LFS_SKIP_SMUDGE": "1"})
    assert (there / "data.bin").read_text() == pointer
    list_sizes = ["git", "cat-file", "--batch-all-objects", "--batch-check=%(objectsize)"]
    sizes = run(*list_sizes, cwd=there)
    assert max(map(int, sizes.split())) < len(content)
    assert not list(there.glob(f".git/lfs/objects/**/{oid}"))

    # So the content can only come by LFS.
    run("git", "lfs", "pull", cwd=there, env=env)
    assert (there / "data.bin").stat().st_size == len(content)
    assert (there / "data.bin").read_bytes() == content
    assert run("git", "status", "--porcelain", cwd=there) == ""
    run("git", "lfs", "fsck", cwd=there)
