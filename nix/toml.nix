# A set as TOML: each key of the top on a line, what is below it inline.
let
  inherit (builtins)
    attrNames
    concatStringsSep
    filter
    isAttrs
    isList
    map
    toJSON
    ;
  inline =
    value:
    if isAttrs value then
      "{ ${concatStringsSep ", " (map (name: "${toJSON name} = ${inline value.${name}}") (attrNames value))} }"
    else if isList value then
      "[${concatStringsSep ", " (map inline value)}]"
    else
      toJSON value;
in
set:
concatStringsSep "" (
  map (name: "${toJSON name} = ${inline set.${name}}\n") (
    filter (name: set.${name} != null) (attrNames set)
  )
)
