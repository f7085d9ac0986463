# What a real nixpkgs has under the names that this project uses; scripts/nixos
# holds nix/stand-in/names.json against it, and `--write` writes it.
#
#   packages  attribute path -> pname, where it is another than the attribute;
#             outputs; the output that the path names; mainProgram; unfree
#   python    which packages of Python's
#   text      these two, as names.json has them
#   missing   names that this nixpkgs lacks
{ pkgs, toolset }:
let
  inherit (pkgs) lib;
  placeholders =
    value: map builtins.head (lib.filter builtins.isList (builtins.split "[{]([^{}]*)[}]" value));
  attrs = lib.unique (
    map (t: t.nix) toolset.tool
    ++ [ toolset.browsers.nix ]
    ++ lib.concatMap placeholders (lib.attrValues toolset.environment.nix)
    # the Drone runner's module, the dev shell, and the tool that nix/tests add
    ++ [
      "drone-runner-exec"
      "go-tools"
      "gofumpt"
      "hello"
      "ruff"
      "nixfmt-tree"
    ]
  );
  parts = lib.splitString ".";
  find = attr: lib.attrByPath (parts attr) null pkgs;
  there = builtins.partition (attr: find attr != null) attrs;
  describe =
    attr:
    let
      p = find attr;
      name = lib.getName p;
      output = lib.last (parts attr);
    in
    { inherit (p) outputs; }
    // lib.optionalAttrs (name != attr) { pname = name; }
    // lib.optionalAttrs (p.outputSpecified or false) { inherit output; }
    // lib.optionalAttrs (p.meta ? mainProgram) { inherit (p.meta) mainProgram; }
    // lib.optionalAttrs (p.meta.unfree or false) { unfree = true; };
  modules = builtins.partition (
    name: (find toolset.python.nix).pkgs ? ${name}
  ) toolset.python.packages;
  lines = lib.concatStringsSep ",\n";
in
rec {
  packages = lib.genAttrs there.right describe;
  python = modules.right;
  # names.json
  text = ''
    {
    "packages": {
    ${lines (lib.mapAttrsToList (attr: fact: "${builtins.toJSON attr}: ${builtins.toJSON fact}") packages)}
    },
    "python": ${builtins.toJSON python}
    }
  '';
  missing = there.wrong ++ map (name: "${toolset.python.nix}.pkgs.${name}") modules.wrong;
}
