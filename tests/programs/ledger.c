/* Calls every function of the allocator and keeps its own books, to be compared with a recording event by event.
 *
 *     ledger DIR STAGE[,STAGE...] [SEED [COUNT]]
 *
 * Every thread writes its own file DIR/PID.TID.N: a header, then one entry for each call in program order. The books
 * are kept without the allocator: static buffers, open(2), write(2). Only this program's own calls are in them, not
 * those of libc; the header says where this program's text lies, so that the two can be told apart by call site.
 *
 * Stages: basic, fail, seeded, threads, churn, fork, forkbusy, jump, mapjump, exec (with what follows it run by the
 * new program). It checks what it gets (tags survive, calloc is zero, blocks are aligned) and exits 0 when all was well.
 * Build with -fno-builtin -fno-optimize-sibling-calls, or the compiler drops calls that this is about.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <malloc.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

/* Numbers of the wire format. */
enum { MALLOC = 1, CALLOC, REALLOC, REALLOCARRAY, MEMALIGN, ALIGNED_ALLOC, POSIX_MEMALIGN, VALLOC, PVALLOC, FREE };
/* An entry's flags: the call was left by a jump; its size means nothing (overflow); it may go unseen. */
enum { ABANDONED = 1, NO_SIZE = 2, MAYBE_UNSEEN = 4 };

struct entry {
    uint8_t function, flags, align_log2, pad[5];
    uint64_t in, out, size;
};
struct header {
    char magic[8];
    uint32_t pid, tid;
    uint64_t text_start, text_end;
};

#define BOOKED 256
static __thread struct books {
    int fd, used;
    /* What the thread does: nothing of note, a call, or writing in these books. */
    volatile sig_atomic_t phase;
    struct entry pending;
    struct entry entries[BOOKED];
} books;
enum { COMPUTING, CALLING, WRITING };

extern char __executable_start, etext;
static const char *dir;
static volatile size_t huge = (size_t)1 << 63;

static void die(const char *what)
{
    char line[200];
    int n = snprintf(line, sizeof line, "ledger: %s (errno %d)\n", what, errno);
    if (write(2, line, n) < 0)
        _exit(99);
    _exit(98);
}

static void put(const void *data, size_t n)
{
    for (const char *p = data; n > 0;) {
        ssize_t done = write(books.fd, p, n);
        if (done < 0 && errno == EINTR)
            continue;
        if (done <= 0)
            die("cannot write the books");
        p += done, n -= done;
    }
}

static void books_flush(void)
{
    put(books.entries, books.used * sizeof books.entries[0]);
    books.used = 0;
}

static void books_open(void)
{
    char path[512];
    struct header h = {"ledger01", getpid(), syscall(SYS_gettid), (uintptr_t)&__executable_start, (uintptr_t)&etext};
    for (int n = 0; n < 1000; n++) {
        snprintf(path, sizeof path, "%s/%u.%u.%d", dir, h.pid, h.tid, n);
        books.fd = open(path, O_CREAT | O_EXCL | O_WRONLY | O_CLOEXEC, 0644);
        if (books.fd >= 0) {
            books.used = 0;
            put(&h, sizeof h);
            return;
        }
    }
    die("cannot open the books");
}

static void books_close(void)
{
    books_flush();
    close(books.fd);
}

static void append(void)
{
    if (books.used == BOOKED)
        books_flush();
    books.entries[books.used++] = books.pending;
}

static void begin(int function, int flags, size_t align, void *in, size_t size)
{
    books.pending = (struct entry){.function = function, .flags = flags,
        .align_log2 = align ? __builtin_ctzl(align) : 0, .in = (uintptr_t)in, .size = size};
    atomic_signal_fence(memory_order_seq_cst);
    books.phase = CALLING;
}

static void end(void *out)
{
    books.phase = WRITING;
    atomic_signal_fence(memory_order_seq_cst);
    books.pending.out = (uintptr_t)out;
    append();
    atomic_signal_fence(memory_order_seq_cst);
    books.phase = COMPUTING;
}

