// Calls every function of the family a known number of times, failures among them.
// A libc call that allocates is avoided between the marks; the marks are blocks of odd sizes.
#define _GNU_SOURCE
#include <errno.h>
#include <malloc.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

extern void free_sized(void *, size_t) __attribute__((weak));
extern void free_aligned_sized(void *, size_t, size_t) __attribute__((weak));
extern void cfree(void *) __attribute__((weak));

static void *volatile keep;
static size_t volatile huge = SIZE_MAX / 2;

static void need(int ok, const char *what) {
    if (!ok) {
        (void)!write(2, what, strlen(what));
        _exit(9);
    }
}

int main(void) {
    void *p;
    keep = malloc(777001);
    free(keep);

    p = malloc(100); free(p);
    p = malloc(0); free(p);
    p = calloc(3, 50); free(p);
    p = realloc(NULL, 40); p = realloc(p, 4000); keep = p;
    errno = 0;
    need(realloc(p, huge) == NULL && errno == ENOMEM, "realloc must fail\n");
    need(realloc(p, 0) == NULL, "realloc to nothing frees\n");
    p = reallocarray(NULL, 10, 10); keep = p;
    errno = 0;
    need(reallocarray(p, huge, 16) == NULL && errno == ENOMEM, "reallocarray must overflow\n");
    p = reallocarray(p, 20, 20); free(p);
    p = memalign(64, 200); free(p);
    p = aligned_alloc(128, 256); free(p);
    need(posix_memalign(&p, 4096, 300) == 0, "posix_memalign\n"); free(p);
    p = (void *)1;
    need(posix_memalign(&p, 3, 300) == EINVAL && p == (void *)1, "a bad alignment is refused\n");
    p = valloc(400); free(p);
    p = pvalloc(500); free(p);
    errno = 0;
    need(malloc(huge) == NULL && errno == ENOMEM, "malloc must fail\n");
    need(calloc(huge, 16) == NULL, "calloc must overflow\n");
    errno = 42;
    free(NULL);
    free(malloc(60));
    need(errno == 42, "free leaves errno alone\n");
    if (free_sized) free_sized(malloc(70), 70);
    if (free_aligned_sized) free_aligned_sized(aligned_alloc(64, 128), 64, 128);
    if (cfree) cfree(malloc(80));

    keep = malloc(777002);
    free(keep);
    return 7;
}
