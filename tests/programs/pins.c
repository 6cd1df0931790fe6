/* Heaps of many shapes: blocks that are freed, and pins between them that stay.
 *
 *     pins COUNT BLOCK SPACING PIN THREADS [touch=N] [mapped=N] [fast=N] [cached] [keep]
 *
 * Each of THREADS threads, of which the first is the program's own, allocates COUNT blocks of BLOCK bytes, and behind every SPACING of them (0 for never) a pin
 * of PIN bytes; then it frees all blocks. Every block is written to, or with touch=N every Nth. mapped=N adds N blocks
 * of 300 KiB, of which every other one is freed. fast=N adds N blocks of 40 bytes beside each other, freed one by one
 * into the fastbins. cached fills the thread's cache with blocks of every size that it takes. keep frees nothing.
 *
 * It says "ready" on standard error and waits for SIGTERM; then it checks what it kept, frees it, and prints the sum.
 */
#define _GNU_SOURCE
#include <malloc.h>
#include <pthread.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define MAPPED (300 << 10)

static long count, block, spacing, pin, threads, touch = 1, mapped, fast;
static int cached, keep;
static pthread_barrier_t ready, done;

struct kept {
    void **at;
    size_t *size;
    long used;
};

static void hold(struct kept *kept, void *p, size_t size)
{
    kept->at[kept->used] = p;
    kept->size[kept->used++] = size;
    memset(p, (int)(size * 7 + kept->used) & 0xff, size);
}

static void *table(size_t size)
{
    /* Its own mapping, so that it is no part of the shape. */
    char *p = malloc(size < MAPPED ? MAPPED : size);
    if (!p)
        abort();
    return p;
}

static void fill_cache(void)
{
    void *p[7];
    for (size_t size = 24; size <= 1032; size += 16) {
        for (int i = 0; i < 7; i++)
            p[i] = malloc(size);
        for (int i = 0; i < 7; i++)
            free(p[i]);
    }
}

static struct kept all[64];

/* Makes one thread's part of the heap. */
static void build(struct kept *kept)
{
    long pins = spacing ? count / spacing + 1 : 0;
    long room = pins + mapped + (keep ? count : 0) + 1;
    *kept = (struct kept){table(room * sizeof(void *)), table(room * sizeof(size_t)), 0};
    void **blocks = table(count * sizeof(void *)), **small = table((fast + 1) * sizeof(void *));
    for (long i = 0; i < count; i++) {
        blocks[i] = malloc(block);
        if (i % touch == 0)
            memset(blocks[i], 1, block);
        if (spacing && i % spacing == spacing - 1)
            hold(kept, malloc(pin), pin);
    }
    for (long i = 0; i < fast; i++)
        small[i] = malloc(40);
    for (long i = 0; i < count; i++) {
        if (keep)
            hold(kept, blocks[i], block);
        else
            free(blocks[i]);
    }
    for (long i = 0; i < fast; i++)
        free(small[i]);
    for (long i = 0; i < mapped; i++) {
        void *p = malloc(MAPPED);
        if (i % 2)
            hold(kept, p, MAPPED);
        else
            free(p);
    }
    if (cached)
        fill_cache();
    free(blocks);
    free(small);
}

/* Checks what was kept, frees it, and gives the bytes. */
static uint64_t end(struct kept *kept)
{
    uint64_t sum = 0;
    for (long i = 0; i < kept->used; i++) {
        unsigned char *p = kept->at[i], expected = (unsigned char)(kept->size[i] * 7 + i + 1);
        for (size_t at = 0; at < kept->size[i]; at++)
            if (p[at] != expected)
                _exit(3);
        sum += kept->size[i];
        free(p);
    }
    free(kept->at);
    free(kept->size);
    return sum;
}

static void *work(void *kept)
{
    build(kept);
    pthread_barrier_wait(&ready);
    pthread_barrier_wait(&done);
    return (void *)(uintptr_t)end(kept);
}

int main(int argc, char **argv)
{
    if (argc < 6)
        return 2;
    count = atol(argv[1]), block = atol(argv[2]), spacing = atol(argv[3]), pin = atol(argv[4]), threads = atol(argv[5]);
    if (threads < 1 || threads > 64)
        return 2;
    for (int i = 6; i < argc; i++) {
        sscanf(argv[i], "touch=%ld", &touch);
        sscanf(argv[i], "mapped=%ld", &mapped);
        sscanf(argv[i], "fast=%ld", &fast);
        cached |= !strcmp(argv[i], "cached");
        keep |= !strcmp(argv[i], "keep");
    }
    /* Nothing is to be given back before it is asked for. */
    mallopt(M_TRIM_THRESHOLD, 1 << 30);
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGTERM);
    pthread_sigmask(SIG_BLOCK, &set, NULL);
    pthread_barrier_init(&ready, NULL, threads);
    pthread_barrier_init(&done, NULL, threads);
    pthread_t ids[64];
    /* The first thread is this one, and its arena the main one. */
    for (long i = 1; i < threads; i++)
        if (pthread_create(&ids[i], NULL, work, &all[i]))
            return 1;
    build(&all[0]);
    pthread_barrier_wait(&ready);
    if (write(2, "ready\n", 6) < 0)
        return 1;
    int signal;
    sigwait(&set, &signal);
    pthread_barrier_wait(&done);
    uint64_t sum = end(&all[0]);
    for (long i = 1; i < threads; i++) {
        void *more;
        pthread_join(ids[i], &more);
        sum += (uintptr_t)more;
    }
    printf("%lu\n", (unsigned long)sum);
    return 0;
}
