# All of cc-ci-run's NixOS modules; each does nothing until it is enabled.
{
  imports = [
    ./harness.nix
    ./drone-runner.nix
    ./nightly-sweep.nix
  ];
}
