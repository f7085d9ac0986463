"""Try to execute a program that the toolset lacks, in each way of the table in docs/seal.md.

usage: escapes.py CONFIG REPORT

CONFIG is JSON: `foreign` is that program, `marker` what its --version prints; `allowed` a directory
and `file` and `other` files of [seal] execute; `scratch` a directory that is not allowed; `library` a shared
library; `outside` the socket of outside.py and `pid` its process; `program` is cc-ci-run. Standard
input is `foreign`, opened before the seal. REPORT gets what became of each way: whether the program
ran, and what the kernel said.
"""

import ctypes
import errno
import json
import mmap
import os
import platform
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading

with open(sys.argv[1]) as f:
    c = json.load(f)
foreign, marker = c["foreign"], c["marker"].encode()
allowed, scratch = c["allowed"], c["scratch"]
VERSION = ["foreign", "--version"]
libc = ctypes.CDLL(None, use_errno=True)
X86 = platform.machine() == "x86_64"
EXECVEAT, MEMFD_CREATE, NAME_TO_HANDLE, OPEN_BY_HANDLE = (322, 319, 303, 304) if X86 else (281, 279, 264, 265)
OPEN_TREE, MOVE_MOUNT, FSOPEN, FSCONFIG, FSMOUNT, PIDFD_OPEN, PIDFD_GETFD = 428, 429, 430, 431, 432, 434, 438
RENAMEAT2 = 316 if X86 else 276
AT_FDCWD, AT_EMPTY_PATH = -100, 0x1000
CLONE_NEWNS, CLONE_NEWUSER = 0x20000, 0x10000000

ways = {}


def way(name):
    def add(function):
        assert name not in ways, name
        ways[name] = function
        return function

    return add


def check(result):
    if result == -1:
        e = ctypes.get_errno()
        raise OSError(e, os.strerror(e))
    return result


def syscall(number, *args):
    return check(libc.syscall(number, *[ctypes.c_long(a) if isinstance(a, int) else a for a in args]))


def mount(source, target, kind, flags):
    check(libc.mount(source.encode(), target.encode(), kind and kind.encode(), flags, None))


def copy(to):
    shutil.copy(foreign, to)
    os.chmod(to, 0o755)
    return to


def version(path):
    os.execv(path, VERSION)


def by_descriptor(fd):
    """Execute what a descriptor for writing has, through one for reading."""
    again = os.open(f"/proc/self/fd/{fd}", os.O_RDONLY)
    os.close(fd)
    version(f"/proc/self/fd/{again}")


def content():
    with open(foreign, "rb") as f:
        return f.read()


# What the declared commands are not.


@way("by name, with a PATH of the test's own")
def _():
    os.environ["PATH"] = os.path.dirname(foreign)
    os.execvp(os.path.basename(foreign), VERSION)


@way("by absolute path")
def _():
    version(foreign)


@way("through a symbolic link in an allowed directory")
def _():
    os.symlink(foreign, allowed + "/link")
    version(allowed + "/link")


@way("from a thread")
def _():
    t = threading.Thread(target=lambda: os.write(1, subprocess.run([foreign, "--version"], capture_output=True).stdout))
    t.start()
    t.join()


@way("by posix_spawn, by vfork")
def _():
    os.waitpid(os.posix_spawn(foreign, VERSION, os.environ), 0)
    subprocess.run([foreign, "--version"], check=True)


@way("by a descriptor that the test opens (fexecve)")
def _():
    os.execve(os.open(foreign, os.O_RDONLY), VERSION, os.environ)


@way("by a descriptor that was open before the seal")
def _():
    os.execve(0, VERSION, os.environ)


@way("by /proc/self/root")
def _():
    version("/proc/self/root" + foreign)


@way("by /proc/PID/root of a process outside")
def _():
    version(f"/proc/{c['pid']}/root{foreign}")


@way("by a file handle (open_by_handle_at)")
def _():
    handle = ctypes.create_string_buffer(8 + 128)
    ctypes.memmove(handle, (128).to_bytes(4, "little"), 4)
    where = ctypes.c_int()
    syscall(NAME_TO_HANDLE, AT_FDCWD, foreign.encode(), handle, ctypes.byref(where), 0)
    root = os.open("/", os.O_RDONLY)
    fd = syscall(OPEN_BY_HANDLE, root, handle, os.O_RDONLY)
    os.execve(fd, VERSION, os.environ)


