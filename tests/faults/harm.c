/* Harms a process from within: moves its wall clock, and lets its disk be full.
 *
 * Preloaded (LD_PRELOAD). HARM_CONTROL is a file of four numbers of eight bytes each, which whoever
 * harms writes and reads while the process runs: by how many nanoseconds its wall clock is wrong,
 * whether its disk is full, how often it has read a wrong clock, how many writes were refused.
 * Only CLOCK_REALTIME moves: a monotonic clock goes on as it does where a machine's time is set.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

struct control { int64_t offset, is_full, misread, refused; };
static struct control nothing;
static volatile struct control *control = &nothing;

__attribute__((constructor)) static void begin(void) {
    const char *path = getenv("HARM_CONTROL");
    int fd = path ? open(path, O_RDWR | O_CLOEXEC) : -1;
    if (fd < 0) abort();
    void *there = mmap(NULL, sizeof nothing, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (there == MAP_FAILED) abort();
    control = there;
    close(fd);
}

#define NEXT(name) \
    static __typeof__(&name) next; \
    if (!next) next = (__typeof__(&name))dlsym(RTLD_NEXT, #name)

static void move(struct timespec *time, int64_t by) {
    int64_t at = (int64_t)time->tv_sec * 1000000000 + time->tv_nsec + by;
    time->tv_sec = at / 1000000000;
    time->tv_nsec = at % 1000000000;
}

static int64_t wrong(void) {
    int64_t offset = control->offset;
    if (offset) __atomic_fetch_add(&control->misread, 1, __ATOMIC_RELAXED);
    return offset;
}

int clock_gettime(clockid_t clock, struct timespec *time) {
    NEXT(clock_gettime);
    int result = next(clock, time);
    if (!result && clock == CLOCK_REALTIME) move(time, wrong());
    return result;
}

int gettimeofday(struct timeval *restrict time, void *restrict zone) {
    struct timespec now;
    (void)zone;
    clock_gettime(CLOCK_REALTIME, &now);
    time->tv_sec = now.tv_sec;
    time->tv_usec = now.tv_nsec / 1000;
    return 0;
}

time_t time(time_t *there) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    if (there) *there = now.tv_sec;
    return now.tv_sec;
}

static int refuse(void) {
    if (!control->is_full) return 0;
    __atomic_fetch_add(&control->refused, 1, __ATOMIC_RELAXED);
    errno = ENOSPC;
    return 1;
}

/* A database writes at a place of its choice; a log, which goes elsewhere, at its end. */
ssize_t pwrite(int fd, const void *data, size_t size, off_t at) {
    NEXT(pwrite);
    return refuse() ? -1 : next(fd, data, size, at);
}

ssize_t pwrite64(int fd, const void *data, size_t size, off64_t at) {
    NEXT(pwrite64);
    return refuse() ? -1 : next(fd, data, size, at);
}
