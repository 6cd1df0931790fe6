// Threads that pass blocks to each other; every call is counted. Prints the counts.
#include <pthread.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

enum { THREADS = 16, BOXES = 512, ROUNDS = 60000 };
static _Atomic(void *) boxes[BOXES];
static atomic_long allocations, frees;

static void *work(void *argument) {
    uint64_t x = 88172645463325252ull + (uintptr_t)argument * 7919;
    long made = 0, freed = 0;
    for (int round = 0; round < ROUNDS; round++) {
        x ^= x << 13; x ^= x >> 7; x ^= x << 17;
        void *block = malloc(8 + (x >> 32) % 600);
        made++;
        void *old = atomic_exchange(&boxes[x % BOXES], block);
        if (old) { free(old); freed++; }
    }
    atomic_fetch_add(&allocations, made);
    atomic_fetch_add(&frees, freed);
    return NULL;
}

int main(void) {
    static char buffer[256];
    setvbuf(stdout, buffer, _IOFBF, sizeof buffer);
    pthread_t threads[THREADS];
    for (int i = 0; i < THREADS; i++) pthread_create(&threads[i], NULL, work, (void *)(uintptr_t)(i + 1));
    for (int i = 0; i < THREADS; i++) pthread_join(threads[i], NULL);
    for (int i = 0; i < BOXES; i++) if (boxes[i]) { free(boxes[i]); frees++; }
    printf("%ld %ld\n", (long)allocations, (long)frees);
    return 0;
}
