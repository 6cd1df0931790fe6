/*
 * Makes the allocator calls of a recorded program again: its sizes, its order, its threads.
 *
 *   replay [--touch sampled|all|none] [--pace fast|FACTOR] [--trim] [--results FILE] replay.data
 *
 * The calls go to whatever malloc this program is run with, so LD_PRELOAD chooses the allocator. What the replay keeps
 * for itself lies in mappings of its own, made and filled before the first call, so that it does not show in what is
 * measured. A thread waits for another one only where the data says so. The result is one JSON document.
 *
 * --touch sampled  writes to as many pages of a block as were seen resident when it was recorded (the default)
 *         all      writes to every page; none: to no page
 * --pace fast      makes the calls as fast as possible (the default)
 *        FACTOR    in the recorded time: 1 as it was, 4 four times as fast
 * --trim           at the end calls malloc_trim(0), where there is one, and reads the memory again
 *
 * Exit status: 0 when all calls were made, 1 for a wrong command line or file, 2 when memory ran out.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <malloc.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

enum { VERSION = 2, HEADER = 96, CHUNK_HEADER = 16, PAGE = 4096, MEASURE_EVERY = 4096, BEHIND = 256 << 10 };
enum { UNBORN, RUNNING, CLAIMED, JOINED };
enum { MALLOC = 1, CALLOC, ALIGNED, REALLOC, FREE, SPAWN, JOIN, WAIT, SAMPLE, TOUCH, PAUSE, END };
enum { TOUCH_NONE, TOUCH_SAMPLED, TOUCH_ALL };
enum { HEAP, ANONYMOUS, STACK, FILES, OTHER, KINDS };

/* What a thread is doing; each on cache lines of its own. */
struct thread {
    _Atomic uint64_t done; /* calls and samples so far */
    uint64_t calls;        /* the calls among them, once the thread has ended */
    pthread_t handle;
    _Atomic int state;
    char pad[128 - 2 * sizeof(uint64_t) - sizeof(pthread_t) - sizeof(int)];
};

struct measure {
    uint64_t anonymous, faults, nanoseconds;
    int taken;
};

static const unsigned char *data;
static uint64_t length, calls_planned, threads_at, readings_at;
static uint32_t thread_count, slot_count, reading_count;
static void **slots;
static struct thread *threads;
static struct measure *measures;
static _Atomic uint64_t peak, failed;
static uint64_t base;
static struct timespec begun;
static int policy = TOUCH_SAMPLED, statm = -1, trim;
static double pace; /* how many times as fast as recorded; 0 for as fast as possible */
static uint64_t own_bytes;  /* resident in the replay's own tables */
static uint64_t final_bytes, final_nanoseconds, trimmed_bytes, kinds[2][KINDS];
static _Atomic int ended, trimmed;

/* Where there is none, as in musl, it cannot be asked for. */
extern int malloc_trim(size_t) __attribute__((weak));

static void die(int status, const char *what, const char *which)
{
    fprintf(stderr, "replay: %s%s%s\n", what, *which ? ": " : "", which);
    _exit(status);
}

static uint32_t u32_at(uint64_t at)
{
    uint32_t value = 0;
    for (int i = 3; i >= 0; i--)
        value = value << 8 | data[at + i];
    return value;
}

static uint64_t u64_at(uint64_t at)
{
    return (uint64_t)u32_at(at + 4) << 32 | u32_at(at);
}

/* Memory outside malloc, resident from now on. */
static void *reserve(uint64_t bytes)
{
    void *at = mmap(NULL, bytes + 1, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
    if (at == MAP_FAILED)
        die(2, "no memory for the replay's own tables", strerror(errno));
    own_bytes += (bytes + PAGE) / PAGE * PAGE;
    return at;
}

/* Resident bytes that are no file's. */
static uint64_t anonymous(void)
{
    char text[128];
    uint64_t resident = 0, shared = 0;
    ssize_t got = pread(statm, text, sizeof text - 1, 0);
    char *at = text;
    if (got <= 0)
        return 0;
    text[got] = 0;
    while (*at && *at != ' ')
        at++;
    resident = strtoull(at, &at, 10);
    shared = strtoull(at, &at, 10);
    return resident > shared ? (resident - shared) * PAGE : 0;
}

static uint64_t elapsed(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)((int64_t)(now.tv_sec - begun.tv_sec) * 1000000000 + (now.tv_nsec - begun.tv_nsec));
}

