/* Two call sites that hold memory: one many bytes, packed, on pages that a third one also uses now and then; and one
 * few bytes, spread so that each of its blocks keeps a page that is otherwise free. Sorted by bytes they stand in the
 * wrong order.
 *
 * two_sites packed|spread [arena]
 * builds that, rests for a second, and then frees the blocks of the site named and calls malloc_trim(0). Prints the
 * bytes of anonymous resident memory before and after. A call for MARK bytes stands right before the first free. With
 * "arena" a second thread allocates, in an arena of its own. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <malloc.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { PACKED = 12000, EVERY = 20, SPREAD = 2000, BETWEEN = 28, BLOCK = 600, PIN = 200, SMALL = 100, MARK = 54321 };

static char *packed[PACKED], *spread[SPREAD], *between[SPREAD][BETWEEN], *kept[PACKED / EVERY + 1];

/* Without malloc, so that asking changes nothing. */
static long rss_anon(void)
{
    char text[4096];
    int fd = open("/proc/self/smaps_rollup", O_RDONLY);
    if (fd < 0)
        return -1;
    ssize_t length = read(fd, text, sizeof text - 1);
    close(fd);
    if (length < 0)
        return -1;
    text[length] = 0;
    char *line = strstr(text, "\nAnonymous:");
    return line ? strtol(line + 11, NULL, 10) * 1024 : -1;
}

__attribute__((noinline)) static char *site_packed(size_t size)
{
    char *block = malloc(size);
    memset(block, 1, size);
    return block;
}

__attribute__((noinline)) static char *site_spread(size_t size)
{
    char *block = malloc(size);
    memset(block, 2, size);
    return block;
}

__attribute__((noinline)) static char *site_kept(size_t size)
{
    char *block = malloc(size);
    memset(block, 4, size);
    return block;
}

__attribute__((noinline)) static char *site_between(size_t size)
{
    char *block = malloc(size);
    memset(block, 3, size);
    return block;
}

static void *work(void *unused)
{
    (void)unused;
    for (int i = 0; i < PACKED; i++) {
        packed[i] = site_packed(BLOCK);
        if (i % EVERY == 0)
            kept[i / EVERY] = site_kept(SMALL);
    }
    for (int i = 0; i < SPREAD; i++) {
        spread[i] = site_spread(PIN);
        for (int k = 0; k < BETWEEN; k++)
            between[i][k] = site_between(BLOCK);
    }
    /* Something above that stays, so that nothing joins the top. */
    kept[PACKED / EVERY] = site_kept(BLOCK);
    for (int i = 0; i < SPREAD; i++)
        for (int k = 0; k < BETWEEN; k++)
            free(between[i][k]);
    malloc_trim(0);
    return NULL;
}

static void release(char **blocks, int count)
{
    long before = rss_anon();
    for (int i = 0; i < count; i++)
        free(blocks[i]);
    malloc_trim(0);
    long after = rss_anon();
    printf("%ld %ld\n", before, after);
}

int main(int argc, char **argv)
{
    if (argc < 2)
        return 2;
    if (argc > 2 && !strcmp(argv[2], "arena")) {
        pthread_t thread;
        pthread_create(&thread, NULL, work, NULL);
        pthread_join(thread, NULL);
    } else {
        work(NULL);
    }
    sleep(1);
    free(malloc(MARK));
    if (!strcmp(argv[1], "packed"))
        release(packed, PACKED);
    else
        release(spread, SPREAD);
    return 0;
}
