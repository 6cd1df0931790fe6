// Asks for blocks of 4004 bytes, which are said to lie beyond 48 bits, and for others.
#include <stdlib.h>

static void *volatile sink;

int main(void) {
    for (int i = 0; i < 5; i++) {
        sink = malloc(4004);
        free(sink);
    }
    sink = realloc(NULL, 4004);
    for (int i = 0; i < 10; i++) sink = malloc(1001);
    return 0;
}