/* After a jump: if it left a call, say so. */
static int landed(void)
{
    int left = books.phase == CALLING;
    books.phase = WRITING;
    if (left) {
        books.pending.flags |= ABANDONED;
        append();
    }
    atomic_signal_fence(memory_order_seq_cst);
    books.phase = COMPUTING;
    return left;
}

/* The calls, each entered in the books. */
#define CALL(function, flags, align, in, size, expression) \
    do { begin(function, flags, align, in, size); p = (expression); end(p); } while (0)

static void *do_malloc(size_t n) { void *p; CALL(MALLOC, 0, 0, 0, n, malloc(n)); return p; }
static void *do_calloc(size_t k, size_t n)
{
    void *p;
    size_t product;
    int flags = __builtin_mul_overflow(k, n, &product) ? NO_SIZE : 0;
    CALL(CALLOC, flags, 0, 0, product, calloc(k, n));
    return p;
}
static void *do_realloc(void *old, size_t n) { void *p; CALL(REALLOC, 0, 0, old, n, realloc(old, n)); return p; }
static void *do_reallocarray(void *old, size_t k, size_t n)
{
    void *p;
    size_t product;
    /* glibc refuses an overflow before it gets to realloc, where the probes are. */
    int flags = __builtin_mul_overflow(k, n, &product) ? NO_SIZE | MAYBE_UNSEEN : 0;
    CALL(REALLOCARRAY, flags, 0, old, product, reallocarray(old, k, n));
    return p;
}
static void *do_memalign(size_t a, size_t n) { void *p; CALL(MEMALIGN, 0, a, 0, n, memalign(a, n)); return p; }
static void *do_aligned(size_t a, size_t n) { void *p; CALL(ALIGNED_ALLOC, 0, a, 0, n, aligned_alloc(a, n)); return p; }
static void *do_posix(size_t a, size_t n)
{
    void *p, *out = (void *)0x5a5a;
    CALL(POSIX_MEMALIGN, 0, a, 0, n, posix_memalign(&out, a, n) == 0 ? out : NULL);
    return p;
}
static void *do_valloc(size_t n) { void *p; CALL(VALLOC, 0, 0, 0, n, valloc(n)); return p; }
static void *do_pvalloc(size_t n) { void *p; CALL(PVALLOC, 0, 0, 0, n, pvalloc(n)); return p; }
static void do_free(void *old)
{
    if (!old) {
        free(old); /* no event */
        return;
    }
    begin(FREE, 0, 0, old, 0);
    free(old);
    end(NULL);
}

/* Blocks carry a tag made of their size, which must survive. */
static void tag(void *p, size_t n)
{
    if (!p)
        die("an allocation failed");
    if (n >= 16) {
        ((uint64_t *)p)[0] = n * 0x9e3779b97f4a7c15u;
        ((uint64_t *)p)[1] = n;
    }
}
static void check(void *p, size_t n)
{
    if (n >= 16 && (((uint64_t *)p)[0] != n * 0x9e3779b97f4a7c15u || ((uint64_t *)p)[1] != n))
        die("a block has changed");
}
static void aligned(void *p, size_t a)
{
    if ((uintptr_t)p & (a - 1))
        die("a block is not aligned");
}

static uint64_t next(uint64_t *seed)
{
    *seed ^= *seed << 13, *seed ^= *seed >> 7, *seed ^= *seed << 17;
    return *seed;
}

struct slot { void *p; size_t n; };

static size_t some_size(uint64_t *seed)
{
    uint64_t r = next(seed);
    switch (r % 16) {
    case 0: return 0;
    case 1: return 1 + (r >> 8) % 16;
    case 2: return 1024 + (r >> 8) % 60000;
    case 3: return r >> 8 & 15 ? 2000 + (r >> 16) % 3000 : 100000 + (r >> 16) % 300000;
    default: return 16 + (r >> 8) % 600;
    }
}

