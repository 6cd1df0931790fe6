/* Waves of blocks from four threads, as many as one wants, with a child that has them all.
 *
 *     waves DIR CALLS
 *
 * Each wave is CALLS calls of malloc, calloc, realloc and free; the set of live blocks rises and falls. Behind wave N
 * it writes DIR/done.N and waits for DIR/go.N, or for DIR/end, on which it frees every second block, and ends. Behind
 * the first wave it forks a child that frees a part of what it inherited, allocates some, and ends.
 */
#define _GNU_SOURCE
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

enum { THREADS = 4, MOST = 20000 };

static long calls;
static void *slots[THREADS][MOST];

static void *wave(void *arg)
{
    int id = (int)(intptr_t)arg;
    uint64_t seed = 0x9e3779b97f4a7c15u * (id + 1);
    long each = calls / THREADS;
    for (long call = 0; call < each; call++) {
        seed ^= seed << 13, seed ^= seed >> 7, seed ^= seed << 17;
        /* The slots in use rise with the first half of the calls and fall with the second. */
        long half = each / 2 + 1;
        long in_use = 500 + (MOST - 500) * (call < half ? call : each - call) / half;
        void **slot = &slots[id][seed % (uint64_t)(call % 8 ? 500 : in_use)];
        size_t size = 16 + (seed >> 32) % (seed % 64 ? 300 : 9000);
        if (*slot && (seed >> 24) % 16 == 0) {
            *slot = realloc(*slot, size);
        } else if (*slot) {
            free(*slot);
            *slot = NULL;
        } else {
            *slot = (seed >> 28) % 8 ? malloc(size) : calloc(1, size);
        }
    }
    return NULL;
}

static int is_there(const char *dir, const char *name, int number)
{
    char path[4096];
    snprintf(path, sizeof path, number < 0 ? "%s/%s" : "%s/%s.%d", dir, name, number);
    return access(path, F_OK) == 0;
}

static void child(void)
{
    for (int at = 0; at < MOST; at += 3) {
        free(slots[0][at]);
        slots[0][at] = at % 2 ? malloc(100) : NULL;
    }
    _exit(0);
}

int main(int argc, char **argv)
{
    if (argc < 3 || (calls = atol(argv[2])) <= 0)
        return 2;
    for (int number = 0;; number++) {
        pthread_t threads[THREADS];
        for (int id = 0; id < THREADS; id++)
            pthread_create(&threads[id], NULL, wave, (void *)(intptr_t)id);
        for (int id = 0; id < THREADS; id++)
            pthread_join(threads[id], NULL);
        if (number == 0) {
            pid_t pid = fork();
            if (pid == 0)
                child();
            waitpid(pid, NULL, 0);
        }
        char path[4096];
        snprintf(path, sizeof path, "%s/done.%d", argv[1], number);
        FILE *done = fopen(path, "w");
        if (!done)
            return 3;
        fclose(done);
        while (!is_there(argv[1], "go", number)) {
            if (is_there(argv[1], "end", -1)) {
                for (int id = 0; id < THREADS; id++)
                    for (int at = 0; at < MOST; at += 2)
                        free(slots[id][at]);
                return 0;
            }
            usleep(2000);
        }
    }
}
