# A small `pkgs` for machines without nixpkgs: its packages are this machine's
# own tools, so that what is built with it really runs.
#
#   toolset   the toolset that says which packages there must be
#   go        the directory of Go's `go` command
#   site      python/KEY of the host backend: Python's installed packages
#   browsers  the host backend's browsers directory
{
  toolset,
  go,
  site,
  browsers,
}:
let
  inherit (builtins)
    concatMap
    concatStringsSep
    filter
    foldl'
    isString
    mapAttrs
    split
    toString
    ;
  lib = import ./lib.nix;
  declared = builtins.fromTOML (builtins.readFile toolset);
  system = builtins.currentSystem;

  runCommand =
    name: attrs: script:
    derivation (
      {
        inherit name system;
        builder = "/bin/bash";
        # Bash would become the last command. If that closes stderr just before
        # it ends, as coreutils do, Nix 2.8 takes the build for done and kills it.
        args = [
          "-euc"
          "${script}\n:"
        ];
        PATH = "/usr/bin:/bin:${go}";
      }
      // attrs
    )
    // {
      pname = name;
    };

  # Of a package, the commands that the toolset expects of it, as links to this
  # machine's files; where Debian has no package, stand-ins that say so.
  wrap =
    attr:
    let
      tools = filter (t: t.nix == attr) declared.tool;
      files = foldl' (a: t: a // (t.files or { })) { } tools;
    in
    runCommand (builtins.replaceStrings [ "." ] [ "-" ] attr) { } ''
      mkdir -p $out/bin
      link() {
        for file in ''${2-/usr/bin/$1 /usr/sbin/$1}; do
          if [ -x "$file" ]; then
            ln -sf "$file" "$out/bin/$1"
            return
          fi
        done
        ${
          if builtins.all (t: t.debian == "") tools then
            ''
              printf '#!/bin/sh\necho "%s: a stand-in: this machine has none" >&2\nexit 127\n' "$1" > "$out/bin/$1"
              chmod +x "$out/bin/$1"
            ''
          else
            ''
              echo "${attr}: this machine has no $1" >&2
              exit 1
            ''
        }
      }
      ${concatStringsSep "\n" (
        map (c: "link '${c}'" + (if files ? ${c} then " ${files.${c}}" else "")) (
          concatMap (t: t.commands) tools
        )
      )}
    ''
    // {
      version = "host";
    };

  # { glibc.bin = …; git = …; } from "glibc.bin", "git"
  tree = make: foldl' (
    set: attr:
    let
      parts = filter isString (split "[.]" attr);
      insert =
        set: parts:
        if builtins.length parts == 1 then
          set // { ${builtins.head parts} = make attr // (set.${builtins.head parts} or { }); }
        else
          set
          // {
            ${builtins.head parts} = insert (set.${builtins.head parts} or { }) (builtins.tail parts);
          };
    in
    insert set parts
  ) { };
  tools = tree wrap (lib.unique (map (t: t.nix) declared.tool));
  browserPackage = tree (
    _: runCommand "browsers" { } "cp -r ${browsers} $out" // { version = "host"; }
  ) [ declared.browsers.nix ];
  # Packages that variables point into: this machine's data.
  data = tree (
    attr:
    runCommand attr { } ''
      mkdir -p $out/lib/locale
      touch $out/lib/locale/locale-archive
      ln -s /usr/share $out/share
    ''
  ) (
    concatMap (value: map builtins.head (filter builtins.isList (split "[{]([^{}]*)[}]" value))) (
      builtins.attrValues declared.environment.nix
    )
  );

  installed = builtins.fromJSON (builtins.readFile "${site}/complete.json");
  python3 = {
    pname = "python3";
    inherit (installed) version;
    pkgs = builtins.listToAttrs (
      map (name: {
        inherit name;
        value = {
          pname = name;
          inherit (builtins.head (filter (p: p.name == name) installed.packages)) version;
        };
      }) declared.python.packages
    );
    # All packages that the host backend installed, whichever are asked for.
    withPackages =
      choose:
      builtins.seq (builtins.deepSeq (choose python3.pkgs) null) (
        runCommand "python3-env" { } ''
          mkdir -p $out/bin
          cp -r ${site}/lib ${site}/pyvenv.cfg $out
          ln -s $(readlink -f ${site}/bin/python3) $out/bin/python3
          ln -s python3 $out/bin/python
          for script in ${concatStringsSep " " declared.python.commands}; do
            [ -e $out/bin/$script ] || sed "s,${site},$out,g" ${site}/bin/$script > $out/bin/$script
            chmod +x $out/bin/$script
          done
        ''
        // {
          version = "host";
        }
      );
  };

  # As nixpkgs' does it: the modules are fetched by a derivation whose output
  # is fixed by vendorHash, then `go build` runs without a network.
  buildGoModule =
    function:
    let
      attrs = function {
        inherit (attrs) version;
        finalPackage = package;
      };
      package = goPackage attrs;
    in
    package;
  goPackage =
    {
      pname,
      version,
      src,
      vendorHash,
      subPackages,
      env ? { },
      ldflags ? [ ],
      checkPhase ? "",
      nativeCheckInputs ? [ ],
      postInstall ? "",
      passthru ? { },
      meta ? { },
    }:
    let
      goModules = runCommand "${pname}-go-modules" {
        outputHashMode = "recursive";
        outputHashAlgo = null;
        outputHash = vendorHash;
        impureEnvVars = [
          "GOPROXY"
          "GOSUMDB"
          "SSL_CERT_FILE"
          "http_proxy"
          "https_proxy"
        ];
      } ''
        export HOME=$TMPDIR GOPATH=$TMPDIR/go GOFLAGS=-modcacherw
        cp -r ${src} source && chmod -R u+w source && cd source
        go mod vendor
        cp -r vendor $out
      '';
    in
    runCommand "${pname}-${version}" env ''
      runHook() { :; }
      export HOME=$TMPDIR GOCACHE=$TMPDIR/cache GOFLAGS='-mod=vendor -trimpath -buildvcs=false' GOPROXY=off
      cp -r ${src} source && chmod -R u+w source && cd source
      cp -r ${goModules} vendor
      mkdir -p $out/bin
      go build -o $out/bin/ -ldflags '${concatStringsSep " " ldflags}' ${
        concatStringsSep " " (map (p: "./${p}") subPackages)
      }
      (
        PATH=${concatStringsSep ":" (map (p: "${p}/bin") nativeCheckInputs)}:$PATH
        ${checkPhase}
      )
      ${postInstall}
    ''
    // passthru
    // {
      inherit pname version meta goModules;
    };

  callPackage =
    f: args:
    let
      function = if builtins.isFunction f then f else import f;
      result = function (builtins.intersectAttrs (builtins.functionArgs function) pkgs // args);
    in
    result // { override = more: callPackage f (args // more); };

  pkgs = tools // browserPackage // data // {
    inherit
      buildGoModule
      callPackage
      lib
      pkgs
      python3
      runCommand
      ;
    writeText =
      name: text:
      runCommand name {
        inherit text;
        passAsFile = [ "text" ];
      } "cp $textPath $out";
    closureInfo =
      { rootPaths }:
      runCommand "closure-info" {
        exportReferencesGraph = concatMap (p: [
          "graph-${baseNameOf (builtins.unsafeDiscardStringContext (toString p))}"
          p
        ]) rootPaths;
      } ''
        mkdir $out
        # Of each record of the graph the first line is the path, the second
        # its deriver, the third the number of lines of references that follow.
        awk 'skip > 0 { skip--; next }
             state == 0 { print; state = 1; next }
             state == 1 { state = 2; next }
             { skip = $0; state = 0 }' graph-* | sort -u > $out/store-paths
      '';
    mkShellNoCC = attrs: { inherit (attrs) packages; };
    drone-runner-exec = runCommand "drone-runner-exec" { } ''
      mkdir -p $out/bin
      printf '#!/bin/sh\necho "a stand-in for drone-runner-exec" >&2\nexit 1\n' > $out/bin/drone-runner-exec
      chmod +x $out/bin/drone-runner-exec
    '';
    # nixpkgs has packages of such names, too: an argument of package.nix that
    # is called like one gets it.
    file = throw "callPackage took pkgs.file for an argument";
    path = throw "callPackage took pkgs.path for an argument";
    state = throw "callPackage took pkgs.state for an argument";
    cc-ci-run = callPackage ../package.nix { toolsetFile = toolset; };
  };
in
pkgs
