/* peak COMMAND…: runs it, and prints its peak memory in KiB. It is small
   itself, since a child's peak begins with its parent's. */
#include <fcntl.h>
#include <stdio.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>
int main(int argc, char **argv) {
  struct rusage usage;
  int status;
  pid_t pid = fork();
  if (pid == 0) {
    int null = open("/dev/null", O_RDWR);
    dup2(null, 0), dup2(null, 1), dup2(null, 2);
    execv(argv[1], argv + 1);
    _exit(127);
  }
  if (wait4(pid, &status, 0, &usage) < 0 || status) return 1;
  printf("%ld\n", usage.ru_maxrss);
  return 0;
}
