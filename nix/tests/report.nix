# What scripts/nixos prints of a real nixpkgs, as JSON.
{
  pkgs,
  flake,
  toolset,
  # what the proofs say
  proofs,
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

  # The options of NixOS that modules and hosts set, as the stand-in has them,
  # each beside NixOS's own; those of submodules as well.
  pairs =
    path: standIn: real:
    lib.concatMap (
      name:
      let
        o = standIn.${name};
        at = path ++ [ name ];
        there = real ? ${name};
        r = real.${name};
        below = o.type.getSubOptions at;
      in
      if o._type or "" != "option" then
        pairs at o (if there then r else { })
      else
        [
          {
            name = lib.concatStringsSep "." at;
            mine = o.type.description;
            # A table of options may be one option in one and several in the other.
            real =
              if !there then
                null
              else if r._type or "" == "option" then
                r.type.description
              else
                "options";
          }
        ]
        ++ lib.optionals (there && r._type or "" == "option" && below != { }) (
          pairs at (removeAttrs below [ "_module" ]) (r.type.getSubOptions at)
        )
    ) (lib.attrNames (removeAttrs standIn [ "_module" ]));
  compared =
    pairs [ ] (lib.evalModules { modules = [ ../stand-in/nixos/options.nix ]; }).options
      (lib.head (lib.attrValues hosts)).options;
  byType = lib.filter (
    o: o.real != null && o.real != "options" && !(lib.hasInfix "unspecified" o.mine || lib.hasInfix "submodule" o.mine)
  ) compared;
  mismatch =
    o:
    let
      # Types that NixOS calls otherwise, and the stand-in stands in for.
      known = {
        "networking.interfaces.ipv6.addresses.prefixLength" = "integer between 0 and 128";
        "systemd.services.serviceConfig" = "systemd option";
        "systemd.services.unitConfig" = "systemd option";
        "systemd.timers.timerConfig" = "systemd option";
        "systemd.timers.unitConfig" = "systemd option";
        "users.users.openssh.authorizedKeys.keys" = "single-line string";
        "virtualisation.docker.liveRestore" = "submodule"; # an alias for a key of daemon.settings
        "networking.firewall.allowedTCPPorts" = "16 bit unsigned integer";
        "boot.initrd.availableKernelModules" = "attribute set of boolean";
        "boot.kernelModules" = "attribute set of boolean";
      };
    in
    !(lib.hasInfix o.mine o.real || lib.hasInfix (known.${o.name} or o.mine) o.real);
  # callPackage fills an argument in if nixpkgs has such a name.
  filledIn = lib.filter (
    name: (builtins.functionArgs (import ../package.nix)).${name} && nixpkgs ? ${name}
  ) (lib.attrNames (builtins.functionArgs (import ../package.nix)));
  hosts = flake.nixosConfigurations;
in
{
  inherit (lib) version;
  inherit proofs;
  names = {
    inherit (names) text;
    missing = lib.filter (name: !(extra ? ${name})) names.missing;
    # Of the names that nixpkgs lacks, those that the project brings along.
    extra = lib.filter (name: extra ? ${name}) names.missing;
    count = lib.length (lib.attrNames names.packages) + lib.length names.python;
  };
  options = {
    count = lib.length compared;
    typed = lib.length byType;
    wrong =
      map (o: "NixOS has no option ${o.name}") (lib.filter (o: o.real == null) compared)
      ++ map (o: "${o.name} is a ${o.real} in NixOS, a ${o.mine} in nix/stand-in") (
        lib.filter mismatch byType
      )
      ++ map (name: "package.nix: nixpkgs has a ${name}, which callPackage would fill in") filledIn;
  };
  hosts = lib.mapAttrs (_: host: {
    toplevel = builtins.unsafeDiscardStringContext host.config.system.build.toplevel.drvPath;
    inherit (host.config) warnings;
    assertions = lib.length host.config.assertions;
    failed = map (a: a.message) (lib.filter (a: !a.assertion) host.config.assertions);
  }) hosts;
}
