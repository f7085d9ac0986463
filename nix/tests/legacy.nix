# The lists that cc-ci-run replaced, as data: what each path to a recipe test
# could rely on. The superset proof holds the toolset against them. Nowhere
# else in Nix is there a tool's name.
#
# An entry is a package of nixpkgs and the commands that were relied on;
# python.* are packages of the Python environment, browsers are playwright's.
let
  of = package: commands: { inherit package commands; };
  only = package: of package [ package ];
in
rec {
  # What each way to a test had, by the packages' names of today.
  packages =
    builtins.mapAttrs
      (_: builtins.concatMap (list: map (entry: renamed.${entry.package} or entry.package) lists.${list}))
      {
        drone = [ "harness.nix" "host systemPackages" "NixOS corePackages" ];
        sweep = [ "nightly-sweep.nix" "unit's default path" ];
        manual = [ "harness.nix" "a person" ];
      };

  # The old lists' names for what the toolset has under another.
  renamed = {
    "bash" = "bashInteractive";
    "coreutils-full" = "coreutils"; # the same commands
    "docker" = "docker-client"; # the daemon is the host's
    "hostname" = "hostname-debian";
    "stdenv.cc.libc" = "glibc.bin";
  };

  lists = {
    # harness.nix: what Drone and a person's bash wrapper had
    "harness.nix" = [
      (of "python.pytest" [ "pytest" "python3" ])
      (of "python.playwright" [ "playwright" ])
      (only "abra")
      (only "docker")
      (only "git")
      (of "coreutils" [ "[" "basename" "cat" "chmod" "cp" "cut" "date" "dirname" "env" "head" "id" "ln" "ls" "mkdir" "mktemp" "mv" "printf" "readlink" "rm" "seq" "sha256sum" "sleep" "sort" "stat" "tail" "tee" "timeout" "touch" "tr" "true" "uniq" "wc" "whoami" "yes" ])
      (of "util-linux" [ "flock" "getopt" "mount" "mountpoint" "script" "setsid" "umount" "uuidgen" ])
    ];
    # nightly-sweep.nix: a second list for the same tests
    "nightly-sweep.nix" = [
      (of "python.pytest" [ "pytest" "python3" ])
      (of "python.playwright" [ "playwright" ])
      (only "bash")
      (only "abra")
      (only "docker")
      (only "git")
      (only "curl")
      (only "jq")
      (of "gnused" [ "sed" ])
      (of "gnugrep" [ "egrep" "fgrep" "grep" ])
      (of "gnutar" [ "tar" ])
      (of "coreutils" [ "cat" "cp" "ls" "sleep" "timeout" ])
      (of "util-linux" [ "flock" "script" ])
      (of "procps" [ "free" "kill" "pgrep" "pkill" "ps" "top" "uptime" "watch" ])
    ];
    # one host's systemPackages: added by hand after DEFECT-3, and openssl
    "host systemPackages" = [
      (only "git-lfs")
      (only "openssl")
    ];
    # environment.corePackages of NixOS
    "NixOS corePackages" = [
      (of "acl" [ "getfacl" "setfacl" ])
      (of "attr" [ "getfattr" "setfattr" ])
      (of "bashInteractive" [ "bash" "sh" ])
      (of "bzip2" [ "bunzip2" "bzip2" ])
      (of "coreutils-full" [ "cat" "cp" "ls" "stat" ])
      (only "cpio")
      (only "curl")
      (of "diffutils" [ "cmp" "diff" ])
      (of "findutils" [ "find" "xargs" ])
      (of "gawk" [ "awk" "gawk" ])
      (only "getent")
      (only "getconf")
      (of "gnugrep" [ "grep" ])
      (of "gnupatch" [ "patch" ])
      (of "gnused" [ "sed" ])
      (of "gnutar" [ "tar" ])
      (of "gzip" [ "gunzip" "gzip" "zcat" ])
      (of "xz" [ "unxz" "xz" ])
      (only "less")
      (of "libcap" [ "getcap" "setcap" ])
      (of "ncurses" [ "clear" "infocmp" "reset" "tput" ])
      (of "netcat" [ "nc" ])
      (only "mkpasswd")
      (of "procps" [ "pgrep" "ps" ])
      (only "su")
      (only "time")
      (of "util-linux" [ "lsblk" "mount" "script" ])
      (only "which")
      (of "zstd" [ "unzstd" "zstd" ])
      (of "stdenv.cc.libc" [ "iconv" "ldd" "locale" ])
    ];
    "NixOS defaultPackages" = [
      (only "perl")
      (only "rsync")
      (only "strace")
    ];
    # what NixOS's ssh, networking and systemd modules add
    "NixOS modules" = [
      (of "openssh" [ "scp" "ssh" "ssh-add" "ssh-agent" "ssh-keygen" "ssh-keyscan" ])
      (of "iproute2" [ "ip" "ss" ])
      (of "iputils" [ "ping" ])
      (only "hostname")
      (only "host")
      (of "net-tools" [ "ifconfig" "netstat" "route" ])
      (only "sudo")
      (of "systemd" [ "journalctl" "systemctl" ])
    ];
    # the default path of every NixOS unit
    "unit's default path" = [
      (of "coreutils" [ "cat" "ls" ])
      (of "findutils" [ "find" "xargs" ])
      (of "gnugrep" [ "grep" ])
      (of "gnused" [ "sed" ])
      (of "systemd" [ "systemctl" ])
    ];
    # by hand: a download of their own, which no other path had
    "a person" = [
      (of "browsers" [ ])
    ];
  };
}