/* Anonymous memory beyond that of the replay itself, which also raises the peak. */
static uint64_t growth(void)
{
    uint64_t now = anonymous(), before = atomic_load_explicit(&peak, memory_order_relaxed);
    now = now > base ? now - base : 0;
    while (now > before && !atomic_compare_exchange_weak(&peak, &before, now))
        ;
    return now;
}

static void read_kinds(uint64_t *sums);

static void sample(uint32_t number)
{
    struct rusage usage;
    getrusage(RUSAGE_SELF, &usage);
    measures[number].anonymous = growth();
    measures[number].faults = (uint64_t)usage.ru_minflt;
    measures[number].nanoseconds = elapsed();
    measures[number].taken = 1;
    /* To be compared with the recorded program as it was seen last. */
    if (number + 1 == reading_count)
        read_kinds(kinds[0]);
}

/* Writes to at most so many pages of a block, from its beginning. */
static void touch(volatile char *block, uint64_t size, uint64_t pages)
{
    if (policy == TOUCH_NONE || size == 0)
        return;
    if (policy == TOUCH_ALL)
        pages = UINT64_MAX;
    for (uint64_t at = 0; at < size && at / PAGE < pages; at += PAGE)
        block[at] = 1;
    if (pages > (size - 1) / PAGE)
        block[size - 1] = 1;
}

/* The kind of the mapping that a line of smaps describes: its address, access, offset, device, inode, name. */
static int kind_of(const char *access, const char *name)
{
    if (strcmp(name, "[heap]") == 0)
        return HEAP;
    if (strncmp(name, "[stack", 6) == 0)
        return STACK;
    if (strncmp(name, "/memfd:", 7) == 0 || strncmp(name, "/SYSV", 5) == 0 || strncmp(name, "/dev/zero", 9) == 0)
        return OTHER;
    if (*name == '/')
        return FILES;
    return access[1] == 'w' && access[3] == 'p' && (*name == 0 || strncmp(name, "[anon:", 6) == 0) ? ANONYMOUS : OTHER;
}

/* Takes a line of smaps: the head of a mapping, or how much of it is resident. */
static void smaps_line(char *line, int *kind, uint64_t *sums)
{
    char *at = line, *access;
    uint64_t start = strtoull(line, &at, 16);
    if (at > line && *at == '-') {
        at += strcspn(at, " ");
        access = at + 1;
        /* Access, offset, device and inode stand before the name. */
        for (int word = 0; word < 4; word++) {
            at += strspn(at, " ");
            at += strcspn(at, " ");
        }
        at += strspn(at, " ");
        /* The data are no part of what is measured. */
        *kind = start == (uint64_t)(uintptr_t)data || strlen(access) < 4 ? -1 : kind_of(access, at);
    } else if (*kind >= 0 && strncmp(line, "Rss:", 4) == 0) {
        sums[*kind] += strtoull(line + 4, NULL, 10) * 1024;
    }
}

/* Resident bytes by kind of mapping, without those of the replay's own tables. It allocates nothing. */
static void read_kinds(uint64_t *sums)
{
    static char text[8192];
    size_t length_so_far = 0;
    int kind = -1, file = open("/proc/self/smaps", O_RDONLY | O_CLOEXEC);
    ssize_t got;
    if (file < 0)
        return;
    memset(sums, 0, KINDS * sizeof *sums);
    while ((got = read(file, text + length_so_far, sizeof text - 1 - length_so_far)) > 0) {
        char *line = text, *end;
        length_so_far += (size_t)got;
        text[length_so_far] = 0;
        while ((end = strchr(line, '\n')) != NULL) {
            *end = 0;
            smaps_line(line, &kind, sums);
            line = end + 1;
        }
        length_so_far = (size_t)(text + length_so_far - line);
        memmove(text, line, length_so_far);
        /* A line that is longer than all of this is no line of smaps. */
        if (length_so_far == sizeof text - 1)
            length_so_far = 0;
    }
    close(file);
    sums[ANONYMOUS] -= own_bytes < sums[ANONYMOUS] ? own_bytes : sums[ANONYMOUS];
}

