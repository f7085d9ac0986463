# cc-ci-run with its environment. Modules use what it carries in passthru, so
# that they name no tool:
#
#   toolset   see toolset.nix
#   path      one directory with cc-ci-run and all of the toolset's commands,
#             for a unit whose PATH it is
#   runner    run_recipe_ci.py
#   recipes   the recipes that come with it
{
  lib,
  buildGoModule,
  runCommand,
  pkgs,
  file ? ../toolset.toml,
  state ? "/var/lib/cc-ci-run",
}:
let
  toolset = import ./toolset.nix { inherit pkgs file state; };

  # What the program is made of. Nothing of nix/, so that a change to a module
  # rebuilds nothing; toolset.toml reaches it through the manifest.
  src = builtins.path {
    name = "cc-ci-run-source";
    path = ../.;
    filter =
      path: _type:
      let
        name = lib.removePrefix (toString ../. + "/") path;
        among = dir: name == dir || lib.hasPrefix (dir + "/") name;
      in
      lib.any among [
        "cmd"
        "internal"
        "recipes"
        "runner"
        "go.mod"
        "go.sum"
        "toolset.toml"
      ];
  };

  cc-ci-run = buildGoModule {
    pname = "cc-ci-run";
    version = "0.1.0";
    inherit src;

    # Written by `make vendor-hash`, verified in CI.
    vendorHash = lib.fileContents ./vendor-hash;

    subPackages = [ "cmd/cc-ci-run" ];
    env.CGO_ENABLED = 0;
    ldflags = [
      "-s"
      "-w"
      "-X main.version=0.1.0"
      "-X main.manifest=${toolset.manifest}"
    ];

    # Those that need no installed environment; the rest need this package.
    checkPhase = ''
      runHook preCheck
      CC_CI_RUN_MANIFEST=${toolset.manifest} go test ./internal/env ./internal/record
      runHook postCheck
    '';
    nativeCheckInputs = toolset.packages;

    postInstall = ''
      go run ./internal/cli/gendocs $out/share
      mkdir -p $out/share/cc-ci-run
      cp -r runner recipes $out/share/cc-ci-run
      rm -rf $out/share/cc-ci-run/runner/tests
      ln -s ${toolset.manifest} $out/share/cc-ci-run/manifest.json
    '';

    passthru = {
      inherit toolset;
      runner = "${cc-ci-run}/share/cc-ci-run/runner/run_recipe_ci.py";
      recipes = "${cc-ci-run}/share/cc-ci-run/recipes";
      path = runCommand "cc-ci-run-path" { } ''
        mkdir -p $out/bin
        ln -s ${toolset.bin}/bin/* ${cc-ci-run}/bin/cc-ci-run $out/bin
      '';
    };

    meta = {
      description = "Runs every recipe test of a Co-op Cloud CI in one declared environment";
      license = lib.licenses.mit;
      platforms = lib.platforms.linux;
      mainProgram = "cc-ci-run";
    };
  };
in
cc-ci-run
