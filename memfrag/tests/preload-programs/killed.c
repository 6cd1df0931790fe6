// Makes a thousand blocks and kills itself by the signal given.
#include <signal.h>
#include <stdlib.h>

static void *volatile sink;
int main(int argc, char **argv) {
    for (int i = 0; i < 1000; i++) sink = malloc(4321);
    raise(argc > 1 ? atoi(argv[1]) : SIGKILL);
    return 1;
}