/* All that was recorded is done, and no thread has ended that had not ended then. */
static void end(void)
{
    final_bytes = growth();
    final_nanoseconds = elapsed();
    if (reading_count == 0)
        read_kinds(kinds[0]);
    if (trim && malloc_trim != NULL) {
        malloc_trim(0);
        trimmed_bytes = growth();
        read_kinds(kinds[1]);
        atomic_store(&trimmed, 1);
    }
    atomic_store(&ended, 1);
}

/* Waits until a moment of the recording, in microseconds since its first call. */
static void pause_until(uint64_t microseconds)
{
    uint64_t at;
    struct timespec moment;
    if (pace <= 0)
        return;
    at = (uint64_t)((double)microseconds * 1000 / pace);
    moment.tv_sec = begun.tv_sec + (time_t)((at + (uint64_t)begun.tv_nsec) / 1000000000);
    moment.tv_nsec = (long)((at + (uint64_t)begun.tv_nsec) % 1000000000);
    while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &moment, NULL) == EINTR)
        ;
}

struct reader {
    uint64_t at, end, next;
};

/* Goes to the chunk at `offset`; 0 when there is none. */
static int enter(struct reader *in, uint32_t thread, uint64_t offset)
{
    if (offset == 0)
        return 0;
    if (offset < HEADER || offset > length - CHUNK_HEADER || u32_at(offset + 4) != thread)
        die(1, "the data is damaged: no chunk where one should be", "");
    in->at = offset + CHUNK_HEADER;
    in->end = in->at + u32_at(offset);
    in->next = u64_at(offset + 8);
    if (in->end > length || (in->next != 0 && in->next < in->end))
        die(1, "the data is damaged: a chunk of impossible length", "");
    return 1;
}

/*
 * Lets go of the data behind a chunk that was gone through: they are the file's and come back if another thread needs them.
 * The kernel maps pages around the one that is read, so some of those before are let go of again.
 */
static void leave(uint64_t end)
{
    uint64_t from = end > BEHIND ? (end - BEHIND) / PAGE * PAGE : 0;
    if (end / PAGE * PAGE > from)
        madvise((void *)(data + from), end / PAGE * PAGE - from, MADV_DONTNEED);
}

static uint64_t number(struct reader *in)
{
    uint64_t value = 0;
    for (int shift = 0; shift < 64; shift += 7) {
        if (in->at >= in->end)
            break;
        unsigned char byte = data[in->at++];
        value |= (uint64_t)(byte & 0x7f) << shift;
        if (byte < 0x80)
            return value;
    }
    die(1, "the data is damaged: a number without an end", "");
    return 0;
}

static uint32_t below(struct reader *in, uint32_t bound, const char *what)
{
    uint64_t value = number(in);
    if (value >= bound)
        die(1, "the data is damaged: no such", what);
    return (uint32_t)value;
}

/* Lets others go on; longer, the more often it was done before. */
static void yield(unsigned turn)
{
    struct timespec moment = {0, 20000};
    if (turn < 1000)
        sched_yield();
    else
        nanosleep(&moment, NULL);
}

static void wait_for(uint32_t thread, uint64_t done)
{
    for (unsigned turn = 0; atomic_load_explicit(&threads[thread].done, memory_order_acquire) < done; turn++)
        yield(turn);
}

static void *run(void *argument);

static void spawn(uint32_t thread)
{
    pthread_attr_t attributes;
    pthread_attr_init(&attributes);
    pthread_attr_setstacksize(&attributes, 128 << 10);
    if (thread == 0 || atomic_load(&threads[thread].state) != UNBORN)
        die(1, "the data is damaged: a thread that starts twice", "");
    if (pthread_create(&threads[thread].handle, &attributes, run, (void *)(uintptr_t)thread) != 0)
        die(2, "cannot start a thread", "");
    atomic_store(&threads[thread].state, RUNNING);
    pthread_attr_destroy(&attributes);
}

/* Waits until a thread that was started, or will be, has ended. The main thread at its end and a step of another one
   may want the same: one of them joins it, and the other one waits for that. */
static void join(uint32_t thread)
{
    int running = RUNNING;
    for (unsigned turn = 0; atomic_load(&threads[thread].state) == UNBORN; turn++)
        yield(turn);
    if (atomic_compare_exchange_strong(&threads[thread].state, &running, CLAIMED)) {
        pthread_join(threads[thread].handle, NULL);
        atomic_store(&threads[thread].state, JOINED);
    }
    for (unsigned turn = 0; atomic_load(&threads[thread].state) != JOINED; turn++)
        yield(turn);
}

