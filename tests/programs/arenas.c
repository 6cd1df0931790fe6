/* A service of many threads whose memory outgrows what it holds.
 *
 *     arenas [THREADS [ROUNDS]]
 *
 * Each thread allocates 6,000 blocks of 64 to 4,063 bytes a round, keeps a 100-byte block for every 500, and frees the
 * others. Then all wait until standard input ends. Prints "ready" when the rounds are over.
 */
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define BLOCKS 6000
#define THREADS 64

static long rounds = 20;
static pthread_barrier_t done;
static pthread_mutex_t until_end = PTHREAD_MUTEX_INITIALIZER;

/* What a request leaves behind. */
static void *session(void)
{
    char *kept = malloc(100);
    if (kept)
        memset(kept, 1, 100);
    return kept;
}

static void *work(void *arg)
{
    uint64_t seed = 0x9e3779b97f4a7c15u * ((uintptr_t)arg + 1);
    static __thread void *blocks[BLOCKS];
    void *volatile last = NULL;
    for (long round = 0; round < rounds; round++) {
        for (int i = 0; i < BLOCKS; i++) {
            seed ^= seed << 13, seed ^= seed >> 7, seed ^= seed << 17;
            size_t size = 64 + seed % 4000;
            blocks[i] = malloc(size);
            if (blocks[i])
                memset(blocks[i], 1, size);
            if (i % 500 == 0)
                last = session();
        }
        for (int i = 0; i < BLOCKS; i++)
            free(blocks[i]);
    }
    (void)last;
    pthread_barrier_wait(&done);
    pthread_mutex_lock(&until_end);
    pthread_mutex_unlock(&until_end);
    return NULL;
}

int main(int argc, char **argv)
{
    long threads = argc > 1 ? atol(argv[1]) : 16;
    rounds = argc > 2 ? atol(argv[2]) : 20;
    if (threads < 1 || threads > THREADS || rounds < 1)
        return 2;
    pthread_t ids[THREADS];
    pthread_barrier_init(&done, NULL, (unsigned)threads + 1);
    pthread_mutex_lock(&until_end);
    for (long i = 0; i < threads; i++)
        if (pthread_create(&ids[i], NULL, work, (void *)(intptr_t)i))
            return 1;
    pthread_barrier_wait(&done);
    puts("ready");
    fflush(stdout);
    while (getchar() != EOF) {}
    pthread_mutex_unlock(&until_end);
    for (long i = 0; i < threads; i++)
        pthread_join(ids[i], NULL);
    return 0;
}
