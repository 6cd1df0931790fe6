/* Allocates with everything linked in and, when stripped, no symbol to find: `static [SECONDS]` stays that long. */
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

int main(int argc, char **argv)
{
    unsigned long sum = 0;
    for (int i = 0; i < 1000; i++) {
        char *p = malloc(10 + i);
        if (!p)
            return 1;
        p[9] = (char)i;
        sum += (unsigned char)p[9];
        free(p);
    }
    printf("%lu\n", sum);
    fflush(stdout);
    if (argc > 1)
        sleep(atoi(argv[1]));
    return 0;
}
