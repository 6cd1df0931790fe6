/* Two threads whose ids have the same lowest twelve bits, in calls at the same time.
 *
 *     same_place ROUNDS
 *
 * Makes threads that end at once until one has such an id. Then both make, move and free blocks, each of sizes of its own:
 * the first thread 1001 and 10010 bytes, the other 2002 and 20020. Prints the two ids.
 */
#define _GNU_SOURCE
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

static int rounds;
static atomic_int other;

static void work(size_t size)
{
    for (int i = 0; i < rounds; i++) {
        char *block = malloc(size);
        *block = 1;
        block = realloc(block, 10 * size);
        free(block);
    }
}

static void *start(void *first)
{
    if ((gettid() ^ *(pid_t *)first) & 0xfff)
        return NULL;
    other = gettid();
    work(2002);
    return NULL;
}

int main(int argc, char **argv)
{
    rounds = argc > 1 ? atoi(argv[1]) : 1000;
    pid_t first = gettid();
    for (int tries = 0; !other && tries < 100000; tries++) {
        pthread_t thread;
        if (pthread_create(&thread, NULL, start, &first))
            return 1;
        /* The one that stays is waited for below. */
        while (!other && pthread_tryjoin_np(thread, NULL))
            usleep(0);
        if (other) {
            work(1001);
            pthread_join(thread, NULL);
        }
    }
    printf("%d %d\n", first, other);
    return other ? 0 : 2;
}
