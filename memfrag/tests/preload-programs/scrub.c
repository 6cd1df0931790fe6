// Starts itself twice with an empty environment: by posix_spawn, then by execve.
#include <spawn.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

static void *volatile sink;

int main(int argc, char **argv) {
    char *nothing[] = {NULL};
    if (argc > 1) {
        for (int i = 0; i < 10; i++) sink = malloc(argv[1][0] == 's' ? 7001 : 7002);
        return 3;
    }
    char *spawned[] = {argv[0], "s", NULL}, *executed[] = {argv[0], "e", NULL};
    pid_t child;
    if (posix_spawn(&child, "/proc/self/exe", NULL, NULL, spawned, nothing) != 0) return 1;
    waitpid(child, NULL, 0);
    execve("/proc/self/exe", executed, nothing);
    return 2;
}
