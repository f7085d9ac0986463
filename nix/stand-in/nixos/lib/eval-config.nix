# A configuration of NixOS, as far as the stand-in goes: its options, its
# warnings and assertions, and a package that needs all that it starts.
arguments@{
  system ? builtins.currentSystem,
  modules,
  specialArgs ? { },
}:
let
  lib = import ../../lib.nix;
  evaluated = lib.evalModules {
    modules = [
      ../options.nix
      (lib.optionalAttrs (system != null) { nixpkgs.hostPlatform = lib.mkDefault system; })
    ]
    ++ modules;
    specialArgs = specialArgs // {
      inherit pkgs;
    };
  };
  inherit (evaluated) config;
  pkgs = import ../.. {
    inherit (config.nixpkgs) config overlays;
    system = config.nixpkgs.hostPlatform;
  };
  units = import ../units.nix { inherit lib; };
  # NixOS's own, of what our modules and hosts set.
  ownAssertions = lib.mapAttrsToList (name: user: {
    assertion = user.isSystemUser != user.isNormalUser && user.group != "" || name == "root";
    message = "users.users.${name}: either isSystemUser or isNormalUser must be set, and a group.";
  }) config.users.users;
  failed = builtins.filter (a: !a.assertion) (config.assertions ++ ownAssertions);
  # NixOS needs most of what a configuration says; here all of it is computed.
  force =
    value:
    if lib.isDerivation value then
      builtins.seq value.outPath true
    else if builtins.isAttrs value then
      lib.all force (lib.attrValues value)
    else if builtins.isList value then
      lib.all force value
    else
      builtins.seq value true;
  toplevel = pkgs.writeText "nixos-system-${config.networking.hostName}" (
    builtins.toJSON {
      packages = map (p: "${p}") config.environment.systemPackages;
      services = builtins.mapAttrs (_: s: {
        inherit (s) serviceConfig;
        environment = builtins.mapAttrs (_: v: "${v}") (
          lib.filterAttrs (_: v: v != null) (config.systemd.globalEnvironment // s.environment)
        );
      }) config.systemd.services;
      timers = builtins.mapAttrs (_: t: t.timerConfig) config.systemd.timers;
      etc = builtins.mapAttrs (
        _: e: if e.text != null then e.text else "${e.source}"
      ) config.environment.etc;
      inherit (config) users;
    }
  );
in
evaluated
// {
  inherit pkgs;
  extendModules = { modules }: import ./eval-config.nix (
    arguments // { modules = arguments.modules ++ modules; }
  );
  config = config // {
    systemd = config.systemd // {
      units =
        lib.listToAttrs (
          lib.mapAttrsToList (
            name: s:
            lib.nameValuePair "${name}.service" {
              text = units.service (s // { environment = config.systemd.globalEnvironment // s.environment; });
            }
          ) config.systemd.services
          ++ lib.mapAttrsToList (
            name: t: lib.nameValuePair "${name}.timer" { text = units.timer t; }
          ) config.systemd.timers
        );
    };
    system = config.system // {
      build.toplevel =
        if failed != [ ] then
          throw "Failed assertions:\n${lib.concatStringsSep "\n" (map (a: "- ${a.message}") failed)}"
        else
          builtins.seq (force (removeAttrs config [ "nixpkgs" ])) lib.foldl' (top: text: lib.warn text top) toplevel config.warnings;
    };
  };
}
