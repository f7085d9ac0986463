# cc-ci-run with its environment. Modules use what it carries in passthru, so
# that they name no tool:
#
#   toolset   see toolset.nix
#   path      one directory with cc-ci-run and all of the toolset's commands,
#             for a unit whose PATH it is
#
# Below share/cc-ci-run are the manifest, the runner, the recipes that come with it
# and the schemas of TOML files.
{
  lib,
  buildGoModule,
  go,
  runCommand,
  pkgs,
  # Names that no package of nixpkgs has, or callPackage would fill them in.
  toolsetFile ? ../toolset.toml,
  # The declaration's text, for a caller that has no file of it.
  toolsetText ? builtins.readFile toolsetFile,
  stateDir ? "/var/lib/cc-ci-run",
  alwaysSeal ? false,
}:
let
  toolset = import ./toolset.nix { inherit pkgs toolsetText stateDir alwaysSeal; };

  # What the program is made of. Nothing of nix/, so that a change to a module
  # rebuilds nothing; toolset.toml is put in below.
  src = builtins.path {
    name = "cc-ci-run-source";
    path = ../.;
    filter =
      path: _type:
      let
        name = lib.removePrefix (toString ../. + "/") path;
        among = dir: name == dir || lib.hasPrefix (dir + "/") name;
      in
      name == "docs"
      || lib.any among [
        "cmd"
        "docs/schemas"
        "internal"
        "recipes"
        "runner"
        "go.mod"
        "go.sum"
      ];
  };
  # As go.mod says it.
  goNeeded = builtins.head (builtins.match ".*\ngo ([0-9.]+)\n.*" (builtins.readFile ../go.mod));
  build =
    lib.throwIf (lib.versionOlder go.version goNeeded)
      "cc-ci-run needs Go ${goNeeded}, but this nixpkgs has ${go.version}: use nixos-26.05 or newer"
      buildGoModule;
in
build (finalAttrs: {
  pname = "cc-ci-run";
  version = "0.1.0";
  inherit src;

  # Written by `make vendor-hash`, verified in CI.
  vendorHash = lib.fileContents ./vendor-hash;

  subPackages = [
    "cmd/cc-ci-run"
    "cmd/cc-ci-run-full"
  ];
  env.CGO_ENABLED = 0;
  ldflags = [
    "-s"
    "-w"
    "-E cc-ci-run/internal/entry.start" # before Go's runtime: see there
    "-X main.version=${finalAttrs.version}"
    "-X main.manifest=${placeholder "out"}/share/cc-ci-run/manifest.json"
    "-X main.plan=${placeholder "out"}/share/cc-ci-run/manifest.plan"
    "-X main.program=${placeholder "out"}/bin/cc-ci-run"
    "-X main.full=${placeholder "out"}/libexec/cc-ci-run-full"
  ];

  # A wrong toolset.toml ends the build here, with all its mistakes.
  postBuild = ''
    cp ${toolset.file} toolset.toml
    go run ./cmd/cc-ci-run-full manifest --nix ${toolset.resolved} --out $out/share/cc-ci-run
  '';

  # Those that need no installed environment; the rest need this package.
  checkPhase = ''
    runHook preCheck
    CC_CI_RUN_MANIFEST=$out/share/cc-ci-run/manifest.json go test ./internal/env ./internal/exec ./internal/record ./internal/state ./internal/toolset
    runHook postCheck
  '';
  nativeCheckInputs = toolset.packages;

  postInstall = ''
    go run ./internal/cli/gendocs $out/share
    mkdir $out/libexec
    mv $out/bin/cc-ci-run-full $out/libexec
    cp -r runner recipes docs/schemas $out/share/cc-ci-run
    rm -rf $out/share/cc-ci-run/runner/tests
  '';

  passthru = {
    inherit toolset;
    path = runCommand "cc-ci-run-path" { } ''
      mkdir -p $out/bin $out/share
      ln -s ${toolset.bin}/bin/* ${finalAttrs.finalPackage}/bin/cc-ci-run $out/bin
      ln -s ${finalAttrs.finalPackage}/share/cc-ci-run $out/share
    '';
  };

  meta = {
    description = "Runs every recipe test of a Co-op Cloud CI in one declared environment";
    license = lib.licenses.mit;
    platforms = lib.platforms.linux;
    mainProgram = "cc-ci-run";
  };
})
