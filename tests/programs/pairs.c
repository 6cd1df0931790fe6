/* Pairs of malloc and free at random sizes, and what a pair costs.
 *
 *     pairs PAIRS [THREADS]
 *
 * Each thread keeps 4096 blocks of 16 to 527 bytes alive and replaces one at random, PAIRS times. Prints the mean
 * nanoseconds of processor time that a thread had for a pair, and, in the last line, those that passed meanwhile; its own work
 * (random numbers, the table) is in both.
 */
#define _GNU_SOURCE
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#define LIVE 4096

static long pairs;
static double nanoseconds[64], processor[64];

static double now(clockid_t clock)
{
    struct timespec t;
    clock_gettime(clock, &t);
    return t.tv_sec * 1e9 + t.tv_nsec;
}

static void *work(void *arg)
{
    int id = (int)(intptr_t)arg;
    uint64_t seed = 0x9e3779b97f4a7c15u * (id + 1);
    static __thread void *live[LIVE];
    for (int i = 0; i < LIVE; i++)
        live[i] = malloc(16 + i % 512);
    double begun = now(CLOCK_MONOTONIC), had = now(CLOCK_THREAD_CPUTIME_ID);
    for (long i = 0; i < pairs; i++) {
        seed ^= seed << 13, seed ^= seed >> 7, seed ^= seed << 17;
        void **slot = &live[seed % LIVE];
        free(*slot);
        *slot = malloc(16 + (seed >> 32) % 512);
    }
    processor[id] = (now(CLOCK_THREAD_CPUTIME_ID) - had) / pairs;
    nanoseconds[id] = (now(CLOCK_MONOTONIC) - begun) / pairs;
    for (int i = 0; i < LIVE; i++)
        free(live[i]);
    return NULL;
}

int main(int argc, char **argv)
{
    pairs = argc > 1 ? atol(argv[1]) : 1000000;
    int threads = argc > 2 ? atoi(argv[2]) : 1;
    if (pairs < 1 || threads < 1 || threads > 64)
        return 2;
    pthread_t ids[64];
    for (int i = 1; i < threads; i++)
        if (pthread_create(&ids[i], NULL, work, (void *)(intptr_t)i))
            return 1;
    work(0);
    for (int i = 1; i < threads; i++)
        pthread_join(ids[i], NULL);
    double sum = 0, had = 0;
    for (int i = 0; i < threads; i++)
        sum += nanoseconds[i], had += processor[i];
    printf("%.2f\n%.2f\n", had / threads, sum / threads);
    return 0;
}
