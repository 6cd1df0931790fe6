// Allocates where it is hard: in destructors of thread-specific data, in a thread that ends by pthread_exit, in
// constructors, destructors and exit handlers, and looks symbols up, which allocates inside the linker.
#define _GNU_SOURCE
#include <dlfcn.h>
#include <pthread.h>
#include <stdlib.h>

static void *volatile sink;
static pthread_key_t key;
static void blocks(int count, size_t size) { for (int i = 0; i < count; i++) { sink = malloc(size); free(sink); } }

__attribute__((constructor(101))) static void early(void) { blocks(3, 6001); }
__attribute__((destructor(101))) static void late(void) { blocks(3, 6002); }
static void at_exit(void) { blocks(3, 6003); }

static void again(void *round) {
    blocks(2, 6004);
    if ((long)round < 3) pthread_setspecific(key, (void *)((long)round + 1));
}
static void *work(void *argument) {
    pthread_setspecific(key, (void *)1);
    blocks(1, 6005);
    pthread_exit(argument);
}

int main(void) {
    pthread_key_create(&key, again);
    atexit(at_exit);
    for (int i = 0; i < 100; i++) {
        pthread_t thread;
        pthread_create(&thread, NULL, work, NULL);
        pthread_join(thread, NULL);
    }
    for (int i = 0; i < 50; i++) if (dlsym(RTLD_DEFAULT, "no_such_symbol_anywhere") != NULL) return 1;
    const char *message = dlerror();
    return message == NULL;
}
