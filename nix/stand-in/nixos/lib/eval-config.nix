# A configuration of NixOS, as far as the stand-in goes: its options, its
# warnings and assertions, and a package that needs all that it starts.
{
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
  config = config // {
    system = config.system // {
      build.toplevel =
        if failed != [ ] then
          throw "Failed assertions:\n${lib.concatStringsSep "\n" (map (a: "- ${a.message}") failed)}"
        else
          lib.foldl' (top: text: lib.warn text top) toplevel config.warnings;
    };
  };
}
