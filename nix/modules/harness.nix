# What every way of starting a recipe test shares: cc-ci-run, its environment,
# the user and the state directory. The modules of the Drone runner and of the
# nightly sweep use this one. No option adds a tool: tools are added to
# toolset.toml, and so reach every invoker.
{
  config,
  lib,
  pkgs,
  ...
}:
let
  cfg = config.services.cc-ci;
  stateDir = toString cfg.stateDir; # so that Nix does not copy a path into the store
  # The table of places that internal/state reads, too: place, mode, and more.
  places = lib.filter (line: line != "") (
    lib.splitString "\n" (builtins.readFile ../../internal/state/places.txt)
  );

  # Hardening that does not break tests. Omitted, with the reason:
  # PrivateTmp (containers mount files of /tmp by path, and the daemon sees
  # the host's), PrivateDevices and MemoryDenyWriteExecute (the browser),
  # RestrictNamespaces and SystemCallFilter (the browser's own sandbox),
  # ProtectClock (implies a closed list of devices), ProtectSystem=strict
  # (recipes are checked out and written to), RestrictSUIDSGID (git and tar set
  # set-group-ID on shared directories), ProtectControlGroups (the sweep makes a
  # cgroup for each run; without capabilities a process can write only to the
  # cgroups that its unit delegates to it). Also omitted: options that systemd
  # implements with a seccomp filter (RestrictRealtime, LockPersonality,
  # ProtectHostname, ProtectKernelTunables, ProtectKernelLogs, ProtectKernelModules).
  # A person's run has no such filter, and a process without capabilities can do
  # almost nothing of what these options forbid.
  serviceConfig = {
    User = cfg.user;
    Group = cfg.group;
    SupplementaryGroups = [ "docker" ];
    NoNewPrivileges = true;
    CapabilityBoundingSet = "";
    ProtectSystem = "full";
    ProtectHome = true;
    KillMode = "control-group";
    # A test that is killed for want of memory fails. systemd's default would also
    # end the unit, such as the Drone runner with the steps of other pipelines.
    OOMPolicy = "continue";
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
      defaultText = lib.literalMD "`pkgs.cc-ci-run`, with every run sealed if `seal` is set";
      example = lib.literalExpression "pkgs.cc-ci-run.override { stateDir = \"/srv/cc-ci-run\"; }";
      description = "The cc-ci-run package, which contains the environment of all recipe tests.";
    };

    stateDir = lib.mkOption {
      type = lib.types.path;
      default = "/var/lib/cc-ci-run";
      example = "/srv/cc-ci-run";
      description = ''
        Directory for run records and the sweep's state. The directory's name is built into the package,
        so that all invokers write to one place. For another directory, also override `package` with
        that `stateDir`.
      '';
    };

    seal = lib.mkOption {
      type = lib.types.bool;
      default = false;
      example = true;
      description = ''
        Whether every run is sealed, whoever starts the run: the kernel then refuses to execute programs
        that toolset.toml does not declare. This setting is built into the package, so if you set `package`
        yourself, override it with `alwaysSeal = true`. If toolset.toml has `seal = true`, every run
        is sealed whatever this option says.
      '';
    };

    user = lib.mkOption {
      type = lib.types.str;
      default = "cc-ci";
      example = "ci";
      description = ''
        User that runs the recipe tests of the Drone runner and of the nightly sweep. The module creates
        this user, with an empty home that nobody can write to. The user may use docker, which gives
        it, and with it every test, the power of root on this host.
      '';
    };

    group = lib.mkOption {
      type = lib.types.str;
      default = "cc-ci";
      example = "ci";
      description = "Group whose members may write run records. Add the people who run tests by hand to this group.";
    };

    serviceConfig = lib.mkOption {
      type = lib.types.attrsOf lib.types.unspecified;
      default = serviceConfig;
      internal = true;
      readOnly = true;
      description = ''
        Part of the `serviceConfig` of every unit that runs recipe tests, so that the tests find the same
        process state in all of these units.
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
      {
        assertion = !lib.hasPrefix "${stateDir}/" "${config.users.users.${cfg.user}.home}/";
        message = "services.cc-ci.user: the home of ${cfg.user} is in the state directory, where members of the group can put files: ssh would obey a member's .ssh/config in every recipe's tests. Leave the home as the module sets it.";
      }
    ];

    # For people on the host. Their PATH also has the other packages of NixOS, but
    # cc-ci-run alone decides what a test finds.
    environment.systemPackages = [ cfg.package ] ++ cfg.package.toolset.packages;

    # cc-ci-run and the toolset's commands in one directory. The directory's name
    # stays the same, so that a daemon with this PATH finds the new commands after a switch.
    environment.etc."cc-ci-run/path".source = cfg.package.path;

    users.users.${cfg.user} = {
      isSystemUser = true;
      inherit (cfg) group;
      extraGroups = [ "docker" ];
      description = "Co-op Cloud CI";
      # Root's, and nobody can write there. Tools find this directory in the password
      # database, whatever HOME is (docs/home.md), and must find nothing in it: whoever
      # could write here would decide what curl and ssh do in every recipe's test, as a
      # user who has docker.
      home = "/var/empty";
    };
    users.groups.${cfg.group} = { };

    # Not writable for the group, except the places where everybody's runs are
    # recorded. These are sticky, so that nobody removes another's record.
    systemd.tmpfiles.rules = map (
      line:
      let
        word = builtins.elemAt (lib.splitString " " line);
        directory = if word 0 == "." then stateDir else "${stateDir}/${word 0}";
      in
      "d ${directory} ${word 1} ${cfg.user} ${cfg.group} -"
    ) places;
  };
}
