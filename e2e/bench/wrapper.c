/* What makeBinaryWrapper of nixpkgs generates: a prefix for PATH, some
   variables, execv. With EMPTY it is the floor of any program in C. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
int main(int argc, char **argv) {
#ifndef EMPTY
  const char *prefix = TOOLS, *old = getenv("PATH");
  char *path = malloc(strlen(prefix) + strlen(old ? old : "") + 2);
  sprintf(path, "%s:%s", prefix, old ? old : "");
  setenv("PATH", path, 1);
  setenv("PLAYWRIGHT_BROWSERS_PATH", "/x", 1);
  setenv("LANG", "C.UTF-8", 1);
  argv[0] = "true";
  return execv("/usr/bin/true", argv);
#endif
  return 0;
}
