/*
 * Stands for a power cut: preloaded into a process, it remembers what every write to a file in CUT_DIR
 * overwrites, forgets that when the file is synced, and at the CUT_AFTER-th call of these undoes what was not
 * synced and ends the process, between two system calls.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

struct undo {
    dev_t dev;
    ino_t ino;
    int fd;        /* a descriptor of its own, never closed: closing one drops the locks on its file */
    off_t at;
    off_t size;    /* of the file, before */
    size_t length; /* of what was there */
    char *old;
    struct undo *before;
};

static struct undo *last;
static long calls, cut_after = -1;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static ssize_t (*real_pwrite)(int, const void *, size_t, off_t);
static ssize_t (*real_write)(int, const void *, size_t);
static int (*real_ftruncate)(int, off_t);
static int (*real_fsync)(int);
static int (*real_fdatasync)(int);

__attribute__((constructor)) static void begin(void)
{
    const char *after = getenv("CUT_AFTER");
    real_pwrite = (ssize_t (*)(int, const void *, size_t, off_t))dlsym(RTLD_NEXT, "pwrite64");
    real_write = (ssize_t (*)(int, const void *, size_t))dlsym(RTLD_NEXT, "write");
    real_ftruncate = (int (*)(int, off_t))dlsym(RTLD_NEXT, "ftruncate64");
    real_fsync = (int (*)(int))dlsym(RTLD_NEXT, "fsync");
    real_fdatasync = (int (*)(int))dlsym(RTLD_NEXT, "fdatasync");
    if (after != NULL)
        cut_after = atol(after);
}

static int is_ours(int fd, struct stat *st)
{
    const char *folder = getenv("CUT_DIR");
    char link[64], path[4096];
    ssize_t length;
    if (folder == NULL || fstat(fd, st) != 0 || !S_ISREG(st->st_mode))
        return 0;
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    length = readlink(link, path, sizeof path - 1);
    if (length <= 0)
        return 0;
    path[length] = 0;
    /* The index of the journal is shared memory, and made anew. */
    if (strstr(path, "-shm") != NULL)
        return 0;
    return strncmp(path, folder, strlen(folder)) == 0;
}

static void cut(void)
{
    for (struct undo *undo = last; undo != NULL; undo = undo->before) {
        if (undo->length > 0)
            (void)!real_pwrite(undo->fd, undo->old, undo->length, undo->at);
        (void)!real_ftruncate(undo->fd, undo->size);
    }
    _exit(137);
}

static void counted(void)
{
    if (cut_after >= 0 && ++calls >= cut_after)
        cut();
}

static void remember(int fd, const struct stat *st, off_t at, size_t length)
{
    struct undo *undo = calloc(1, sizeof *undo);
    int own = -1;
    if (undo == NULL)
        abort();
    for (struct undo *known = last; known != NULL; known = known->before)
        if (known->dev == st->st_dev && known->ino == st->st_ino) {
            own = known->fd;
            break;
        }
    undo->fd = own >= 0 ? own : fcntl(fd, F_DUPFD_CLOEXEC, 700);
    undo->dev = st->st_dev;
    undo->ino = st->st_ino;
    undo->at = at;
    undo->size = st->st_size;
    if (length > 0 && at < st->st_size) {
        undo->old = malloc(length);
        ssize_t got = undo->old == NULL ? -1 : pread(fd, undo->old, length, at);
        undo->length = got > 0 ? (size_t)got : 0;
    }
    undo->before = last;
    last = undo;
}

static void synced(const struct stat *st)
{
    struct undo **at = &last;
    while (*at != NULL) {
        struct undo *undo = *at;
        if (undo->dev == st->st_dev && undo->ino == st->st_ino) {
            *at = undo->before;
            free(undo->old);
            free(undo);
        } else {
            at = &undo->before;
        }
    }
}

ssize_t pwrite64(int fd, const void *bytes, size_t length, off_t at)
{
    struct stat st;
    ssize_t done;
    if (!is_ours(fd, &st))
        return real_pwrite(fd, bytes, length, at);
    pthread_mutex_lock(&lock);
    counted();
    remember(fd, &st, at, length);
    done = real_pwrite(fd, bytes, length, at);
    pthread_mutex_unlock(&lock);
    return done;
}

ssize_t pwrite(int fd, const void *bytes, size_t length, off_t at)
{
    return pwrite64(fd, bytes, length, at);
}

ssize_t write(int fd, const void *bytes, size_t length)
{
    struct stat st;
    ssize_t done;
    if (!is_ours(fd, &st))
        return real_write(fd, bytes, length);
    pthread_mutex_lock(&lock);
    counted();
    off_t at = (fcntl(fd, F_GETFL) & O_APPEND) ? st.st_size : lseek(fd, 0, SEEK_CUR);
    remember(fd, &st, at, length);
    done = real_write(fd, bytes, length);
    pthread_mutex_unlock(&lock);
    return done;
}

int ftruncate64(int fd, off_t size)
{
    struct stat st;
    int done;
    if (!is_ours(fd, &st))
        return real_ftruncate(fd, size);
    pthread_mutex_lock(&lock);
    counted();
    remember(fd, &st, size, st.st_size > size ? (size_t)(st.st_size - size) : 0);
    done = real_ftruncate(fd, size);
    pthread_mutex_unlock(&lock);
    return done;
}

int ftruncate(int fd, off_t size)
{
    return ftruncate64(fd, size);
}

static int sync_with(int (*real)(int), int fd)
{
    struct stat st;
    int done;
    if (!is_ours(fd, &st))
        return real(fd);
    pthread_mutex_lock(&lock);
    counted();
    done = real(fd);
    if (done == 0)
        synced(&st);
    pthread_mutex_unlock(&lock);
    return done;
}

int fsync(int fd)
{
    return sync_with(real_fsync, fd);
}

int fdatasync(int fd)
{
    return sync_with(real_fdatasync, fd);
}