/* One random call; slots are 64. */
static void random_call(struct slot *slots, uint64_t *seed)
{
    struct slot *s = &slots[next(seed) % 64];
    size_t n = some_size(seed), a = (size_t)16 << next(seed) % 8;
    unsigned which = next(seed) % 24;
    if (s->p && which < 16) {
        check(s->p, s->n);
        do_free(s->p);
        s->p = NULL;
        return;
    }
    if (s->p || which == 16) {
        size_t keep = s->p ? s->n : 0;
        void *p;
        if (which == 17 && s->p) {
            if (do_realloc(s->p, 0)) /* frees, in glibc */
                die("realloc to 0 gave a block");
            s->p = NULL;
            return;
        }
        n = n ? n : 1;
        uint64_t first = keep >= 16 ? *(uint64_t *)s->p : 0;
        p = which & 1 ? do_realloc(s->p, n) : do_reallocarray(s->p, 1, n);
        if (keep >= 16 && n >= 8 && p && *(uint64_t *)p != first)
            die("realloc lost the contents");
        *s = (struct slot){p, n};
        tag(p, n);
        return;
    }
    switch (which) {
    case 0: s->p = do_memalign(a, n), aligned(s->p, a); break;
    case 1: s->p = do_aligned(a, n), aligned(s->p, a); break;
    case 2: s->p = do_posix(a, n), aligned(s->p, a); break;
    case 3: s->p = do_valloc(n), aligned(s->p, 4096); break;
    case 4: s->p = do_pvalloc(n), aligned(s->p, 4096); break;
    case 5: case 6: case 7:
        s->p = do_calloc(3, n / 3), n = n / 3 * 3;
        for (size_t i = 0; s->p && i < n; i++)
            if (((char *)s->p)[i])
                die("calloc is not zero");
        break;
    default: s->p = do_malloc(n);
    }
    s->n = n;
    tag(s->p, n);
}

static void random_calls(struct slot *slots, uint64_t *seed, long count)
{
    for (long i = 0; i < count; i++)
        random_call(slots, seed);
}

static void drop(struct slot *slots)
{
    for (int i = 0; i < 64; i++)
        if (slots[i].p) {
            check(slots[i].p, slots[i].n);
            do_free(slots[i].p);
            slots[i].p = NULL;
        }
}

/* The stages. */

static void stage_basic(void)
{
    static const size_t sizes[] = {0, 1, 7, 8, 16, 24, 25, 100, 1000, 1032, 1033, 4096, 65536, 131072, 200000, 1 << 20};
    void *p;
    for (unsigned i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        size_t n = sizes[i];
        tag(p = do_malloc(n), n), do_free(p);
        tag(p = do_calloc(1, n), n), do_free(p);
        tag(p = do_calloc(n, 1), n), do_free(p);
        tag(p = do_realloc(NULL, n), n);
        tag(p = do_realloc(p, n + 100), n + 100);
        tag(p = do_realloc(p, n + 100000), n + 100000);
        tag(p = do_realloc(p, n + 50), n + 50);
        do_realloc(p, 0);
        tag(p = do_reallocarray(NULL, 2, n), 2 * n), do_free(p);
        for (size_t a = 16; a <= 8192; a *= 4) {
            tag(p = do_memalign(a, n), n), aligned(p, a), do_free(p);
            tag(p = do_aligned(a, n), n), aligned(p, a), do_free(p);
            tag(p = do_posix(a, n), n), aligned(p, a), do_free(p);
        }
        tag(p = do_valloc(n), n), do_free(p);
        tag(p = do_pvalloc(n), n), do_free(p);
        do_free(NULL);
    }
    /* Some stay to the end. */
    for (int i = 0; i < 100; i++)
        tag(do_malloc(16 + i * 16), 16 + i * 16);
}

static void refused(void *p)
{
    if (p)
        die("an impossible call succeeded");
}

static void stage_fail(void)
{
    void *old;
    for (int i = 0; i < 20; i++) {
        refused(do_malloc(huge));
        refused(do_calloc(1, huge));
        refused(do_calloc(huge, 3));
        refused(do_realloc(NULL, huge));
        tag(old = do_malloc(100), 100);
        refused(do_realloc(old, huge));
        check(old, 100);
        /* In this order: the second one may go unseen, and must not be taken for the first. */
        refused(do_reallocarray(old, huge, 1));
        refused(do_reallocarray(old, huge, 3));
        check(old, 100);
        do_free(old);
        refused(do_memalign(64, huge));
        refused(do_aligned(64, huge));
        refused(do_posix(64, huge));
        begin(POSIX_MEMALIGN, 0, 0, 0, 10);
        old = (void *)0x5a5a;
        if (posix_memalign(&old, 3, 10) != EINVAL || old != (void *)0x5a5a)
            die("posix_memalign took an alignment of 3");
        end(NULL);
        refused(do_valloc(huge));
        refused(do_pvalloc(huge));
    }
}