def machine_code(code):
    """A function of these bytes."""
    memory = mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
    memory.write(code)
    address = ctypes.addressof(ctypes.c_char.from_buffer(memory))
    function = ctypes.CFUNCTYPE(ctypes.c_long, ctypes.c_uint32, ctypes.c_uint32, ctypes.c_uint32)(address)
    function.memory = memory
    return function


def low(data):
    """A copy of data that a 32-bit pointer can reach."""
    libc.mmap.restype = ctypes.c_void_p
    at = libc.mmap(None, ctypes.c_size_t(4096), 3, 0x20 | 0x02 | 0x40, -1, ctypes.c_long(0))  # MAP_32BIT
    ctypes.memmove(at, data, len(data))
    return at


def call_32_bit(number, *args):
    # push rbx; mov eax, number; mov ebx, edi; mov ecx, esi; int 0x80; pop rbx; movsxd rax, eax; ret
    # (rdx is the third argument for both)
    code = b"\x53\xb8" + number.to_bytes(4, "little") + b"\x89\xfb\x89\xf1\xcd\x80\x5b\x48\x63\xc0\xc3"
    result = machine_code(code)(*args, *[0] * (3 - len(args)))
    if result < 0:
        raise OSError(-result, os.strerror(-result))
    return result


if X86:

    @way("by the 32-bit entry (int 0x80)")
    def _():
        path = low(foreign.encode() + b"\0")
        flag = low(b"--version\0")
        argv = low(path.to_bytes(4, "little") + flag.to_bytes(4, "little") + bytes(4))
        call_32_bit(11, path, argv, 0)


# Copies, and what is written by a test.


@way("a copy in another directory")
def _():
    version(copy(scratch + "/copy"))


@way("a script (`#!/bin/sh`) in another directory")
def _():
    with open(scratch + "/script", "w") as f:
        f.write(f"#!/bin/sh\necho {marker.decode()}\n")
    os.chmod(scratch + "/script", 0o755)
    version(scratch + "/script")


@way("a copy in /dev/shm")
def _():
    path = f"/dev/shm/escape-{os.getpid()}"
    with open(copy(path)) as f:
        os.unlink(path)
        version(f"/proc/self/fd/{f.fileno()}")


@way("a file without a name (O_TMPFILE)")
def _():
    fd = os.open(scratch, os.O_TMPFILE | os.O_RDWR, 0o755)
    os.write(fd, content())
    by_descriptor(fd)


@way("a file that was deleted")
def _():
    with open(copy(scratch + "/deleted")) as f:
        os.unlink(f.name)
        version(f"/proc/self/fd/{f.fileno()}")


@way("a script in an allowed directory, of an interpreter that is not declared")
def _():
    with open(allowed + "/script", "w") as f:
        f.write(f"#!{foreign} --version\n")
    os.chmod(allowed + "/script", 0o755)
    version(allowed + "/script")


@way("a program in an allowed directory, of a dynamic linker that is not declared")
def _():
    os.chdir(scratch)
    data = content()
    linker = re.search(rb"/lib[^\0]*/ld-linux[^\0]*", data).group()
    shutil.copy(linker, "ld.so")
    with open(allowed + "/relinked", "wb") as f:
        f.write(data.replace(linker, b"/proc/self/cwd/ld.so".ljust(len(linker), b"\0"), 1))
    os.chmod(f.name, 0o755)
    version(f.name)


@way("a hard link to it in an allowed directory")
def _():
    os.link(copy(scratch + "/linked"), allowed + "/linked")
    version(allowed + "/linked")


@way("moved into an allowed directory")
def _():
    os.rename(copy(scratch + "/moved"), allowed + "/moved")
    version(allowed + "/moved")


@way("moved into an allowed directory with the directory that it is in")
def _():
    os.mkdir(scratch + "/dir")
    copy(scratch + "/dir/x")
    os.rename(scratch + "/dir", allowed + "/dir")
    version(allowed + "/dir/x")


@way("exchanged with a file of an allowed directory")
def _():
    with open(allowed + "/exchanged", "w"):
        pass
    copy(scratch + "/exchanged")
    syscall(RENAMEAT2, AT_FDCWD, (scratch + "/exchanged").encode(), AT_FDCWD, (allowed + "/exchanged").encode(), 2)
    version(allowed + "/exchanged")


