/* brief COUNT: starts itself so many times, one after another. Each of these holds a block of 4321 bytes, which one
   function asks for and another one calls for, and ends at once. */
#define _GNU_SOURCE
#include <spawn.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>

extern char **environ;

__attribute__((noinline)) static char *take(size_t size)
{
    char *block = malloc(size);
    memset(block, 1, size);
    return block;
}

__attribute__((noinline)) static char *want(void)
{
    char *block = take(4321);
    block[0] = 2;
    return block;
}

int main(int argc, char **argv)
{
    if (argc < 2)
        return want()[0] != 2;
    for (int left = atoi(argv[1]); left > 0; left--) {
        char *words[] = { argv[0], NULL };
        pid_t child;
        int status;
        if (posix_spawn(&child, argv[0], NULL, NULL, words, environ) || waitpid(child, &status, 0) != child || status)
            return 1;
    }
    return 0;
}
