# Renders services and timers as unit files, as NixOS does it.
{ lib }:
let
  value = v: if v == true then "true" else if v == false then "false" else toString v;
  # A list is the key once for each element.
  lines =
    attrs:
    lib.concatStringsSep "" (
      lib.mapAttrsToList (
        name: v:
        lib.concatStringsSep "" (
          map (v: "${name}=${value v}\n") (if builtins.isList v then v else [ v ])
        )
      ) attrs
    );
  words = name: list: if list == [ ] then { } else { ${name} = lib.concatStringsSep " " list; };
  head =
    unit:
    "[Unit]\n"
    + lines (
      { Description = unit.description; }
      // words "After" unit.after
      // words "Wants" unit.wants
      // unit.unitConfig
    );
  install =
    unit:
    if unit.wantedBy == [ ] then "" else "\n[Install]\n" + lines (words "WantedBy" unit.wantedBy);
in
{
  service =
    unit:
    head unit
    + "\n[Service]\n"
    + lib.concatStringsSep "" (
      lib.mapAttrsToList (name: v: "Environment=${builtins.toJSON "${name}=${v}"}\n") (
        lib.filterAttrs (_: v: v != null) unit.environment
      )
    )
    + lines unit.serviceConfig
    + install unit;
  timer = unit: head unit + "\n[Timer]\n" + lines unit.timerConfig + install unit;
}
