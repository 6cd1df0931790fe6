/* Pairs of malloc and free at random sizes, and what a pair costs.
 *
 *     pairs PAIRS [THREADS [held]]
 *
 * Each thread keeps 4096 blocks of 16 to 527 bytes alive and replaces one at random, PAIRS times. Prints the mean
 * nanoseconds of processor time that a thread had for a pair, and, in the last line, those that passed meanwhile; its own work
 * (random numbers, the table) is in both.
 *
 * With "held" each thread makes half as many pairs again before, so that memory into which they are recorded is there,
 * and the parent, which reads them, stands still for the time of the measure.
 */
#define _GNU_SOURCE
#include <pthread.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define LIVE 4096

static long pairs;
static int held;
static pthread_barrier_t together;
static double nanoseconds[64], processor[64];

static double now(clockid_t clock)
{
    struct timespec t;
    clock_gettime(clock, &t);
    return t.tv_sec * 1e9 + t.tv_nsec;
}

static void replace(void **live, uint64_t seed, long times)
{
    for (long i = 0; i < times; i++) {
        seed ^= seed << 13, seed ^= seed >> 7, seed ^= seed << 17;
        void **slot = &live[seed % LIVE];
        free(*slot);
        *slot = malloc(16 + (seed >> 32) % 512);
    }
}

static void hold_reader(int id)
{
    pthread_barrier_wait(&together);
    if (id == 0) {
        /* Until it has read everything. */
        sleep(1);
        kill(getppid(), SIGSTOP);
        usleep(1000);
    }
    pthread_barrier_wait(&together);
}

static void *work(void *arg)
{
    int id = (int)(intptr_t)arg;
    uint64_t seed = 0x9e3779b97f4a7c15u * (id + 1);
    static __thread void *live[LIVE];
    for (int i = 0; i < LIVE; i++)
        live[i] = malloc(16 + i % 512);
    if (held) {
        replace(live, ~seed, pairs + pairs / 2);
        hold_reader(id);
    }
    double begun = now(CLOCK_MONOTONIC), had = now(CLOCK_THREAD_CPUTIME_ID);
    replace(live, seed, pairs);
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
    held = argc > 3 && !strcmp(argv[3], "held");
    pthread_barrier_init(&together, NULL, threads);
    pthread_t ids[64];
    for (int i = 1; i < threads; i++)
        if (pthread_create(&ids[i], NULL, work, (void *)(intptr_t)i))
            return 1;
    work(0);
    for (int i = 1; i < threads; i++)
        pthread_join(ids[i], NULL);
    if (held)
        kill(getppid(), SIGCONT);
    double sum = 0, had = 0;
    for (int i = 0; i < threads; i++)
        sum += nanoseconds[i], had += processor[i];
    printf("%.2f\n%.2f\n", had / threads, sum / threads);
    return 0;
}
