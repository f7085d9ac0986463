# What scripts/nixos prints of a real nixpkgs, as JSON.
{
  pkgs,
  flake,
  toolset,
  # what the proofs say
  compared,
}:
let
  inherit (pkgs) lib;
  # Without this flake's overlay, which adds what nixpkgs lacks.
  nixpkgs = flake.inputs.nixpkgs.legacyPackages.${pkgs.stdenv.hostPlatform.system};
  names = import ./names.nix {
    pkgs = nixpkgs;
    inherit toolset;
  };
  extra = import ../extra.nix { inherit pkgs; };

  leaves =
    path: set:
    lib.concatMap (
      name:
      let
        o = set.${name};
        at = path ++ [ name ];
      in
      if o._type or "" == "option" then
        [
          {
            inherit at;
            type = o.type.description;
          }
        ]
      else
        leaves at o
    ) (lib.attrNames (removeAttrs set [ "_module" ]));
  # The options of NixOS that modules and hosts set, as the stand-in has them.
  standIn =
    leaves [ ]
      (lib.evalModules { modules = [ ../stand-in/nixos/options.nix ]; }).options;
  wrongOptions =
    options:
    lib.concatMap (
      o:
      let
        real = lib.attrByPath o.at null options;
        found = real.type.description or "no option";
        name = lib.concatStringsSep "." o.at;
      in
      # `unspecified` stands for a type that the stand-in does not look into; a
      # table of options may be one option in one and several in the other.
      lib.optionals (real == null) [ "NixOS has no option ${name}" ]
      ++
        lib.optionals
          (
            real._type or "" == "option"
            && !(lib.hasInfix "unspecified" o.type || lib.hasInfix "submodule" o.type)
            && !(lib.hasInfix o.type found)
          )
          [ "${name} is a ${found} in NixOS, a ${o.type} in nix/stand-in" ]
    ) standIn;
  hosts = flake.nixosConfigurations;
in
{
  inherit (lib) version;
  inherit compared;
  names = {
    inherit (names) text;
    missing = lib.filter (name: !(extra ? ${name})) names.missing;
    # Of the names that nixpkgs lacks, those that the project brings along.
    extra = lib.filter (name: extra ? ${name}) names.missing;
    count = lib.length (lib.attrNames names.packages) + lib.length names.python;
  };
  options = {
    count = lib.length standIn;
    wrong = wrongOptions (lib.head (lib.attrValues hosts)).options;
  };
  hosts = lib.mapAttrs (_: host: {
    toplevel = builtins.unsafeDiscardStringContext host.config.system.build.toplevel.drvPath;
    inherit (host.config) warnings;
    assertions = lib.length host.config.assertions;
    failed = map (a: a.message) (lib.filter (a: !a.assertion) host.config.assertions);
  }) hosts;
}
