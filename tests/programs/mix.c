/* mix SEED ROUNDS: malloc, calloc, realloc, memalign and free of all sizes by one thread. At the end it prints the most
   and the last that malloc had obtained from the system, and mallinfo2's fields. */
#include <malloc.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

int main(int argc, char **argv)
{
    enum { SLOTS = 700 };
    static char out[256];
    static void *slots[SLOTS];
    setvbuf(stdout, out, _IOFBF, sizeof out);
    if (argc != 3)
        return 2;
    unsigned long seed = 88172645463325252ul + strtoul(argv[1], 0, 10) * 2654435761ul;
    int rounds = atoi(argv[2]);
    size_t peak = 0;
    struct mallinfo2 info;
    for (int i = 0; i < rounds; i++) {
        info = mallinfo2();
        if (info.arena + info.hblkhd > peak)
            peak = info.arena + info.hblkhd;
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        int at = seed % SLOTS, kind = (seed >> 12) % 16;
        unsigned long scale = (seed >> 20) % 100, random = seed >> 32;
        size_t size = scale < 70 ? random % 200
                    : scale < 92 ? random % 5000
                    : scale < 99 ? random % 60000
                                 : random % 600000;
        if (kind < 3) {
            slots[at] = realloc(slots[at], size + 1);
            continue;
        }
        free(slots[at]);
        slots[at] = 0;
        if (kind < 7)
            continue;
        if (kind == 7)
            slots[at] = memalign(32ul << (random % 8), size);
        else if (kind < 10)
            slots[at] = calloc(1, size);
        else
            slots[at] = malloc(size);
    }
    info = mallinfo2();
    if (info.arena + info.hblkhd > peak)
        peak = info.arena + info.hblkhd;
    printf("obtained %zu %zu\n", peak, info.arena + info.hblkhd);
    printf("mallinfo %zu %zu %zu %zu %zu\n", info.arena, info.ordblks, info.smblks, info.fordblks, info.keepcost);
    fflush(stdout);
    _exit(0);
}
