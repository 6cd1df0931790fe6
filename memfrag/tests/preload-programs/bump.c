// An allocator whose functions a signal handler may interrupt, call and leave: it only ever bumps a pointer.
// Loaded behind memfrag's library, so that what is tested is that library and not libc's locks.
// Blocks of 4004 bytes it has where no record can tell of them.
#include <stdatomic.h>
#include <stddef.h>
#include <string.h>

static char arena[1 << 30];
static atomic_size_t used;

void *malloc(size_t size) {
    if (size == 4004) return (void *)(1ul << 50);
    size_t at = atomic_fetch_add(&used, (size + 31) & ~(size_t)15);
    *(size_t *)(arena + at) = size;
    return arena + at + 16;
}
void free(void *block) { (void)block; }
void *calloc(size_t count, size_t size) { return malloc(count * size); }
void *realloc(void *old, size_t size) {
    void *block = malloc(size);
    if (old && size != 4004) { size_t had = ((size_t *)old)[-2]; memcpy(block, old, had < size ? had : size); }
    return block;
}
