# The nightly sweep: a timer, and a service that only runs `cc-ci-run sweep`. The
# service has no PATH and no packages, because cc-ci-run would ignore them.
# `systemctl start nightly-sweep@RECIPE` runs one recipe in the same way.
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
  isLength = text: text == null || builtins.match "([0-9]+(h|m|s))+" text != null;
  night = config.systemd.services.nightly-sweep;
  # --wait: if a run by hand is under way at two o'clock, the nightly sweep starts after it.
  command = lib.concatStringsSep " " (
    [
      "${lib.getExe harness.package} sweep"
      "--recipes ${cfg.recipesDir}"
      "--runner ${harness.package}/share/cc-ci-run/runner/run_recipe_ci.py"
      "--wait"
    ]
    ++ lib.optionals (cfg.recipeTimeout != null) [ "--timeout ${cfg.recipeTimeout}" ]
    ++ lib.optionals (cfg.rerunAfter != null) [ "--max-age ${cfg.rerunAfter}" ]
    ++ lib.optionals (cfg.shared != null) [ "--shared ${cfg.shared}" ]
    ++ lib.optionals (drone.url != null) [ "--drone ${drone.url} --state ${drone.stateDir}" ]
    ++ lib.optionals (drone.branch != null) [ "--drone-branch ${drone.branch}" ]
    ++ lib.optionals (status.url != null) [ "--status-url ${status.url} --status-token %d/status-token" ]
    ++ lib.optionals (cfg.jobs != null) [ "--jobs ${toString cfg.jobs}" ]
    ++ lib.optionals cfg.audit [ "--audit" ]
    ++ lib.optionals (cfg.keepFor != null) [ "--keep-for ${cfg.keepFor}" ]
    ++ lib.optionals (cfg.keepRuns != null) [ "--keep-runs ${toString cfg.keepRuns}" ]
    ++ lib.optionals (cfg.keepSize != null) [ "--keep-size ${toString cfg.keepSize}" ]
    ++ lib.optionals serves [ "--report ${cfg.report.directory}" ]
    ++ lib.optionals (serves && cfg.report.recipeUrl != null) [ "--recipe-url ${cfg.report.recipeUrl}" ]
    ++ lib.optionals (cfg.report.buildUrl != null) [ "--build-url ${cfg.report.buildUrl}" ]
  );
  serves = cfg.report.virtualHost != null;
  inherit (cfg) drone;
  status = cfg.commitStatus;
  # Files with secrets, each by the name under which the sweep finds it.
  credentials = lib.filterAttrs (_: file: file != null) {
    drone-token = drone.tokenFile;
    status-token = status.tokenFile;
  };
  # Only a sweep of all recipes tells people: whoever starts one recipe sees its verdict.
  tells =
    lib.optionals (cfg.notify != null) [ "--notify ${cfg.notify}" ]
    ++ lib.optionals (cfg.metrics != null) [ "--metrics ${cfg.metrics}" ];
