# A small `lib`: as much of nixpkgs' as the modules here use, with its meaning,
# for machines without nixpkgs. Whoever has nixpkgs passes the real one.
let
  inherit (builtins)
    all
    any
    attrNames
    attrValues
    concatMap
    concatStringsSep
    elem
    filter
    foldl'
    functionArgs
    head
    intersectAttrs
    isAttrs
    isBool
    isFunction
    isInt
    isList
    isPath
    isString
    length
    listToAttrs
    mapAttrs
    stringLength
    substring
    toJSON
    ;

  unique = foldl' (list: x: if elem x list then list else list ++ [ x ]) [ ];
  show = concatStringsSep ".";

  # mkIf and mkMerge taken apart: the plain values that a definition holds.
  discharge =
    v:
    if (v._type or "") == "if" then
      (if v.condition then discharge v.content else [ ])
    else if (v._type or "") == "merge" then
      concatMap discharge v.contents
    else
      [ v ];
  # The attribute sets that a definition holds, with a condition around each
  # value instead of around the whole: to know which options a module sets must
  # not depend on what they are set to.
  pushDown =
    v:
    if (v._type or "") == "if" then
      map (mapAttrs (_: lib.mkIf v.condition)) (pushDown v.content)
    else if (v._type or "") == "merge" then
      concatMap pushDown v.contents
    else
      [ v ];
  priority = v: if (v._type or "") == "override" then v.priority else 100;
  content = v: if (v._type or "") == "override" then v.content else v;
  # The values of the highest priority (the lowest number) among definitions.
  strongest =
    defs:
    let
      values = concatMap discharge defs;
      best = foldl' (p: v: if priority v < p then priority v else p) 9999 values;
    in
    map content (filter (v: priority v == best) values);

  mkType = name: check: merge: { inherit name check merge; };
  # One value, or equal ones.
  one =
    loc: defs:
    if all (d: d == head defs) defs then
      head defs
    else
      throw "The option `${show loc}' has conflicting definition values: ${toJSON defs}";
  checked =
    type: loc: defs:
    let
      bad = filter (d: !(type.check d)) defs;
    in
    if bad == [ ] then
      type.merge loc defs
    else
      throw "A definition for option `${show loc}' is not of type `${type.name}'";

  types = rec {
    bool = mkType "boolean" isBool one;
    str = mkType "string" isString one;
    lines = mkType "strings concatenated with \"\\n\"" isString (_: concatStringsSep "\n");
    path = mkType "absolute path" (
      p: isPath p || p ? outPath || isString p && substring 0 1 p == "/"
    ) one;
    package = mkType "package" (p: isAttrs p && p.type or "" == "derivation") (_: head);
    int = mkType "signed integer" isInt one;
    ints.positive = mkType "positive integer" (n: isInt n && n > 0) one;
    ints.unsigned = mkType "unsigned integer" (n: isInt n && n >= 0) one;
    unspecified = mkType "unspecified value" (_: true) (
      loc: defs:
      if length defs == 1 then
        head defs
      else if all isList defs then
        concatMap (d: d) defs
      else if all isAttrs defs then
        (attrsOf unspecified).merge loc defs
      else
        one loc defs
    );
    enum = values: mkType "one of ${toJSON values}" (v: elem v values) one;
    nullOr =
      t:
      mkType "null or ${t.name}" (v: v == null || t.check v) (
        loc: defs: if all (d: d == null) defs then null else t.merge loc (filter (d: d != null) defs)
      );
    listOf =
      t:
      mkType "list of ${t.name}" isList (
        loc: defs: map (v: checked t loc [ v ]) (concatMap (d: concatMap discharge d) defs)
      );
    attrsOf =
      t:
      mkType "attribute set of ${t.name}" isAttrs (
        loc: defs:
        listToAttrs (
          concatMap (
            name:
            let
              values = strongest (map (d: d.${name}) (filter (d: d ? ${name}) defs));
            in
            if values == [ ] then
              [ ]
            else
              [
                {
                  inherit name;
                  value = checked t (loc ++ [ name ]) values;
                }
              ]
          ) (unique (concatMap attrNames defs))
        )
      );
    submodule =
      module:
      mkType "submodule" (v: isAttrs v || isFunction v) (
        loc: defs:
        (evalModules {
          modules = [ module ] ++ defs;
          prefix = loc;
        }).config
      );
  };

  evalModules =
    {
      modules,
      specialArgs ? { },
      prefix ? [ ],
    }:
    let
      load =
        m:
        let
          file = if isPath m || isString m then import m else m;
          args = specialArgs // {
            inherit config lib;
          };
          module =
            if isFunction file then
              file (if functionArgs file == { } then args else intersectAttrs (functionArgs file) args)
            else
              file;
          long = module ? options || module ? config;
        in
        concatMap load (module.imports or [ ])
        ++ [
          {
            key = if isPath m then toString m else null;
            options = module.options or { };
            config = if long then module.config or { } else removeAttrs module [ "imports" ];
          }
        ];
      # A file that is imported twice is one module.
      loaded = foldl' (
        list: m: if m.key != null && any (n: n.key == m.key) list then list else list ++ [ m ]
      ) [ ] (concatMap load modules);

      isOption = o: o._type or "" == "option";
      declare =
        a: b:
        a
        // mapAttrs (
          name: o:
          if !(a ? ${name}) then
            o
          else if isOption o || isOption a.${name} then
            throw "The option `${name}' is declared twice"
          else
            declare a.${name} o
        ) b;
      options = foldl' declare { } (map (m: m.options) loaded);

      eval =
        loc: options: defs:
        let
          values = concatMap pushDown defs;
          unknown = filter (name: !(options ? ${name})) (concatMap attrNames values);
        in
        if unknown != [ ] then
          throw "The option `${show (loc ++ [ (head unknown) ])}' does not exist. (If it is NixOS's, declare it in nix/tests/nixos.nix.)"
        else
          mapAttrs (
            name: o:
            let
              at = loc ++ [ name ];
              mine = map (v: v.${name}) (filter (v: v ? ${name}) values);
              found = strongest mine;
            in
            if !(isOption o) then
              eval at o mine
            else if found != [ ] then
              if o.readOnly or false then
                throw "The option `${show at}' is read-only, but it is set"
              else
                checked o.type at found
            else if o ? default then
              checked o.type at [ o.default ]
            else
              throw "The option `${show at}' is used but not defined"
          ) options;
      config = eval prefix options (map (m: m.config) loaded);
    in
    {
      inherit options config;
    };

  lib = {
    inherit
      all
      any
      attrNames
      attrValues
      concatStringsSep
      evalModules
      types
      unique
      ;
    mkOption = o: o // { _type = "option"; };
    mkEnableOption =
      what:
      lib.mkOption {
        type = types.bool;
        default = false;
        example = true;
        description = "Whether to enable ${what}.";
      };
    mkIf = condition: content: {
      _type = "if";
      inherit condition content;
    };
    mkMerge = contents: {
      _type = "merge";
      inherit contents;
    };
    mkOverride = priority: content: {
      _type = "override";
      inherit priority content;
    };
    mkDefault = lib.mkOverride 1000;
    mkForce = lib.mkOverride 50;
    literalExpression = text: {
      _type = "literalExpression";
      inherit text;
    };
    literalMD = text: {
      _type = "literalMD";
      inherit text;
    };
    mapAttrsToList = f: set: map (name: f name set.${name}) (attrNames set);
    optionals = condition: list: if condition then list else [ ];
    optionalAttrs = condition: set: if condition then set else { };
    filterAttrs =
      keep: set:
      listToAttrs (
        map (name: {
          inherit name;
          value = set.${name};
        }) (filter (name: keep name set.${name}) (attrNames set))
      );
    hasPrefix = prefix: s: substring 0 (stringLength prefix) s == prefix;
    removePrefix =
      prefix: s:
      if lib.hasPrefix prefix s then substring (stringLength prefix) (-1) s else s;
    hasInfix = infix: s: builtins.replaceStrings [ infix ] [ "" ] s != s;
    fileContents = file: builtins.replaceStrings [ "\n" ] [ "" ] (builtins.readFile file);
    getExe = p: "${p}/bin/${p.meta.mainProgram or p.pname}";
    getName = p: p.pname or p.name;
    getExe' = p: name: "${p}/bin/${name}";
    genAttrs =
      names: f:
      listToAttrs (
        map (name: {
          inherit name;
          value = f name;
        }) names
      );
    licenses.mit.spdxId = "MIT";
    platforms.linux = [ "x86_64-linux" ];
  };
in
lib
