# What must hold on this host for `cc-ci-run host`, in /etc/cc-ci-run/host.toml:
# each module adds its own part, a site its endpoints. With `enable` it is also
# looked at by a timer and after each activation.
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
  # What systemd puts into each unit, and what the unit has of its own.
  environmentOf =
    unit: config.systemd.globalEnvironment // config.systemd.services.${unit}.environment;
  settings = {
    timeout = cfg.timeout;
    allow_failed = cfg.allowFailed;
    running = cfg.running;
    oneshots = cfg.oneshots;
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
    enable = lib.mkEnableOption "a look at this host's health, by a timer and after each activation";

    onCalendar = lib.mkOption {
      type = lib.types.str;
      default = "hourly";
      example = "*:0/10";
      description = "When the host is looked at, as {manpage}`systemd.time(7)` has it.";
    };

    afterActivation = lib.mkOption {
      type = lib.types.bool;
      default = true;
      example = false;
      description = ''
        Whether `nixos-rebuild switch` also waits for the host to be healthy, and fails if it does not
        become so (`cc-ci-deployed.service`).
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
        File to write the result to, for the textfile collector of Prometheus's node-exporter. Its
        directory must be writable for `services.cc-ci.user`.
      '';
    };

    endpoints = lib.mkOption {
      type = lib.types.listOf (
        lib.types.submodule {
          options = {
            url = lib.mkOption {
              type = lib.types.str;
              example = "https://drone.example.org/healthz";
              description = "URL that must answer. Redirects are not followed.";
            };
            status = lib.mkOption {
              type = lib.types.ints.positive;
              default = 200;
              example = 302;
              description = "Status that it must answer with.";
            };
            minDays = lib.mkOption {
              type = lib.types.ints.unsigned;
              default = 14;
              example = 7;
              description = "For how many days its certificate must still be valid.";
            };
            timeout = lib.mkOption {
              type = lib.types.nullOr lib.types.str;
              default = null;
              example = "30s";
              description = "How long it may take; `services.cc-ci.host.timeout` if it is null.";
            };
          };
        }
      );
      default = [ ];
      example = [ { url = "https://drone.example.org/healthz"; } ];
      description = "What must answer.";
    };

    timeout = lib.mkOption {
      type = lib.types.str;
      default = "10s";
      example = "30s";
      description = "Time limit of each check. They are made at once, so the limits do not add up.";
    };

    allowFailed = lib.mkOption {
      type = lib.types.attrsOf lib.types.str;
      default = { };
      example = {
        "fwupd-refresh.service" = "no network on Sundays";
      };
      description = "Units that may have failed, each with the reason.";
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
      description = "Services that must have run since boot, and succeeded.";
    };

    timers = lib.mkOption {
      type = lib.types.attrsOf (lib.types.nullOr lib.types.str);
      default = { };
      example = {
        "backup.timer" = "26h";
      };
      description = "Timers that must be active, and the longest time between two of their starts.";
    };

    units = lib.mkOption {
      type = lib.types.listOf lib.types.str;
      default = [ ];
      example = [ "nightly-sweep" ];
      description = ''
        Services of this configuration whose program and environment must be what it says: not what a
        drop-in beside it says.
      '';
    };

    minFreeMiB = lib.mkOption {
      type = lib.types.ints.unsigned;
      default = 1024;
      example = 10240;
      description = "Space that must be free for the state directory, in MiB.";
    };

    minFreeInodes = lib.mkOption {
      type = lib.types.ints.unsigned;
      default = 10000;
      example = 100000;
      description = "Files that must be free for the state directory.";
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
        message = "services.cc-ci.host.endpoints: a status is none of HTTP's.";
      }
      {
        assertion = lib.all (unit: config.systemd.services ? ${unit}) cfg.units;
        message = "services.cc-ci.host.units names a service that this configuration has not.";
      }
      {
        assertion = builtins.match "[^ %\"'\\]*" (toString cfg.metricsFile) != null;
        message = "services.cc-ci.host.metricsFile: systemd would take its spaces, quotes or % for its own.";
      }
    ];

    environment.etc."cc-ci-run/host.toml".text =
      "#:schema ${harness.package}/share/cc-ci-run/schemas/host.schema.json\n"
      + import ../toml.nix settings;

    services.cc-ci.host = {
      running = [ "docker.service" ];
      timers = lib.optionalAttrs cfg.enable { "cc-ci-host.timer" = null; };
      # They tell of the others' faults.
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
            # Not RemainAfterExit: so each switch, which starts what its targets
            # want, starts it again.
            Type = "oneshot";
            ExecStart = "${look} --wait ${cfg.wait}${metrics}";
            TimeoutStartSec = "infinity"; # it ends by itself
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
