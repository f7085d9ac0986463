# Options that only machines of NixOS tests have.
{ lib, ... }:
{
  options.virtualisation = lib.genAttrs [ "memorySize" "diskSize" ] (
    _:
    lib.mkOption {
      type = lib.types.ints.positive;
      default = 1024;
    }
  );
}