static void *run(void *argument)
{
    uint32_t self = (uint32_t)(uintptr_t)argument;
    struct reader in;
    uint64_t calls = 0, done = 0, pages = UINT64_MAX;
    int more = enter(&in, self, u64_at(threads_at + 8 * (uint64_t)self));
    while (more) {
        if (in.at >= in.end) {
            leave(in.end);
            more = enter(&in, self, in.next);
            continue;
        }
        unsigned char step = data[in.at++];
        if (step >= MALLOC && step <= FREE) {
            uint32_t slot = below(&in, slot_count, "slot");
            uint64_t size = step == FREE ? 0 : number(&in);
            uint64_t alignment = step == ALIGNED ? (uint64_t)1 << (number(&in) & 63) : 0;
            void *old = slots[slot], *block = NULL;
            switch (step) {
            case MALLOC: block = malloc(size); break;
            case CALLOC: block = calloc(1, size); break;
            case ALIGNED: block = memalign(alignment, size); break;
            case REALLOC: block = realloc(old, size); break;
            default: free(old);
            }
            if (step == REALLOC && block == NULL && size > 0)
                block = old; /* it failed, and the block is as it was */
            if (block == NULL && step != FREE && size > 0)
                atomic_fetch_add(&failed, 1);
            else if (step != FREE && block != NULL)
                touch(block, size, pages);
            pages = UINT64_MAX;
            slots[slot] = block;
            atomic_store_explicit(&threads[self].done, ++done, memory_order_release);
            if (++calls % MEASURE_EVERY == 0)
                growth();
            continue;
        }
        switch (step) {
        case SPAWN: spawn(below(&in, thread_count, "thread")); break;
        case JOIN: {
            uint32_t thread = below(&in, thread_count, "thread");
            if (thread == self || thread == 0)
                die(1, "the data is damaged: a thread that waits for itself", "");
            join(thread);
            break;
        }
        case WAIT: {
            uint32_t thread = below(&in, thread_count, "thread");
            if (thread == self)
                die(1, "the data is damaged: a thread that waits for itself", "");
            wait_for(thread, number(&in));
            break;
        }
        case SAMPLE:
            sample(below(&in, reading_count, "reading"));
            atomic_store_explicit(&threads[self].done, ++done, memory_order_release);
            break;
        case TOUCH: pages = number(&in); break;
        case PAUSE: pause_until(number(&in)); break;
        case END:
            end();
            atomic_store_explicit(&threads[self].done, ++done, memory_order_release);
            break;
        default: die(1, "the data is damaged: no such step", "");
        }
    }
    threads[self].calls = calls;
    return NULL;
}

static void open_data(const char *path)
{
    struct stat status;
    int file = open(path, O_RDONLY | O_CLOEXEC);
    if (file < 0 || fstat(file, &status) != 0)
        die(1, strerror(errno), path);
    length = (uint64_t)status.st_size;
    if (length < HEADER)
        die(1, "this is no data of a replay", path);
    data = mmap(NULL, length, PROT_READ, MAP_PRIVATE, file, 0);
    if (data == MAP_FAILED)
        die(1, strerror(errno), path);
    close(file);
    madvise((void *)data, length, MADV_SEQUENTIAL);
    if (memcmp(data, "MFREPLAY", 8) != 0)
        die(1, "this is no data of a replay, or it was not finished", path);
    if (u32_at(8) != VERSION)
        die(1, "this data has a version that this replay does not know", path);
    thread_count = u32_at(12);
    slot_count = u32_at(16);
    reading_count = u32_at(20);
    calls_planned = u64_at(24);
    threads_at = u64_at(32);
    readings_at = u64_at(40);
    if (u64_at(48) != length)
        die(1, "the data is cut short or has grown", path);
    if (thread_count == 0 || threads_at < HEADER || threads_at > length || (length - threads_at) / 8 < thread_count ||
        readings_at > length || (length - readings_at) / 24 < reading_count)
        die(1, "the data is damaged: its tables do not fit in it", path);
}

