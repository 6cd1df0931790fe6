// Loads a library while it runs.
#include <dlfcn.h>

int main(void) { return dlopen("libz.so.1", RTLD_NOW) == 0; }
