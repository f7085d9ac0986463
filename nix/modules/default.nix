# All of cc-ci-run's NixOS modules; each does nothing until it is enabled.
{
  imports = [
    ./harness.nix
    ./host.nix
    ./drone-runner.nix
    ./nightly-sweep.nix
  ];
}
