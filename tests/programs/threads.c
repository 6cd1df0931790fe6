/* threads THREADS ROUNDS CROSS: twice over, THREADS threads take and free blocks, about in step, so that they hold as much
   at once in every run. With CROSS, every tenth block is freed by another thread. At the end it prints the most and the last that malloc had obtained from the system. */
#include <malloc.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>

enum { SLOTS = 400, MAX_THREADS = 64 };

static int threads, rounds, cross;
static _Atomic(void *) handed[MAX_THREADS];
static _Atomic size_t peak;
static pthread_barrier_t step;

static size_t obtained(void)
{
    struct mallinfo2 info = mallinfo2();
    size_t now = info.arena + info.hblkhd, before = peak;
    while (now > before && !atomic_compare_exchange_weak(&peak, &before, now))
        ;
    return now;
}

static void *work(void *argument)
{
    long me = (long)argument;
    unsigned long seed = 88172645463325252ul + me * 7919;
    void *slots[SLOTS] = {0};
    for (int i = 0; i < rounds; i++) {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        int at = seed % SLOTS;
        if (i % 256 == 0) {
            pthread_barrier_wait(&step);
            obtained();
        }
        if (cross && seed % 10 == 3 && slots[at]) {
            free(atomic_exchange(&handed[(me + 1) % threads], slots[at]));
            slots[at] = 0;
            continue;
        }
        free(slots[at]);
        size_t size = (seed >> 20) % 100 < 90 ? (seed >> 32) % 500 : (seed >> 32) % 9000;
        slots[at] = (seed >> 50) % 8 ? malloc(size) : calloc(1, size);
    }
    pthread_barrier_wait(&step);
    obtained();
    for (int i = 0; i < SLOTS; i += 2)
        free(slots[i]);
    return 0;
}

int main(int argc, char **argv)
{
    static char out[256];
    setvbuf(stdout, out, _IOFBF, sizeof out);
    if (argc != 4)
        return 2;
    threads = atoi(argv[1]);
    rounds = atoi(argv[2]);
    cross = atoi(argv[3]);
    pthread_barrier_init(&step, 0, threads);
    for (int again = 0; again < 2; again++) {
        pthread_t ids[MAX_THREADS];
        for (long i = 0; i < threads; i++)
            pthread_create(&ids[i], 0, work, (void *)i);
        for (int i = 0; i < threads; i++)
            pthread_join(ids[i], 0);
    }
    size_t last = obtained();
    printf("obtained %zu %zu\n", peak, last);
    return 0;
}