static struct slot kept[64];

static void stage_seeded(uint64_t seed, long count)
{
    random_calls(kept, &seed, count); /* what is left stays to the end */
}

static _Atomic(void *) mail[32];

struct job { uint64_t seed; long count; };

static void *worker(void *arg)
{
    struct job job = *(struct job *)arg;
    struct slot slots[64] = {0};
    books_open();
    for (long i = 0; i < job.count; i++) {
        random_call(slots, &job.seed);
        if (next(&job.seed) % 4 == 0) {
            /* Hand a block to whoever comes by, and free what another thread left. */
            size_t n = 16 + next(&job.seed) % 500;
            void *p = do_malloc(n);
            tag(p, n);
            p = atomic_exchange(&mail[next(&job.seed) % 32], p);
            if (p) {
                check(p, ((uint64_t *)p)[1]);
                do_free(p);
            }
        }
    }
    drop(slots);
    books_close();
    return NULL;
}

static void start(pthread_t *threads, struct job *jobs, int n, uint64_t seed, long count)
{
    for (int i = 0; i < n; i++) {
        jobs[i] = (struct job){seed * 31 + 977 * i + 1, count};
        if (pthread_create(&threads[i], NULL, worker, &jobs[i]))
            die("cannot start a thread");
    }
}

static void join(pthread_t *threads, int n)
{
    for (int i = 0; i < n; i++)
        pthread_join(threads[i], NULL);
    for (int i = 0; i < 32; i++) {
        void *p = atomic_exchange(&mail[i], NULL);
        if (p)
            do_free(p);
    }
}

static void stage_threads(uint64_t seed, long count)
{
    pthread_t threads[4];
    struct job jobs[4];
    start(threads, jobs, 4, seed, count);
    join(threads, 4);
}

static void stage_churn(uint64_t seed)
{
    for (int round = 0; round < 25; round++) {
        pthread_t threads[8];
        struct job jobs[8];
        start(threads, jobs, 8, seed + round * 1000, 30);
        join(threads, 8);
    }
}

/* In the child: new books; the blocks of the parent are the child's as well. */
static void as_child(uint64_t seed, int generations)
{
    pid_t pid = 0;
    for (int i = 0; i < generations && pid == 0; i++) {
        if (i > 0)
            books_flush(), close(books.fd);
        books_open();
        random_calls(kept, &seed, 500);
        if (i + 1 < generations) {
            books_flush();
            pid = fork();
            if (pid < 0)
                die("cannot fork");
        }
    }
    int status;
    if (pid > 0 && (waitpid(pid, &status, 0) != pid || status))
        die("a grandchild failed");
    drop(kept);
    books_close();
    _exit(0);
}

static void stage_fork(uint64_t seed, int children)
{
    for (int i = 0; i < children; i++) {
        books_flush();
        random_calls(kept, &seed, 100);
        books_flush();
        pid_t pid = fork();
        if (pid < 0)
            die("cannot fork");
        if (pid == 0) {
            close(books.fd);
            as_child(seed + i, i == 0 ? 2 : 1);
        }
        random_calls(kept, &seed, 300);
        int status;
        while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
            ;
        if (status)
            die("a child failed");
    }
}

static void stage_forkbusy(uint64_t seed, long count)
{
    pthread_t threads[3];
    struct job jobs[3];
    start(threads, jobs, 3, seed, count);
    stage_fork(seed, 5);
    join(threads, 3);
}

static sigjmp_buf back;
static volatile sig_atomic_t jumps, out_of_calls;
static int may_leave_calls;

static void on_signal(int signal)
{
    (void)signal;
    if (books.phase == WRITING || (books.phase == CALLING && !may_leave_calls))
        return;
    siglongjmp(back, 1);
}

static void timer(long microseconds)
{
    struct itimerval t = {{0, microseconds}, {0, microseconds}};
    if (setitimer(ITIMER_REAL, &t, NULL))
        die("cannot set the timer");
}

