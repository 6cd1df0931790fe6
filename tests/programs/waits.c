/* Stands or works in one way, and knows whether it was disturbed.
 *
 *     waits epoll|poll|read|sleep|semaphore|pause   waits in that call, which may end only when SIGTERM has come
 *     waits numbers                                 computes the same number again and again in vector registers
 *     waits signals                                 gets a numbered signal every now and then; none may be lost
 *     waits handler                                 waits in a signal handler
 *     waits inside | beside                         a thread is in malloc and keeps a lock: the only one, or another
 *
 * It says "ready" on standard error. On SIGTERM it ends, with 0 if all was as it should be, else with 4.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <malloc.h>
#include <poll.h>
#include <pthread.h>
#include <semaphore.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <time.h>
#include <unistd.h>

static volatile sig_atomic_t stop;
static int ends[2], said = 2;
static atomic_int next_number, wrong, over;

static void on_term(int signal)
{
    (void)signal;
    stop = 1;
}

static void say_ready(void)
{
    if (write(said, "ready\n", 6) != 6)
        _exit(4);
}

static void on_number(int signal, siginfo_t *info, void *context)
{
    (void)signal, (void)context;
    if (info->si_value.sival_int != atomic_fetch_add(&next_number, 1))
        wrong = 1;
}

static void *send_numbers(void *sent)
{
    int number = 0;
    while (!stop) {
        union sigval value = {.sival_int = number++};
        while (sigqueue(getpid(), SIGRTMIN, value))
            usleep(1000);
        usleep(200);
    }
    *(int *)sent = number;
    return NULL;
}

static double numbers(void)
{
    double a = 1, b = 0.5, c = 0.25, d = 0.125;
    for (int i = 1; i < 2000000; i++) {
        a = a * 0.999 + b * 0.001 + 1.0 / i;
        b = b * 0.998 + c * 0.002 + 0.5 / i;
        c = c * 0.997 + d * 0.003 + 0.25 / i;
        d = d * 0.996 + a * 0.004;
    }
    return a + b * 3 + c * 5 + d * 7;
}

static void on_handler(int signal)
{
    (void)signal;
    say_ready();
    while (!stop)
        poll(NULL, 0, 1000000);
}

/* Standard error becomes a pipe that is full, so that who writes to it waits. */
static void fill_errors(void)
{
    char page[4096] = {0};
    said = dup(2);
    if (pipe(ends) || fcntl(ends[1], F_SETFL, O_NONBLOCK) || fcntl(ends[0], F_SETFL, O_NONBLOCK))
        exit(4);
    while (write(ends[1], page, sizeof page) > 0)
        ;
    fcntl(ends[1], F_SETFL, 0);
    dup2(ends[1], 2);
}

static void drain(int signal)
{
    char page[4096];
    (void)signal;
    stop = 1;
    while (read(ends[0], page, sizeof page) > 0)
        ;
}

static void *print_stats(void *nothing)
{
    malloc_stats();
    over = 1;
    return nothing;
}

/* Waits as `mode` says; false when there is no such way. */
static int wait_once(const char *mode)
{
    static sem_t semaphore;
    struct epoll_event event = {.events = EPOLLIN};
    struct pollfd descriptor = {.fd = ends[0], .events = POLLIN};
    struct timespec long_time = {.tv_sec = 100000};
    char byte;
    if (!strcmp(mode, "epoll")) {
        int epoll = epoll_create1(0);
        epoll_ctl(epoll, EPOLL_CTL_ADD, ends[0], &event);
        epoll_wait(epoll, &event, 1, -1);
    } else if (!strcmp(mode, "poll")) {
        poll(&descriptor, 1, -1);
    } else if (!strcmp(mode, "read")) {
        return read(ends[0], &byte, 1) <= 1;
    } else if (!strcmp(mode, "sleep")) {
        clock_nanosleep(CLOCK_MONOTONIC, 0, &long_time, NULL);
    } else if (!strcmp(mode, "semaphore")) {
        sem_wait(&semaphore);
    } else if (!strcmp(mode, "pause")) {
        pause();
    } else {
        return 0;
    }
    return 1;
}

int main(int argc, char **argv)
{
    if (argc < 2 || pipe(ends))
        return 2;
    const char *mode = argv[1];
    /* Something to trim. */
    void *blocks[64];
    for (int i = 0; i < 64; i++)
        blocks[i] = memset(malloc(20000), 1, 20000);
    for (int i = 0; i < 63; i++)
        free(blocks[i]);
    struct sigaction action = {.sa_handler = on_term};
    sigaction(SIGTERM, &action, NULL);
    if (!strcmp(mode, "numbers")) {
        double first = numbers();
        say_ready();
        while (!stop)
            if (numbers() != first)
                return 4;
        return 0;
    }
    if (!strcmp(mode, "signals")) {
        struct sigaction numbered = {.sa_sigaction = on_number, .sa_flags = SA_SIGINFO};
        sigaction(SIGRTMIN, &numbered, NULL);
        sigset_t set;
        sigemptyset(&set);
        sigaddset(&set, SIGRTMIN);
        sigaddset(&set, SIGTERM);
        pthread_sigmask(SIG_BLOCK, &set, NULL);
        pthread_t sender;
        int sent = 0;
        pthread_create(&sender, NULL, send_numbers, &sent);
        pthread_sigmask(SIG_UNBLOCK, &set, NULL);
        say_ready();
        while (!stop)
            poll(NULL, 0, -1);
        pthread_join(sender, NULL);
        while (next_number < sent && !wrong)
            poll(NULL, 0, 10);
        return wrong ? 4 : 0;
    }
    if (!strcmp(mode, "handler")) {
        action.sa_handler = on_handler;
        sigaction(SIGUSR1, &action, NULL);
        raise(SIGUSR1);
        return 0;
    }
    if (!strcmp(mode, "inside") || !strcmp(mode, "beside")) {
        fill_errors();
        action.sa_handler = drain;
        sigaction(SIGTERM, &action, NULL);
        say_ready();
        if (mode[0] == 'i') {
            malloc_stats();
            return stop ? 0 : 4;
        }
        pthread_t thread;
        pthread_create(&thread, NULL, print_stats, NULL);
        while (!stop)
            pause();
        while (!over) {
            drain(0);
            usleep(1000);
        }
        pthread_join(thread, NULL);
        free(malloc(100000));
        return malloc_trim(0) < 0;
    }
    say_ready();
    if (!wait_once(mode))
        return 2;
    return stop ? 0 : 4;
}
