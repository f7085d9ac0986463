# A booted NixOS machine with the modules: the timer fires and the sweep runs a
# small recipe, a start of nightly-sweep@small runs it again, the Drone runner's
# unit runs a step, parity and host find nothing, and a switch to a toolset with
# one tool more reaches all three.
#
#   nix build .#checks.x86_64-linux.vm      (needs KVM)
{ pkgs }:
let
  inherit (pkgs) lib;
  added = "hello";
  secret = "not-a-secret";
  recipes = pkgs.writeTextFile {
    name = "recipes";
    destination = "/small/test_small.py";
    text = ''
      import shutil
      import subprocess


      def test_git_lfs():
          subprocess.run(["git", "lfs", "version"], check=True)
          print("${added}:", shutil.which("${added}"))
    '';
  };
  # `exec`, so that a cancelled build ends the run as well.
  pipeline = pkgs.writeText "drone.yml" ''
    kind: pipeline
    type: exec
    name: vm
    clone:
      disable: true
    steps:
      - name: small
        commands:
          - exec cc-ci-run ${pkgs.cc-ci-run}/share/cc-ci-run/runner/run_recipe_ci.py small --recipes ${recipes} -- -s
  '';
  python = "${pkgs.cc-ci-run.toolset.python}/bin/python3";
in
pkgs.testers.runNixOSTest {
  name = "cc-ci-run";

  nodes.machine = {
    imports = [ ../modules ];

    virtualisation.docker = {
      enable = true;
      liveRestore = false;
    };
    services.cc-ci = {
      enable = true;
      nightly-sweep = {
        enable = true;
        recipesDir = "${recipes}";
        onCalendar = "*:*:0/15";
        randomizedDelaySec = "0";
      };
      drone-runner = {
        enable = true;
        server = {
          host = "127.0.0.1:8080"; # drone-server.py, while it is asked to
          proto = "http";
        };
        environmentFile = "/etc/drone-runner.env";
        # The machine is thrown away, and the license allows that use.
        package = pkgs.drone-runner-exec.overrideAttrs (old: {
          meta = removeAttrs old.meta [ "license" ];
        });
      };
      host.enable = true;
    };
    systemd.timers.nightly-sweep.timerConfig.AccuracySec = "1s";
    environment.etc."drone-runner.env".text = "DRONE_RPC_SECRET=${secret}\n";

    system.switch.enable = true;
    specialisation.more.configuration = {
      services.cc-ci.package = pkgs.cc-ci-run.override {
        toolsetText = builtins.readFile ../../toolset.toml + ''

          [[tool]]
          name     = "${added}"
          nix      = "${added}"
          debian   = ""
          commands = ["${added}"]
          why      = "a test of this project"
        '';
      };
    };
    virtualisation = {
      memorySize = 2048;
      diskSize = 4096;
    };
  };

  testScript = ''
    import json

    machine.start()
    # Before multi-user.target, as cc-ci-deployed.service waits for the swarm.
    machine.wait_for_unit("docker.service")
    machine.succeed("docker swarm init --advertise-addr 127.0.0.1")
    machine.wait_for_unit("multi-user.target")

    def by_drone() -> str:
        return machine.succeed("${python} ${./drone-server.py} 8080 ${secret} ${pipeline} 2>&1", timeout=300)

    # A login on a terminal, as a person has.
    def by_hand() -> str:
        return machine.succeed(
            "systemd-run --quiet --pty --wait --collect --uid=cc-ci -p PAMName=login"
            " /run/current-system/sw/bin/cc-ci-run"
            " ${pkgs.cc-ci-run}/share/cc-ci-run/runner/run_recipe_ci.py small --recipes ${recipes} -- -s </dev/null"
        )

    def fingerprint() -> str:
        return str(json.loads(machine.succeed("cc-ci-run version --output json"))["fingerprint"])

    def promoted() -> None:
        """Wait until the sweep has promoted the recipe in the environment of now."""
        machine.wait_until_succeeds(
            "git --git-dir=/var/lib/cc-ci-run/sweep.git show refs/cc-ci/sweep/small:state.json"
            f" | jq -e '.canonical.fingerprint == \"{fingerprint()}\"'",
            timeout=300,
        )

    def found(output: str) -> bool:
        assert "${added}: " in output, output
        return "/bin/${added}" in output

    with subtest("The timer fires, and the sweep runs the recipe"):
        promoted()

    with subtest("One recipe again by hand, in a cgroup of its own below the unit's"):
        machine.succeed("systemctl start nightly-sweep@small", timeout=300)
        machine.succeed(
            "jq -es 'any(.[].process.cgroup; test(\"/nightly-sweep@small[.]service/cc-ci-run-\"))' /var/lib/cc-ci-run/runs/*.json"
        )

    with subtest("The Drone runner's unit runs a step, and a person the recipe"):
        assert not found(by_drone())
        assert not found(by_hand())

    with subtest("The runner's secret is not in its environment, and the user's home is empty and nobody's"):
        environ = machine.succeed("cat /proc/$(systemctl show -P MainPID drone-runner-exec)/environ")
        assert "DRONE_RPC_HOST" in environ and "DRONE_RPC_SECRET" not in environ, environ
        assert machine.succeed("getent passwd cc-ci").split(":")[5] == "/var/empty"
        machine.succeed('test -z "$(ls -A /var/empty)"')
        machine.fail("runuser -u cc-ci -- touch /var/empty/.curlrc")

    with subtest("parity and host find nothing"):
        print(machine.succeed("cc-ci-run parity drone systemd manual --recipe small"))
        print(machine.succeed("cc-ci-run parity --live"))
        print(machine.succeed("cc-ci-run host --wait 2m"))

    with subtest("A switch to one tool more reaches all three"):
        before = fingerprint()
        machine.succeed("/run/current-system/specialisation/more/bin/switch-to-configuration test")
        assert fingerprint() != before
        promoted()
        assert found(by_drone()), "not the Drone runner"
        assert found(by_hand()), "not a person"
        # The sweep's newest record is of the same environment as theirs.
        print(machine.succeed("cc-ci-run parity drone systemd manual --recipe small"))
        print(machine.succeed("cc-ci-run parity --live"))
        print(machine.succeed("cc-ci-run host --wait 2m"))
  '';
}
