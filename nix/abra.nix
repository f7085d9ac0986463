# abra, the command-line tool of Co-op Cloud. nix/extra.nix says when it is used.
{
  lib,
  buildGoModule,
  fetchFromGitea,
}:
buildGoModule (finalAttrs: {
  pname = "abra";
  version = "0.11.0-beta";

  src = fetchFromGitea {
    domain = "git.coopcloud.tech";
    owner = "toolshed";
    repo = "abra";
    rev = finalAttrs.version;
    hash = "sha256-m0x5uC6E5p3Yj/oFw37s1e0biaF8Qh3hP4d9jew8mlA=";
  };
  # The repository has its dependencies in vendor/.
  vendorHash = null;

  subPackages = [ "cmd/abra" ];
  ldflags = [
    "-s"
    "-w"
    "-X main.Version=${finalAttrs.version}"
  ];

  meta = {
    description = "Command-line tool of Co-op Cloud: deploys, upgrades, backs up and removes its apps";
    homepage = "https://docs.coopcloud.tech/abra/";
    license = lib.licenses.gpl3Plus;
    platforms = lib.platforms.linux;
    mainProgram = "abra";
  };
})
