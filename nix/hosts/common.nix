# What the CI hosts have in common. Each host's configuration.nix imports it
# and adds what is its own: name, hardware, network.
{ lib, ... }:
{
  imports = [ ../modules ];

  # The runner's license is not a free one.
  nixpkgs.config.allowUnfreePredicate = package: lib.getName package == "drone-runner-exec";

  # The files below /run/secrets are the site's to provide: by sops-nix or
  # agenix, or by hand. A unit whose file is missing does not start.
  services.cc-ci = {
    enable = true;
    drone-runner = {
      enable = true;
      server.host = "drone.ci.example.org";
      environmentFile = "/run/secrets/drone-runner.env";
    };
    host.enable = true;
    nightly-sweep = {
      enable = true;
      environmentFile = "/run/secrets/nightly-sweep.env";
    };
  };

  # Recipes are deployed to a swarm of this one host.
  virtualisation.docker = {
    enable = true;
    liveRestore = false; # a swarm's daemon cannot have it
    autoPrune.enable = true;
  };

  services.openssh = {
    enable = true;
    settings = {
      PasswordAuthentication = false;
      PermitRootLogin = "prohibit-password";
    };
  };
  # The operators' keys; with none nobody gets in to deploy.
  users.users.root.openssh.authorizedKeys.keys = [
    "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIPLACEHOLDERPLACEHOLDERPLACEHOLDERPLACEHOLDER replace-me"
  ];
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
