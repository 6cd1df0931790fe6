// Forks, forks raw, forks a grandchild, starts another program by vfork; each makes blocks of a size of its own.
#define _GNU_SOURCE
#include <stdlib.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

static void *volatile sink;
static void blocks(int count, size_t size) { for (int i = 0; i < count; i++) sink = malloc(size); }

int main(int argc, char **argv) {
    if (argc > 1) { blocks(40, 4004); return 4; }
    void *inherited = malloc(1000);
    blocks(10, 1001);
    if (fork() == 0) {
        free(inherited);
        blocks(20, 2002);
        if (fork() == 0) { blocks(5, 5005); _exit(5); }
        wait(NULL);
        _exit(2);
    }
    if (syscall(SYS_fork) == 0) { blocks(30, 3003); _exit(3); }
    if (vfork() == 0) { execl("/proc/self/exe", argv[0], "again", (char *)0); _exit(127); }
    while (wait(NULL) > 0) {}
    blocks(10, 1001);
    free(inherited);
    return 0;
}
