# cc-ci: the machine in the co-op's own rack.
{
  imports = [ ../common.nix ];

  networking.hostName = "cc-ci";
  networking.useDHCP = true;

  nixpkgs.hostPlatform = "x86_64-linux";
  boot = {
    loader.systemd-boot.enable = true;
    loader.efi.canTouchEfiVariables = true;
    initrd.availableKernelModules = [
      "ahci"
      "nvme"
      "xhci_pci"
      "sd_mod"
    ];
    kernelModules = [ "kvm-intel" ];
  };
  fileSystems = {
    "/" = {
      device = "/dev/disk/by-label/nixos";
      fsType = "ext4";
    };
    "/boot" = {
      device = "/dev/disk/by-label/boot";
      fsType = "vfat";
    };
  };
  swapDevices = [ { device = "/dev/disk/by-label/swap"; } ];
}
