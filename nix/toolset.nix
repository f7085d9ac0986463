# The packages that toolset.toml names, and one directory of their commands: the
# only Nix file that knows a tool, and it knows them from there. It gives
#
#   file       toolset.toml, and
#   resolved   what cc-ci-run needs to make the manifest of it (NixBuild in
#              internal/toolset/nix.go), as JSON
#   bin        the one directory of PATH: declared commands first, then all
#              else that the packages bring, the earlier package first; and
#              beside it, in dotfiles/, an empty .curlrc
#   packages   every package of the toolset, Python's environment among them
#   python     that environment
#   stateDir   the state directory, as the manifest has it
#   seal       whether every run is sealed, as the manifest has it
#
# Only cc-ci-run has the rules of toolset.toml: it reads the file when the package
# is built (package.nix), and reports each mistake with its line. This file checks
# only whether nixpkgs has a package, which cc-ci-run cannot know. It ignores a
# value of the wrong form, such as a number for `commands`, so that the build
# starts and cc-ci-run reports the mistake. (Only a file that is not TOML ends the
# evaluation: no package can be taken from it.)
#
# Of `pkgs`, this file needs the packages that the toolset names, and runCommand,
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
    attrValues
    concatMap
    concatStringsSep
    elem
    filter
    foldl'
    head
    isAttrs
    isList
    isString
    listToAttrs
    map
    split
    toJSON
    ;

  toolset = builtins.fromTOML toolsetText;
  # The tables, or the texts, of a key's value: a list, a single value, or null.
  tables = value: filter isAttrs (if isList value then value else [ value ]);
  texts = value: filter isString (if isList value then value else [ value ]);
  # The first of a list, or null.
  first = foldl' (found: one: if found == null then one else found) null;
  exist = filter (p: p != null);

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
  resolve = p: describe p // { path = "${p}"; };

  tools = concatMap (
    tool:
    map (attribute: {
      inherit attribute;
      package = output (package (first (texts (tool.name or null) ++ [ "a tool" ])) attribute);
      commands = texts (tool.commands or null);
    }) (texts (tool.nix or null))
  ) (tables (toolset.tool or null));

  interpreter = first (map (package "python") (texts (toolset.python.nix or null)));
  pythonPackage =
    set: name:
    set.${name}
      or (throw "toolset.toml: python: packages: nixpkgs' Python has no package ${name}");
  pythonPackages = set: map (pythonPackage set) (texts (toolset.python.packages or null));
  python = if interpreter == null then null else interpreter.withPackages pythonPackages;

  browsers = first (map (package "browsers") (texts (toolset.browsers.nix or null)));

  # A variable's "{bin}", "{browsers}" and "{dotfiles}" are the toolset's, "{attribute}" is a package.
  attributes = foldl' (a: b: a // b) { } (
    concatMap (
      variables:
      concatMap (
        name:
        map (part: { ${head part} = package "environment.nix.${name}" (head part); }) (
          filter (part: isList part && !(elem (head part) [ "bin" "browsers" "dotfiles" ])) (
            concatMap (split "[{]([^{}]*)[}]") (texts variables.${name})
          )
        )
      ) (attrNames variables)
    ) (tables (toolset.environment.nix or null))
  );

  packages = map (tool: tool.package) tools ++ exist [ python ];

  # Made without cc-ci-run, so that a change of cc-ci-run's code does not change this
  # path, and with it the fingerprint. A command that its package lacks gets no link
  # here; cc-ci-run reports it.
  bin =
    pkgs.runCommand "cc-ci-run-toolset"
      {
        declared = concatStringsSep "\n" (
          concatMap (tool: map (command: "${tool.package}/bin/${command}") tool.commands) (
            tools
            ++ map (package: {
              inherit package;
              commands = texts (toolset.python.commands or null);
            }) (exist [ python ])
          )
          ++ [ "" ]
        );
        passAsFile = [ "declared" ];
      }
      ''
        mkdir -p $out/bin $out/dotfiles
        touch $out/dotfiles/.curlrc # what CURL_HOME is for: see toolset.toml
        link() { # FILE, unless there is a command of this name
          if [ -f "$1" ] && [ -x "$1" ] && ! [ -L "$out/bin/''${1##*/}" ]; then
            ln -s "$1" $out/bin
          fi
        }
        while IFS= read -r file; do link "$file"; done < $declaredPath
        for file in ${concatStringsSep " " (map (p: "${p}/bin/*") packages)}; do link "$file"; done
      '';

  resolved = pkgs.writeText "cc-ci-run-resolved.json" (toJSON {
    state = stateDir;
    seal = alwaysSeal;
    bin = "${bin}/bin";
    # What the seal allows: also the packages that only a variable names.
    closure = "${
      pkgs.closureInfo { rootPaths = packages ++ [ bin ] ++ exist [ browsers ] ++ attrValues attributes; }
    }/store-paths";
    tools = listToAttrs (
      map (tool: {
        name = tool.attribute;
        value = resolve tool.package;
      }) tools
    );
    python =
      if interpreter == null then
        null
      else
        {
          path = "${python}";
          version = interpreter.version or "";
          packages = map describe (pythonPackages interpreter.pkgs);
        };
    browsers = if browsers == null then null else resolve browsers;
    attributes = builtins.mapAttrs (_: p: "${p}") attributes;
  });
in
{
  inherit
    bin
    packages
    python
    resolved
    stateDir
    ;
  file = pkgs.writeText "toolset.toml" toolsetText;
  # For the assertions of the modules.
  seal = alwaysSeal || toolset.seal.seal or false == true;
}
