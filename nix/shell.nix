# A shell to work on recipes and on cc-ci-run: the toolset, and what builds
# the package.
{ pkgs, cc-ci-run }:
let
  # For working on cc-ci-run itself; no run sees them. `make lint` brings its own,
  # shellcheck among them, which is the only one that takes Haskell to build.
  linters = map (name: pkgs.${name}) [
    "go-tools"
    "gofumpt"
    "nixfmt-tree"
    "ruff"
  ];
in
pkgs.mkShellNoCC {
  packages = [
    cc-ci-run
  ]
  ++ cc-ci-run.toolset.packages
  ++ linters;
  inputsFrom = [ cc-ci-run ];
}