/* Jumps out of a handler, from between calls. */
static void stage_jump(uint64_t seed)
{
    struct sigaction action = {.sa_handler = on_signal};
    sigaction(SIGALRM, &action, NULL);
    sigaction(SIGUSR1, &action, NULL);
    may_leave_calls = 0;
    static struct slot slots[64];
    static uint64_t state;
    static volatile long i;
    state = seed;
    for (i = 0; i < 50; i++)
        if (sigsetjmp(back, 1) == 0) {
            random_calls(slots, &state, 10);
            raise(SIGUSR1);
            die("the signal did not jump");
        } else {
            landed();
        }
    /* The timer strikes wherever it may. A slot may have been caught between a call and its entry in the table, so
     * blocks are used for one call only. */
    i = 0;
    if (sigsetjmp(back, 1)) {
        landed();
        jumps++;
    }
    timer(300);
    while (i < 30000) {
        i++;
        void *p = do_malloc(16 + i % 1000);
        if (i % 7)
            do_free(p);
    }
    timer(0);
    drop(slots);
}

/* Jumps out of the allocator itself. With one thread and mappings only, glibc has no state that a jump could leave
 * half changed: the block is lost, and no more. */
static void stage_mapjump(void)
{
    struct sigaction action = {.sa_handler = on_signal};
    sigaction(SIGALRM, &action, NULL);
    mallopt(M_MMAP_THRESHOLD, 1 << 17);
    do_free(do_malloc(100));
    static volatile long i;
    may_leave_calls = 1;
    i = 0;
    if (sigsetjmp(back, 1) && landed())
        out_of_calls++;
    timer(200);
    while (i < 20000 && out_of_calls < 300) {
        i++;
        do_free(i % 2 ? do_malloc(200000 + i) : do_calloc(1, 150000 + i));
    }
    timer(0);
    may_leave_calls = 0;
    /* And it goes on as if nothing had been. */
    uint64_t seed = 99;
    random_calls(kept, &seed, 300);
}

int main(int argc, char **argv)
{
    if (argc < 3) {
        fprintf(stderr, "usage: ledger DIR STAGE[,STAGE...] [SEED [COUNT]]\n");
        return 2;
    }
    dir = argv[1];
    uint64_t seed = argc > 3 ? strtoull(argv[3], NULL, 0) : 1;
    long count = argc > 4 ? atol(argv[4]) : 5000;
    seed = seed * 2 + 1;
    books_open();
    const char *rest = argv[2];
    while (*rest) {
        char name[32];
        size_t n = strcspn(rest, ",");
        if (n >= sizeof name)
            die("no such stage");
        memcpy(name, rest, n), name[n] = 0;
        rest += n + (rest[n] == ',');
        if (!strcmp(name, "basic")) stage_basic();
        else if (!strcmp(name, "fail")) stage_fail();
        else if (!strcmp(name, "seeded")) stage_seeded(seed, count);
        else if (!strcmp(name, "threads")) stage_threads(seed, count);
        else if (!strcmp(name, "churn")) stage_churn(seed);
        else if (!strcmp(name, "fork")) stage_fork(seed, 3);
        else if (!strcmp(name, "forkbusy")) stage_forkbusy(seed, count);
        else if (!strcmp(name, "jump")) stage_jump(seed);
        else if (!strcmp(name, "mapjump")) stage_mapjump();
        else if (!strcmp(name, "exec")) {
            books_close();
            char *words[] = {argv[0], argv[1], (char *)(*rest ? rest : "basic"), argc > 3 ? argv[3] : NULL,
                argc > 4 ? argv[4] : NULL, NULL};
            execv("/proc/self/exe", words);
            die("cannot execute itself");
        } else die("no such stage");
    }
    books_close();
    char line[100];
    /* How often the timer struck differs from run to run: it goes to stderr. */
    int n = snprintf(line, sizeof line, "jumps %d, out of calls %d\n", (int)jumps, (int)out_of_calls);
    if (write(2, line, n) < 0 || write(1, "ledger: ok\n", 11) < 0)
        return 1;
    return 0;
}
