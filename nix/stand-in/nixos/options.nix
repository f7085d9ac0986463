# The options of NixOS that our modules and hosts set, with NixOS's types, and
# nothing behind them: so that modules can be evaluated without NixOS, and with
# a `pkgs` in which NixOS itself could not be.
{ lib, ... }:
let
  inherit (lib) mkOption types;
  of =
    type: default:
    mkOption {
      inherit type default;
    };
  anything = of (types.attrsOf types.unspecified) { };
  list = type: of (types.listOf type) [ ];
  text = of types.str "";
  flag = of types.bool;
  many = options: of (types.attrsOf (types.submodule { inherit options; })) { };
  one = options: of (types.submodule { inherit options; }) { };
  atom = types.oneOf [
    types.bool
    types.int
    types.str
    types.path
    types.package
  ];
  # A key of a unit file, or the key several times. null is not a value.
  settings = of (types.attrsOf (types.oneOf [ atom (types.listOf atom) ])) { };
  # What systemd-lib.nix of NixOS writes as VALUE in Environment="NAME=VALUE".
  variables = of (types.attrsOf (
    types.nullOr (
      types.oneOf [
        types.str
        types.path
        types.package
      ]
    )
  )) { };
  unit = {
    description = text;
    wantedBy = list types.str;
    wants = list types.str;
    after = list types.str;
    unitConfig = settings;
  };
in
{
  options = {
    assertions = list types.unspecified;
    warnings = list types.str;
    environment.systemPackages = list types.package;
    environment.etc = many {
      text = of (types.nullOr types.lines) null;
      source = of types.path "/nonexistent"; # NixOS makes a file of `text`
    };
    users.users = many {
      isSystemUser = flag false;
      isNormalUser = flag false;
      group = text;
      extraGroups = list types.str;
      description = text;
      home = of types.path "/var/empty";
      packages = list types.package;
      openssh.authorizedKeys.keys = list types.str;
    };
    users.groups = many { };
    systemd.tmpfiles.rules = list types.str;
    systemd.globalEnvironment = variables;
    systemd.services = many (
      unit
      // {
        path = list types.unspecified;
        environment = variables;
        serviceConfig = settings;
        enableDefaultPath = flag true;
        restartIfChanged = flag true;
      }
    );
    systemd.timers = many (unit // { timerConfig = settings; });
    networking = {
      hostName = of types.str "nixos";
      useDHCP = flag true;
      interfaces = many {
        useDHCP = of (types.nullOr types.bool) null;
        ipv6.addresses = list (
          types.submodule {
            options = {
              address = text;
              prefixLength = of types.int 0;
            };
          }
        );
      };
      defaultGateway6 = of (types.nullOr (
        types.submodule {
          options = {
            address = text;
            interface = of (types.nullOr types.str) null;
          };
        }
      )) null;
      firewall.allowedTCPPorts = list types.int;
    };
    boot = {
      loader.grub = {
        enable = flag false;
        device = text;
      };
      loader.systemd-boot.enable = flag false;
      loader.efi.canTouchEfiVariables = flag false;
      initrd.availableKernelModules = list types.str;
      kernelModules = list types.str;
    };
    fileSystems = many {
      device = of (types.nullOr types.str) null;
      fsType = text;
    };
    swapDevices = list (types.submodule { options.device = text; });
    nixpkgs.hostPlatform = text;
    nixpkgs.config = anything;
    nixpkgs.overlays = list types.unspecified;
    nix = {
      settings = anything;
      gc = {
        automatic = flag false;
        options = text;
      };
    };
    services.openssh = {
      enable = flag false;
      settings = anything;
    };
    services.nginx = {
      enable = flag false;
      group = of types.str "nginx";
      virtualHosts = many {
        root = of (types.nullOr types.path) null;
        extraConfig = of types.lines "";
        enableACME = flag false;
        forceSSL = flag false;
        basicAuthFile = of (types.nullOr types.path) null;
      };
    };
    virtualisation.docker = {
      enable = flag false;
      liveRestore = flag true;
      autoPrune.enable = flag false;
    };
    time.timeZone = of (types.nullOr types.str) null;
    system.stateVersion = text;
    system.switch.enable = flag true;
    specialisation = anything;
  };
}
