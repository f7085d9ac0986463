# Adds pkgs.cc-ci-run.
final: _prev: {
  cc-ci-run = final.callPackage ./package.nix { };
}
