// Allocates and frees as often as the argument says, then prints a word.
#include <stdio.h>
#include <stdlib.h>

static void *volatile sink;
int main(int argc, char **argv) {
    long count = argc > 1 ? atol(argv[1]) : 1000;
    for (long i = 0; i < count; i++) { sink = malloc(64 + i % 100); free(sink); }
    puts("done");
    return 6;
}
