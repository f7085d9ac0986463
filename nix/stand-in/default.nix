# A stand-in for nixpkgs, for machines without it. What is built with it really
# runs, since its packages are links to this machine's own tools. It differs
# from nixpkgs in these ways, and is meant to in no other:
#
# - Only the names in names.json exist, each with the outputs that it was seen
#   to have in a real nixpkgs: `make nixos NIXPKGS=DIR` looks.
# - A package has the commands that toolset.toml expects of it. What Debian has
#   no package for is a program that says that it is a stand-in.
# - Packages are built outside of Nix's sandbox, since they lead out of the
#   store; a Go package is built within, as nixpkgs' would be.
# - Nothing is compiled but Go, and nothing is fetched but Go modules.
#
# scripts/stand-in copies this directory to build/nixpkgs and puts two files
# beside it: toolset.toml, and machine.json with
#
#   go         directory of the Go tree
#   goVersion  its version
#   site       python/KEY of the host backend: Python's installed packages
#   installed  what site/complete.json says of them
#   browsers   the host backend's browsers directory
{
  system ? builtins.currentSystem,
  config ? { },
  overlays ? [ ],
}:
let
  inherit (builtins)
    attrNames
    concatMap
    concatStringsSep
    elem
    filter
    foldl'
    fromJSON
    head
    isString
    listToAttrs
    placeholder
    readFile
    split
    tail
    ;
  lib = import ./lib.nix;
  names = fromJSON (readFile ./names.json);
  machine = fromJSON (readFile ./machine.json);
  declared = builtins.fromTOML (readFile ./toolset.toml);

  # A derivation as mkDerivation returns it: each output has what the whole
  # has, and a package whose license is not free exists for those who allow it.
  finish =
    attrs: drv:
    let
      common =
        attrs
        // listToAttrs (
          map (name: {
            inherit name;
            value = drv.${name} // common // { outputSpecified = true; };
          }) (drv.outputs or [ "out" ])
        )
        // lib.optionalAttrs (refusal != null) {
          outPath = throw refusal;
          drvPath = throw refusal;
        };
      refusal =
        if !(attrs.meta.license.free or true || allowed attrs) then
          "${attrs.pname} has an unfree license: nixpkgs.config.allowUnfreePredicate"
        else if attrs.meta.broken or false then
          "${attrs.pname} is marked as broken"
        else if !(elem system (attrs.meta.platforms or [ system ])) then
          "${attrs.pname} is not available on ${system}"
        else
          null;
    in
    drv
    // common
    // {
      overrideAttrs = change: finish (attrs // change (attrs // { meta = attrs.meta or { }; })) drv;
    };
  allowed = attrs: config.allowUnfree or false || (config.allowUnfreePredicate or (_: false)) attrs;

  # What stdenv's setup.sh sets. Without the `:` Bash would become the last
  # command: if that closes stdout and stderr just before it ends, as coreutils
  # do, Nix (2.26 was seen to) takes the build for done and kills it.
  shell = script: [
    "-euc"
    "set -o pipefail; shopt -s inherit_errexit nullglob\n${script}\n:"
  ];
  runCommand =
    name: env: script:
    finish { pname = name; } (
      derivation (
        {
          inherit name system;
          builder = "/bin/bash";
          args = shell script;
          PATH = "/usr/bin:/bin:${machine.go}/bin";
          __noChroot = true;
        }
        // env
      )
    );
  writeText =
    name: text:
    runCommand name {
      inherit text;
      passAsFile = [ "text" ];
    } "cp $textPath $out";
  # Commands that say what they are.
  program = name: ''
    printf '#!/bin/sh\necho "%s: a stand-in: this machine has none" >&2\nexit 127\n' '${name}' > "$commands/bin/${name}"
    chmod +x "$commands/bin/${name}"
  '';

  # A package of names.json by its attribute path.
  package =
    attr:
    let
      fact = names.packages.${attr};
      pname = fact.pname or attr;
      tools = filter (t: t.nix == attr) declared.tool;
      files = foldl' (a: t: a // (t.files or { })) { } tools;
      bin = lib.optionals (elem "bin" fact.outputs) [ "bin" ] ++ [ "out" ];
      # The output that is asked for by name has the commands if any has.
      commands = if fact ? output && elem fact.output fact.outputs then fact.output else head bin;
      link =
        c:
        if lib.all (t: t.debian == "") tools then
          program c
        else
          ''
            for file in ${files.${c} or "/usr/bin/${c} /usr/sbin/${c}"} none; do
              [ -x "$file" ] && break
            done
            [ "$file" != none ] || { echo "${attr}: this machine has no ${c}" >&2; exit 1; }
            ln -sf "$file" "$commands/bin/${c}"
          '';
      whole =
        finish
          {
            inherit pname;
            version = "host";
            meta = {
              license.free = !(fact.unfree or false);
            }
            // lib.optionalAttrs (fact ? mainProgram) { inherit (fact) mainProgram; };
          }
          (
            runCommand pname
              {
                inherit (fact) outputs;
              }
              ''
                for output in $outputs; do mkdir -p "''${!output}"; done
                commands=''$${commands}
                mkdir -p "$commands/bin"
                ${
                  if attr == declared.browsers.nix then
                    "rmdir $commands/bin $out; cp -r ${machine.browsers} $out"
                  else if tools != [ ] then
                    concatStringsSep "\n" (map link (concatMap (t: t.commands) tools))
                  else
                    # Variables point into its data, which is this machine's.
                    ''
                      ${program (fact.mainProgram or pname)}
                      mkdir -p $out/lib/locale
                      touch $out/lib/locale/locale-archive
                      ln -s /usr/share $out/share
                    ''
                }
              ''
          );
    in
    if fact ? output && elem fact.output fact.outputs then whole.${fact.output} else whole;

  # { glibc.bin = …; git = …; } from "glibc.bin", "git"
  tree = foldl' (
    set: attr:
    let
      insert =
        set: parts:
        set
        // {
          ${head parts} =
            if tail parts == [ ] then
              package attr // (set.${head parts} or { })
            else
              insert (set.${head parts} or { }) (tail parts);
        };
    in
    insert set (filter isString (split "[.]" attr))
  ) { } (attrNames names.packages);

  python3 = {
    pname = "python3";
    inherit (machine.installed) version;
    pkgs = listToAttrs (
      map (name: {
        inherit name;
        value = {
          pname = name;
          inherit
            (head (filter (p: p.name == name) machine.installed.packages))
            version
            ;
        };
      }) names.python
    );
    # All packages that the host backend installed, whichever are asked for.
    withPackages =
      choose:
      builtins.seq (builtins.deepSeq (choose python3.pkgs) null) (
        runCommand "python3-env" { } ''
          mkdir -p $out/bin
          cp -r ${machine.site}/lib ${machine.site}/pyvenv.cfg $out
          ln -s $(readlink -f ${machine.site}/bin/python3) $out/bin/python3
          ln -s python3 $out/bin/python
          for script in ${concatStringsSep " " declared.python.commands}; do
            [ -e $out/bin/$script ] || sed "s,${machine.site},$out,g" ${machine.site}/bin/$script > $out/bin/$script
            chmod +x $out/bin/$script
          done
        ''
        // {
          # nixpkgs wraps Python by this; what is here is not wrapped.
          postBuild = ''
            makeWrapper "python3" "$out/bin/$prg" \
              --set PYTHONNOUSERSITE "true" \
            makeWrapper "$path/bin/$prg" "$out/bin/$prg" \
              --set NIX_PYTHONPREFIX "$out" \
              --set NIX_PYTHONEXECUTABLE ${placeholder "out"}/bin/python3 \
              --set NIX_PYTHONPATH ${placeholder "out"}/lib \
              --set PYTHONNOUSERSITE "true" \
          '';
        }
      );
  };

  # nixpkgs fetches; nobody can here, so this is a program of that name.
  fetchFromGitea =
    {
      domain,
      owner,
      repo,
      rev,
      hash,
    }:
    runCommand "source" { } ''
      mkdir -p $out/cmd/${repo} $out/vendor
      printf 'module ${domain}/${owner}/${repo}\n\ngo 1.21\n' > $out/go.mod
      touch $out/vendor/modules.txt
      cat > $out/cmd/${repo}/main.go <<'EOF'
      package main

      import "os"

      var Version string

      func main() {
        os.Stderr.WriteString("${repo} " + Version + ": a stand-in: ${rev} (${hash}) was not fetched\n")
        os.Exit(127)
      }
      EOF
    '';

  # Of busybox, what stdenv's own packages bring.
  stdenvCommands = filter isString (
    split "[ \n]+" (
      "[ awk basename bunzip2 bzcat bzip2 cat chgrp chmod chown cksum cmp comm cp cut date dd df diff dirname du "
      + "echo egrep env expand expr factor false fgrep find fold grep groups gunzip gzip head hostid id install "
      + "link ln logname ls md5sum mkdir mkfifo mknod mktemp mv nice nl nohup nproc od paste patch printenv "
      + "printf pwd readlink realpath rm rmdir sed seq sha1sum sha256sum sha512sum shred shuf sleep sort split "
      + "stat stty sum sync tac tail tar tee test timeout touch tr true truncate tsort tty uname unexpand uniq "
      + "unlink unxz wc who whoami xargs xz xzcat yes zcat"
    )
  );

  # As nixpkgs' does it: the modules are fetched by a derivation whose output
  # is fixed by vendorHash, or are in the source; then `go build` runs, and the
  # checks, in the sandbox: its /bin/sh is a static busybox, and nothing of the
  # machine is there but a static Bash and Go (scripts/with-stand-in).
  buildGoModule =
    function:
    let
      attrs = function (attrs // { finalPackage = package; });
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
      postBuild ? "",
      checkPhase ? "",
      nativeCheckInputs ? [ ],
      postInstall ? "",
      passthru ? { },
      meta ? { },
    }:
    let
      goModules =
        runCommand "${pname}-go-modules"
          {
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
          }
          ''
            export HOME=$TMPDIR GOPATH=$TMPDIR/go GOFLAGS=-modcacherw
            cp -r ${src} source && chmod -R u+w source && cd source
            go mod vendor
            cp -r vendor $out
          '';
      drv = derivation (
        {
          name = "${pname}-${version}";
          inherit system nativeCheckInputs;
          builder = "/nix/stand-in/bash";
          args = shell ''
            runHook() { :; }
            /nix/stand-in/busybox mkdir /tmp/bin
            for name in ${concatStringsSep " " stdenvCommands}; do
              /nix/stand-in/busybox ln -s /nix/stand-in/busybox /tmp/bin/$name
            done
            export PATH=/tmp/bin:/nix/stand-in/go/bin
            export HOME=/homeless-shelter GOCACHE=$TMPDIR/go-cache GOPATH=$TMPDIR/go GOFLAGS='-mod=vendor -trimpath' GOPROXY=off GOSUMDB=off
            cp -r ${src} source && chmod -R u+w source && cd source
            ${if vendorHash == null then "" else "rm -rf vendor && cp -r ${goModules} vendor"}
            mkdir -p $out/bin
            go build -o $out/bin/ -ldflags '${concatStringsSep " " ldflags} -buildid=' ${
              concatStringsSep " " (map (p: "./${p}") subPackages)
            }
            ${postBuild}
            (
              PATH=${concatStringsSep ":" (map (p: "${lib.getDev p}/bin") nativeCheckInputs)}:$PATH
              ${checkPhase}
            )
            ${postInstall}
            ! grep -rqF /nix/stand-in $out || { echo "$out refers to what built it" >&2; exit 1; }
          '';
        }
        // env
      );
    in
    finish (
      {
        inherit
          pname
          version
          meta
          goModules
          ;
        nativeBuildInputs = map lib.getDev nativeCheckInputs;
      }
      // passthru
    ) drv;

  base =
    pkgs:
    tree
    // {
      inherit
        buildGoModule
        config
        fetchFromGitea
        lib
        pkgs
        python3
        runCommand
        system
        writeText
        ;
      go.version = machine.goVersion;
      writeTextFile =
        {
          name,
          text,
          destination,
        }:
        runCommand name {
          inherit text destination;
          passAsFile = [ "text" ];
        } "mkdir -p $(dirname $out$destination); cp $textPath $out$destination";
      stdenv.hostPlatform = { inherit system; };
      callPackage =
        f: args:
        let
          function = if builtins.isFunction f then f else import f;
          result = function (builtins.intersectAttrs (builtins.functionArgs function) pkgs // args);
        in
        result // { override = more: pkgs.callPackage f (args // more); };
      extend = overlay: import ./. {
        inherit system config;
        overlays = overlays ++ [ overlay ];
      };
      closureInfo =
        { rootPaths }:
        runCommand "closure-info"
          {
            exportReferencesGraph = concatMap (p: [
              "graph-${baseNameOf (builtins.unsafeDiscardStringContext (toString p))}"
              p
            ]) rootPaths;
          }
          ''
            mkdir $out
            # Of each record of the graph the first line is the path, the second
            # its deriver, the third the number of lines of references that follow.
            awk 'skip > 0 { skip--; next }
                 state == 0 { print; state = 1; next }
                 state == 1 { state = 2; next }
                 { skip = $0; state = 0 }' graph-* | sort -u > $out/store-paths
          '';
      # The shell is a derivation, and `packages` are among its inputs.
      mkShellNoCC =
        {
          packages ? [ ],
          inputsFrom ? [ ],
        }:
        derivation {
          name = "nix-shell";
          inherit system;
          builder = "/bin/bash";
          nativeBuildInputs = map lib.getDev (
            packages ++ concatMap (p: p.nativeBuildInputs or [ ]) inputsFrom
          );
        };
      nixosOptionsDoc =
        { options }:
        {
          optionsNix = listToAttrs (
            map (o: {
              inherit (o) name;
              value = removeAttrs o [
                "internal"
                "name"
                "visible"
              ];
            }) (filter (o: o.visible && !o.internal) (lib.optionAttrSetToDocList options))
          );
        };
      # Its machines are evaluated; it boots none.
      testers.runNixOSTest =
        {
          name,
          nodes,
          testScript,
        }:
        let
          evaluated = builtins.mapAttrs (
            _: node:
            (import ./nixos/lib/eval-config.nix {
              inherit system;
              modules = [
                node
                { nixpkgs = { inherit overlays; }; }
                ./nixos/vm.nix
              ];
            }).config
          ) nodes;
        in
        runCommand "vm-test-run-${name}" {
          toplevels = map (node: node.system.build.toplevel) (lib.attrValues evaluated);
          script = if builtins.isFunction testScript then testScript { nodes = evaluated; } else testScript;
        } "echo '${name}: a stand-in: no machine was booted' >&2; exit 1";
      # nixpkgs has packages of such names, too: an argument of package.nix that
      # is called like one gets it.
      file = throw "callPackage took pkgs.file for an argument";
      path = throw "callPackage took pkgs.path for an argument";
      state = throw "callPackage took pkgs.state for an argument";
    };
in
if
  elem system [
    "x86_64-linux"
    "aarch64-linux"
  ]
then
  lib.fix (foldl' (f: overlay: lib.extends overlay f) base overlays)
else
  throw "the stand-in has no packages for ${system}"
