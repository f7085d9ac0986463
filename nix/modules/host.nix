# /etc/cc-ci-run/host.toml, which tells `cc-ci-run host` what must hold on this
# host: each module adds its own part, and a site adds its endpoints. With
# `enable`, a timer and each activation also start `cc-ci-run host`.
{
  config,
  lib,
  ...
}:
let
  harness = config.services.cc-ci;
  cfg = harness.host;
  length = "([0-9]*[1-9][0-9]*(h|m|s))+";
  isUnit = name: builtins.match "[A-Za-z0-9:_.@-]+[.][a-z]+" name != null;
  isLength = text: text == null || builtins.match length text != null;
  # The variables that systemd gives every unit, and the unit's own.
  environmentOf =
    unit: config.systemd.globalEnvironment // config.systemd.services.${unit}.environment;
  settings = {
    timeout = cfg.timeout;
    allow_failed = cfg.allowFailed;
    running = cfg.running;
    oneshots = cfg.oneshots;
    swarm = cfg.swarm;
    timer = builtins.mapAttrs (_: maxAge: if maxAge == null then { } else { max_age = maxAge; }) cfg.timers;
    unit = builtins.listToAttrs (
      map (unit: {
        name = "${unit}.service";
        value = {
          # The first word, without systemd's prefixes.
          program = builtins.head (
            builtins.match "[ ]*[-+!:@|]*([^ ]*).*" (toString config.systemd.services.${unit}.serviceConfig.ExecStart)
          );
          environment = environmentOf unit;
        };
      }) cfg.units
    );
    endpoint = map (
      e:
      {
        inherit (e) url status;
        min_days = e.minDays;
      }
      // lib.optionalAttrs (e.timeout != null) { inherit (e) timeout; }
    ) cfg.endpoints;
    state = {
      min_free_mib = cfg.minFreeMiB;
      min_free_inodes = cfg.minFreeInodes;
    };
  };
  look = "${lib.getExe harness.package} host --quiet";
  metrics = if cfg.metricsFile == null then "" else " --metrics ${toString cfg.metricsFile}";