in
{
  imports = [ ./harness.nix ];

  options.services.cc-ci.nightly-sweep = {
    enable = lib.mkEnableOption "the nightly sweep: a timer that runs the tests of all recipes";

    schedule = lib.mkOption {
      type = lib.types.enum (lib.attrNames calendar);
      default = "nightly";
      example = "weekly";
      description = "How often the sweep runs: every night at two o'clock, or on Sundays at two o'clock.";
    };

    onCalendar = lib.mkOption {
      type = lib.types.str;
      default = calendar.${cfg.schedule};
      defaultText = lib.literalMD "two o'clock, by `schedule`";
      example = "Mon,Thu *-*-* 03:30:00";
      description = "When the sweep runs, as a calendar event of {manpage}`systemd.time(7)`. Set this option for times that `schedule` does not offer.";
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
      description = "Longest time between two starts of the sweep. If the last start is longer ago, `cc-ci-run host` reports a fault.";
    };

    randomizedDelaySec = lib.mkOption {
      type = lib.types.str;
      default = "15min";
      example = "0";
      description = "Longest random delay of the start, so that not all hosts pull images at the same time.";
    };

    persistent = lib.mkOption {
      type = lib.types.bool;
      default = true;
      example = false;
      description = "Whether a sweep that was missed because the host was down runs after the next boot.";
    };

    timeout = lib.mkOption {
      type = lib.types.str;
      default = "8h";
      example = "2h";
      description = ''
        Time limit of the whole sweep, including the time that it waits for another sweep to end.
        systemd ends a sweep that takes longer.
      '';
    };

    audit = lib.mkOption {
      type = lib.types.bool;
      default = false;
      example = true;
      description = "Whether each run is audited. `cc-ci-run audit report` then shows which programs the recipes really execute, and which are missing.";
    };

    recipeTimeout = lib.mkOption {
      type = lib.types.nullOr lib.types.str;
      default = null;
      example = "20m";
      description = ''
        Time limit of each recipe, with units as in `1h30m`; a recipe whose tests take longer is held.
        If this option is null, the limits in `sweep.toml` of `recipesDir` apply, or one hour where that
        file has no limit.
      '';
    };

    rerunAfter = lib.mkOption {
      type = lib.types.nullOr lib.types.str;
      default = "156h";
      example = "60h";
      description = ''
        An unchanged recipe is run again if it last passed longer ago than this, with units as in `1h30m`;
        `0s` means never. A recipe can fail although nothing in its inputs changed: an image is gone, or a
        certificate expired. The default is half a day less than a week: with exactly a week, a sweep that
        starts a minute earlier than the last one would leave the recipe to the next sweep. If this option
        is null, `max_age` in `sweep.toml` of `recipesDir` applies, or never where that file has none.
      '';
    };

    jobs = lib.mkOption {
      type = lib.types.nullOr lib.types.ints.positive;
      default = null;
      example = 2;
      description = ''
        How many recipes run at once. If this option is null, `jobs` in `sweep.toml` of `recipesDir`
        applies, or one. All recipes are deployed to the one docker swarm of this host, so set more than
        one only if the recipes do not disturb each other. If `drone.url` is set, this option is how many
        builds are under way at once, and 64 takes the place of one.
      '';
    };

    keepFor = lib.mkOption {
      type = lib.types.nullOr lib.types.str;
      default = null;
      example = "2160h";
      description = ''
        How long records, results, audits and logs are kept, with units as in `1h30m`. At its end each sweep
        removes those that are older. If this option is null, 720h applies, which is 30 days.
      '';
    };

    keepRuns = lib.mkOption {
      type = lib.types.nullOr lib.types.ints.positive;
      default = null;
      example = 50000;
      description = "How many runs' records are kept; the same number applies to results, to audits and to logs. If this option is null, 10000 applies.";
    };

    keepSize = lib.mkOption {
      type = lib.types.nullOr lib.types.ints.positive;
      default = null;
      example = 4096;
      description = "How much space all records, results, audits and logs may take together, in MiB. If this option is null, 1024 applies.";
    };

    shared = lib.mkOption {
      type = lib.types.nullOr lib.types.str;
      default = null;
      example = "https://git.example.org/ci/memory.git";
      description = ''
        URL of a git repository in which several machines remember their runs. If one machine has tested
        and promoted a recipe, the others skip the recipe. The repository must be private, because whoever
        can read the repository can read what tests print. git reads its password from the file `.netrc`
        in the sweep's home, `/var/lib/nightly-sweep`.
      '';
    };

    drone = {
      url = lib.mkOption {
        type = lib.types.nullOr lib.types.str;
        default = null;
        example = "https://drone.example.org/ci/recipes";
        description = ''
          URL of a repository at a Drone server. If this option is set, the sweep runs no recipe itself: it
          starts a build of that repository for each recipe, and the server's exec runners take the builds
          (`services.cc-ci.drone-runner`, on any number of hosts). Set this option on one host only, and
          `shared` with it.
        '';
      };

      tokenFile = lib.mkOption {
        type = lib.types.nullOr lib.types.path;
        default = null;
        example = "/run/secrets/drone-token";
        description = ''
          File with the token of a user of the Drone server who may write to the repository of `url`. The
          sweep gets the file as a credential of systemd.
        '';
      };

      branch = lib.mkOption {
        type = lib.types.nullOr lib.types.str;
        default = null;
        example = "main";
        description = "Branch that the builds check out. If this option is null, they check out the repository's default branch.";
      };

      stateDir = lib.mkOption {
        type = lib.types.path;
        default = "/var/lib/cc-ci-dispatcher";
        example = "/srv/cc-ci-dispatcher";
        description = ''
          State directory of the sweep if `drone.url` is set. It must not be `services.cc-ci.stateDir`: the
          sweep holds its directory's lock until it ends, and builds on this host need the lock of
          `services.cc-ci.stateDir`. `cc-ci-run sweep status --state DIR` shows the sweep's results.
        '';
      };
    };

    commitStatus = {
      url = lib.mkOption {
        type = lib.types.nullOr lib.types.str;
        default = null;
        example = "https://git.example.org";
        description = ''
          URL of a Gitea or Forgejo that shows each run's verdict at the recipe's commit. The sweep finds the
          repository by the remote `origin` of the recipe's directory. If the directory has no such remote,
          give the URL of a repository with `{recipe}` in it: `https://git.example.org/recipes/{recipe}`.
        '';
      };

      tokenFile = lib.mkOption {
        type = lib.types.nullOr lib.types.path;
        default = null;
        example = "/run/secrets/gitea-token";
        description = ''
          File with a token of the forge at `url`; the token needs the permission to write repositories. The
          sweep gets the file as a credential of systemd. **A test can still read this file**, as a test can
          read everything on the host.
        '';
      };
    };

    notify = lib.mkOption {
      type = lib.types.nullOr lib.types.path;
      default = null;
      example = "/etc/cc-ci/tell-the-team";
      description = ''
        Program that tells people what is new. The sweep starts the program at its end if a recipe newly
        fails or is fixed, if a verdict is ERROR, or if the sweep itself failed. The program reads the
        headline and the table from its standard input; the variable `CC_CI_RUN_STATUS` names a file with
        the whole status as JSON. The program has the sweep's variables, too.
      '';
    };

    metrics = lib.mkOption {
      type = lib.types.nullOr lib.types.path;
      default = null;
      example = "/var/lib/node-exporter/sweep.prom";
      description = ''
        File that the sweep writes at its end for the textfile collector of Prometheus' node exporter. The
        file has each recipe's verdict and duration, and when the recipe last passed. The user `cc-ci` must
        be able to write to the file's directory.
      '';
    };

    report = {
      virtualHost = lib.mkOption {
        type = lib.types.nullOr lib.types.str;
        default = null;
        example = "ci.example.org";
        description = ''
          Name of the nginx virtual host that serves the sweep's report: pages that say which recipes fail,
          since when, and what their tests print. If this option is null, no report is written. Whoever reaches
          the host can read what tests print. Certificates, passwords and addresses are options of
          `services.nginx.virtualHosts.<name>`, such as `enableACME`, `forceSSL` and `basicAuthFile`.
        '';
      };

      directory = lib.mkOption {
        type = lib.types.path;
        default = "/var/lib/cc-ci-run-report";
        example = "/srv/www/ci";
        description = "Directory of the report. The module makes it: the sweep's user may write there, and nginx may read.";
      };

      recipeUrl = lib.mkOption {
        type = lib.types.nullOr lib.types.str;
        default = null;
        example = "https://git.example.org/recipes/{recipe}/commit/{revision}";
        description = "Address of a recipe's commit, to which the pages link.";
      };

      buildUrl = lib.mkOption {
        type = lib.types.nullOr lib.types.str;
        default = null;
        example = "https://ci.example.org/r-{recipe}.html";
        description = "Address of a run, to which the pages and the commit statuses link. The address may contain {recipe}, {revision}, {run} and {machine}.";
      };
    };

    recipesDir = lib.mkOption {
      type = lib.types.path;
      default = "${harness.package}/share/cc-ci-run/recipes";
      defaultText = lib.literalExpression "\"\${config.services.cc-ci.package}/share/cc-ci-run/recipes\"";
      example = "/srv/recipes";
      description = "Directory of the recipes. Each recipe is a directory with its tests.";
    };

    recipes = lib.mkOption {
      type = lib.types.listOf lib.types.str;
      default = [ ];
      example = [
        "gitea"
        "nextcloud"
      ];
      description = "Recipes to run, in this order. If the list is empty, the list in `sweep.toml` of `recipesDir` applies, or every recipe in the order of names.";
    };

    environment = lib.mkOption {
      type = lib.types.attrsOf lib.types.str;
      default = { };
      example = {
        GITEA_URL = "https://gitea.example.org";
      };
      description = "Variables for the tests. A test sees only those that toolset.toml passes. The variables are stored in the Nix store, which everybody can read: put secrets into `environmentFile`.";
    };

    environmentFile = lib.mkOption {
      type = lib.types.nullOr lib.types.path;
      default = null;
      example = "/run/secrets/nightly-sweep.env";
      description = "File with secret variables for the tests, in the format of systemd's `EnvironmentFile=`.";
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
        assertion = isLength cfg.recipeTimeout;
        message = "services.cc-ci.nightly-sweep.recipeTimeout is ${toString cfg.recipeTimeout}: write hours, minutes and seconds as in 1h30m.";
      }
      {
        assertion = isLength cfg.rerunAfter;
        message = "services.cc-ci.nightly-sweep.rerunAfter is ${toString cfg.rerunAfter}: write hours, minutes and seconds as in 156h or 1h30m.";
      }
      {
        assertion = isLength cfg.keepFor;
        message = "services.cc-ci.nightly-sweep.keepFor is ${toString cfg.keepFor}: write hours, minutes and seconds as in 720h or 1h30m.";
      }
      {
        assertion = lib.all (name: builtins.match "[A-Za-z0-9][A-Za-z0-9._-]*" name != null) cfg.recipes;
        message = "services.cc-ci.nightly-sweep.recipes: a recipe is named by its directory's name alone.";
      }
      {
        assertion = builtins.match "[^ %\"'\\]*" (toString cfg.recipesDir) != null;
        message = "services.cc-ci.nightly-sweep.recipesDir: systemd would interpret spaces, quotes and %: use a path without them.";
      }
      {
        assertion = lib.all (path: builtins.match "[^ %\"'\\]*" (toString path) != null) [
          cfg.notify
          cfg.metrics
          cfg.shared
          drone.url
          drone.branch
          drone.stateDir
          cfg.report.directory
          cfg.report.recipeUrl
          cfg.report.buildUrl
          status.url
        ];
        message = "services.cc-ci.nightly-sweep: notify, metrics, shared, drone, commitStatus.url, report.directory, report.recipeUrl and report.buildUrl: systemd would interpret spaces, quotes and %: use values without them.";
      }
      {
        assertion = (drone.url == null) == (drone.tokenFile == null);
        message = "services.cc-ci.nightly-sweep.drone: url and tokenFile go together: set both, or neither.";
      }
      {
        assertion = drone.url == null || cfg.shared != null;
        message = "services.cc-ci.nightly-sweep.drone needs services.cc-ci.nightly-sweep.shared: the machines push their verdicts to that repository.";
      }
      {
        assertion = drone.url == null || cfg.recipeTimeout == null && !cfg.audit;
        message = "services.cc-ci.nightly-sweep.drone: recipeTimeout and audit have no effect on the machines that run the builds: write limits into sweep.toml, and other flags into .drone.yml.";
      }
      {
        assertion = drone.url == null || toString drone.stateDir != toString harness.stateDir;
        message = "services.cc-ci.nightly-sweep.drone.stateDir is services.cc-ci.stateDir: the builds on this host would wait for the lock of that directory: name another directory.";
      }
      {
        assertion = (status.url == null) == (status.tokenFile == null);
        message = "services.cc-ci.nightly-sweep.commitStatus: url and tokenFile go together: set both, or neither.";
      }
      {
        assertion = lib.all (file: !lib.hasPrefix builtins.storeDir (toString file)) (lib.attrValues credentials);
        message = "services.cc-ci.nightly-sweep: a file with a token is in the Nix store, where everybody can read it: give its path as a string.";
      }
      {
        assertion = !(lib.hasPrefix builtins.storeDir (toString cfg.environmentFile));
        message = "services.cc-ci.nightly-sweep.environmentFile is in the Nix store, where everybody can read it: give its path as a string.";
      }
    ];

    services.cc-ci.host = {
      timers."nightly-sweep.timer" = cfg.maxAge;
      units = [ "nightly-sweep" ];
      allowFailed."nightly-sweep.service" = "a held recipe is the sweep's result; the sweep's own failure is told below";
    };

    systemd.tmpfiles.rules =
      # 2750: files that the sweep writes there get nginx's group.
      lib.optionals serves [
        "d ${cfg.report.directory} 2750 ${harness.user} ${config.services.nginx.group} -"
      ]
      # The sweep itself makes the directories in the state directory.
      ++ lib.optionals (drone.url != null) [
        "d ${drone.stateDir} 2755 ${harness.user} ${harness.group} -"
      ];

    services.nginx = lib.mkIf serves {
      enable = true;
      virtualHosts.${cfg.report.virtualHost} = {
        root = toString cfg.report.directory;
        # Each page has a content security policy in itself. These are the headers that a
        # page cannot set for itself.
        extraConfig = ''
          add_header Content-Security-Policy "frame-ancestors 'none'" always;
          add_header X-Content-Type-Options nosniff always;
          add_header Referrer-Policy no-referrer always;
          add_header Cache-Control no-cache always;
          charset utf-8;
          location ~ /\. { return 404; }
        '';
      };
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
          ExecStart = lib.concatStringsSep " " ([ command ] ++ tells ++ cfg.recipes);
          # Each run gets a cgroup of its own below the unit's, so that the kernel
          # ends all of its processes at once.
          Delegate = true;
          StateDirectory = "nightly-sweep";
          WorkingDirectory = "%S/nightly-sweep";
          TimeoutStartSec = cfg.timeout;
        }
        // lib.optionalAttrs (credentials != { }) {
          LoadCredential = lib.mapAttrsToList (name: file: "${name}:${toString file}") credentials;
        }
        // lib.optionalAttrs (cfg.environmentFile != null) { EnvironmentFile = cfg.environmentFile; };
      # A deploy does not end a sweep.
      restartIfChanged = false;
    };

    # The night's unit with another command, also where a site adds to that unit.
    # The recipe is %i: %I would make "a/b" of a-b.
    systemd.services."nightly-sweep@" = {
      description = "Sweep over the tests of %i";
      # Whoever started the run sees how it ended, so systemd forgets the failed unit.
      unitConfig.CollectMode = "inactive-or-failed";
      serviceConfig = night.serviceConfig // {
        ExecStart = "${command} --force -- %i";
      };
      inherit (night)
        wants
        after
        environment
        enableDefaultPath
        restartIfChanged
        ;
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
