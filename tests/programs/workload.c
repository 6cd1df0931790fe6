/*
 * Synthetic workloads, the same in every run, with their own books.
 *
 *   workload uniform|burst|pareto [ALLOCATIONS [SEED [MILLISECONDS]]]
 *
 *   uniform  sizes of 16 B to 4 KiB, all equally likely; so are the blocks that go
 *   burst    a thousand blocks come, nine in ten of them go, over and over
 *   pareto   many small blocks and few large ones (P(size > x) = (128 / x)^1.2, up to 1 MiB), as programs have them
 *
 * Before its first block and behind its last one it sleeps for so long, so that what it has grown by can be looked at;
 * then it prints what it did as JSON. Every block is written to.
 */
#include <inttypes.h>
#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>

enum { LIVE = 10000, BURST = 1000 };

struct block {
    char *at;
    size_t size;
};

static uint64_t state, allocations, frees, requested, live_bytes;
static struct block *blocks;
static size_t live;

static uint64_t dice(void)
{
    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    return state;
}

/* From 0 to 1, both excluded. */
static double share(void)
{
    return ((double)(dice() >> 11) + 0.5) / 9007199254740992.0;
}

static void take(size_t size)
{
    char *at = malloc(size);
    if (at == NULL)
        exit(3);
    memset(at, 1, size);
    blocks[live++] = (struct block){at, size};
    allocations++;
    requested += size;
    live_bytes += size;
}

static void drop(size_t which)
{
    free(blocks[which].at);
    live_bytes -= blocks[which].size;
    frees++;
    blocks[which] = blocks[--live];
}

static size_t uniform(void)
{
    return 16 + dice() % 4081;
}

static size_t pareto(void)
{
    double size = 128 * pow(share(), -1 / 1.2);
    return size < 1 << 20 ? (size_t)size : 1 << 20;
}

int main(int count, char **words)
{
    const char *kind = count > 1 ? words[1] : "uniform";
    uint64_t wanted = count > 2 ? strtoull(words[2], NULL, 10) : 100000;
    unsigned long milliseconds = count > 4 ? strtoul(words[4], NULL, 10) : 0;
    struct timespec pause = {(time_t)(milliseconds / 1000), (long)(milliseconds % 1000) * 1000000};
    int burst = strcmp(kind, "burst") == 0, heavy = strcmp(kind, "pareto") == 0;
    if (!burst && !heavy && strcmp(kind, "uniform") != 0)
        return 2;
    state = (count > 3 ? strtoull(words[3], NULL, 10) : 1) * 2 + 1;
    /* Its own books are not malloc's, and there before it grows. */
    blocks = mmap(NULL, (LIVE + BURST) * sizeof *blocks, PROT_READ | PROT_WRITE,
        MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
    if (blocks == MAP_FAILED)
        return 3;
    nanosleep(&pause, NULL);
    while (allocations < wanted) {
        if (!burst) {
            if (live == LIVE)
                drop(dice() % live);
            take(heavy ? pareto() : uniform());
            continue;
        }
        for (int at = 0; at < BURST && allocations < wanted; at++)
            take(uniform());
        for (int at = 0; at < BURST * 9 / 10 && live > 0; at++)
            drop(dice() % live);
        while (live >= LIVE)
            drop(dice() % live);
    }
    nanosleep(&pause, NULL);
    /* Memory for stdout would be one more block. */
    setvbuf(stdout, NULL, _IONBF, 0);
    printf("{\"allocations\": %" PRIu64 ", \"frees\": %" PRIu64 ", \"requested_bytes\": %" PRIu64
        ", \"live_blocks\": %zu, \"live_bytes\": %" PRIu64 "}\n", allocations, frees, requested, live, live_bytes);
    return 0;
}
