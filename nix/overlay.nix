# Adds pkgs.cc-ci-run, and what extra.nix has and nixpkgs lacks.
final: prev:
import ./extra.nix {
  pkgs = prev;
  inherit (final) callPackage;
}
// {
  cc-ci-run = final.callPackage ./package.nix { };
}
