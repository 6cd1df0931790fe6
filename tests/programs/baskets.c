/* Blocks that change hands: four threads fill a basket each, free most of the next one's, and fill up with larger blocks.
 *
 *     baskets
 *
 * Prints by how many bytes anonymous memory has grown over that, and ends without giving anything back.
 */
#define _GNU_SOURCE
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define THREADS 4
#define BLOCKS 60000
#define KEPT 12

static char *basket[THREADS][BLOCKS], *larger[THREADS][BLOCKS / 3];
static pthread_barrier_t all;

static long anonymous(void)
{
    FILE *file = fopen("/proc/self/status", "r");
    char line[256];
    long kib = 0;
    while (file && fgets(line, sizeof line, file))
        if (sscanf(line, "RssAnon: %ld", &kib) == 1)
            break;
    if (file)
        fclose(file);
    return kib * 1024;
}

static uint64_t next(uint64_t *seed)
{
    *seed ^= *seed << 13, *seed ^= *seed >> 7, *seed ^= *seed << 17;
    return *seed >> 33;
}

static char *filled(size_t size)
{
    char *block = malloc(size);
    if (!block)
        abort();
    return memset(block, 1, size);
}

static void *work(void *arg)
{
    int id = (int)(intptr_t)arg, other = (id + 1) % THREADS;
    uint64_t seed = 0x9e3779b97f4a7c15u * (id + 1);
    for (int i = 0; i < BLOCKS; i++)
        basket[id][i] = filled(32 + next(&seed) % 400);
    pthread_barrier_wait(&all);
    for (int i = 0; i < BLOCKS; i++)
        if (i % KEPT)
            free(basket[other][i]);
    pthread_barrier_wait(&all);
    for (int i = 0; i < BLOCKS / 3; i++)
        larger[id][i] = filled(500 + next(&seed) % 700);
    pthread_barrier_wait(&all);
    return NULL;
}

int main(void)
{
    pthread_t ids[THREADS];
    pthread_barrier_init(&all, NULL, THREADS);
    /* Their memory is none of malloc's, so it is to be there before. */
    memset(basket, 0, sizeof basket);
    memset(larger, 0, sizeof larger);
    usleep(600000);
    long before = anonymous();
    for (int i = 1; i < THREADS; i++)
        if (pthread_create(&ids[i], NULL, work, (void *)(intptr_t)i))
            return 1;
    work(0);
    for (int i = 1; i < THREADS; i++)
        pthread_join(ids[i], NULL);
    usleep(800000);
    printf("%ld\n", anonymous() - before);
    fflush(stdout);
    usleep(300000);
    _exit(0);
}
