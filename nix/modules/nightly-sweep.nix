# The nightly sweep: a timer, and a service that is `cc-ci-run sweep` and
# nothing else. It has no PATH and no packages of its own; cc-ci-run would
# ignore them.
{
  config,
  lib,
  ...
}:
let
  harness = config.services.cc-ci;
  cfg = harness.nightly-sweep;
  calendar = {
    nightly = "*-*-* 02:00:00";
    weekly = "Sun *-*-* 02:00:00";
  };
in
{
  imports = [ ./harness.nix ];

  options.services.cc-ci.nightly-sweep = {
    enable = lib.mkEnableOption "the sweep over all recipes, by a timer";

    schedule = lib.mkOption {
      type = lib.types.enum (lib.attrNames calendar);
      default = "nightly";
      example = "weekly";
      description = "How often the sweep runs: every night at two, or on Sundays.";
    };

    onCalendar = lib.mkOption {
      type = lib.types.str;
      default = calendar.${cfg.schedule};
      defaultText = lib.literalMD "two o'clock, by `schedule`";
      example = "Mon,Thu *-*-* 03:30:00";
      description = "When the sweep runs, as {manpage}`systemd.time(7)` has it; for other times than `schedule` gives.";
    };

    maxAge = lib.mkOption {
      type = lib.types.nullOr lib.types.str;
      default =
        if cfg.onCalendar != calendar.${cfg.schedule} then
          null
        else
          {
            nightly = "26h";
            weekly = "194h";
          }
          .${cfg.schedule};
      defaultText = lib.literalMD "a little more than the period of `schedule`; null with another `onCalendar`";
      example = "50h";
      description = "A sweep that has not been started for longer is a fault for `cc-ci-run host`.";
    };

    randomizedDelaySec = lib.mkOption {
      type = lib.types.str;
      default = "15min";
      example = "0";
      description = "The sweep starts up to this much later, so that hosts do not all pull images at once.";
    };

    persistent = lib.mkOption {
      type = lib.types.bool;
      default = true;
      example = false;
      description = "Whether a sweep that was missed, as the host was down, is made up for at boot.";
    };

    timeout = lib.mkOption {
      type = lib.types.str;
      default = "8h";
      example = "2h";
      description = "A sweep that takes longer is ended.";
    };

    audit = lib.mkOption {
      type = lib.types.bool;
      default = false;
      example = true;
      description = "Whether each run is audited: `cc-ci-run audit report` then says what recipes really execute, and what they miss.";
    };

    recipeTimeout = lib.mkOption {
      type = lib.types.nullOr lib.types.str;
      default = null;
      example = "20m";
      description = ''
        A recipe whose tests take longer is held, with units as in `1h30m`. Without it, `sweep.toml`
        in `recipesDir` says how long, for each recipe if need be, and else it is an hour.
      '';
    };

    jobs = lib.mkOption {
      type = lib.types.nullOr lib.types.ints.positive;
      default = null;
      example = 2;
      description = ''
        How many recipes run at once; without it, what `sweep.toml` in `recipesDir` says, or one.
        They are deployed to this host's one docker swarm, so more than one needs recipes that do not
        get into each other's way.
      '';
    };

    recipesDir = lib.mkOption {
      type = lib.types.path;
      default = "${harness.package}/share/cc-ci-run/recipes";
      defaultText = lib.literalExpression "\"\${config.services.cc-ci.package}/share/cc-ci-run/recipes\"";
      example = "/srv/recipes";
      description = "Directory of the recipes, each a directory with its tests.";
    };

    recipes = lib.mkOption {
      type = lib.types.listOf lib.types.str;
      default = [ ];
      example = [
        "gitea"
        "nextcloud"
      ];
      description = "Recipes to sweep, in this order. Empty: the list in `sweep.toml` of `recipesDir`, else every recipe, by name.";
    };

    environment = lib.mkOption {
      type = lib.types.attrsOf lib.types.str;
      default = { };
      example = {
        GITEA_URL = "https://gitea.example.org";
      };
      description = "Variables for the tests; they see those that toolset.toml passes. No place for secrets.";
    };

    environmentFile = lib.mkOption {
      type = lib.types.nullOr lib.types.path;
      default = null;
      example = "/run/secrets/nightly-sweep.env";
      description = "File with secret variables for the tests, as systemd's `EnvironmentFile=` reads it.";
    };
  };

  config = lib.mkIf cfg.enable {
    assertions = [
      {
        assertion = harness.enable;
        message = "services.cc-ci.nightly-sweep needs services.cc-ci.enable.";
      }
      {
        assertion = !(cfg.environment ? PATH);
        message = "services.cc-ci.nightly-sweep.environment sets PATH: add the tool to toolset.toml instead.";
      }
      {
        assertion = cfg.recipeTimeout == null || builtins.match "([0-9]+(h|m|s))+" cfg.recipeTimeout != null;
        message = "services.cc-ci.nightly-sweep.recipeTimeout is ${toString cfg.recipeTimeout}: write hours, minutes and seconds as in 1h30m.";
      }
      {
        assertion = lib.all (name: builtins.match "[A-Za-z0-9][A-Za-z0-9._-]*" name != null) cfg.recipes;
        message = "services.cc-ci.nightly-sweep.recipes: a recipe is named by its directory's name alone.";
      }
      {
        assertion = builtins.match "[^ %\"'\\]*" (toString cfg.recipesDir) != null;
        message = "services.cc-ci.nightly-sweep.recipesDir: systemd would take its spaces, quotes or % for its own.";
      }
      {
        assertion = !(lib.hasPrefix builtins.storeDir (toString cfg.environmentFile));
        message = "services.cc-ci.nightly-sweep.environmentFile is in the Nix store, where everybody can read it: give its path as a string.";
      }
    ];

    services.cc-ci.host = {
      timers."nightly-sweep.timer" = cfg.maxAge;
      units = [ "nightly-sweep" ];
      allowFailed."nightly-sweep.service" = "a held recipe is the sweep's result; its own failure is told below";
    };

    systemd.services.nightly-sweep = {
      description = "Sweep over all recipes' tests";
      wants = [ "network-online.target" ];
      after = [
        "network-online.target"
        "docker.service"
      ];
      enableDefaultPath = false;
      environment = {
        HOME = "%S/nightly-sweep";
      } // cfg.environment;
      serviceConfig =
        harness.serviceConfig
        // {
          Type = "oneshot"; # so a second start waits for the first
          ExecStart = lib.concatStringsSep " " (
            [
              "${lib.getExe harness.package} sweep"
              "--recipes ${cfg.recipesDir}"
              "--runner ${harness.package}/share/cc-ci-run/runner/run_recipe_ci.py"
            ]
            ++ lib.optionals (cfg.recipeTimeout != null) [ "--timeout ${cfg.recipeTimeout}" ]
            ++ lib.optionals (cfg.jobs != null) [ "--jobs ${toString cfg.jobs}" ]
            ++ lib.optionals cfg.audit [ "--audit" ]
            ++ cfg.recipes
          );
          StateDirectory = "nightly-sweep";
          WorkingDirectory = "%S/nightly-sweep";
          TimeoutStartSec = cfg.timeout;
        }
        // lib.optionalAttrs (cfg.environmentFile != null) { EnvironmentFile = cfg.environmentFile; };
      # A deploy does not end a sweep.
      restartIfChanged = false;
    };

    systemd.timers.nightly-sweep = {
      description = "Sweep over all recipes' tests";
      wantedBy = [ "timers.target" ];
      timerConfig = {
        OnCalendar = cfg.onCalendar;
        Persistent = cfg.persistent;
        RandomizedDelaySec = cfg.randomizedDelaySec;
      };
    };
  };
}
