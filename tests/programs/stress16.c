/* Sixteen threads that free each other's blocks.
 *
 *     stress16 [CALLS]
 *
 * Thread i puts blocks into the queue of thread i + 1 and frees what comes through its own. Every block carries a
 * checksum; the sum of all checksums freed is printed, and is the same in every run.
 */
#define _GNU_SOURCE
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { THREADS = 16, ROOM = 256 };

struct queue {
    pthread_mutex_t lock;
    pthread_cond_t changed;
    void *blocks[ROOM];
    unsigned head, tail;
};

static struct queue queues[THREADS];
static long calls = 20000;
static uint64_t sums[THREADS];

static void put(struct queue *q, void *p)
{
    pthread_mutex_lock(&q->lock);
    while (q->tail - q->head == ROOM)
        pthread_cond_wait(&q->changed, &q->lock);
    q->blocks[q->tail++ % ROOM] = p;
    pthread_cond_broadcast(&q->changed);
    pthread_mutex_unlock(&q->lock);
}

static void *take(struct queue *q, int wait)
{
    void *p = NULL;
    pthread_mutex_lock(&q->lock);
    while (wait && q->tail == q->head)
        pthread_cond_wait(&q->changed, &q->lock);
    if (q->tail != q->head) {
        p = q->blocks[q->head++ % ROOM];
        pthread_cond_broadcast(&q->changed);
    }
    pthread_mutex_unlock(&q->lock);
    return p;
}

static void release(int id, uint64_t *block)
{
    size_t n = block[0];
    uint64_t sum = 0;
    for (size_t i = 1; i < n / 8; i++)
        sum += block[i] * i;
    sums[id] += sum ^ n;
    free(block);
}

static void *make(uint64_t *seed)
{
    *seed ^= *seed << 13, *seed ^= *seed >> 7, *seed ^= *seed << 17;
    size_t n = 16 + *seed % 800;
    uint64_t *block;
    switch (*seed >> 32 & 3) {
    case 0: block = calloc(1, n); break;
    case 1: block = realloc(malloc(n / 2), n); break;
    case 2: if (posix_memalign((void **)&block, 64, n)) block = NULL; break;
    default: block = malloc(n);
    }
    if (!block)
        exit(3);
    block[0] = n;
    for (size_t i = 1; i < n / 8; i++)
        block[i] = *seed * i;
    return block;
}

static void *work(void *arg)
{
    int id = (int)(intptr_t)arg;
    uint64_t seed = 0x2545f4914f6cdd1du * (id + 1);
    long taken = 0;
    for (long i = 0; i < calls; i++) {
        /* Keep the own queue from filling up, or all sixteen would wait for each other. */
        void *p;
        while (taken < calls && (p = take(&queues[id], 0)))
            release(id, p), taken++;
        uint64_t *mine = make(&seed);
        put(&queues[(id + 1) % THREADS], mine);
    }
    for (; taken < calls; taken++)
        release(id, take(&queues[id], 1));
    return NULL;
}

int main(int argc, char **argv)
{
    if (argc > 1)
        calls = atol(argv[1]);
    pthread_t ids[THREADS];
    for (int i = 0; i < THREADS; i++) {
        pthread_mutex_init(&queues[i].lock, NULL);
        pthread_cond_init(&queues[i].changed, NULL);
    }
    for (int i = 0; i < THREADS; i++)
        if (pthread_create(&ids[i], NULL, work, (void *)(intptr_t)i))
            return 1;
    uint64_t sum = 0;
    for (int i = 0; i < THREADS; i++) {
        pthread_join(ids[i], NULL);
        sum += sums[i];
    }
    printf("%016llx\n", (unsigned long long)sum);
    return 0;
}