static void report_kinds(FILE *out, const char *name, const uint64_t *sums)
{
    fprintf(out, ",\n \"%s\": {\"heap\": %" PRIu64 ", \"anonymous\": %" PRIu64 ", \"stack\": %" PRIu64
        ", \"file\": %" PRIu64 ", \"other\": %" PRIu64 "}", name, sums[HEAP], sums[ANONYMOUS], sums[STACK],
        sums[FILES], sums[OTHER]);
}

static void report(FILE *out)
{
    struct rusage usage;
    uint64_t made = 0;
    getrusage(RUSAGE_SELF, &usage);
    for (uint32_t i = 0; i < thread_count; i++)
        made += threads[i].calls;
    fprintf(out, "{\"calls\": %" PRIu64 ", \"planned_calls\": %" PRIu64 ", \"failed_calls\": %" PRIu64
        ", \"nanoseconds\": %" PRIu64 ", \"peak_bytes\": %" PRIu64 ", \"final_bytes\": %" PRIu64
        ", \"minor_faults\": %ld", made, calls_planned, atomic_load(&failed), final_nanoseconds,
        atomic_load(&peak), final_bytes, usage.ru_minflt);
    report_kinds(out, "mappings", kinds[0]);
    if (atomic_load(&trimmed)) {
        fprintf(out, ",\n \"trimmed_bytes\": %" PRIu64, trimmed_bytes);
        report_kinds(out, "trimmed_mappings", kinds[1]);
    }
    fprintf(out, ",\n \"points\": [");
    for (uint32_t i = 0, first = 1; i < reading_count; i++) {
        const struct measure *it = &measures[i];
        if (it->taken)
            fprintf(out, "%s\n  {\"reading\": %" PRIu32 ", \"bytes\": %" PRIu64 ", \"minor_faults\": %" PRIu64
                ", \"nanoseconds\": %" PRIu64 "}", first ? "" : ",", i, it->anonymous, it->faults, it->nanoseconds);
        first = first && !it->taken;
    }
    fprintf(out, "]}\n");
}

static void set_policy(const char *word)
{
    static const char *const words[] = {"none", "sampled", "all"};
    for (policy = TOUCH_NONE; policy <= TOUCH_ALL; policy++)
        if (strcmp(word, words[policy]) == 0)
            return;
    die(1, "--touch is sampled, all or none, not", word);
}

static void set_pace(const char *word)
{
    char *rest = NULL;
    if (strcmp(word, "fast") == 0)
        return;
    pace = strtod(word, &rest);
    if (!(pace > 0 && pace <= 1e6) || *rest != 0)
        die(1, "--pace is fast, or a factor greater than 0, not", word);
}

int main(int count, char **words)
{
    const char *path = NULL, *results = NULL;
    FILE *out = stdout;
    for (int i = 1; i < count; i++) {
        if (strcmp(words[i], "--touch") == 0 && i + 1 < count)
            set_policy(words[++i]);
        else if (strcmp(words[i], "--pace") == 0 && i + 1 < count)
            set_pace(words[++i]);
        else if (strcmp(words[i], "--trim") == 0)
            trim = 1;
        else if (strcmp(words[i], "--results") == 0 && i + 1 < count)
            results = words[++i];
        else
            path = words[i];
    }
    if (path == NULL)
        die(1, "usage: replay [--touch sampled|all|none] [--pace fast|FACTOR] [--trim] [--results FILE] replay.data",
            "");
    open_data(path);
    slots = reserve((uint64_t)slot_count * sizeof *slots);
    threads = reserve((uint64_t)thread_count * sizeof *threads);
    measures = reserve((uint64_t)reading_count * sizeof *measures);
    statm = open("/proc/self/statm", O_RDONLY | O_CLOEXEC);
    if (statm < 0)
        die(1, "cannot read /proc/self/statm, which tells the memory used", strerror(errno));
    base = anonymous();
    clock_gettime(CLOCK_MONOTONIC, &begun);
    run(NULL);
    /* Each was started by one before it. */
    for (uint32_t i = 1; i < thread_count; i++)
        if (atomic_load(&threads[i].state) != UNBORN)
            join(i);
    if (!atomic_load(&ended))
        end();
    if (results != NULL && (out = fopen(results, "w")) == NULL)
        die(1, strerror(errno), results);
    report(out);
    if (fflush(out) != 0)
        die(1, "cannot write the results", strerror(errno));
    return atomic_load(&failed) > 0 ? 2 : 0;
}
