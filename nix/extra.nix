# Packages that toolset.toml names and that nixpkgs may lack. Each is used only
# where `pkgs` has none, so a later nixpkgs or a site's overlay comes first.
{
  pkgs,
  callPackage ? pkgs.callPackage,
}:
builtins.mapAttrs (name: file: pkgs.${name} or (callPackage file { })) {
  abra = ./abra.nix;
}
