# What every path to a recipe test shares: cc-ci-run, its environment, the
# user and the state directory. The Drone runner and the nightly sweep build
# on it. There is no option that adds a tool: tools go into toolset.toml, and
# so reach everybody.
{
  config,
  lib,
  pkgs,
  ...
}:
let
  cfg = config.services.cc-ci;
  stateDir = toString cfg.stateDir; # of a path, not a copy of it in the store

  # Hardening that leaves a test what it needs. Not here, and why:
  # PrivateTmp (containers mount files of /tmp by path, and the daemon sees
  # the host's), PrivateDevices and MemoryDenyWriteExecute (the browser),
  # RestrictNamespaces and SystemCallFilter (the browser's own sandbox),
  # ProtectClock (implies a closed list of devices), ProtectSystem=strict
  # (recipes are checked out and written to), RestrictSUIDSGID (git and tar set
  # set-group-ID on shared directories). Nor what systemd does with a seccomp
  # filter (RestrictRealtime, LockPersonality, ProtectHostname, ProtectKernelTunables,
  # ProtectKernelLogs, ProtectKernelModules): a person's run has none, and a
  # process without capabilities may do next to nothing of it anyway.
  serviceConfig = {
    User = cfg.user;
    Group = cfg.group;
    SupplementaryGroups = [ "docker" ];
    NoNewPrivileges = true;
    CapabilityBoundingSet = "";
    ProtectSystem = "full";
    ProtectHome = true;
    ProtectControlGroups = true;
    KillMode = "control-group";
  };
in
{
  imports = [ ./host.nix ];

  options.services.cc-ci = {
    enable = lib.mkEnableOption "the Co-op Cloud CI harness: cc-ci-run and its declared environment";

    package = lib.mkOption {
      type = lib.types.package;
      default =
        let
          package = pkgs.cc-ci-run or (pkgs.callPackage ../package.nix { });
        in
        if cfg.seal then package.override { alwaysSeal = true; } else package;
      defaultText = lib.literalExpression "pkgs.cc-ci-run, with its runs sealed if `seal` is set";
      example = lib.literalExpression "pkgs.cc-ci-run.override { stateDir = \"/srv/cc-ci-run\"; }";
      description = "The cc-ci-run package. It carries the environment that all recipe tests run in.";
    };

    stateDir = lib.mkOption {
      type = lib.types.path;
      default = "/var/lib/cc-ci-run";
      example = "/srv/cc-ci-run";
      description = ''
        Directory of run records and of the sweep's state. The package has it built in, so that all
        invokers write to one place; another directory needs `package` to be overridden with it.
      '';
    };

    seal = lib.mkOption {
      type = lib.types.bool;
      default = false;
      example = true;
      description = ''
        Whether every run is sealed, whoever starts it: the kernel then refuses to execute what
        toolset.toml does not declare. The package has it built in, so another `package` needs to be
        overridden with `alwaysSeal = true`. With `seal = true` in toolset.toml it is so anyway.
      '';
    };

    user = lib.mkOption {
      type = lib.types.str;
      default = "cc-ci";
      example = "ci";
      description = ''
        User that recipe tests run as, whoever starts them; it is created. It may use docker, and is
        thereby as good as root on this host.
      '';
    };

    group = lib.mkOption {
      type = lib.types.str;
      default = "cc-ci";
      example = "ci";
      description = "Group that may write run records; people who run tests by hand belong in it.";
    };

    serviceConfig = lib.mkOption {
      type = lib.types.attrsOf lib.types.unspecified;
      default = serviceConfig;
      internal = true;
      readOnly = true;
      description = ''
        What each unit that runs recipe tests has in its `serviceConfig`, so that the tests find the
        same process state under all of them.
      '';
    };
  };

  config = lib.mkIf cfg.enable {
    assertions = [
      {
        assertion = cfg.package ? toolset;
        message = "services.cc-ci.package carries no toolset: it must be built by nix/package.nix of cc-ci-run.";
      }
      {
        assertion = !(cfg.package ? toolset) || cfg.package.toolset.stateDir == stateDir;
        message = "services.cc-ci.stateDir is ${stateDir}, but the package has another built in: set services.cc-ci.package = pkgs.cc-ci-run.override { stateDir = \"${stateDir}\"; }.";
      }
      {
        assertion = !cfg.seal || !(cfg.package ? toolset) || cfg.package.toolset.seal;
        message = "services.cc-ci.seal is set, but services.cc-ci.package is built without: override it with { alwaysSeal = true; }.";
      }
      {
        assertion = config.virtualisation.docker.enable or false;
        message = "services.cc-ci: recipes are deployed with docker: set virtualisation.docker.enable. Without its group no unit that runs tests can start.";
      }
      {
        assertion = cfg.user != "root";
        message = "services.cc-ci.user: recipe tests must not run as root.";
      }
    ];

    # For a person on the host. Their PATH has all else of NixOS, too: what a
    # test finds, cc-ci-run decides.
    environment.systemPackages = [ cfg.package ] ++ cfg.package.toolset.packages;

    # cc-ci-run and the toolset's commands in one directory, under a name that
    # stays: a daemon that has it in its PATH sees the new ones after a switch.
    environment.etc."cc-ci-run/path".source = cfg.package.path;

    users.users.${cfg.user} = {
      isSystemUser = true;
      inherit (cfg) group;
      extraGroups = [ "docker" ];
      description = "Co-op Cloud CI";
      home = stateDir;
    };
    users.groups.${cfg.group} = { };

    # The places of internal/state, whose test looks at this list. Set-group-ID:
    # whoever of the group writes a file, the group can read and expire it.
    systemd.tmpfiles.rules = [
      "d ${stateDir} 2775 ${cfg.user} ${cfg.group} -"
      "d ${stateDir}/runs 2775 ${cfg.user} ${cfg.group} -"
      "d ${stateDir}/manifests 2775 ${cfg.user} ${cfg.group} -"
      "d ${stateDir}/results 2775 ${cfg.user} ${cfg.group} -"
      "d ${stateDir}/audits 2775 ${cfg.user} ${cfg.group} -"
      "d ${stateDir}/sweep 2775 ${cfg.user} ${cfg.group} -"
      "d ${stateDir}/sweep/recipes 2775 ${cfg.user} ${cfg.group} -"
      "d ${stateDir}/sweep/logs 2775 ${cfg.user} ${cfg.group} -"
      "d ${stateDir}/sweep/running 2775 ${cfg.user} ${cfg.group} -"
    ];
  };
}
