/* Ends as it is told, after some allocations: `exits_by status N`, `exits_by signal N`, `exits_by _exit N`,
 * `exits_by child N` (a child allocates on after the parent has exited with N), or `exits_by thread N` (the first
 * thread leaves with pthread_exit, another one exits with N). */
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

static int number;

static void *later(void *arg)
{
    for (int i = 0; i < 1000; i++)
        free(malloc(10 + i));
    usleep(20000);
    exit(number);
    return arg;
}

int main(int argc, char **argv)
{
    if (argc != 3)
        return 2;
    number = atoi(argv[2]);
    for (int i = 0; i < 1000; i++)
        if (i % 2)
            free(malloc(10 + i));
        else if (!malloc(10 + i))
            return 3;
    printf("about to end by %s %d\n", argv[1], number);
    fflush(stdout);
    if (!strcmp(argv[1], "_exit"))
        _exit(number);
    if (!strcmp(argv[1], "signal")) {
        struct rlimit none = {0, 0};
        setrlimit(RLIMIT_CORE, &none);
        signal(number, SIG_DFL);
        raise(number);
        return 4;
    }
    if (!strcmp(argv[1], "thread")) {
        pthread_t id;
        if (pthread_create(&id, NULL, later, NULL))
            return 5;
        pthread_exit(NULL);
    }
    if (!strcmp(argv[1], "child") && fork() == 0) {
        for (int i = 0; i < 1000; i++)
            free(malloc(10 + i));
        usleep(100000);
        _exit(0);
    }
    return number;
}
