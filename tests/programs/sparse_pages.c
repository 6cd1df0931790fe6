/* Fills a heap, keeps some of its blocks, and prints what it keeps as malloc itself tells it: blocks, bytes of their
 * chunks, pages on which a part of a chunk lies and how many of these are less than a quarter full, full, the most
 * bytes that the chunks have taken. Ends without freeing. */
#include <malloc.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { BLOCKS = 60000, KEPT = 40, LARGE = 8, PAGE = 4096, TABLE = 1 << 20 };

static void *blocks[BLOCKS + LARGE];
static size_t asked[BLOCKS + LARGE];
/* Pages by hash: number, and bytes on it. */
static uintptr_t numbers[TABLE];
static unsigned filled[TABLE];

/* A chunk begins 16 bytes before its block. What malloc maps by itself has a header of 16 bytes, else of 8. */
static size_t chunk(const void *block, int mapped) {
    return malloc_usable_size((void *)block) + (mapped ? 16 : 8);
}

static void fill(uintptr_t start, size_t bytes) {
    while (bytes > 0) {
        uintptr_t page = start / PAGE;
        size_t room = PAGE - start % PAGE, part = bytes < room ? bytes : room;
        size_t at = page % TABLE;
        while (numbers[at] != 0 && numbers[at] != page) at = (at + 1) % TABLE;
        numbers[at] = page;
        filled[at] += part;
        start += part;
        bytes -= part;
    }
}

static int is_mapped(size_t at) {
    return (((size_t *)blocks[at])[-1] & 2) != 0;
}

int main(void) {
    unsigned state = 12345;
    size_t most = 0, now = 0;
    for (size_t at = 0; at < BLOCKS + LARGE; at++) {
        state = state * 1103515245 + 12345;
        /* Sizes that are no multiple of a granule, and a few that are mapped by themselves. */
        asked[at] = at < BLOCKS ? 1 + (state >> 16) % 900 : 150001 + 70000 * (at - BLOCKS);
        blocks[at] = malloc(asked[at]);
        if (blocks[at] == NULL) return 1;
        memset(blocks[at], 1, asked[at]);
        now += chunk(blocks[at], is_mapped(at));
        if (now > most) most = now;
    }
    size_t kept = 0, bytes = 0, requested = 0;
    for (size_t at = 0; at < BLOCKS + LARGE; at++) {
        /* Far apart, a few together, or all: pages of every kind. */
        size_t group = at / 100 % 6;
        if (at < BLOCKS && at % KEPT != 0 && !(group == 1 && at % 4 == 0) && group != 2) {
            free(blocks[at]);
            continue;
        }
        size_t size = chunk(blocks[at], is_mapped(at));
        kept++;
        bytes += size;
        requested += asked[at];
        fill((uintptr_t)blocks[at] - 16, size);
    }
    size_t pinned = 0, partial = 0, full = 0;
    for (size_t at = 0; at < TABLE; at++) {
        if (filled[at] == 0) continue;
        if (filled[at] >= PAGE) full++;
        else if (filled[at] >= PAGE / 4) partial++;
        else pinned++;
    }
    /* Written without stdio, which would allocate. */
    char line[256];
    int length = snprintf(line, sizeof line, "%zu %zu %zu %zu %zu %zu %zu\n", kept, requested, bytes, pinned, partial,
                          full, most);
    if (write(1, line, (size_t)length) != length) return 1;
    _exit(0);
}
