/* A child that begins when its parent is gone: what the parent has done last lies before its first record. */
#include <pthread.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

static void later(void)
{
    nanosleep(&(struct timespec){0, 50 * 1000 * 1000}, NULL);
}

int main(void)
{
    int ends[2];
    if (pipe(ends) || pthread_atfork(NULL, NULL, later))
        return 1;
    free(malloc(1001));
    if (fork() == 0) {
        free(malloc(2002));
        if (fork() == 0)
            for (int i = 0; i < 30; i++)
                free(malloc(3003));
        _exit(0);
    }
    /* Both have ended when nobody can write any more. */
    char byte;
    close(ends[1]);
    return read(ends[0], &byte, 1) ? 2 : 0;
}
