// Calls malloc from stacks of many shapes, and prints each as the C library's own unwinder sees it:
// the size asked for, then the return addresses from malloc's caller outwards.
//
// A block of a size that occurs once is what ties a printed line to a recorded event. Every block stays.
#define _GNU_SOURCE
#include <execinfo.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <alloca.h>

#define DEPTH 600

static _Atomic size_t next_size = 5000;
static void *volatile keep;
static pthread_mutex_t out = PTHREAD_MUTEX_INITIALIZER;

// What this function's own frame adds is left out: its caller's line is that of the call.
__attribute__((noinline)) static void *ask(void) {
    size_t size = next_size++;
    void *block = malloc(size);
    void *frames[DEPTH];
    int count = backtrace(frames, DEPTH);
    pthread_mutex_lock(&out);
    printf("%zu", size);
    for (int at = 1; at < count; at++)
        printf(" %lx", (unsigned long)(uintptr_t)frames[at]);
    printf("\n");
    pthread_mutex_unlock(&out);
    keep = block;
    return block;
}

__attribute__((noinline)) static void recurse(int depth) {
    volatile char local[24];
    local[0] = (char)depth;
    if (depth > 0)
        recurse(depth - 1);
    ask();
    keep = (void *)local;
}

__attribute__((noinline)) static void sized(int bytes) {
    char *room = alloca((size_t)bytes);
    memset(room, 1, (size_t)bytes);
    keep = room;
    ask();
}

__attribute__((noinline)) static void aligned(int depth) {
    volatile char line[64] __attribute__((aligned(64)));
    line[0] = (char)depth;
    ask();
    if (depth > 0)
        aligned(depth - 1);
    ask();
    keep = (void *)line;
}

static int compare(const void *left, const void *right) {
    ask();
    return *(const int *)left - *(const int *)right;
}

static jmp_buf back;

__attribute__((noinline)) static void leave(int depth) {
    if (depth > 0)
        leave(depth - 1);
    ask();
    longjmp(back, 1);
}

static void *thread(void *argument) {
    recurse((int)(intptr_t)argument);
    sized(300);
    aligned(2);
    return NULL;
}

int main(int argc, char **argv) {
    int depth = argc > 1 ? atoi(argv[1]) : 40;
    // What it allocates and loads, it does now.
    void *first[4];
    backtrace(first, 4);
    setvbuf(stdout, NULL, _IOFBF, 1 << 16);
    recurse(depth);
    recurse(3);
    for (int bytes = 16; bytes < 2000; bytes = bytes * 2 + 16)
        sized(bytes);
    aligned(4);
    int numbers[] = {5, 3, 9, 1, 7};
    qsort(numbers, 5, sizeof numbers[0], compare);
    if (setjmp(back) == 0)
        leave(6);
    recurse(2);
    pthread_t threads[3];
    for (intptr_t at = 0; at < 3; at++)
        pthread_create(&threads[at], NULL, thread, (void *)(10 + at * 5));
    for (int at = 0; at < 3; at++)
        pthread_join(threads[at], NULL);
    recurse(1);
    // So many milliseconds, for whoever looks at what is mapped here.
    if (argc > 2)
        usleep((useconds_t)atoi(argv[2]) * 1000);
    return 0;
}
