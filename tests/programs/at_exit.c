/* Loaded into a program: as that exits, it writes what malloc says of itself, and stands still.
 *
 *     AT_EXIT_PROGRAM=name AT_EXIT_FILE=path LD_PRELOAD=at_exit.so name ...
 *
 * With AT_EXIT_WALL=bytes the break cannot grow by more than these.
 *
 * Nothing is allocated between the sums and the stop: the file and its buffer are there from the beginning. The last
 * line is "end". Build with -shared -fPIC.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <malloc.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

static FILE *file;
static char buffer[1 << 20];

__attribute__((constructor)) static void begin(void)
{
    const char *program = getenv("AT_EXIT_PROGRAM"), *path = getenv("AT_EXIT_FILE");
    if (!program || !path || strcmp(program, program_invocation_short_name) != 0)
        return;
    file = fopen(path, "we");
    if (!file) {
        perror(path);
        exit(99);
    }
    setvbuf(file, buffer, _IOFBF, sizeof buffer);
    const char *wall = getenv("AT_EXIT_WALL");
    if (!wall)
        return;
    uintptr_t at = ((uintptr_t)sbrk(0) + strtoul(wall, NULL, 0)) & ~4095ul;
    if (mmap((void *)at, 4096, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0) != (void *)at) {
        perror("a wall before the break");
        exit(99);
    }
}

__attribute__((destructor)) static void end(void)
{
    if (!file)
        return;
    struct mallinfo2 sums = mallinfo2();
    malloc_info(0, file);
    fprintf(file, "arena %zu\nordblks %zu\nhblks %zu\nhblkhd %zu\nfsmblks %zu\nuordblks %zu\nfordblks %zu\nkeepcost %zu\nend\n",
            sums.arena, sums.ordblks, sums.hblks, sums.hblkhd, sums.fsmblks, sums.uordblks, sums.fordblks, sums.keepcost);
    fflush(file);
    kill(getpid(), SIGSTOP);
}
