/* Writes down, in one order, all that a process does to the files of one folder.
 *
 * Preloaded (LD_PRELOAD). POWER_FOLDER is the folder, its real path; POWER_TRACE is where the trace
 * is appended to. With POWER_CUT_AT=n the process is killed where the n-th sync would begin.
 * One lock is held over each call and its note, so the trace has the order of what happened.
 * What could change a file and is not caught here (writev, mmap) is found out by whoever compares
 * the trace with the folder at the end.
 *
 * A note is: what (1 byte), inode (8), offset or size (8), length of the data (4), the data. Paths
 * are relative to the folder, pairs of them parted by a zero byte.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static const char *folder;
static size_t folder_length;
static int trace = -1;
static long syncs, cut_at;

__attribute__((constructor)) static void begin(void) {
    const char *path = getenv("POWER_TRACE"), *cut = getenv("POWER_CUT_AT");
    folder = getenv("POWER_FOLDER");
    if (!path || !folder) abort();
    folder_length = strlen(folder);
    cut_at = cut ? atol(cut) : 0;
    trace = syscall(SYS_openat, AT_FDCWD, path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    if (trace < 0) abort();
}

static void note(char what, uint64_t inode, uint64_t at, const void *data, uint32_t size) {
    struct __attribute__((packed)) { char what; uint64_t inode, at; uint32_t size; } head = {
        what, inode, at, size};
    struct iovec parts[] = {{&head, sizeof head}, {(void *)data, size}};
    if (syscall(SYS_writev, trace, parts, 2) != (long)(sizeof head + size)) abort();
}

/* Return the path within the folder, or NULL where it is elsewhere. */
static const char *within(const char *path) {
    if (!folder || strncmp(path, folder, folder_length)) return NULL;
    if (path[folder_length] == '\0') return "";
    return path[folder_length] == '/' ? path + folder_length + 1 : NULL;
}

static const char *within_fd(int fd, char *path) {
    char link[32];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, path, PATH_MAX - 1);
    if (length < 0) return NULL;
    path[length] = '\0';
    return within(path);
}

static struct stat status_of(int fd) {
    struct stat status;
    if (fstat(fd, &status)) abort();
    return status;
}

static void note_path(char what, const char *path) {
    const char *name = within(path);
    if (name) note(what, 0, 0, name, strlen(name));
}

static void note_pair(char what, const char *from, const char *to) {
    const char *names[] = {within(from), within(to)};
    if (!names[0] && !names[1]) return;
    if (!names[0] || !names[1]) abort();
    char pair[2 * PATH_MAX];
    int size = snprintf(pair, sizeof pair, "%s%c%s", names[0], '\0', names[1]);
    note(what, 0, 0, pair, size);
}

