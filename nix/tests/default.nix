# The proofs that there is one list of tools, that nothing was lost, and that
# the next tool reaches everybody, with any nixpkgs:
#
#   nix-build nix/tests -A proofs --arg pkgs 'import <nixpkgs> { }'
#
# `make prove` runs them with nix/stand-in, `make nixos` evaluates them with a
# real tree.
{
  pkgs,
  # The outputs of this flake, made with the same nixpkgs; null: not looked at.
  flake ? null,
  # The program in the place of drone-runner-exec, for the machines of e2e/machine_test.go.
  runner ? null,
}:
let
  inherit (builtins)
    concatMap
    concatStringsSep
    elem
    filter
    fromTOML
    head
    length
    mapAttrs
    match
    readFile
    stringLength
    toJSON
    tryEval
    ;
  inherit (pkgs) lib;

  # pkgs with cc-ci-run built from a toolset. It is a text, not a file: Nix
  # makes no file while it only evaluates, so none could be read.
  pkgsFor =
    toolsetText:
    pkgs
    // {
      cc-ci-run = pkgs.callPackage ../package.nix { inherit toolsetText; };
      # Only looked at here, which its license does not forbid.
      drone-runner-exec = pkgs.drone-runner-exec.overrideAttrs (old: {
        meta = removeAttrs old.meta [ "license" ];
      });
    };
  # The hypothetical tool of the propagation proof.
  added = "hello";
  declared = readFile ../../toolset.toml;
  here = pkgsFor declared;
  units = import ../stand-in/nixos/units.nix { inherit lib; };

  hosts = {
    cc-ci = ../hosts/cc-ci/configuration.nix;
    cc-ci-hetzner = ../hosts/cc-ci-hetzner/configuration.nix;
  };
  evaluate =
    pkgs: modules:
    (lib.evalModules {
      modules = [ ../stand-in/nixos/options.nix ] ++ modules;
      specialArgs = { inherit pkgs; };
    }).config;
  # All that a configuration says of tools, forced.
  substance =
    config:
    let
      failed = filter (a: !a.assertion) config.assertions;
    in
    if failed != [ ] then
      throw (head failed).message
    else
      toJSON {
        packages = map (p: p.outPath) config.environment.systemPackages;
        services = mapAttrs (_: s: {
          inherit (s) environment serviceConfig;
          path = map toString s.path;
        }) config.systemd.services;
        timers = mapAttrs (_: t: t.timerConfig) config.systemd.timers;
        rules = config.systemd.tmpfiles.rules;
        users = config.users;
      };

  pad = n: s: if stringLength s >= n then s else pad n (s + " ");
  row = a: b: c: "  ${pad 22 a}${pad 20 b}${c}\n";
  unless = failures: text: if failures == [ ] then text else throw "\n${concatStringsSep "\n" failures}";

  # 1. Superset -----------------------------------------------------------
  legacy = import ./legacy.nix;
  entries = concatMap (
    origin: map (entry: entry // { inherit origin; }) legacy.lists.${origin}
  ) (builtins.attrNames legacy.lists);
  library = entry: match "python[.](.*)" entry.package;
  # Which entries of a toolset provide a command: the first counts.
  providers = toolset: command: filter (t: elem command t.commands) (toolset.tool ++ [ (toolset.python // { name = "[python]"; }) ]);
  lost =
    toolset: entry:
    let
      old = "superset: ${entry.origin} had ${entry.package}";
      nix = legacy.renamed.${entry.package} or entry.package;
      perCommand =
        c:
        let
          found = providers toolset c;
        in
        if found == [ ] then
          [ "${old} with ${c}, which no entry of toolset.toml provides" ]
        else if library entry == null && (head found).nix != nix then
          [ "${old} with ${c}, but toolset.toml takes it from ${(head found).nix}" ]
        else
          [ ];
    in
    concatMap perCommand entry.commands
    ++ lib.optionals (library entry != null && !(elem (head (library entry)) toolset.python.packages)) [
      "${old}, which toolset.toml's [python] lacks"
    ]
    ++ lib.optionals (entry.package == "browsers" && !(toolset ? browsers)) [
      "${old}, toolset.toml has none"
    ];
  missing = toolset: concatMap (lost toolset) entries;
  superset =
    toolset:
    unless (missing toolset) (
      concatStringsSep "" (
        map (
          entry:
          row entry.origin entry.package (
            if entry.package == "browsers" then
              "[browsers]"
            else
              let
                names = lib.unique (map (c: (head (providers toolset c)).name) entry.commands);
              in
              concatStringsSep ", " (
                map (
                  name:
                  "${name}: ${
                    concatStringsSep " " (filter (c: (head (providers toolset c)).name == name) entry.commands)
                  }"
                ) names
              )
          )
        ) entries
      )
    );
  # The proof must be able to fail: without any one entry that provides what an
  # old list had, it names what is lost. (What came later may go again.)
  deletions =
    toolset:
    let
      relied = concatMap (entry: entry.commands) entries;
      old = filter (t: lib.any (c: elem c relied) t.commands) toolset.tool;
      libraries = filter (p: elem "python.${p}" (map (e: e.package) entries)) toolset.python.packages;
      without = name: toolset // { tool = filter (t: t.name != name) toolset.tool; };
      noticed = t: filter (line: lib.any (c: lib.hasInfix " with ${c}, " line) t.commands) (missing (without t.name));
      undetected =
        concatMap (t: lib.optionals (noticed t == [ ]) [ "superset: without [[tool]] ${t.name} nothing is missed" ]) old
        ++ concatMap (
          p:
          lib.optionals (missing (toolset // { python = toolset.python // { packages = filter (q: q != p) toolset.python.packages; }; }) == [ ]) [
            "superset: without Python's ${p} nothing is missed"
          ]
        ) libraries
        ++ lib.optionals (missing (removeAttrs toolset [ "browsers" ]) == [ ]) [
          "superset: without browsers nothing is missed"
        ];
    in
    unless undetected (
      "  ${toString (length old + length libraries + 1)} deletions from toolset.toml, one at a time: each was noticed, for example\n"
      + "  ${head (noticed (head old))}\n"
    );
  now = fromTOML declared;

  # 2. Single source ------------------------------------------------------
  allowed = [
    "cc-ci-run"
    "drone-runner-exec"
  ];
  poisoned = mapAttrs (
    name: p:
    if elem name allowed then p else throw "single source: pkgs.${name} was touched outside nix/toolset.nix"
  ) here;
  only = module: extra: [
    module
    {
      services.cc-ci.enable = true;
      virtualisation.docker.enable = true;
    }
    extra
  ];
  subjects = {
    "modules/harness.nix" = only ../modules/harness.nix { };
    "modules/drone-runner.nix" = only ../modules/drone-runner.nix {
      services.cc-ci.drone-runner = {
        enable = true;
        server.host = "drone.example.org";
        environmentFile = "/run/secrets/drone";
      };
    };
    "modules/nightly-sweep.nix" = only ../modules/nightly-sweep.nix { services.cc-ci.nightly-sweep.enable = true; };
    "the sweep with Drone" = only ../modules/nightly-sweep.nix {
      services.cc-ci.nightly-sweep = {
        enable = true;
        shared = "https://git.example.org/ci/memory.git";
        drone = {
          url = "https://drone.example.org/ci/recipes";
          tokenFile = "/run/secrets/drone-token";
        };
      };
    };
    "the sweep's report" = only ../modules/nightly-sweep.nix {
      services.cc-ci.nightly-sweep = {
        enable = true;
        report.virtualHost = "ci.example.org";
      };
      services.nginx.virtualHosts."ci.example.org".basicAuthFile = "/run/secrets/ci";
    };
    "hosts/cc-ci" = [ hosts.cc-ci ];
    "hosts/cc-ci-hetzner" = [ hosts.cc-ci-hetzner ];
  };
  # A list of its own, in each way that a module could have one. `some` is a
  # package of the toolset, `foreign` one from another nixpkgs.
  anyTool = head (filter (t: here ? ${t.nix}) now.tool);
  some = pkgs: pkgs.${anyTool.nix};
  foreign = derivation {
    name = "foreign";
    inherit (pkgs.stdenv.hostPlatform) system;
    builder = "/bin/sh";
  };
  sweep = config: { systemd.services.nightly-sweep = config; };
  offenders = {
    "systemPackages" = { pkgs, ... }: { environment.systemPackages = [ (some pkgs) ]; };
    "systemPackages, foreign" = { environment.systemPackages = [ foreign ]; };
    "a unit's path" = { pkgs, ... }: sweep { path = [ (some pkgs) ]; };
    "a unit's PATH" = { pkgs, ... }: sweep { environment.PATH = "${some pkgs}/bin"; };
    "serviceConfig.Environment" = sweep { serviceConfig.Environment = "PATH=/run/current-system/sw/bin"; };
    "DRONE_RUNNER_PATH" = { systemd.services.drone-runner-exec.environment.DRONE_RUNNER_PATH = "/run/current-system/sw/bin"; };
    "LD_PRELOAD" = sweep { environment.LD_PRELOAD = "/x.so"; };
    "an ExecStartPre" = { pkgs, ... }: sweep { serviceConfig.ExecStartPre = "${some pkgs}/bin/x"; };
    "an ExecStartPre, foreign" = sweep { serviceConfig.ExecStartPre = "${foreign}/bin/x"; };
    "an ExecStart of the host" = sweep { serviceConfig.ExecStart = lib.mkForce [ "/run/current-system/sw/bin/x" ]; };
    "a user's packages" = { users.users.x.packages = [ foreign ]; };
    "a file in /etc" = { environment.etc.x.source = foreign; };
    "a unit of its own" = { pkgs, ... }: { systemd.services.x.serviceConfig.ExecStart = "${some pkgs}/bin/x"; };
  };
  # What of a configuration is neither cc-ci-run's nor the Drone runner's: by
  # the store paths that it refers to, and by what its unit files say.
  violations =
    config:
    let
      package = config.services.cc-ci.package;
      runner = config.services.cc-ci.drone-runner.package;
      refers = text: builtins.attrNames (builtins.getContext text);
      ours = refers "${package}${package.path}${runner}";
      foreignIn =
        what: text:
        map (path: "${what} refers to ${path}") (
          filter (path: !(elem path ours) && !(lib.hasInfix "-drone-runner.env" path)) (refers text)
        );
      inUnit =
        name:
        let
          s = config.systemd.services.${name};
          text = units.service s;
          line =
            l:
            let
              exec = match "Exec[A-Za-z]*=[-+!:@]*([^ ]*).*" l;
            in
            if
              exec != null
              && !(elem (head exec) (
                map builtins.unsafeDiscardStringContext [
                  "${package}/bin/cc-ci-run"
                  "${runner}/bin/drone-runner-exec"
                ]
              ))
            then
              [ "${name}.service starts ${head exec}" ]
            else if lib.hasInfix "PATH=" l && l != "Environment=\"PATH=/etc/cc-ci-run/path/bin\"" then
              [ "${name}.service has a path of its own: ${l}" ]
            else if lib.hasInfix "LD_" l || lib.hasInfix "/run/current-system" l then
              [ "${name}.service: ${l}" ]
            else
              [ ];
        in
        foreignIn "${name}.service" text
        ++ concatMap line (filter builtins.isString (builtins.split "\n" (builtins.unsafeDiscardStringContext text)))
        ++ lib.optionals (s.path != [ ] || s.enableDefaultPath) [ "${name}.service has a path" ];
    in
    map (v: "single source: ${config.networking.hostName}: ${v}") (
      concatMap inUnit (builtins.attrNames config.systemd.services)
      ++ concatMap (
        p:
        lib.optionals (!(elem p.outPath (map (q: q.outPath) ([ package ] ++ package.toolset.packages)))) [
          "systemPackages has ${p.name}"
        ]
      ) config.environment.systemPackages
      ++ foreignIn "users" (toJSON config.users)
      ++ foreignIn "tmpfiles" (toJSON config.systemd.tmpfiles.rules)
      ++ foreignIn "/etc" (toJSON (mapAttrs (_: e: if e.text != null then e.text else e.source) config.environment.etc))
    );
  singleSource =
    let
      host = module: [ hosts.cc-ci ] ++ module;
      refused =
        name:
        let
          module = host [ offenders.${name} ];
          free = evaluate here module;
        in
        # The control: it is a configuration, only one that should not be.
        builtins.seq (substance free) (
          !(tryEval (substance (evaluate poisoned module))).success || violations free != [ ]
        );
    in
    unless
      (
        map (name: "single source: a tool in ${name} went unnoticed") (
          filter (name: !(refused name)) (builtins.attrNames offenders)
        )
        ++ concatMap (name: violations (evaluate here [ hosts.${name} ])) (builtins.attrNames hosts)
      )
      (
        concatStringsSep "" (
          map (
            name:
            builtins.seq (substance (evaluate poisoned subjects.${name}))
              "  ${pad 28 name}evaluates with every package but ${concatStringsSep ", " allowed} poisoned\n"
          ) (builtins.attrNames subjects)
          ++ map (name: "  ${pad 28 name}its units, users and files refer to nothing but these\n") (builtins.attrNames hosts)
          ++ map (name: "  a tool added to ${pad 26 name}is refused\n") (builtins.attrNames offenders)
        )
      );

  # 3. Propagation --------------------------------------------------------
  longer =
    declared
    + ''

      [[tool]]
      name     = "${added}"
      nix      = "${added}"
      debian   = ""
      commands = ["${added}"]
      why      = "a proof of this project"
    '';
  next = pkgsFor longer;
  propagation =
    let
      inherit (next.cc-ci-run) toolset;
      has = list: elem next.${added}.outPath (map (p: p.outPath) list);
      shell = import ../shell.nix {
        pkgs = next;
        inherit (next) cc-ci-run;
      };
      configs = mapAttrs (_: host: evaluate next [ host ]) hosts;
      places = {
        "the toolset" = has toolset.packages && !(has here.cc-ci-run.toolset.packages);
        "the dev shell" = has shell.nativeBuildInputs;
        # It asks nothing of the proofs themselves.
        "a toolset that passes proof 1" = stringLength (superset (fromTOML longer) + deletions (fromTOML longer)) > 0;
      }
      // mapAttrs (_: c: has c.environment.systemPackages) {
        "cc-ci's systemPackages" = configs.cc-ci;
        "cc-ci-hetzner's systemPackages" = configs.cc-ci-hetzner;
      };
      failures = filter (p: !places.${p}) (builtins.attrNames places);
    in
    unless (map (p: "propagation: the new tool is not in ${p}") failures) (
      concatStringsSep "" (map (p: "  one new [[tool]] is in ${p}\n") (builtins.attrNames places))
    );
  # The units' side is looked at in what is built: by the paths they lead to.
  unitsOf = pkgs: host: (evaluate pkgs [ host ]).systemd.services;
  # The program of its ExecStart. `split` forgets which store paths a string
  # refers to.
  sweepOf =
    pkgs: host:
    let
      line = (unitsOf pkgs host).nightly-sweep.serviceConfig.ExecStart;
    in
    builtins.appendContext (head (builtins.split " " line)) (builtins.getContext line);
  # Its PATH is a directory of /etc, a link to this.
  runnerOf =
    pkgs: host:
    let
      config = evaluate pkgs [ host ];
    in
    if config.systemd.services.drone-runner-exec.environment.PATH == "/etc/cc-ci-run/path/bin" then
      "${config.environment.etc."cc-ci-run/path".source}/bin/cc-ci-run"
    else
      throw "the Drone runner's PATH leads elsewhere";
  systemOf =
    pkgs: host:
    "${head (filter (p: (p.pname or "") == "cc-ci-run") (evaluate pkgs [ host ]).environment.systemPackages)}/bin/cc-ci-run";

  # Assertions: combinations that would break a host, and what they are told.
  wrong = {
    "the package is another's" = [ { services.cc-ci.package = some here; } "carries no toolset" ];
    "the state directory is not the package's" = [ { services.cc-ci.stateDir = "/srv/x"; } "has another built in" ];
    "a seal that the package has not" = [ { services.cc-ci = { seal = true; package = here.cc-ci-run; }; } "is built without" ];
    "no docker" = [ { virtualisation.docker.enable = lib.mkForce false; } "virtualisation.docker.enable" ];
    "a recipes directory with a space" = [ { services.cc-ci.nightly-sweep.recipesDir = "/a b"; } "recipesDir" ];
    "a variable with a quote" = [ { services.cc-ci.drone-runner.environ.A = "it's"; } "neither ' nor a newline" ];
    "tests as root" = [ { services.cc-ci.user = "root"; } "must not run as root" ];
    "no harness" = [ { services.cc-ci.enable = lib.mkForce false; } "needs services.cc-ci.enable" ];
    "a runner without a server" = [ { services.cc-ci.drone-runner.server.host = lib.mkForce ""; } "server.host is not set" ];
    "a runner without its secret" = [ { services.cc-ci.drone-runner.environmentFile = lib.mkForce null; } "environmentFile is not set" ];
    "a secret in the store" = [ { services.cc-ci.drone-runner.environmentFile = lib.mkForce "${builtins.storeDir}/x"; } "is in the Nix store" ];
    "a PATH for steps" = [ { services.cc-ci.drone-runner.environ.PATH = "/bin"; } "environ sets PATH" ];
    "a label with a comma" = [ { services.cc-ci.drone-runner.labels.a = "b,c"; } "cannot have" ];
    "a PATH for the sweep" = [ { services.cc-ci.nightly-sweep.environment.PATH = "/bin"; } "environment sets PATH" ];
    "a time limit of another form" = [ { services.cc-ci.nightly-sweep.recipeTimeout = "1 hour"; } "1h30m" ];
    "an age of another form" = [ { services.cc-ci.nightly-sweep.rerunAfter = "a week"; } "156h" ];
    "an age of records of another form" = [ { services.cc-ci.nightly-sweep.keepFor = "30d"; } "720h" ];
    "a unit without its suffix" = [ { services.cc-ci.host.running = [ "docker" ]; } "named with its suffix" ];
    "a unit that may fail for no reason" = [ { services.cc-ci.host.allowFailed."x.service" = ""; } "say why" ];
    "no time at all" = [ { services.cc-ci.host.timeout = lib.mkForce "0s"; } "length of time" ];
    "a status of no protocol" = [ { services.cc-ci.host.endpoints = [ { url = "http://x/"; status = 1000; } ]; } "not an HTTP status" ];
    "a home in the state directory" = [ { users.users.cc-ci.home = lib.mkForce "/var/lib/cc-ci-run"; } "where members of the group can put files" ];
    "a report's directory with a space" = [ { services.cc-ci.nightly-sweep.report.directory = "/a b"; } "report.directory" ];
    "a Drone server without a shared memory" = [ { services.cc-ci.nightly-sweep.drone.url = "https://x/o/r"; } "drone needs services.cc-ci.nightly-sweep.shared" ];
    "a Drone server without a token" = [ { services.cc-ci.nightly-sweep.drone.url = "https://x/o/r"; } "drone: url and tokenFile go together" ];
    "a Drone server, and a limit for this host" = [ { services.cc-ci.nightly-sweep = { drone.url = "https://x/o/r"; recipeTimeout = "1h"; }; } "have no effect on the machines" ];
    "a Drone server, and the runner's state" = [ { services.cc-ci.nightly-sweep.drone = { url = "https://x/o/r"; stateDir = "/var/lib/cc-ci-run"; }; } "wait for the lock of that directory" ];
    "a runner without a name" = [ { services.cc-ci.drone-runner.name = ""; } "name is empty" ];
    "a commit status without a token" = [ { services.cc-ci.nightly-sweep.commitStatus.url = "https://x"; } "url and tokenFile go together" ];
    "a token in the store" = [ { services.cc-ci.nightly-sweep.commitStatus.tokenFile = "${builtins.storeDir}/x"; } "a file with a token is in the Nix store" ];
    "a recipe by path" = [ { services.cc-ci.nightly-sweep.recipes = [ "../gitea" ]; } "by its directory's name" ];
  };
  assertions =
    let
      messages =
        extra:
        map (a: a.message) (
          filter (a: !a.assertion) (evaluate here [
            hosts.cc-ci
            extra
          ]).assertions
        );
      silent = filter (
        name: !(lib.any (lib.hasInfix (builtins.elemAt wrong.${name} 1)) (messages (head wrong.${name})))
      ) (builtins.attrNames wrong);
    in
    unless (map (name: "assertions: nothing is said of: ${name}") silent) (
      concatStringsSep "" (map (name: "  refused: ${name}\n") (builtins.attrNames wrong))
    );

  # Variables. A wrapper of nixpkgs that sets one sets it over what the toolset
  # declares, and a child would see another value than the record has.
  wrapped =
    let
      set = filter (found: found != null) (
        map (match "[[:space:]]*--set ([A-Z_]+) \"?([^\" ]*)\"?.*") (
          filter builtins.isString (
            builtins.split "\n" (builtins.unsafeDiscardStringContext here.cc-ci-run.toolset.python.postBuild)
          )
        )
      );
      variables = now.environment.default // now.environment.set // now.environment.nix;
      wrong = concatMap (
        found:
        let
          name = head found;
          value = lib.last found;
        in
        lib.optionals (variables.${name} or value != value) [
          "variables: toolset.toml declares ${name}=${variables.${name}}, but Python's wrapper sets ${value}"
        ]
      ) set;
    in
    unless (wrong ++ lib.optionals (set == [ ]) [ "variables: nixpkgs' wrapper of Python sets none: look at how it is made" ])
      "  Python's wrapper sets ${concatStringsSep " " (lib.unique (map head set))} to what toolset.toml declares\n";

  # The judge. The rules of toolset.toml are cc-ci-run's, which reads it in the
  # build. So without one of its keys, or with a number in its place, Nix goes on.
  judged =
    let
      variants =
        value:
        if builtins.isAttrs value then
          concatMap (
            name:
            [
              (removeAttrs value [ name ])
              (value // { ${name} = 0; })
            ]
            ++ map (other: value // { ${name} = other; }) (variants value.${name})
          ) (builtins.attrNames value)
        else if builtins.isList value && value != [ ] then
          [ [ 0 ] ] ++ map (other: [ other ]) (variants (head value))
        else
          [ ];
      wrong = variants (now // { tool = [ anyTool ]; });
      evaluated =
        value:
        let
          toolset = import ../toolset.nix {
            pkgs = here;
            toolsetText = import ../toml.nix value;
          };
        in
        [
          toolset.resolved.drvPath
          toolset.seal
          (map (p: p.outPath) toolset.packages)
        ];
    in
    builtins.deepSeq (map evaluated wrong)
      "  ${toString (length wrong)} toolsets of a wrong form evaluate, so that the build gets to say what is wrong\n";

  # Options: each says what it takes, what it is, and shows one.
  options =
    let
      tree =
        (lib.evalModules {
          modules = [
            ../stand-in/nixos/options.nix
            ../modules
          ];
          specialArgs = {
            pkgs = here;
          };
        }).options.services.cc-ci;
      leaves =
        path: set:
        concatMap (
          name:
          let
            o = set.${name};
            at = "${path}.${name}";
          in
          if (o._type or "") == "option" then [ (o // { inherit at; }) ] else leaves at o
        ) (builtins.attrNames set);
      shown = filter (o: !(o.internal or false)) (leaves "services.cc-ci" tree);
      lacking = concatMap (
        o:
        map (what: "options: ${o.at} has no ${what}") (
          filter (what: !(o ? ${what})) [
            "type"
            "default"
            "example"
            "description"
          ]
        )
      ) shown;
    in
    unless
      (
        lacking
        ++ lib.optionals (!builtins.pathExists ../../docs/options.md || readFile ../../docs/options.md != page) [
          "options: docs/options.md is not what the modules say: run `make options`"
        ]
      )
      "  ${toString (length shown)} options, each with a type, a default, an example and a description\n  docs/options.md says so\n";
  page = import ../options.nix { pkgs = here; };

  # The flake: each output is what it is called.
  flakeOutputs =
    let
      inherit (pkgs.stdenv.hostPlatform) system;
      package = flake.packages.${system}.default;
      # What a text names, by a pattern with one group.
      named = pattern: text: map head (filter builtins.isList (builtins.split pattern text));
      app = name: flake.apps.${system}.${name};
      wrong = lib.filterAttrs (_: good: !good) {
        "packages.default is cc-ci-run" = package.outPath == flake.packages.${system}.cc-ci-run.outPath;
        "apps.default starts it" = (app "default").program == lib.getExe package;
        "apps.deploy starts scripts/deploy" = (app "deploy").program == "${../../scripts/deploy}";
        "each app is one, and says what it does" = lib.all (
          name: (app name).type == "app" && (app name).meta.description or "" != ""
        ) (builtins.attrNames flake.apps.${system});
        "checks are the package, the proofs and the NixOS test" =
          builtins.attrNames flake.checks.${system} == [
            "cc-ci-run"
            "proofs"
            "vm"
          ];
        "what .drone.yml builds is there" =
          named "[.]#([A-Za-z0-9_.-]+)" (readFile ../../.drone.yml) != [ ]
          && lib.all (
            attr: lib.hasAttrByPath (lib.splitString "." attr) (flake.packages.${system} // flake.outputs)
          ) (named "[.]#([A-Za-z0-9_.-]+)" (readFile ../../.drone.yml));
        "what scripts/deploy builds is there" =
          let
            checks = named "checks[.][$]system[.]([a-z]+)" (readFile ../../scripts/deploy);
          in
          checks != [ ] && lib.all (name: flake.checks.${system} ? ${name}) checks;
        "the dev shell has it" = elem package.outPath (
          map (p: p.outPath) flake.devShells.${system}.default.nativeBuildInputs
        );
        "nixosModules are files" = lib.all builtins.pathExists (lib.attrValues flake.nixosModules);
        "the hosts have it" = lib.all (
          host:
          host.config.services.cc-ci.package.outPath
          == flake.packages.${host.config.nixpkgs.hostPlatform.system or host.config.nixpkgs.hostPlatform}.default.outPath
        ) (lib.attrValues flake.nixosConfigurations);
        "the formatter is a package" = lib.isDerivation flake.formatter.${system};
      };
    in
    if flake == null then
      "  not looked at: these proofs were not asked for by the flake\n"
    else
      unless (map (what: "flake: not so: ${what}") (builtins.attrNames wrong))
        "  outputs: ${concatStringsSep " " (builtins.attrNames flake.outputs)}\n  hosts: ${concatStringsSep " " (builtins.attrNames flake.nixosConfigurations)}\n";

  # Rendered units ---------------------------------------------------------
  rendered = import ./rendered.nix { inherit lib; };
  # Values that NixOS takes for variables, besides texts.
  valued = {
    systemd.globalEnvironment = {
      A_PACKAGE = here.${added};
      A_PATH = ../toml.nix;
      NOTHING = null;
      IN_BOTH = here.${added}; # the unit's own comes first
    };
    systemd.services.nightly-sweep.environment = {
      A_PACKAGE_OF_ITS_OWN = here.${added};
      A_PATH_OF_ITS_OWN = ../toml.nix;
      NOTHING_OF_ITS_OWN = null;
      IN_BOTH = "of its own";
      TEXT = "\"quoted\" \\ $x %%";
    };
    # What a site adds to the night, a recipe by hand has as well.
    systemd.services.nightly-sweep.serviceConfig.MemoryMax = "4G";
    services.cc-ci.nightly-sweep = {
      recipes = [ "gitea" ];
      report.buildUrl = "https://ci.example.org/{recipe}/{run}";
      shared = "https://git.example.org/ci/memory.git";
      drone = {
        url = "https://drone.example.org/ci/recipes";
        tokenFile = "/run/secrets/drone-token";
        branch = "main";
      };
      commitStatus = {
        url = "https://git.example.org";
        tokenFile = "/run/secrets/gitea-token";
      };
    };
  };
  alone =
    module:
    let
      config = evaluate here [ module ];
      global = config.systemd.globalEnvironment;
    in
    rendered {
      meant = config;
      units = mapAttrs' (name: s: {
        name = "${name}.service";
        value.text = units.service (s // { environment = global // s.environment; });
      }) config.systemd.services // mapAttrs' (name: t: {
        name = "${name}.timer";
        value.text = units.timer t;
      }) config.systemd.timers;
      toml = config.environment.etc."cc-ci-run/host.toml".text;
      given = global;
    };
  mapAttrs' = f: set: builtins.listToAttrs (lib.mapAttrsToList f set);
  # The same under NixOS, or what the flake's nixpkgs has for it. A unit is then
  # what the modules mean, and what NixOS gives to each.
  under =
    name: extra:
    let
      inherit (flake.nixosConfigurations.${name}.extendModules { modules = extra; }) config;
    in
    rendered {
      meant = evaluate here ([ hosts.${name} ] ++ extra);
      inherit (config.systemd) units;
      toml = config.environment.etc."cc-ci-run/host.toml".text;
      given = config.systemd.globalEnvironment;
    };
  # A TOML reader gets back what was written.
  tomlValues = rec {
    texts = [
      ""
      "\""
      "\\"
      "\n\t\r"
      "ü €"
      "a=b # c"
      "]}"
      (builtins.fromJSON "\"\\u0001\\u001b\\u007f\"")
    ];
    "a key" = {
      inherit texts;
      "b.c" = [ [ ] { } [ 1 (-2) ] true false 1.5 ];
    };
    "\"" = 0;
  };
  renderedUnits =
    let
      native = (head (lib.attrValues flake.nixosConfigurations)).pkgs.stdenv.hostPlatform.system == pkgs.stdenv.hostPlatform.system;
      wrong =
        concatMap (host: map (w: "${host}: ${w}") (alone { imports = [ hosts.${host} ]; } ++ alone { imports = [ hosts.${host} valued ]; })) (
          builtins.attrNames hosts
        )
        ++ lib.optionals (flake != null && native) (
          concatMap (host: map (w: "${host}: ${w}") (under host [ ] ++ under host [ valued ])) (builtins.attrNames hosts)
        )
        ++ lib.optionals (fromTOML (import ../toml.nix tomlValues) != tomlValues) [
          "toml.nix: ${import ../toml.nix tomlValues} is not what was to be written"
        ];
    in
    unless (map (w: "rendered: ${w}") wrong) (
      "  units and host.toml of ${concatStringsSep ", " (builtins.attrNames hosts)} are what the modules mean, also with packages and paths as variables\n"
      + (
        if flake == null then
          ""
        else if native then
          "  and so are those that the flake's hosts render\n"
        else
          "  those of the flake's hosts are looked at on their own architecture\n"
      )
    );

  # Unit files, for systemd-analyze --------------------------------------
  unitFiles = mapAttrs (
    host: file:
    let
      config = evaluate here [ file ];
    in
    here.runCommand "units-${host}" { } ''
      mkdir $out
      cp ${here.writeText "host.toml" config.environment.etc."cc-ci-run/host.toml".text} $out/host.toml
      ${concatStringsSep "\n" (
        lib.mapAttrsToList (
          name: s: "cp ${here.writeText "service" (units.service s)} $out/${name}.service"
        ) config.systemd.services
        ++ lib.mapAttrsToList (
          name: t: "cp ${here.writeText "timer" (units.timer t)} $out/${name}.timer"
        ) config.systemd.timers
      )}
    ''
  ) hosts;

  # Machines, for e2e/machine_test.go ---------------------------------------
  # Both units as the modules render them, with a timer that fires every ten
  # seconds; each from the pkgs of its own path.
  bootable =
    {
      drone ? here,
      sweep ? here,
      manual ? here,
      # Of what differs from the modules' own: these, and when the timer fires.
      extra ? { },
      onCalendar ? "*:*:0/10",
    }:
    let
      configOf =
        pkgs:
        evaluate pkgs [
          ../modules
          {
            networking.hostName = "e2e"; # also the runner's name
            virtualisation.docker.enable = true;
            services.cc-ci.enable = true;
            services.cc-ci.nightly-sweep = {
              enable = true;
              inherit onCalendar;
              randomizedDelaySec = "0";
              recipesDir = "/srv/recipes";
              environmentFile = "/etc/instance.env";
            };
            systemd.timers.nightly-sweep.timerConfig.AccuracySec = "1s"; # a minute by default
            services.cc-ci.drone-runner = {
              enable = true;
              server.host = "DRONE_HOST";
              server.proto = "http";
              environmentFile = "/etc/drone-runner.env";
              package = here.runCommand "drone-runner-exec" { } ''
                mkdir -p $out/bin
                cp ${runner} $out/bin/drone-runner-exec
              '';
            };
          }
          extra
        ];
      ofDrone = configOf drone;
      ofSweep = configOf sweep;
    in
    here.runCommand "two-paths" { } ''
      mkdir $out
      cp ${here.writeText "service" (units.service ofSweep.systemd.services.nightly-sweep)} $out/nightly-sweep.service
      cp ${here.writeText "service" (units.service ofSweep.systemd.services."nightly-sweep@")} $out/nightly-sweep@.service
      cp ${here.writeText "timer" (units.timer ofSweep.systemd.timers.nightly-sweep)} $out/nightly-sweep.timer
      cp ${here.writeText "service" (units.service ofDrone.systemd.services.drone-runner-exec)} $out/drone-runner-exec.service
      ${concatStringsSep "\n" (
        map (
          name:
          "cp ${here.writeText "service" (units.service ofSweep.systemd.services.${name})} $out/${name}.service"
        ) (filter (lib.hasPrefix "cc-ci-") (builtins.attrNames ofSweep.systemd.services))
        ++ map (
          name: "cp ${here.writeText "timer" (units.timer ofSweep.systemd.timers.${name})} $out/${name}.timer"
        ) (filter (lib.hasPrefix "cc-ci-") (builtins.attrNames ofSweep.systemd.timers))
      )}
      cp ${here.writeText "tmpfiles" (lib.concatStringsSep "\n" ofDrone.systemd.tmpfiles.rules + "\n")} $out/cc-ci.conf
      cp ${here.writeText "host.toml" ofSweep.environment.etc."cc-ci-run/host.toml".text} $out/host.toml
      ln -s ${ofDrone.environment.etc."cc-ci-run/path".source} $out/path
      ln -s ${manual.cc-ci-run}/bin/cc-ci-run $out/manual
    '';
  # pkgs with cc-ci-run built from some of the tools alone.
  pkgsOf =
    packages:
    pkgsFor (
      import ../toml.nix (now // { tool = filter (t: elem t.nix packages) now.tool; })
    );
  # What needs no program to be run.
  compared = ''
    1. Superset: what each old list had, and what provides it now
    ${superset now}${deletions now}
    2. Single source: no module and no host names a tool
    ${singleSource}
    3. Propagation: a tool added to toolset.toml reaches everybody
    ${propagation}
    Assertions: wrong combinations, each refused with its message
    ${assertions}
    Variables
    ${wrapped}
    The judge of toolset.toml
    ${judged}
    Options
    ${options}
    The flake
    ${flakeOutputs}
    Rendered units
    ${renderedUnits}
    Units: what the new tool's environment is, by the paths they lead to
  '';
in
{
  inherit (here) cc-ci-run;
  optionsPage = page;
  units = unitFiles;
  # What TestTwoPaths and TestDrone boot: one environment for all three ways to a
  # test, and for TestThreeLists the old way of doing it, a list for each.
  # DRONE_HOST is their server's, put in there.
  twoPaths = bootable { };
  threeLists = bootable (mapAttrs (_: pkgsOf) legacy.packages);
  # The environment of Drone in threeLists, for a machine of TestFleetFailures.
  another = (pkgsOf legacy.packages.drone).cc-ci-run.path;
  # What TestHost boots. PORT and the like are its servers', put in there.
  healthy = bootable {
    onCalendar = "*-*-* 02:00:00";
    extra = {
      services.cc-ci.nightly-sweep.maxAge = "26h";
      services.cc-ci.host = {
        enable = true;
        timeout = "3s";
        oneshots = [ "reconcile.service" ];
        endpoints = [
          { url = "http://127.0.0.1:PORT/"; }
          { url = "https://localhost:TLS/"; }
        ];
        minFreeMiB = 16;
        minFreeInodes = 100;
      };
    };
  };
  # What TestFleet boots, more than once. Its servers' addresses are put in there.
  fleet = bootable {
    onCalendar = "*-*-* 02:00:00";
    extra.services.cc-ci.nightly-sweep = {
      shared = "MEMORY_URL";
      drone = {
        url = "DRONE_URL";
        tokenFile = "/etc/drone-token";
      };
      rerunAfter = null;
    };
  };
  # Toolsets with one tool more, judged as in the build of the package:
  # scripts/prove looks for the messages.
  mistakes =
    mapAttrs
      (
        name: rest:
        let
          toolset = import ../toolset.nix {
            pkgs = here // {
              outer.inner = some here;
            };
            toolsetText = declared + ''

              [[tool]]
              name = "mistaken"
              debian = ""
              why = "a proof"
              ${rest}
            '';
          };
        in
        here.runCommand name { } ''
          cp ${toolset.file} toolset.toml
          ${here.cc-ci-run}/libexec/cc-ci-run-full manifest --nix ${toolset.resolved} --out $out
        ''
      )
      {
        none = ''
          nix = "outer.inner"
          commands = ["${head anyTool.commands}"]
        '';
        unknown = ''
          nix = "nonesuch"
          commands = ["x"]
        '';
        unknownInner = ''
          nix = "outer.nonesuch"
          commands = ["x"]
        '';
        lacking = ''
          nix = "outer.inner"
          commands = ["nonesuch"]
        '';
        unnamed = ''
          commands = []
          speed = 1
        '';
        mistyped = ''
          nix = "outer.inner"
          commands = "x"
        '';
      };
  # What the proofs compared, for people. Building it is passing them.
  proofs =
    here.runCommand "cc-ci-run-proofs"
      {
        text = compared;
        passAsFile = [ "text" ];
      }
      ''
        manifest() { "$1" version --output json | grep -o '/[^"]*manifest.json'; }
        {
          cat $textPath
          ${concatStringsSep "\n" (
            concatMap (host: [
              "for unit in 'the sweep:${sweepOf next hosts.${host}}' 'the Drone runner:${runnerOf next hosts.${host}}'; do"
              "  program=\${unit#*:}"
              "  $program which ${added} | grep -q '/bin/${added}$' && grep -q '\"${added}\"' $(manifest $program)"
              "  echo \"  one new [[tool]] is in the environment of \${unit%%:*} on ${host}\""
              "done"
            ]) (builtins.attrNames hosts)
          )}
          echo
          echo '4. One environment: the manifest that each path leads to'
          all=
          ${concatStringsSep "\n" (
            concatMap (host: [
              "for way in 'sweep unit:${sweepOf here hosts.${host}}' 'Drone runner unit:${runnerOf here hosts.${host}}' 'systemPackages:${systemOf here hosts.${host}}'; do"
              "  found=$(manifest \${way#*:})"
              "  printf '  %-16s%-20s%s\\n' ${host} \"\${way%%:*}\" \"$found\""
              "  : \${all:=$found}"
              "  [ \"$found\" = \"$all\" ] || { echo 'one environment: they differ' >&2; exit 1; }"
              "done"
            ]) (builtins.attrNames hosts)
          )}
          echo
          echo '5. The seal: services.cc-ci.seal reaches each path, in one environment; without it no run is sealed'
          sealed() { tr -d ' \n' < "$(manifest "$1")" | grep -o '"seal":{[^}]*}'; }
          all=
          ${concatStringsSep "\n" (
            concatMap (
              host:
              let
                sealedHost = {
                  imports = [ hosts.${host} ];
                  services.cc-ci.seal = true;
                };
              in
              [
                "for way in 'sweep unit:${sweepOf here sealedHost}' 'Drone runner unit:${runnerOf here sealedHost}' 'systemPackages:${systemOf here sealedHost}'; do"
                "  found=$(manifest \${way#*:})"
                "  printf '  %-16s%-20s%s\\n' ${host} \"\${way%%:*}\" \"$found\""
                "  sealed \${way#*:} | grep -q '\"seal\":true'"
                "  : \${all:=$found}"
                "  [ \"$found\" = \"$all\" ] || { echo 'the seal: they differ' >&2; exit 1; }"
                "done"
                "sealed ${sweepOf here hosts.${host}} | grep -q '\"seal\":false'"
              ]
            ) (builtins.attrNames hosts)
          )}
        } > $out
      ''
    // {
      # For scripts/nixos.
      report = import ./report.nix {
        inherit pkgs flake;
        proofs = compared;
        toolset = now;
      };
    };
}
