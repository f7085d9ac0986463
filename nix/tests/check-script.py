#!/usr/bin/env python3
"""Reads the script of the NixOS test, which only a virtual machine runs, from stdin: it must be Python,
use no name that nothing defines, and have subtests, each once."""

import ast
import builtins
import collections
import sys

GIVEN = {"machine", "subtest"}  # of the names that NixOS's test driver has, those that vm.nix uses

tree = ast.parse(sys.stdin.read(), "nix/tests/vm.nix")
nodes = list(ast.walk(tree))
names = [n for n in nodes if isinstance(n, ast.Name)]
known = GIVEN | set(dir(builtins))
known |= {n.name for n in nodes if isinstance(n, ast.FunctionDef)}
known |= {n.asname or n.name for n in nodes if isinstance(n, ast.alias)}
known |= {n.arg for n in nodes if isinstance(n, ast.arg)}
known |= {n.id for n in names if isinstance(n.ctx, ast.Store)}
unknown = sorted({n.id for n in names} - known)

subtests = collections.Counter(
    n.args[0].value for n in nodes if isinstance(n, ast.Call) and getattr(n.func, "id", "") == "subtest"
)
twice = [name for name, count in subtests.items() if count > 1]

if unknown:
    sys.exit(f"nix/tests/vm.nix: nothing defines {', '.join(unknown)}")
if twice or not subtests:
    sys.exit(f"nix/tests/vm.nix: {len(subtests)} subtests, there twice: {', '.join(twice) or 'none'}")