#define NEXT(name) \
    static __typeof__(&name) next; \
    if (!next) next = (__typeof__(&name))dlsym(RTLD_NEXT, #name)
#define LOCKED(result, call, noted) \
    pthread_mutex_lock(&lock); \
    result = call; \
    noted; \
    pthread_mutex_unlock(&lock); \
    return result

static void note_open(int fd, int flags, int was_there) {
    char path[PATH_MAX];
    const char *name = within_fd(fd, path);
    if (!name) return;
    if (!was_there) note('c', status_of(fd).st_ino, 0, name, strlen(name));
    else if (flags & O_TRUNC) note('t', status_of(fd).st_ino, 0, NULL, 0);
}

#define OPENING(...) \
    mode_t mode = 0; \
    if (flags & (O_CREAT | O_TMPFILE)) { \
        va_list more; \
        va_start(more, flags); \
        mode = va_arg(more, mode_t); \
        va_end(more); \
    } \
    if (!(flags & (O_CREAT | O_TRUNC))) return next(__VA_ARGS__, flags, mode)
#define OPEN(name) \
    int name(const char *path, int flags, ...) { \
        NEXT(name); \
        OPENING(path); \
        pthread_mutex_lock(&lock); \
        int was_there = faccessat(AT_FDCWD, path, F_OK, 0) == 0; \
        int fd = next(path, flags, mode); \
        if (fd >= 0) note_open(fd, flags, was_there); \
        pthread_mutex_unlock(&lock); \
        return fd; \
    }
#define OPENAT(name) \
    int name(int at, const char *path, int flags, ...) { \
        NEXT(name); \
        OPENING(at, path); \
        pthread_mutex_lock(&lock); \
        int was_there = faccessat(at, path, F_OK, 0) == 0; \
        int fd = next(at, path, flags, mode); \
        if (fd >= 0) note_open(fd, flags, was_there); \
        pthread_mutex_unlock(&lock); \
        return fd; \
    }
OPEN(open)
OPEN(open64)
OPENAT(openat)
OPENAT(openat64)

static void note_write(int fd, const void *data, ssize_t written, off_t at) {
    char path[PATH_MAX];
    if (written <= 0 || !within_fd(fd, path)) return;
    if (at < 0) at = lseek(fd, 0, SEEK_CUR) - written;
    note('w', status_of(fd).st_ino, at, data, written);
}

ssize_t write(int fd, const void *data, size_t size) {
    NEXT(write);
    char path[PATH_MAX];
    if (!within_fd(fd, path)) return next(fd, data, size); /* a pipe may keep its writer waiting */
    ssize_t written;
    LOCKED(written, next(fd, data, size), note_write(fd, data, written, -1));
}

#define PWRITE(name, offset_t) \
    ssize_t name(int fd, const void *data, size_t size, offset_t at) { \
        NEXT(name); \
        ssize_t written; \
        LOCKED(written, next(fd, data, size, at), note_write(fd, data, written, at)); \
    }
PWRITE(pwrite, off_t)
PWRITE(pwrite64, off64_t)

static void note_truncate(int fd, int failed, off_t size) {
    char path[PATH_MAX];
    if (!failed && within_fd(fd, path)) note('t', status_of(fd).st_ino, size, NULL, 0);
}

#define TRUNCATE(name, offset_t) \
    int name(int fd, offset_t size) { \
        NEXT(name); \
        int failed; \
        LOCKED(failed, next(fd, size), note_truncate(fd, failed, size)); \
    }
TRUNCATE(ftruncate, off_t)
TRUNCATE(ftruncate64, off64_t)

/* Nothing is synced in truth: the trace is what says what survives, and a real disk takes longer. */
static void note_sync(int fd, const char *name) {
    if (++syncs == cut_at) {
        kill(getpid(), SIGKILL);
        for (;;) pause(); /* the lock is kept: nobody does anything more */
    }
    struct stat status = status_of(fd);
    note(S_ISDIR(status.st_mode) ? 'f' : 's', status.st_ino, 0, name, strlen(name));
}

#define SYNC(name) \
    int name(int fd) { \
        NEXT(name); \
        char path[PATH_MAX]; \
        const char *inside = within_fd(fd, path); \
        if (!inside) return next(fd); \
        int done; \
        LOCKED(done, 0, note_sync(fd, inside)); \
    }
SYNC(fsync)
SYNC(fdatasync)

#define ON_PATH(name, what) \
    int name(const char *path) { \
        NEXT(name); \
        int failed; \
        LOCKED(failed, next(path), if (!failed) note_path(what, path)); \
    }
ON_PATH(unlink, 'u')
ON_PATH(rmdir, 'u')

int mkdir(const char *path, mode_t mode) {
    NEXT(mkdir);
    int failed;
    LOCKED(failed, next(path, mode), if (!failed) note_path('d', path));
}

#define ON_PAIR(name, what) \
    int name(const char *from, const char *to) { \
        NEXT(name); \
        int failed; \
        LOCKED(failed, next(from, to), if (!failed) note_pair(what, from, to)); \
    }
ON_PAIR(rename, 'r')
ON_PAIR(link, 'l')
