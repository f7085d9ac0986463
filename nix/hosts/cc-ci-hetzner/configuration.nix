# cc-ci-hetzner: a virtual machine in Hetzner's cloud.
{
  imports = [ ../common.nix ];

  networking = {
    hostName = "cc-ci-hetzner";
    useDHCP = false;
    interfaces.enp1s0 = {
      useDHCP = true; # IPv4 comes by DHCP, IPv6 is the machine's own /64
      ipv6.addresses = [
        {
          address = "2001:db8:c0:ffee::1";
          prefixLength = 64;
        }
      ];
    };
    defaultGateway6 = {
      address = "fe80::1";
      interface = "enp1s0";
    };
  };

  nixpkgs.hostPlatform = "x86_64-linux";
  boot = {
    loader.grub = {
      enable = true;
      device = "/dev/sda";
    };
    initrd.availableKernelModules = [
      "ahci"
      "virtio_pci"
      "virtio_scsi"
      "sd_mod"
      "sr_mod"
    ];
  };
  fileSystems."/" = {
    device = "/dev/sda1";
    fsType = "ext4";
  };
}
