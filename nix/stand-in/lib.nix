# A small `lib`: as much of nixpkgs' as the modules here use, with its meaning.
# Where the real one warns, this one throws.
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

  # What a type is called as part of another's description: in brackets, unless
  # it is of a class that reads well there (lib/types.nix of nixpkgs).
  phrase =
    classes: t: if elem t.descriptionClass classes then t.description else "(${t.description})";
  mkType = description: descriptionClass: check: merge: {
    _type = "option-type";
    inherit
      description
      descriptionClass
      check
      merge
      ;
    getSubOptions = _: { };
  };
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
      throw "A definition for option `${show loc}' is not of type `${type.description}'";

  isDerivation = v: isAttrs v && v.type or "" == "derivation";

  types = rec {
    bool = mkType "boolean" "noun" isBool one;
    str = mkType "string" "noun" isString one;
    lines = mkType "strings concatenated with \"\\n\"" "noun" isString (_: concatStringsSep "\n");
    path = mkType "absolute path" "noun" (
      p: isPath p || p ? outPath || isString p && substring 0 1 p == "/"
    ) one;
    package = mkType "package" "noun" isDerivation (
      loc: defs: if all (d: d.outPath == (head defs).outPath) defs then head defs else one loc defs
    );
    int = mkType "signed integer" "noun" isInt one;
    ints.positive = mkType "positive integer, meaning >0" "nonRestrictiveClause" (
      n: isInt n && n > 0
    ) one;
    ints.unsigned = mkType "unsigned integer, meaning >=0" "nonRestrictiveClause" (
      n: isInt n && n >= 0
    ) one;
    unspecified = mkType "unspecified value" "noun" (_: true) (
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
    enum =
      values:
      mkType "one of ${concatStringsSep ", " (map toJSON values)}" "conjunction" (v: elem v values) one;
    oneOf =
      ts:
      let
        of = v: head (filter (t: t.check v) ts);
      in
      mkType (concatStringsSep " or " (map (t: t.description) ts)) "conjunction" (
        v: any (t: t.check v) ts
      ) (loc: defs: (of (head defs)).merge loc defs);
    nullOr =
      t:
      mkType "null or ${phrase [ "noun" "conjunction" ] t}" "conjunction" (v: v == null || t.check v) (
        loc: defs: if all (d: d == null) defs then null else t.merge loc (filter (d: d != null) defs)
      )
      // {
        inherit (t) getSubOptions;
      };
    listOf =
      t:
      mkType "list of ${phrase [ "noun" "composite" ] t}" "composite" isList (
        loc: defs: map (v: checked t loc [ v ]) (concatMap (d: concatMap discharge d) defs)
      )
      // {
        getSubOptions = prefix: t.getSubOptions (prefix ++ [ "*" ]);
      };
    attrsOf =
      t:
      mkType "attribute set of ${phrase [ "noun" "composite" ] t}" "composite" isAttrs (
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
      )
      // {
        getSubOptions = prefix: t.getSubOptions (prefix ++ [ "<name>" ]);
      };
    submodule =
      module:
      mkType "submodule" "" (v: isAttrs v || isFunction v || isPath v) (
        loc: defs:
        (evalModules {
          modules = [ module ] ++ defs;
          prefix = loc;
        }).config
      )
      // {
        getSubOptions =
          prefix:
          (evalModules {
            modules = [ module ];
            inherit prefix;
          }).options;
      };
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
      locate = loc: mapAttrs (
        name: o:
        if isOption o then o // { loc = loc ++ [ name ]; } else locate (loc ++ [ name ]) o
      );
      options = locate prefix (foldl' declare { } (map (m: m.options) loaded));

      eval =
        loc: options: defs:
        let
          values = concatMap pushDown defs;
          unknown = filter (name: !(options ? ${name})) (concatMap attrNames values);
        in
        if unknown != [ ] then
          throw "The option `${show (loc ++ [ (head unknown) ])}' does not exist. (If it is NixOS's, declare it in nix/stand-in/nixos/options.nix.)"
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
    inherit isDerivation;
    inherit (builtins) filter foldl' listToAttrs mapAttrs;
    concatMapStrings = f: list: concatStringsSep "" (map f list);
    optionalString = condition: text: if condition then text else "";
    throwIf = condition: text: if condition then throw text else (x: x);
    splitString = separator: text: filter isString (builtins.split (lib.escapeRegex separator) text);
    escapeRegex = builtins.replaceStrings [ "." ] [ "[.]" ];
    hasAttrByPath =
      path: set:
      path == [ ]
      || isAttrs set && set ? ${head path} && lib.hasAttrByPath (builtins.tail path) set.${head path};
    versionOlder = a: b: builtins.compareVersions a b < 0;
    nameValuePair = name: value: { inherit name value; };
    toList = v: if isList v then v else [ v ];
    last = list: builtins.elemAt list (length list - 1);
    warn = text: builtins.trace "evaluation warning: ${text}";
    mkOption =
      {
        type ? types.unspecified,
        ...
      }@o:
      let
        unknown = attrNames (
          removeAttrs o [
            "default"
            "defaultText"
            "description"
            "example"
            "internal"
            "readOnly"
            "type"
            "visible"
          ]
        );
      in
      if unknown == [ ] then
        o // { inherit type; _type = "option"; }
      else
        throw "mkOption: it takes no ${head unknown}";
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
    removeSuffix =
      suffix: s:
      let
        n = stringLength s - stringLength suffix;
      in
      if n >= 0 && substring n (-1) s == suffix then substring 0 n s else s;
    fileContents = file: lib.removeSuffix "\n" (builtins.readFile file);
    getExe =
      p:
      "${lib.getBin p}/bin/${
        p.meta.mainProgram or (throw "getExe: ${lib.getName p} has no meta.mainProgram")
      }";
    getOutput =
      name: p: if p.outputSpecified or false then p else p.${name} or p.out or p;
    getBin = lib.getOutput "bin";
    getDev = lib.getOutput "dev";
    getName = p: p.pname or p.name;
    fix =
      f:
      let
        x = f x;
      in
      x;
    extends =
      overlay: f: final:
      let
        prev = f final;
      in
      prev // overlay final prev;
    getExe' = p: name: "${lib.getBin p}/bin/${name}";
    genAttrs =
      names: f:
      listToAttrs (
        map (name: {
          inherit name;
          value = f name;
        }) names
      );
    licenses = {
      mit = {
        spdxId = "MIT";
        free = true;
      };
      gpl3Plus = {
        spdxId = "GPL-3.0-or-later";
        free = true;
      };
      unfree.free = false;
    };
    platforms.linux = [
      "x86_64-linux"
      "aarch64-linux"
    ];
    generators.toPretty =
      {
        multiline ? true,
        allowPrettyValues ? false,
      }:
      let
        pretty =
          indent: v:
          let
            within = "\n${indent}  ";
          in
          if isString v || isBool v || isInt v || v == null then
            toJSON v
          else if v == [ ] then
            "[ ]"
          else if isList v then
            "[${within}${concatStringsSep within (map (pretty (indent + "  ")) v)}\n${indent}]"
          else if v == { } then
            "{ }"
          else
            "{${within}${
              concatStringsSep within (
                map (name: "${key name} = ${pretty (indent + "  ") v.${name}};") (attrNames v)
              )
            }\n${indent}}";
        key = name: if builtins.match "[a-zA-Z_][a-zA-Z0-9_'-]*" name != null then name else toJSON name;
      in
      pretty "";
    # Of each option what a page about it needs.
    optionAttrSetToDocList =
      options:
      concatMap (
        o:
        let
          render =
            v: if v._type or null != null && v ? text then v else lib.literalExpression (pretty v);
          pretty = lib.generators.toPretty { allowPrettyValues = true; };
        in
        if o._type or "" != "option" then
          lib.optionAttrSetToDocList o
        else
          [
            (
              {
                inherit (o) loc;
                name = show o.loc;
                description = o.description or null;
                declarations = [ ];
                internal = o.internal or false;
                visible = o.visible or true;
                readOnly = o.readOnly or false;
                type = o.type.description;
              }
              // lib.optionalAttrs (o ? example) { example = render o.example; }
              // lib.optionalAttrs (o ? default || o ? defaultText) {
                default = render (o.defaultText or o.default);
              }
            )
          ]
          ++ lib.optionAttrSetToDocList (o.type.getSubOptions o.loc)
      ) (attrValues options);
  };
in
lib
