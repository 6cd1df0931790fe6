/* Loads a library after start and allocates in it, unloads it and loads it again: `dlopen_alloc LIBRARY`. Built with
 * -DPLUGIN it is that library. */
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>

#ifdef PLUGIN
void *plugin_make(size_t n);
void plugin_drop(void *p);
void *plugin_make(size_t n) { return calloc(1, n); }
void plugin_drop(void *p) { free(p); }
#else
int main(int argc, char **argv)
{
    if (argc != 2)
        return 2;
    for (int round = 0; round < 20; round++) {
        void *library = dlopen(argv[1], RTLD_NOW);
        if (!library)
            return 3;
        void *(*make)(size_t) = (void *(*)(size_t))dlsym(library, "plugin_make");
        void (*drop)(void *) = (void (*)(void *))dlsym(library, "plugin_drop");
        if (!make || !drop)
            return 4;
        void *blocks[50];
        for (int i = 0; i < 50; i++)
            if (!(blocks[i] = make(100 + i)))
                return 5;
        for (int i = 0; i < 50; i++)
            i % 2 ? drop(blocks[i]) : free(blocks[i]);
        dlclose(library);
    }
    puts("1000 blocks");
    return 0;
}
#endif
