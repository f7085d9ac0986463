# What the CI hosts have in common. Each host's configuration.nix imports it
# and adds what is its own: name, hardware, network.
{ lib, ... }:
{
  imports = [ ../modules ];

  services.cc-ci = {
    enable = true;
    drone-runner = {
      enable = true;
      server.host = "drone.ci.example.org";
      environmentFile = "/run/secrets/drone-runner.env";
    };
    nightly-sweep = {
      enable = true;
      environmentFile = "/run/secrets/nightly-sweep.env";
    };
  };

  # Recipes are deployed to a swarm of this one host.
  virtualisation.docker = {
    enable = true;
    liveRestore = false; # a swarm's daemon can not have it
    autoPrune.enable = true;
  };

  services.openssh = {
    enable = true;
    settings = {
      PasswordAuthentication = false;
      PermitRootLogin = "prohibit-password";
    };
  };
  networking.firewall.allowedTCPPorts = [
    80
    443
  ];

  nix = {
    settings.experimental-features = [
      "nix-command"
      "flakes"
    ];
    gc = {
      automatic = true;
      options = "--delete-older-than 30d";
    };
  };
  time.timeZone = lib.mkDefault "UTC";
  system.stateVersion = "26.05";
}
