/* A heap whose blocks are known, held still.
 *
 *     known_heap FILE THREADS BLOCKS [SHAPE]
 *
 * Each thread, the first one included, allocates BLOCKS blocks of many sizes by all functions, and frees about half of
 * them, so that caches, fastbins and bins fill. Some blocks are mapped by themselves. Then the process writes FILE and
 * waits to be killed: first what the allocator says of itself (malloc_info), then a line "block ADDRESS SIZE" for each
 * block that is still allocated, then "end".
 *
 * SHAPE is one of
 *   foreign  something else moves the break while the heap grows
 *   nobrk    the break cannot grow at all from some time on, so that the arena goes on elsewhere
 *   snug     free chunks lie about that are by 16 bytes larger than a thread's cache
 *   corrupt  the size of one chunk is overwritten at the end; a line "corrupt ADDRESS" tells the block before it
 *   busy     threads go on allocating; FILE tells the blocks of which they let go
 */
#define _GNU_SOURCE
#include <malloc.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

enum { MAX_THREADS = 64, MAX_BLOCKS = 1 << 22 };

struct block { char *address; size_t size; };
static struct block *blocks[MAX_THREADS];
static size_t used[MAX_THREADS];
static size_t wanted;
static const char *shape = "";
static pthread_barrier_t filled, written;
static char buffer[1 << 16];

static uint64_t next(uint64_t *seed)
{
    *seed ^= *seed << 13, *seed ^= *seed >> 7, *seed ^= *seed << 17;
    return *seed;
}

static void *make(uint64_t *seed, size_t *size)
{
    uint64_t kind = next(seed) % 100, n = next(seed);
    void *p = NULL;
    if (kind < 60)
        *size = n % 128;
    else if (kind < 90)
        *size = n % 2000;
    else if (kind < 98)
        *size = n % 30000;
    else
        *size = 4096 + n % 50000;
    switch (next(seed) % 8) {
    case 0: p = calloc(1, *size); break;
    case 1: p = realloc(malloc(*size / 2 + 1), *size + 1); break;
    case 2: if (posix_memalign(&p, 64, *size)) p = NULL; break;
    default: p = malloc(*size); break;
    }
    if (!p)
        exit(3);
    return p;
}

static void fill(int id)
{
    uint64_t seed = 88172645463325252u + id * 7919;
    struct block *mine = blocks[id];
    size_t n = 0;
    for (size_t i = 0; i < wanted; i++) {
        size_t size;
        char *p = make(&seed, &size);
        mine[n].address = p, mine[n].size = size, n++;
        if (next(&seed) % 100 < 48) {
            size_t victim = next(&seed) % n;
            free(mine[victim].address);
            mine[victim] = mine[--n];
        }
        if (id == 0 && !strcmp(shape, "foreign") && i % (wanted / 3 + 1) == wanted / 4) {
            char *theirs = sbrk(5000);
            if (theirs != (char *)-1)
                memset(theirs, 0x5a, 5000);
        }
        if (id == 0 && !strcmp(shape, "nobrk") && i == wanted / 2) {
            /* A page right behind the break. */
            char *end = (char *)(((uintptr_t)sbrk(0) + 4095) & ~4095ul);
            if (mmap(end, 4096, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) == MAP_FAILED)
                exit(4);
        }
    }
    /* Blocks mapped by themselves: some next to each other, one with an alignment of its own. */
    size_t large[] = { 300000, 1 << 20, 200001, 3 << 20 };
    for (size_t i = 0; i < 4; i++) {
        mine[n].address = malloc(large[i]), mine[n].size = large[i], n++;
        memset(mine[n - 1].address, 1, large[i]);
    }
    mine[n].address = memalign(1 << 16, 500000), mine[n].size = 500000, n++;
    void *gone = malloc(400000);
    memset(gone, 1, 400000);
    free(gone);
    used[id] = n;
}

/* More than the first thread's own cache takes, of 672 bytes each, with blocks between them. */
static void leave_snug_chunks(void)
{
    void *snug[32];
    for (int i = 0; i < 32; i++)
        snug[i] = malloc(660), (void)!malloc(8);
    for (int i = 0; i < 32; i++)
        free(snug[i]);
}

static void *thread(void *arg)
{
    int id = (int)(intptr_t)arg;
    fill(id);
    pthread_barrier_wait(&filled);
    pthread_barrier_wait(&written);
    if (!strcmp(shape, "busy"))
        for (uint64_t seed = id + 1;;) {
            size_t size;
            void *one = make(&seed, &size), *two = make(&seed, &size);
            free(one);
            free(two);
        }
    for (;;)
        pause();
}

int main(int argc, char **argv)
{
    if (argc < 4)
        return 2;
    int threads = atoi(argv[2]);
    wanted = strtoul(argv[3], NULL, 10);
    if (argc > 4)
        shape = argv[4];
    if (threads < 1 || threads > MAX_THREADS || wanted > MAX_BLOCKS)
        return 2;
    FILE *file = fopen(argv[1], "w");
    if (!file || setvbuf(file, buffer, _IOFBF, sizeof buffer))
        return 1;
    for (int i = 0; i < threads; i++) {
        /* The lists are no part of the heap. */
        blocks[i] = mmap(NULL, (wanted + 16) * sizeof **blocks, PROT_READ | PROT_WRITE,
                         MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (blocks[i] == MAP_FAILED)
            return 1;
    }
    pthread_barrier_init(&filled, NULL, threads);
    pthread_barrier_init(&written, NULL, threads);
    if (!strcmp(shape, "snug"))
        leave_snug_chunks();
    for (int i = 1; i < threads; i++) {
        pthread_t id;
        if (pthread_create(&id, NULL, thread, (void *)(intptr_t)i))
            return 1;
    }
    fill(0);
    pthread_barrier_wait(&filled);
    malloc_info(0, file);
    for (int i = 0; i < threads; i++)
        for (size_t k = 0; k < used[i]; k++)
            fprintf(file, "block %p %zu\n", (void *)blocks[i][k].address, blocks[i][k].size);
    if (!strcmp(shape, "corrupt")) {
        struct block *last = &blocks[0][used[0] / 2];
        char *end = last->address + malloc_usable_size(last->address);
        *(size_t *)end = 0x4141414141414141;
        fprintf(file, "corrupt %p\n", (void *)last->address);
    }
    fprintf(file, "end\n");
    fflush(file);
    pthread_barrier_wait(&written);
    for (;;)
        pause();
}
