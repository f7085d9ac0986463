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
  failed = builtins.filter (a: !a.assertion) config.assertions;
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
      etc = builtins.mapAttrs (_: e: e.text or "${e.source}") config.environment.etc;
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
          lib.foldl' (top: text: lib.warn text top) toplevel config.warnings;
    };
  };
}
