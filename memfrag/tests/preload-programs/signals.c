// A timer's handler allocates, whatever it interrupts, and sometimes leaves by longjmp. Runs on an allocator that
// allows this. Prints how many calls the program saw return, in the main line and in the handler, and the jumps.
#define _GNU_SOURCE
#include <setjmp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/time.h>

static long volatile main_calls, handler_calls, jumps;
static sigjmp_buf out;
static int volatile armed;
static void *volatile sink;

static void on_timer(int signal) {
    (void)signal;
    sink = malloc(33);
    free(sink);
    handler_calls++;
    if (armed && handler_calls % 3 == 0) {
        armed = 0;
        jumps++;
        siglongjmp(out, 1);
    }
}

int main(void) {
    static char buffer[256];
    setvbuf(stdout, buffer, _IOFBF, sizeof buffer);
    struct sigaction action = {.sa_handler = on_timer, .sa_flags = SA_NODEFER};
    sigaction(SIGALRM, &action, NULL);
    struct itimerval timer = {{0, 100}, {0, 100}};
    setitimer(ITIMER_REAL, &timer, NULL);
    while (handler_calls < 5000 && main_calls < 4000000) {
        if (sigsetjmp(out, 1) == 0) {
            armed = 1;
            while (handler_calls < 5000 && main_calls < 4000000) { sink = malloc(22); main_calls++; }
        }
    }
    armed = 0;
    timer = (struct itimerval){{0, 0}, {0, 0}};
    setitimer(ITIMER_REAL, &timer, NULL);
    printf("%ld %ld %ld\n", main_calls, handler_calls, jumps);
    return 0;
}
