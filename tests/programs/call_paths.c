/* One call site, reached by two paths: `left` asks ten times for 1000 bytes, `right` thirty times for 100. Before it ends
   it waits, so that its mappings can be looked at however busy the machine is. */
#include <stdlib.h>
#include <unistd.h>

static void *volatile kept;

__attribute__((noinline)) static void *build(size_t size)
{
    void *block = malloc(size);
    kept = block;
    return block;
}

__attribute__((noinline)) static void left(void)
{
    for (int i = 0; i < 10; i++)
        build(1000);
    kept = 0;
}

__attribute__((noinline)) static void right(void)
{
    for (int i = 0; i < 30; i++)
        build(100);
    kept = 0;
}

int main(void)
{
    left();
    right();
    usleep(200000);
    return 0;
}
