# Holds a host's unit files and its host.toml against what the modules mean, and
# the sweep's unit files against what the sweep needs.
#
#   meant   config of the host's modules alone, without NixOS
#   units   config.systemd.units: unit file -> { text }
#   toml    the text of host.toml
#   given   what systemd.globalEnvironment puts into each unit
#
# Returns what is wrong, a sentence each.
{ lib }:
{
  meant,
  units,
  toml,
  given,
}:
let
  inherit (builtins)
    attrNames
    concatMap
    elem
    filter
    fromJSON
    head
    isList
    isString
    match
    ;
  # KEY=VALUE lines of a section.
  section =
    name: text:
    let
      walk = builtins.foldl' (
        state: line:
        let
          title = match "\\[(.*)]" line;
        in
        if title != null then
          state // { inside = head title == name; }
        else if state.inside && match "[A-Za-z].*=.*" line != null then
          state // { lines = state.lines ++ [ line ]; }
        else
          state
      ) { inside = false; lines = [ ]; };
    in
    # NixOS's own notes to its switch.
    filter (line: !(lib.hasPrefix "X-" line)) (
      (walk (filter isString (builtins.split "\n" (builtins.unsafeDiscardStringContext text)))).lines
    );
  option = v: if v == true then "true" else if v == false then "false" else toString v;
  settings =
    set: concatMap (k: map (v: "${k}=${option v}") (lib.toList set.${k})) (attrNames set);
  plain = map builtins.unsafeDiscardStringContext;
  variables = set: lib.mapAttrs (_: v: "${v}") (lib.filterAttrs (_: v: v != null) set);
  difference =
    where: wanted: found:
    map (line: "${where} lacks ${line}") (filter (line: !(elem line found)) (plain wanted))
    ++ map (line: "${where} has ${line}, which no module says") (
      filter (line: !(elem line (plain wanted))) found
    );

  service =
    name:
    let
      unit = meant.systemd.services.${name};
      environment = variables (given // unit.environment);
    in
    difference "${name}.service"
      (
        map (v: "Environment=${builtins.toJSON "${v}=${environment.${v}}"}") (attrNames environment)
        ++ settings unit.serviceConfig
      )
      (section "Service" units."${name}.service".text);
  timer =
    name:
    difference "${name}.timer" (settings meant.systemd.timers.${name}.timerConfig) (
      section "Timer" units."${name}.timer".text
    );

  # nightly-sweep@RECIPE is the night's unit, with another end of its command; and
  # the night can make a cgroup for each run.
  night = section "Service" units."nightly-sweep.service".text;
  recipes = lib.concatMapStrings (name: " ${name}") meant.services.cc-ci.nightly-sweep.recipes;
  ofRecipe =
    line:
    if lib.hasPrefix "ExecStart=" line then "${lib.removeSuffix recipes line} --force -- %i" else line;
  sweep =
    difference "nightly-sweep@.service" (map ofRecipe night) (
      section "Service" units."nightly-sweep@.service".text
    )
    ++ lib.optionals (
      !(elem "Delegate=true" night) || lib.any (lib.hasPrefix "ProtectControlGroups=") night
    ) [ "nightly-sweep.service cannot make a cgroup for each run: it needs Delegate=true and no ProtectControlGroups=" ];

  # `cc-ci-run host` will compare these with what systemd has loaded.
  told = (builtins.fromTOML (builtins.unsafeDiscardStringContext toml)).unit;
  compare =
    name:
    let
      lines = section "Service" units.${name}.text;
      values = key: concatMap (line: lib.optionals (lib.hasPrefix "${key}=" line) [ (lib.removePrefix "${key}=" line) ]) lines;
      environment = lib.listToAttrs (
        map (
          v:
          let
            parts = match "([^=]*)=(.*)" (fromJSON v);
          in
          lib.nameValuePair (head parts) (lib.last parts)
        ) (values "Environment")
      );
      program = head (match "[-+!:@|]*([^ ]*).*" (head (values "ExecStart")));
    in
    lib.optionals (told.${name}.program != program) [
      "host.toml: ${name} starts ${told.${name}.program}, but its unit file ${program}"
    ]
    ++ lib.optionals (told.${name}.environment != environment) [
      "host.toml: ${name} has the environment ${builtins.toJSON told.${name}.environment}, but its unit file ${builtins.toJSON environment}"
    ];
in
concatMap service (attrNames meant.systemd.services)
++ concatMap timer (attrNames meant.systemd.timers)
++ concatMap compare (attrNames told)
++ sweep
