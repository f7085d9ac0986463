# Drone's exec runner. A step of a pipeline gets the runner's PATH and little
# else. That PATH has cc-ci-run and the toolset's commands, so a step can call
# cc-ci-run, and a step that does not call it still finds the declared tools.
# The PATH's directory is a link. A switch changes where the link leads and does
# not restart the runner, because a pipeline may be running the deploy; the
# runner's next step has the new environment.
{
  config,
  lib,
  pkgs,
  ...
}:
let
  harness = config.services.cc-ci;
  cfg = harness.drone-runner;
  # The runner reads a map as "key:value,key:value", and cannot read an empty one.
  labels = lib.concatStringsSep "," (lib.mapAttrsToList (name: value: "${name}:${value}") cfg.labels);
  # A file, because values may have a ":".
  environFile = builtins.toFile "drone-runner.env" (
    lib.concatStringsSep "" (lib.mapAttrsToList (name: value: "${name}='${value}'\n") cfg.environ)
  );
in
{
  imports = [ ./harness.nix ];

  options.services.cc-ci.drone-runner = {
    enable = lib.mkEnableOption "Drone's exec runner, whose steps run in the environment of cc-ci-run";

    package = lib.mkOption {
      type = lib.types.package;
      default = pkgs.drone-runner-exec;
      defaultText = lib.literalExpression "pkgs.drone-runner-exec";
      example = lib.literalExpression "pkgs.drone-runner-exec";
      description = "The drone-runner-exec package to use.";
    };

    environmentFile = lib.mkOption {
      type = lib.types.nullOr lib.types.path;
      default = null;
      example = "/run/secrets/drone-runner.env";
      description = ''
        File with the runner's secrets, at least `DRONE_RPC_SECRET=…`, one variable a line. A value with
        `$`, `#`, a quote or a blank is written in single quotes. Variables that the module sets, such as
        `PATH`, are not read from this file. The file must not be in the Nix store, which everybody can
        read. The runner gets the file as a credential of systemd, so that the secrets are not in the
        runner's environment, which a test could print by accident. **A test can still read this file**:
        the runner and the tests are one user. See docs/nixos.md.
      '';
    };

    server = {
      host = lib.mkOption {
        type = lib.types.str;
        default = "";
        example = "drone.example.org";
        description = "Host name of the Drone server, with `:port` if the port is not the default (`DRONE_RPC_HOST`).";
      };
      proto = lib.mkOption {
        type = lib.types.enum [
          "https"
          "http"
        ];
        default = "https";
        example = "http";
        description = "Protocol of the Drone server (`DRONE_RPC_PROTO`).";
      };
    };

    name = lib.mkOption {
      type = lib.types.str;
      default = config.networking.hostName;
      defaultText = lib.literalExpression "config.networking.hostName";
      example = "ci-1";
      description = ''
        Name under which the server knows the runner (`DRONE_RUNNER_NAME`). Runners of one server must have
        different names. `cc-ci-run` names the machine in records by its hostname.
      '';
    };

    capacity = lib.mkOption {
      type = lib.types.ints.positive;
      default = 1;
      example = 2;
      description = ''
        How many pipelines may run at once (`DRONE_RUNNER_CAPACITY`). All recipes are deployed to the one
        docker swarm of this host, so set more than one only if the recipes do not disturb each other.
      '';
    };

    maxProcs = lib.mkOption {
      type = lib.types.ints.unsigned;
      default = 0;
      example = 4;
      description = "How many steps of one pipeline may run at once; 0 means all (`DRONE_RUNNER_MAX_PROCS`).";
    };

    labels = lib.mkOption {
      type = lib.types.attrsOf lib.types.str;
      default = { };
      example = {
        host = "cc-ci";
      };
      description = "Labels of the runner (`DRONE_RUNNER_LABELS`). A runner takes only pipelines whose `node` section names exactly these labels: with any label here, also give the pipelines their `node` section, or no runner takes them.";
    };

    environ = lib.mkOption {
      type = lib.types.attrsOf lib.types.str;
      default = { };
      example = {
        GITEA_URL = "https://gitea.example.org";
      };
      description = ''
        Variables for every step (`DRONE_RUNNER_ENVFILE`). A test sees those that toolset.toml
        passes. The variables are stored in the Nix store, which everybody can read, so put secrets
        into the secrets of the Drone server instead.
      '';
    };
  };

  config = lib.mkIf cfg.enable {
    assertions = [
      {
        assertion = harness.enable;
        message = "services.cc-ci.drone-runner needs services.cc-ci.enable.";
      }
      {
        assertion = cfg.server.host != "";
        message = "services.cc-ci.drone-runner.server.host is not set: the runner would not know its server.";
      }
      {
        assertion = cfg.name != "";
        message = "services.cc-ci.drone-runner.name is empty, because networking.hostName is: name the runner.";
      }
      {
        assertion = cfg.environmentFile != null;
        message = "services.cc-ci.drone-runner.environmentFile is not set: the runner does not start without DRONE_RPC_SECRET.";
      }
      {
        assertion = !(lib.hasPrefix builtins.storeDir (toString cfg.environmentFile));
        message = "services.cc-ci.drone-runner.environmentFile is in the Nix store, where everybody can read it: give its path as a string.";
      }
      {
        assertion = !(cfg.environ ? PATH);
        message = "services.cc-ci.drone-runner.environ sets PATH: add the tool to toolset.toml instead.";
      }
      {
        assertion = lib.all (s: builtins.match "[^,:]*" s != null) (
          lib.attrNames cfg.labels ++ lib.attrValues cfg.labels
        );
        message = "services.cc-ci.drone-runner.labels: the runner reads key:value,key:value, so a label cannot have \",\" or \":\" in it.";
      }
      {
        assertion = lib.all (s: builtins.match "[^'\n]*" s != null) (lib.attrValues cfg.environ);
        message = "services.cc-ci.drone-runner.environ: a value can hold neither ' nor a newline.";
      }
    ];

    services.cc-ci.host = {
      running = [ "drone-runner-exec.service" ];
      units = [ "drone-runner-exec" ];
    };

    systemd.services.drone-runner-exec = {
      description = "Drone exec runner";
      wantedBy = [ "multi-user.target" ];
      wants = [ "network-online.target" ];
      after = [
        "network-online.target"
        "docker.service"
      ];
      # The default PATH would have five packages of NixOS.
      enableDefaultPath = false;
      environment = {
        PATH = "/etc/cc-ci-run/path/bin";
        DRONE_RPC_PROTO = cfg.server.proto;
        DRONE_RPC_HOST = cfg.server.host;
        DRONE_RUNNER_NAME = cfg.name;
        DRONE_RUNNER_CAPACITY = toString cfg.capacity;
        DRONE_RUNNER_MAX_PROCS = toString cfg.maxProcs;
        DRONE_RUNNER_ROOT = "%S/drone-runner-exec"; # workspaces
        DRONE_HTTP_BIND = "127.0.0.1:3000"; # its dashboard listens on all addresses otherwise
      }
      // lib.optionalAttrs (cfg.labels != { }) { DRONE_RUNNER_LABELS = labels; }
      // lib.optionalAttrs (cfg.environ != { }) { DRONE_RUNNER_ENVFILE = "${environFile}"; };
      serviceConfig = harness.serviceConfig // {
        # Not by EnvironmentFile: a process shows the environment that it was started with
        # to its whole user (`ps e`), and the tests are that user.
        ExecStart = "${lib.getExe' cfg.package "drone-runner-exec"} daemon %d/drone-runner.env";
        LoadCredential = "drone-runner.env:${toString cfg.environmentFile}";
        StateDirectory = "drone-runner-exec";
        StateDirectoryMode = "0700";
        Restart = "on-failure";
        RestartSec = 15;
        # A stop waits until running pipelines have ended.
        TimeoutStopSec = "1h";
        KillSignal = "SIGINT";
        KillMode = "mixed";
      };
      # A deploy must not end the pipeline that may have started the deploy.
      restartIfChanged = false;
    };
  };
}