@way("put in the place of an allowed file")
def _():
    os.rename(copy(c["file"] + ".new"), c["file"])
    version(c["file"])


# Memory.


@way("a file of memory (memfd_create), by /proc/self/fd")
def _():
    fd = os.memfd_create("x", 0)
    os.write(fd, content())
    by_descriptor(fd)


@way("a file of memory, by execveat")
def _():
    fd = os.memfd_create("x", 0x10)  # MFD_EXEC
    os.write(fd, content())
    os.set_inheritable(fd, True)
    argv = (ctypes.c_char_p * 3)(b"foreign", b"--version", None)
    syscall(EXECVEAT, fd, b"", argv, None, AT_EMPTY_PATH)


@way("a file of memory with MFD_NOEXEC_SEAL, made executable")
def _():
    fd = os.memfd_create("x", 8)
    os.write(fd, content())
    os.fchmod(fd, 0o755)
    by_descriptor(fd)


if X86:

    @way("a file of memory, by the 32-bit entry")
    def _():
        fd = call_32_bit(356, low(b"x\0"), 0)
        os.write(fd, content())
        by_descriptor(fd)

    @way("a file of memory, by the x32 entry")
    def _():
        fd = syscall(0x40000000 | MEMFD_CREATE, b"x", 0)
        os.write(fd, content())
        by_descriptor(fd)


@way("a file of memory of a process outside, taken (pidfd_getfd)")
def _():
    with ask(b"file") as peer:
        number = int(peer.recv(16))
    by_descriptor(syscall(PIDFD_GETFD, syscall(PIDFD_OPEN, c["pid"], 0), number, 0))


@way("a file of memory of a process outside, handed over (SCM_RIGHTS)")
def _():
    with ask(b"file") as peer:
        _, fds, _, _ = socket.recv_fds(peer, 16, 1)
    by_descriptor(fds[0])


def by_map_files(address, size):
    page = mmap.PAGESIZE
    size = (size + page - 1) // page * page
    version(f"/proc/self/map_files/{address:x}-{address + size:x}")


@way("shared memory (mmap), by /proc/self/map_files")
def _():
    data = content()
    memory = mmap.mmap(-1, len(data))
    memory.write(data)
    by_map_files(ctypes.addressof(ctypes.c_char.from_buffer(memory)), len(data))


@way("System V shared memory, by /proc/self/map_files")
def _():
    data = content()
    libc.shmat.restype = ctypes.c_void_p
    key = check(libc.shmget(0, ctypes.c_size_t(len(data)), 0o1777))
    address = libc.shmat(key, None, 0)
    check(libc.shmctl(key, 0, None))  # IPC_RMID
    ctypes.memmove(address, data, len(data))
    by_map_files(address, len(data))


# Other views of the file system.


@way("a bind mount of its directory over an allowed one")
def _():
    check(libc.unshare(CLONE_NEWNS))
    mount(os.path.dirname(foreign), allowed, None, 4096)  # MS_BIND
    version(allowed + "/" + os.path.basename(foreign))


@way("a new file system mounted on an allowed directory")
def _():
    check(libc.unshare(CLONE_NEWNS))
    mount("x", allowed, "tmpfs", 0)
    version(copy(allowed + "/x"))


@way("the same in a user namespace")
def _():
    check(libc.unshare(CLONE_NEWUSER | CLONE_NEWNS))
    mount("x", allowed, "tmpfs", 0)
    version(copy(allowed + "/x"))


@way("a file system that is mounted nowhere (fsmount)")
def _():
    fs = syscall(FSOPEN, b"tmpfs", 0)
    syscall(FSCONFIG, fs, 6, None, None, 0)
    fd = syscall(FSMOUNT, fs, 0, 0)
    version(copy(f"/proc/self/fd/{fd}/x"))


@way("a copy of a mount (open_tree)")
def _():
    fd = syscall(OPEN_TREE, AT_FDCWD, os.path.dirname(foreign).encode(), 1)
    version(f"/proc/self/fd/{fd}/" + os.path.basename(foreign))


