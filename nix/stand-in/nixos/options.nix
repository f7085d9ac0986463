# The options of NixOS that our modules and hosts set, with NixOS's types, and
# nothing behind them: so that modules can be evaluated without NixOS, and with
# a `pkgs` in which NixOS itself could not be.
{ lib, ... }:
let
  inherit (lib) mkOption types;
  anything = mkOption {
    type = types.attrsOf types.unspecified;
    default = { };
  };
  list =
    type:
    mkOption {
      type = types.listOf type;
      default = [ ];
    };
  text = mkOption {
    type = types.str;
    default = "";
  };
  # What systemd-lib.nix of NixOS writes as VALUE in Environment="NAME=VALUE".
  variables = mkOption {
    type = types.attrsOf (
      types.nullOr (
        types.oneOf [
          types.str
          types.path
          types.package
        ]
      )
    );
    default = { };
  };
  unit = {
    description = text;
    wantedBy = list types.str;
    wants = list types.str;
    after = list types.str;
    unitConfig = anything;
  };
in
{
  options = {
    assertions = list types.unspecified;
    warnings = list types.str;
    environment.systemPackages = list types.package;
    environment.etc = anything;
    users.users = anything;
    users.groups = anything;
    systemd.tmpfiles.rules = list types.str;
    systemd.globalEnvironment = variables;
    systemd.services = mkOption {
      default = { };
      type = types.attrsOf (
        types.submodule {
          options = unit // {
            path = list types.unspecified;
            environment = variables;
            serviceConfig = anything;
            enableDefaultPath = mkOption {
              type = types.bool;
              default = true;
            };
            restartIfChanged = mkOption {
              type = types.bool;
              default = true;
            };
          };
        }
      );
    };
    systemd.timers = mkOption {
      default = { };
      type = types.attrsOf (
        types.submodule {
          options = unit // {
            timerConfig = anything;
          };
        }
      );
    };
    networking = {
      hostName = text;
      useDHCP = mkOption {
        type = types.bool;
        default = true;
      };
      interfaces = anything;
      defaultGateway6 = anything;
      firewall = anything;
    };
    boot = anything;
    fileSystems = anything;
    swapDevices = list types.unspecified;
    nixpkgs.hostPlatform = text;
    nixpkgs.config = anything;
    nixpkgs.overlays = list types.unspecified;
    nix = anything;
    services.openssh = anything;
    virtualisation.docker = anything;
    time.timeZone = text;
    system.stateVersion = text;
    system.switch.enable = mkOption {
      type = types.bool;
      default = true;
    };
    specialisation = anything;
  };
}
