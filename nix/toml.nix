# A set as TOML: each key of the top on a line, what is below it inline. A
# package, or another set that is meant as a text, is its path; a path is
# copied to the store, as systemd's units have it; null is left out.
let
  inherit (builtins)
    attrNames
    concatStringsSep
    filter
    fromJSON
    isAttrs
    isFunction
    isList
    map
    replaceStrings
    toJSON
    ;
  # TOML takes JSON's strings but for DEL, which it wants escaped.
  scalar = value: replaceStrings [ (fromJSON ''"\u007f"'') ] [ "\\u007f" ] (toJSON value);
  # toJSON makes a text of these, too.
  isText = value: value ? outPath || value ? __toString;
  keys = set: filter (name: set.${name} != null) (attrNames set);
  inline =
    at: value:
    if isAttrs value && !(isText value) then
      "{ ${
        concatStringsSep ", " (
          map (name: "${scalar name} = ${inline "${at}.${name}" value.${name}}") (keys value)
        )
      } }"
    else if isList value then
      "[${concatStringsSep ", " (map (inline at) value)}]"
    else if isFunction value || value == null then
      throw "${at}: ${if value == null then "null in a list" else "a function"} cannot be written as TOML"
    else
      scalar value;
in
set:
concatStringsSep "" (map (name: "${scalar name} = ${inline name set.${name}}\n") (keys set))
