# The stand-in as a flake input: --override-input nixpkgs path:build/nixpkgs
{
  outputs =
    { self }:
    let
      lib = import ./lib.nix;
    in
    {
      lib = lib // {
        nixosSystem = args: import ./nixos/lib/eval-config.nix ({ system = null; } // args);
      };
      legacyPackages = lib.genAttrs lib.platforms.linux (system: import ./. { inherit system; });
    };
}
