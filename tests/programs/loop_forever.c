/* A service that allocates until it is told to stop, and checks its blocks.
 *
 *     loop_forever STATUS [THREADS]
 *
 * STATUS is a file that it keeps rewriting: "PID ROUNDS STATE" with STATE running, ok (ended on SIGTERM, every block
 * as it should be) or broken. Each round of the first thread allocates one block of 1 MiB + b mod 1 Mi, where b are
 * the milliseconds since boot: whoever reads a recording learns from the sizes when things happened.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define LIVE 2000

static volatile sig_atomic_t stop;
static atomic_int broken;
static int status = -1;

static void on_term(int signal) { (void)signal; stop = 1; }

static void report(unsigned long rounds, const char *state)
{
    char line[64];
    int n = snprintf(line, sizeof line, "%-10d %-20lu %-8s\n", getpid(), rounds, state);
    if (pwrite(status, line, n, 0) != n)
        _exit(3);
}

struct block { uint64_t size, tag; };

static void *work(void *arg)
{
    static __thread struct block *live[LIVE];
    int first = arg == NULL;
    uint64_t seed = 0x9e3779b97f4a7c15u + (uintptr_t)arg;
    for (unsigned long round = 0; !stop; round++) {
        for (int i = 0; i < 200; i++) {
            seed ^= seed << 13, seed ^= seed >> 7, seed ^= seed << 17;
            struct block **slot = &live[seed % LIVE];
            if (*slot && (*slot)->tag != (*slot)->size * 31 + 7)
                broken = 1;
            free(*slot);
            size_t n = 16 + (seed >> 32) % 700;
            *slot = malloc(n);
            (*slot)->size = n;
            (*slot)->tag = n * 31 + 7;
        }
        if (first) {
            struct timespec t;
            clock_gettime(CLOCK_BOOTTIME, &t);
            uint64_t ms = t.tv_sec * 1000ull + t.tv_nsec / 1000000;
            free(malloc((1 << 20) + ms % (1 << 20)));
            report(round, broken ? "broken" : "running");
        }
        struct timespec pause = {0, 500000};
        nanosleep(&pause, NULL);
    }
    for (int i = 0; i < LIVE; i++) {
        if (live[i] && live[i]->tag != live[i]->size * 31 + 7)
            broken = 1;
        free(live[i]);
    }
    return NULL;
}

int main(int argc, char **argv)
{
    if (argc < 2)
        return 2;
    status = open(argv[1], O_CREAT | O_WRONLY, 0644);
    if (status < 0)
        return 2;
    struct sigaction action = {.sa_handler = on_term};
    sigaction(SIGTERM, &action, NULL);
    int threads = argc > 2 ? atoi(argv[2]) : 1;
    pthread_t ids[16];
    for (int i = 1; i < threads && i < 16; i++)
        if (pthread_create(&ids[i], NULL, work, (void *)(intptr_t)i))
            return 1;
    work(NULL);
    for (int i = 1; i < threads && i < 16; i++)
        pthread_join(ids[i], NULL);
    report(0, broken ? "broken" : "ok");
    return broken;
}
