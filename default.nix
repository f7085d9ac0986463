# For those without flakes:
#
#   nix-build -A cc-ci-run
#   imports = [ (import /path/to/this { }).nixosModules.default ];
{
  pkgs ? import <nixpkgs> { },
}:
rec {
  cc-ci-run = pkgs.callPackage ./nix/package.nix { };
  shell = import ./nix/shell.nix { inherit pkgs cc-ci-run; };
  overlay = import ./nix/overlay.nix;
  nixosModules.default = ./nix/modules;
  proofs = (import ./nix/tests { inherit pkgs; }).proofs;
}