@way("chroot")
def _():
    for library in (
        b"",
        *re.findall(rb"=> (/\S+)|(/\S*ld-linux\S*)", subprocess.run(["ldd", foreign], capture_output=True).stdout),
    ):
        for path in filter(None, library):
            path = path if isinstance(path, str) else path.decode()
            os.makedirs(scratch + "/root" + os.path.dirname(path), exist_ok=True)
            shutil.copy(path, scratch + "/root" + path)
    copy(scratch + "/root/x")
    os.chroot(scratch + "/root")
    version("/x")


# Other processes.


@way("another process's mount namespace (nsenter)")
def _():
    check(libc.setns(os.open(f"/proc/{c['pid']}/ns/mnt", os.O_RDONLY), CLONE_NEWNS))
    version(foreign)


@way("a process outside, traced (ptrace)")
def _():
    pid = c["pid"]
    check(libc.ptrace(16, pid, None, None))  # PTRACE_ATTACH
    os.waitpid(pid, 0)
    libc.ptrace(17, pid, None, None)
    os.write(1, marker)  # who is traced does what it is told


@way("a process outside, written to (/proc/PID/mem)")
def _():
    with open(f"/proc/{c['pid']}/mem", "r+b"):
        os.write(1, marker)


@way("cc-ci-run, for a run without the seal")
def _():
    os.execve(c["program"], ["cc-ci-run", "--no-record", "exec", "sh", "-c", foreign + " --version"], {"HOME": "/"})


def ask(what):
    peer = socket.socket(socket.AF_UNIX)
    peer.connect(c["outside"])
    peer.sendall(what)
    return peer


@way("a process outside, asked to execute it (docker, systemd-run, at, ssh)")
def _():
    with ask(b"run") as peer:
        os.write(1, peer.makefile("rb").read())


# What needs no execve of it.


@way("a copy in an allowed directory")
def _():
    version(copy(allowed + "/copy"))


@way("written over an allowed file")
def _():
    with open(c["other"], "wb") as f:
        f.write(content())
    version(c["other"])


@way("the dynamic linker, given the program")
def _():
    linker = re.search(rb"/lib[^\0]*/ld-linux[^\0]*", content()).group().decode()
    os.execv(linker, ["ld.so", foreign, "--version"])


@way("an interpreter, given a file or a line (sh, python3, perl, awk)")
def _():
    with open(scratch + "/line", "w") as f:
        f.write(f"echo {marker.decode()}\n")
    os.execvp("sh", ["sh", scratch + "/line"])


@way("an interpreter, given a file of memory as its stdin")
def _():
    fd = os.memfd_create("x", 8)  # MFD_NOEXEC_SEAL
    os.write(fd, f"echo {marker.decode()}\n".encode())
    os.lseek(fd, 0, os.SEEK_SET)
    os.dup2(fd, 0)
    os.execvp("sh", ["sh"])


@way("a library, loaded (dlopen, LD_PRELOAD)")
def _():
    ctypes.CDLL(shutil.copy(c["library"], scratch + "/library.so"))
    os.write(1, marker)


@way("machine code in the test's own memory")
def _():
    code = b"\xb8\x07\0\0\0\xc3" if X86 else b"\xe0\x00\x80\x52\xc0\x03\x5f\xd6"  # return 7
    if machine_code(code)(0, 0, 0) == 7:
        os.write(1, marker)


def attempt(function):
    """Whether the program ran, in a child, and else why not."""
    r, w = os.pipe()
    child = os.fork()
    if child == 0:
        signal.alarm(20)
        os.dup2(w, 1)
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, 2)
        try:
            function()
        except BaseException as e:
            name = errno.errorcode.get(getattr(e, "errno", None), "")
            os.write(1, f" {name or type(e).__name__}: {e}".encode())
        os._exit(0)
    os.close(w)
    with open(r, "rb") as f:
        said = f.read()
    _, status = os.waitpid(child, 0)
    ran = marker in said
    why = "" if ran else said.decode(errors="replace").strip() or f"status {status}"
    return {"ran": ran, "why": why}


report = {}
for name, function in ways.items():
    for directory in (allowed, scratch):
        for entry in os.scandir(directory):  # not the directory: it is what the kernel knows
            if entry.is_dir(follow_symlinks=False):
                shutil.rmtree(entry.path)
            else:
                os.unlink(entry.path)
    report[name] = attempt(function)
with open(sys.argv[2], "w") as f:
    json.dump(report, f)
