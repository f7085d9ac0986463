{
  description = "Runs every recipe test of a Co-op Cloud CI in one declared environment";

  inputs.nixpkgs.url = "github:NixOS/nixpkgs/nixos-26.05";

  outputs =
    { self, nixpkgs }:
    let
      inherit (nixpkgs) lib;
      forAll =
        f:
        lib.genAttrs [ "x86_64-linux" "aarch64-linux" ] (
          system: f (nixpkgs.legacyPackages.${system}.extend self.overlays.default)
        );
      host =
        configuration:
        lib.nixosSystem {
          modules = [
            { nixpkgs.overlays = [ self.overlays.default ]; }
            configuration
          ];
        };
    in
    {
      overlays.default = import ./nix/overlay.nix;

      packages = forAll (pkgs: {
        inherit (pkgs) cc-ci-run;
        default = pkgs.cc-ci-run;
      });

      apps = forAll (pkgs: {
        default = {
          type = "app";
          program = lib.getExe pkgs.cc-ci-run;
          meta = { inherit (pkgs.cc-ci-run.meta) description; };
        };
        deploy = {
          type = "app";
          program = "${./scripts/deploy}";
          meta.description = "Build a host, switch to it, and roll back if it does not become healthy";
        };
      });

      devShells = forAll (pkgs: {
        default = import ./nix/shell.nix {
          inherit pkgs;
          inherit (pkgs) cc-ci-run;
        };
      });

      nixosModules = {
        default = ./nix/modules;
        harness = ./nix/modules/harness.nix;
        drone-runner = ./nix/modules/drone-runner.nix;
        nightly-sweep = ./nix/modules/nightly-sweep.nix;
        host = ./nix/modules/host.nix;
      };

      nixosConfigurations = {
        cc-ci = host ./nix/hosts/cc-ci/configuration.nix;
        cc-ci-hetzner = host ./nix/hosts/cc-ci-hetzner/configuration.nix;
      };

      checks = forAll (pkgs: {
        inherit (pkgs) cc-ci-run;
        inherit
          (import ./nix/tests {
            inherit pkgs;
            flake = self;
          })
          proofs
          ;
        vm = import ./nix/tests/vm.nix { inherit pkgs; };
      });

      formatter = forAll (pkgs: pkgs.nixfmt-tree);
    };
}