in
{
  options.services.cc-ci.host = {
    enable = lib.mkEnableOption "checks of this host's health, by a timer and after each activation";

    onCalendar = lib.mkOption {
      type = lib.types.str;
      default = "hourly";
      example = "*:0/10";
      description = "When the timer starts the check, as a calendar event of {manpage}`systemd.time(7)`.";
    };

    afterActivation = lib.mkOption {
      type = lib.types.bool;
      default = true;
      example = false;
      description = ''
        Whether `nixos-rebuild switch` also waits until the host is healthy, and fails if the host does
        not become healthy (`cc-ci-deployed.service`).
      '';
    };

    wait = lib.mkOption {
      type = lib.types.str;
      default = "5m";
      example = "15m";
      description = "How long the host may take to become healthy after an activation.";
    };

    metricsFile = lib.mkOption {
      type = lib.types.nullOr lib.types.path;
      default = null;
      example = "/var/lib/node-exporter/cc-ci-run.prom";
      description = ''
        File to write the result to, for the textfile collector of Prometheus's node-exporter. The
        file's directory must be writable for `services.cc-ci.user`.
      '';
    };

    endpoints = lib.mkOption {
      type = lib.types.listOf (
        lib.types.submodule {
          options = {
            url = lib.mkOption {
              type = lib.types.str;
              example = "https://drone.example.org/healthz";
              description = "URL of the endpoint. The check does not follow redirects.";
            };
            status = lib.mkOption {
              type = lib.types.ints.positive;
              default = 200;
              example = 302;
              description = "HTTP status with which the endpoint must answer.";
            };
            minDays = lib.mkOption {
              type = lib.types.ints.unsigned;
              default = 14;
              example = 7;
              description = "Number of days for which the endpoint's certificate must still be valid.";
            };
            timeout = lib.mkOption {
              type = lib.types.nullOr lib.types.str;
              default = null;
              example = "30s";
              description = "Time limit of the endpoint's answer. If this option is null, `services.cc-ci.host.timeout` applies.";
            };
          };
        }
      );
      default = [ ];
      example = [ { url = "https://drone.example.org/healthz"; } ];
      description = "Endpoints that must answer.";
    };

    timeout = lib.mkOption {
      type = lib.types.str;
      default = "10s";
      example = "30s";
      description = "Time limit of each check. All checks run at once, so their limits do not add up.";
    };

    allowFailed = lib.mkOption {
      type = lib.types.attrsOf lib.types.str;
      default = { };
      example = {
        "fwupd-refresh.service" = "no network on Sundays";
      };
      description = "Units that may be in the state failed, each with the reason why that is acceptable.";
    };

    running = lib.mkOption {
      type = lib.types.listOf lib.types.str;
      default = [ ];
      example = [ "traefik.service" ];
      description = "Units that must be active.";
    };

    oneshots = lib.mkOption {
      type = lib.types.listOf lib.types.str;
      default = [ ];
      example = [ "reconcile-swarm.service" ];
      description = "Oneshot services that must have run successfully since the last boot.";
    };

    timers = lib.mkOption {
      type = lib.types.attrsOf (lib.types.nullOr lib.types.str);
      default = { };
      example = {
        "backup.timer" = "26h";
      };
      description = "Timers that must be active, each with the longest time between two starts, or null for no limit.";
    };

    units = lib.mkOption {
      type = lib.types.listOf lib.types.str;
      default = [ ];
      example = [ "nightly-sweep" ];
      description = ''
        Services whose program and environment must be those of this configuration. A drop-in that
        changes either is a fault.
      '';
    };

    swarm = lib.mkOption {
      type = lib.types.bool;
      default = true;
      example = false;
      description = ''
        Whether recipes are deployed on this host, so that its docker daemon must be a manager of an
        active swarm. `docker swarm init` makes one.
      '';
    };

    minFreeMiB = lib.mkOption {
      type = lib.types.ints.unsigned;
      default = 1024;
      example = 10240;
      description = "Free space that the file system of the state directory must have, in MiB.";
    };

    minFreeInodes = lib.mkOption {
      type = lib.types.ints.unsigned;
      default = 10000;
      example = 100000;
      description = "Number of free inodes that the file system of the state directory must have.";
    };
  };

  config = lib.mkIf harness.enable {
    assertions = [
      {
        assertion = lib.all isLength ([ cfg.timeout cfg.wait ] ++ lib.attrValues cfg.timers ++ map (e: e.timeout) cfg.endpoints);
        message = "services.cc-ci.host: a length of time is not like 1h30m or 10s.";
      }
      {
        assertion = lib.all isUnit (cfg.running ++ cfg.oneshots ++ lib.attrNames cfg.timers ++ lib.attrNames cfg.allowFailed);
        message = "services.cc-ci.host: a unit is named with its suffix, as in docker.service.";
      }
      {
        assertion = lib.all (reason: reason != "") (lib.attrValues cfg.allowFailed);
        message = "services.cc-ci.host.allowFailed: say why a unit may fail.";
      }
      {
        assertion = lib.all (e: e.status >= 100 && e.status < 600) cfg.endpoints;
        message = "services.cc-ci.host.endpoints: a status is not an HTTP status (100 to 599).";
      }
      {
        assertion = lib.all (unit: config.systemd.services ? ${unit}) cfg.units;
        message = "services.cc-ci.host.units names a service that this configuration does not have.";
      }
      {
        assertion = builtins.match "[^ %\"'\\]*" (toString cfg.metricsFile) != null;
        message = "services.cc-ci.host.metricsFile: systemd would interpret spaces, quotes and %: use a path without them.";
      }
    ];

    environment.etc."cc-ci-run/host.toml".text =
      "#:schema ${harness.package}/share/cc-ci-run/schemas/host.schema.json\n"
      + import ../toml.nix settings;

    services.cc-ci.host = {
      running = [ "docker.service" ];
      timers = lib.optionalAttrs cfg.enable { "cc-ci-host.timer" = null; };
      # These two units fail because of another unit's fault, which has a line of its own.
      allowFailed = lib.optionalAttrs cfg.enable {
        "cc-ci-host.service" = "it failed as the host was not healthy; what is wrong now is below";
        "cc-ci-deployed.service" = "the host was not healthy after the last activation; what is wrong now is below";
      };
    };

    systemd.services = lib.optionalAttrs cfg.enable (
      {
        cc-ci-host = {
          description = "Look at the CI host's health";
          enableDefaultPath = false;
          serviceConfig = harness.serviceConfig // {
            Type = "oneshot";
            ExecStart = look + metrics;
          };
          restartIfChanged = false;
        };
      }
      // lib.optionalAttrs cfg.afterActivation {
        cc-ci-deployed = {
          description = "Wait for the CI host to be healthy after an activation";
          wantedBy = [ "multi-user.target" ];
          enableDefaultPath = false;
          serviceConfig = harness.serviceConfig // {
            # Without RemainAfterExit, so that each switch starts this unit again: a
            # switch starts all inactive units that its targets want.
            Type = "oneshot";
            ExecStart = "${look} --wait ${cfg.wait}${metrics}";
            TimeoutStartSec = "infinity"; # --wait ends the command
          };
        };
      }
    );
    systemd.timers = lib.optionalAttrs cfg.enable {
      cc-ci-host = {
        description = "Look at the CI host's health";
        wantedBy = [ "timers.target" ];
        timerConfig.OnCalendar = cfg.onCalendar;
      };
    };
  };
}
