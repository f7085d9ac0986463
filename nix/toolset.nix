# Resolves toolset.toml with Nix: the only Nix file that knows a tool, and it
# knows them from there. It gives
#
#   bin        the one directory of PATH: declared commands first, then all
#              else that the packages bring, the earlier package first
#   manifest   manifest.json, of the form that internal/toolset reads
#   packages   every package of the toolset, Python's environment among them
#   python     that environment
#   browsers   what playwright launches
#   variables  the fixed variables, as the manifest has them
#   stateDir   the state directory, as the manifest has it
#   seal       whether every run is sealed, as the manifest has it
#   names      the tools' names, and commands: name -> tool
#
# It needs of `pkgs` the packages that the toolset names, and runCommand,
# writeText and closureInfo.
{
  pkgs,
  toolsetText ? builtins.readFile ../toolset.toml,
  stateDir ? "/var/lib/cc-ci-run",
  # Every run is sealed, also if the toolset does not say so.
  alwaysSeal ? false,
}:
let
  inherit (builtins)
    attrNames
    concatMap
    concatStringsSep
    elem
    filter
    foldl'
    head
    isList
    isString
    map
    split
    toJSON
    ;

  toolset = builtins.fromTOML toolsetText;
  inherit (toolset) environment;
  seal = alwaysSeal || toolset.seal.seal or false;

  available = pkgs // import ./extra.nix { inherit pkgs; };
  # A package by its attribute path; `entry` says who asked for it.
  package =
    entry: path:
    foldl' (
      set: name:
      set.${name}
        or (throw "toolset.toml: ${entry}: nix = \"${path}\": nixpkgs has no such attribute")
    ) available (filter isString (split "\\." path));

  # The output with the commands, as lib.getBin finds it.
  output = p: if p.outputSpecified or false then p else p.bin or p.out or p;
  describe = p: {
    name = p.pname or p.name;
    version = p.version or "";
  };

  tools = map (
    tool:
    let
      p = output (package tool.name (tool.nix or (throw "toolset.toml: ${tool.name}: no nix attribute is named")));
    in
    {
      inherit (tool) name why;
      package = p;
      packages = [ (describe p) ];
      commands = map (name: {
        inherit name;
        path = "${p}/bin/${name}";
      }) tool.commands;
    }
  ) toolset.tool;

  interpreter = package "python" toolset.python.nix;
  pythonPackage =
    set: name:
    set.${name}
      or (throw "toolset.toml: python: packages: nixpkgs' Python has no package ${name}");
  python = interpreter.withPackages (set: map (pythonPackage set) toolset.python.packages);
  pythonPackages = map (name: pythonPackage interpreter.pkgs name) toolset.python.packages;
  pythonCommands = map (name: {
    inherit name;
    path = "${python}/bin/${name}";
  }) toolset.python.commands;

  browsers = package "browsers" toolset.browsers.nix;

  # "{bin}" and "{browsers}" are the toolset's, "{attribute}" is a package.
  expand =
    name: value:
    concatStringsSep "" (
      map (
        part:
        if isString part then
          part
        else if head part == "bin" then
          "${bin}/bin"
        else if head part == "browsers" then
          "${browsers}"
        else
          "${package "environment.nix.${name}" (head part)}"
      ) (split "[{]([^{}]*)[}]" value)
    );
  expandAll = builtins.mapAttrs expand;
  variables = expandAll ((environment.set or { }) // (environment.nix or { }));

  declared = concatMap (
    tool:
    map (c: {
      inherit (c) name path;
      tool = tool.name;
    }) tool.commands
  ) (tools ++ [ { name = "python"; commands = pythonCommands; } ]);
  # name -> the first that declares it
  owners = foldl' (
    owners: c: if owners ? ${c.name} then owners else owners // { ${c.name} = c; }
  ) { } declared;

  # Columns, split by tabs: command, file, tool; and tool, package.
  table = name: rows: pkgs.writeText name (concatStringsSep "" (map (row: concatStringsSep "\t" row + "\n") rows));
  commandTable = table "cc-ci-run-commands" (map (c: [ c.name c.path c.tool ]) declared);
  packageTable = table "cc-ci-run-packages" (
    map (tool: [ tool.name "${tool.package}" ]) tools ++ [ [ "python" "${python}" ] ]
  );
  packages = map (tool: tool.package) tools ++ [ python ];

  # Also writes what two packages offer, for the manifest.
  bin = pkgs.runCommand "cc-ci-run-toolset" { } ''
    mkdir -p $out/bin $out/share/cc-ci-run
    declare -A owner
    shadowed= missing=
    offer() { # NAME FILE TOOL
      local by=''${owner[$1]-}
      if [ -z "$by" ]; then
        ln -s "$2" "$out/bin/$1"
        owner[$1]=$3
      elif [ "$by" != "$3" ] && [ "$(readlink -f "$2")" != "$(readlink -f "$out/bin/$1")" ]; then
        shadowed+="''${shadowed:+,}{\"command\":\"$1\",\"tool\":\"$3\",\"by\":\"$by\"}"
      fi
    }
    while IFS=$'\t' read -r name path tool; do
      if [ -x "$path" ]; then
        offer "$name" "$path" "$tool"
      else
        missing+="''${missing:+, }$tool: $name"
      fi
    done < ${commandTable}
    if [ -n "$missing" ]; then
      echo "toolset.toml: commands that their packages lack: $missing" >&2
      exit 1
    fi
    while IFS=$'\t' read -r tool package; do
      for path in "$package"/bin/*; do
        if [ -x "$path" ]; then
          offer "''${path##*/}" "$path" "$tool"
        fi
      done
    done < ${packageTable}
    echo "[$shadowed]" > $out/share/cc-ci-run/shadowed.json
  '';

  form = {
    schema = 1;
    backend = "nix";
    state = stateDir;
    bin = "${bin}/bin";
    interpreter = "${python}/bin/python3";
    tools = map (tool: {
      inherit (tool)
        name
        why
        packages
        commands
        ;
    }) tools;
    python = {
      version = interpreter.version or "";
      why = toolset.python.why or "";
      packages = map describe pythonPackages;
      commands = pythonCommands;
    };
    browsers = {
      path = "${browsers}";
      packages = [ (describe browsers) ];
    };
    environment = {
      inherit (environment) pass require;
      site = environment.site or [ ];
      only = environment.only or { };
      default = expandAll (environment.default or { });
      set = variables;
    };
    inherit (toolset) process;
    host = {
      inherit (toolset.host) paths;
    };
    seal = {
      inherit seal;
      execute = toolset.seal.execute or [ ];
    };
    absent = [ ];
    shadowed = "@shadowed@";
    closure = "@closure@";
  };

  # What only a build knows is put in last: collisions, and the closure, which
  # the seal allows.
  manifest =
    pkgs.runCommand "cc-ci-run-manifest.json"
      {
        form = toJSON form;
        passAsFile = [ "form" ];
        closure = pkgs.closureInfo {
          rootPaths = packages ++ [
            bin
            browsers
          ] ++ filter (p: p != null) (map fromVariable (attrNames (environment.nix or { })));
        };
      }
      ''
        manifest=$(cat $formPath)
        closure=$(sort $closure/store-paths | sed -e 's/.*/"&"/' | paste -sd,)
        manifest=''${manifest/'"@closure@"'/"[$closure]"}
        manifest=''${manifest/'"@shadowed@"'/"$(cat ${bin}/share/cc-ci-run/shadowed.json)"}
        printf '%s\n' "$manifest" > $out
      '';
  # A variable that names a package keeps it in the closure.
  fromVariable =
    name:
    let
      parts = filter isList (split "[{]([^{}]*)[}]" environment.nix.${name});
      attrs = filter (a: !(elem a [ "bin" "browsers" ])) (map head parts);
    in
    if attrs == [ ] then null else package "environment.nix.${name}" (head attrs);
in
{
  inherit
    bin
    browsers
    manifest
    packages
    python
    seal
    stateDir
    variables
    ;
  names = map (tool: tool.name) tools;
  commands = builtins.mapAttrs (_: c: c.tool) owners;
}
