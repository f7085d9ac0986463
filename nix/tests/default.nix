# The proofs that there is one list of tools, that nothing was lost, and that
# the next tool reaches everybody:
#
#   nix-build nix/tests -A proofs --arg pkgs 'import <nixpkgs> { }'
#
# `make prove` runs them on a machine without nixpkgs, on the small pkgs and
# lib beside this file, which take three more arguments (see pkgs.nix).
{
  pkgs ? null,
  lib ? if pkgs == null then import ./lib.nix else pkgs.lib,
  go ? null,
  site ? null,
  browsers ? null,
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
  real = pkgs != null;

  # pkgs with cc-ci-run built from a toolset
  pkgsFor =
    toolset:
    if real then
      pkgs // { cc-ci-run = pkgs.callPackage ../package.nix { file = toolset; }; }
    else
      import ./pkgs.nix {
        inherit
          toolset
          go
          site
          browsers
          ;
      };
  declared = ../../toolset.toml;
  here = pkgsFor declared;
  units = import ./units.nix { inherit lib; };

  hosts = {
    cc-ci = ../hosts/cc-ci/configuration.nix;
    cc-ci-hetzner = ../hosts/cc-ci-hetzner/configuration.nix;
  };
  evaluate =
    pkgs: modules:
    (lib.evalModules {
      modules = [ ./nixos.nix ] ++ modules;
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
  # Which entry of a toolset provides a command, or null.
  providerOf =
    toolset: command:
    let
      tools = filter (t: elem command t.commands) toolset.tool;
    in
    if tools != [ ] then
      (head tools).name
    else if elem command (toolset.python.commands or [ ]) then
      "[python]"
    else
      null;
  missing =
    toolset:
    concatMap (
      origin:
      concatMap (
        entry:
        let
          library = match "python\\.(.*)" entry.package;
          lost = filter (c: providerOf toolset c == null) entry.commands;
        in
        map (c: "superset: ${origin} had ${entry.package} with ${c}, which no entry of toolset.toml provides") lost
        ++ (
          if library != null && !(elem (head library) (toolset.python.packages or [ ])) then
            [ "superset: ${origin} had Python's ${head library}, which toolset.toml's [python] lacks" ]
          else
            [ ]
        )
        ++ (
          if entry.package == "browsers" && !(toolset ? browsers) then
            [ "superset: ${origin} had browsers, toolset.toml has none" ]
          else
            [ ]
        )
      ) legacy.${origin}
    ) (builtins.attrNames legacy);
  now = fromTOML (readFile declared);
  without = name: now // { tool = filter (t: t.name != name) now.tool; };
  superset = unless (missing now) (
    concatStringsSep "" (
      concatMap (
        origin:
        map (
          entry:
          row origin entry.package (
            if entry.package == "browsers" then
              "[browsers]"
            else
              concatStringsSep ", " (
                map (p: "${p}: ${concatStringsSep " " (filter (c: providerOf now c == p) entry.commands)}") (
                  lib.unique (map (providerOf now) entry.commands)
                )
              )
          )
        ) legacy.${origin}
      ) (builtins.attrNames legacy)
    )
  );
  # The proof must be able to fail: without any one entry it names what is lost.
  deletions =
    let
      undetected =
        concatMap (
          t:
          let
            lost = missing (without t.name);
            named = filter (
              line: lib.any (c: lib.hasInfix " with ${c}, " line) t.commands
            ) lost;
          in
          if named == [ ] then [ "superset: without [[tool]] ${t.name} nothing is missed" ] else [ ]
        ) now.tool
        ++ concatMap (
          p:
          if missing (now // { python = now.python // { packages = filter (q: q != p) now.python.packages; }; }) == [ ] then
            [ "superset: without Python's ${p} nothing is missed" ]
          else
            [ ]
        ) now.python.packages
        ++ (
          if missing (removeAttrs now [ "browsers" ]) == [ ] then [ "superset: without browsers nothing is missed" ] else [ ]
        );
    in
    unless undetected "  ${
      toString (length now.tool + length now.python.packages + 1)
    } deletions from toolset.toml, one at a time: each was noticed, for example\n  ${
      head (missing (without "git-lfs"))
    }\n";

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
    { services.cc-ci.enable = true; }
    extra
  ];
  subjects = {
    "modules/harness.nix" = only ../modules/harness.nix { };
    "modules/drone-runner.nix" = only ../modules {
      services.cc-ci.drone-runner = {
        enable = true;
        server.host = "drone.example.org";
        environmentFile = "/run/secrets/drone";
      };
    };
    "modules/nightly-sweep.nix" = only ../modules { services.cc-ci.nightly-sweep.enable = true; };
    "hosts/cc-ci" = [ hosts.cc-ci ];
    "hosts/cc-ci-hetzner" = [ hosts.cc-ci-hetzner ];
  };
  # A list of its own, in each way that a module could have one.
  some = pkgs: pkgs.${(head now.tool).nix};
  offenders = {
    "systemPackages" = { pkgs, ... }: { environment.systemPackages = [ (some pkgs) ]; };
    "a unit's path" = { pkgs, ... }: { systemd.services.nightly-sweep.path = [ (some pkgs) ]; };
    "a unit's PATH" = { pkgs, ... }: { systemd.services.nightly-sweep.environment.PATH = "${some pkgs}/bin"; };
    "an ExecStartPre" = { pkgs, ... }: { systemd.services.nightly-sweep.serviceConfig.ExecStartPre = "${some pkgs}/bin/x"; };
  };
  singleSource =
    let
      escaped = filter (
        name:
        (tryEval (substance (evaluate poisoned (subjects."hosts/cc-ci" ++ [ offenders.${name} ])))).success
      ) (builtins.attrNames offenders);
      # By hand, what a poisoned pkgs can not see: text.
      own = concatMap (
        host:
        let
          config = evaluate here [ hosts.${host} ];
          package = config.services.cc-ci.package;
          wrong = filter (
            p: !(elem p.outPath (map (q: q.outPath) ([ package ] ++ package.toolset.packages)))
          ) config.environment.systemPackages;
        in
        map (p: "single source: ${host}: ${p.name} in systemPackages is none of the toolset's") wrong
        ++ concatMap (
          name:
          let
            s = config.systemd.services.${name};
            path = s.environment.PATH or null;
          in
          if s.path != [ ] || s.enableDefaultPath || !(elem path [ null "${package.path}/bin" ]) then
            [ "single source: ${host}: ${name}.service has a path of its own" ]
          else
            [ ]
        ) (builtins.attrNames config.systemd.services)
      ) (builtins.attrNames hosts);
    in
    unless (map (name: "single source: a tool in ${name} went unnoticed") escaped ++ own) (
      concatStringsSep "" (
        map (
          name:
          builtins.seq (substance (evaluate poisoned subjects.${name})) "  ${pad 28 name}evaluates with every package but ${concatStringsSep ", " allowed} poisoned\n"
        ) (builtins.attrNames subjects)
        ++ map (name: "  a tool added to ${pad 18 name}is refused\n") (builtins.attrNames offenders)
      )
    );

  # 3. Propagation --------------------------------------------------------
  longer = builtins.toFile "toolset.toml" (
    readFile declared
    + ''

      [[tool]]
      name     = "hello"
      nix      = "hello"
      debian   = "hello"
      commands = ["hello"]
      why      = "a proof of this project"
    ''
  );
  next = pkgsFor longer;
  propagation =
    let
      inherit (next.cc-ci-run) toolset;
      has = list: elem next.hello.outPath (map (p: p.outPath) list);
      shell = import ../shell.nix {
        pkgs = next // {
          mkShellNoCC = attrs: attrs;
        };
        inherit (next) cc-ci-run;
      };
      configs = mapAttrs (_: host: evaluate next [ host ]) hosts;
      places = {
        "the toolset" = toolset.commands ? hello && !(here.cc-ci-run.toolset.commands ? hello);
        "the dev shell" = has shell.packages;
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
      line = head (unitsOf pkgs host).nightly-sweep.serviceConfig.ExecStart;
    in
    builtins.appendContext (head (builtins.split " " line)) (builtins.getContext line);
  runnerOf = pkgs: host: "${(unitsOf pkgs host).drone-runner-exec.environment.PATH}/cc-ci-run";
  systemOf =
    pkgs: host:
    "${head (filter (p: (p.pname or "") == "cc-ci-run") (evaluate pkgs [ host ]).environment.systemPackages)}/bin/cc-ci-run";

  # Assertions: combinations that would break a host, and what they are told.
  wrong = {
    "the package is another's" = [ { services.cc-ci.package = some here; } "carries no toolset" ];
    "the state directory is not the package's" = [ { services.cc-ci.stateDir = "/srv/x"; } "has another built in" ];
    "tests as root" = [ { services.cc-ci.user = "root"; } "must not run as root" ];
    "no harness" = [ { services.cc-ci.enable = lib.mkForce false; } "needs services.cc-ci.enable" ];
    "a runner without a server" = [ { services.cc-ci.drone-runner.server.host = lib.mkForce ""; } "server.host is not set" ];
    "a runner without its secret" = [ { services.cc-ci.drone-runner.environmentFile = lib.mkForce null; } "environmentFile is not set" ];
    "a secret in the store" = [ { services.cc-ci.drone-runner.environmentFile = lib.mkForce "${builtins.storeDir}/x"; } "is in the Nix store" ];
    "a PATH for steps" = [ { services.cc-ci.drone-runner.environ.PATH = "/bin"; } "environ sets PATH" ];
    "a label with a comma" = [ { services.cc-ci.drone-runner.labels.a = "b,c"; } "key:value" ];
    "a PATH for the sweep" = [ { services.cc-ci.nightly-sweep.environment.PATH = "/bin"; } "environment sets PATH" ];
    "a sweep over nothing" = [ { services.cc-ci.nightly-sweep.recipes = lib.mkForce [ ]; } "recipes is empty" ];
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

  # The flake, with what is here in the place of its input.
  flake =
    let
      outputs = (import ../../flake.nix).outputs {
        self = outputs;
        nixpkgs = {
          lib = lib // {
            nixosSystem = { modules }: {
              config = evaluate here (filter (m: !(m ? nixpkgs.overlays)) modules);
            };
          };
          legacyPackages = lib.genAttrs [ "x86_64-linux" "aarch64-linux" ] (_: here // {
            extend = overlay: here // overlay here here // { nixfmt-tree = here.cc-ci-run; };
          });
        };
      };
      system = outputs.nixosConfigurations.cc-ci.config;
      package = outputs.packages.x86_64-linux.default;
    in
    unless (
      (if package.outPath == system.services.cc-ci.package.outPath then [ ] else [ "flake: its host has another package" ])
      ++ (
        if map (p: p.outPath) (outputs.devShells.x86_64-linux.default.packages or [ package ]) == [ ] then
          [ "flake: an empty dev shell" ]
        else
          [ ]
      )
    ) "  outputs: ${concatStringsSep " " (builtins.attrNames outputs)}\n  hosts: ${concatStringsSep " " (builtins.attrNames outputs.nixosConfigurations)}\n";

  # Unit files, for systemd-analyze --------------------------------------
  unitFiles = mapAttrs (
    host: file:
    let
      config = evaluate here [ file ];
    in
    here.runCommand "units-${host}" { } ''
      mkdir $out
      ${concatStringsSep "\n" (
        lib.mapAttrsToList (
          name: s: "cp ${here.writeText "${name}.service" (units.service s)} $out/${name}.service"
        ) config.systemd.services
        ++ lib.mapAttrsToList (
          name: t: "cp ${here.writeText "${name}.timer" (units.timer t)} $out/${name}.timer"
        ) config.systemd.timers
      )}
    ''
  ) hosts;
in
{
  inherit (here) cc-ci-run;
  units = unitFiles;
  # What the proofs compared, for people. Building it is passing them.
  proofs =
    here.runCommand "cc-ci-run-proofs"
      {
        text = ''
          1. Superset: what each old list had, and what provides it now
          ${superset}${deletions}
          2. Single source: no module and no host names a tool
          ${singleSource}
          3. Propagation: a tool added to toolset.toml reaches everybody
          ${propagation}
          Assertions: wrong combinations, each refused with its message
          ${assertions}
          The flake evaluates, without a network
          ${flake}
          Units: what the new tool's environment is, by the paths they lead to
        '';
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
              "  $program which hello | grep -q '/bin/hello$' && grep -q '\"hello\"' $(manifest $program)"
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
        } > $out
      '';
}
// (
  if real && pkgs ? path then
    {
      # The hosts under NixOS itself.
      nixos = mapAttrs (
        _: host:
        (import (pkgs.path + "/nixos/lib/eval-config.nix") {
          system = null;
          modules = [
            host
            { nixpkgs.overlays = [ (import ../overlay.nix) ]; }
          ];
        }).config.system.build.toplevel
      ) hosts;
    }
  else
    { }
)
