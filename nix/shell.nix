# A shell to work on recipes and on cc-ci-run: the toolset, and what builds
# the package.
{ pkgs, cc-ci-run }:
pkgs.mkShellNoCC {
  packages = [ cc-ci-run ] ++ cc-ci-run.toolset.packages;
  inputsFrom = [ cc-ci-run ];
}
