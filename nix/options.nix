# The text of docs/options.md: the modules' options, as nixosOptionsDoc describes
# them. `make options` writes the file, and a proof compares the file with this text.
{ pkgs }:
let
  inherit (pkgs) lib;
  inherit
    (lib.evalModules {
      modules = [
        # NixOS's own options that the modules set
        ./stand-in/nixos/options.nix
        ./modules
      ];
      specialArgs = { inherit pkgs; };
    })
    options
    ;
  all = (pkgs.nixosOptionsDoc { options = { inherit (options.services) cc-ci; }; }).optionsNix;

  # {manpage}`systemd.time(7)` is nixpkgs' own; elsewhere it is a code span.
  plain = builtins.replaceStrings [ "{manpage}" ] [ "" ];
  text = value: lib.removeSuffix "\n" (plain value.text);
  # A value of several lines is a block of its own.
  shown =
    value:
    if value._type == "literalMD" then
      " ${text value}"
    else if lib.hasInfix "\n" (text value) then
      "\n\n  ```nix\n  ${builtins.replaceStrings [ "\n" ] [ "\n  " ] (text value)}\n  ```"
    else
      " `${text value}`";
  entry =
    name:
    let
      o = all.${name};
    in
    ''

      ## ${builtins.replaceStrings [ "<" ">" "*" ] [ "\\<" "\\>" "\\*" ] name}

      ${lib.removeSuffix "\n" (plain o.description)}

      - Type: ${o.type}${lib.optionalString o.readOnly " (read only)"}
    ''
    + lib.optionalString (o ? default) "- Default:${shown o.default}\n"
    + lib.optionalString (o ? example) "- Example:${shown o.example}\n";
in
''
  # Options of the NixOS modules

  <!-- Written by `make options` from nix/modules. -->

  [nixos.md](nixos.md) shows a complete configuration. No option adds a tool: tools are added to `toolset.toml`.
''
+ lib.concatMapStrings entry (builtins.attrNames all)
