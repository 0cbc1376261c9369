/* A preload for `cargo xtask crash --power` and the tests of faults: a disk that keeps only what was synced, and whose
 * syncs fail on command, as Linux has it: the pages of a failed sync are clean afterwards, so that reading the file shows
 * them and no later sync writes them.
 *
 *   DISK_DIR    the folder on that disk; files below it count, but for the shared memory of SQLite
 *   DISK_KEPT   a folder: the file INODE there is what the disk has of the file with that number
 *   DISK_FAILS  a file of two numbers (int32, as the machine has them): how many syncs of an audit segment or of state.db
 *               are still to fail, and each how many fails (0: none)
 *
 * Names are durable at once. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

enum { PAGE = 4096, FILES = 512 };

struct fails { int left, every; };
static volatile struct fails *fails;
static const char *dir, *kept;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static int syncs;

/* What was changed since the last sync: a byte a page, and the least length that the file was cut to. */
static struct changed { ino_t inode; unsigned char *page; size_t pages; off_t cut; } files[FILES];

__attribute__((constructor)) static void begin(void) {
    dir = getenv("DISK_DIR");
    kept = getenv("DISK_KEPT");
    const char *name = getenv("DISK_FAILS");
    int fd = name ? (int)syscall(SYS_openat, AT_FDCWD, name, O_RDWR | O_CLOEXEC, 0) : -1;
    if (fd < 0) return;
    void *at = mmap(NULL, sizeof *fails, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (at != MAP_FAILED) fails = at;
    syscall(SYS_close, fd);
}

/* Whether this is a file of the disk; its number and path. */
static int on_disk(int fd, struct stat *info, char path[4096]) {
    char link[64];
    if (!dir || !kept || syscall(SYS_fstat, fd, info) != 0 || !S_ISREG(info->st_mode)) return 0;
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, path, 4095);
    if (length < 0) return 0;
    path[length] = 0;
    size_t under = strlen(dir);
    return strncmp(path, dir, under) == 0 && path[under] == '/' && !strstr(path, "-shm");
}

static void name_kept(ino_t inode, char name[4200]) { snprintf(name, 4200, "%s/%llu", kept, (unsigned long long)inode); }

/* The entry of a file, made if need be. The caller holds the lock. */
static struct changed *entry(ino_t inode) {
    struct changed *unused = NULL;
    for (int i = 0; i < FILES; i++) {
        if (files[i].inode == inode) return &files[i];
        if (!files[i].inode && !unused) unused = &files[i];
    }
    if (!unused) abort(); /* more files than a proxy has */
    *unused = (struct changed){.inode = inode, .cut = -1};
    return unused;
}

static void forget(struct changed *file) {
    free(file->page);
    *file = (struct changed){0};
}

static void wrote(int fd, off_t at, ssize_t size) {
    struct stat info;
    char path[4096];
    if (size <= 0 || !on_disk(fd, &info, path)) return;
    pthread_mutex_lock(&lock);
    struct changed *file = entry(info.st_ino);
    size_t last = (size_t)(at + size - 1) / PAGE;
    if (last >= file->pages) {
        size_t pages = 2 * last + 16;
        file->page = realloc(file->page, pages);
        if (!file->page) abort();
        memset(file->page + file->pages, 0, pages - file->pages);
        file->pages = pages;
    }
    for (size_t page = (size_t)at / PAGE; page <= last; page++) file->page[page] = 1;
    pthread_mutex_unlock(&lock);
}

static void cut(int fd, off_t to) {
    struct stat info;
    char path[4096];
    if (!on_disk(fd, &info, path)) return;
    pthread_mutex_lock(&lock);
    struct changed *file = entry(info.st_ino);
    if (file->cut < 0 || to < file->cut) file->cut = to;
    pthread_mutex_unlock(&lock);
}

/* The file is gone: its number may be another's soon. */
static void removed(const char *path) {
    struct stat info;
    char name[4200];
    if (!kept || syscall(SYS_newfstatat, AT_FDCWD, path, &info, AT_SYMLINK_NOFOLLOW) != 0) return;
    if (!S_ISREG(info.st_mode) || info.st_nlink > 1) return;
    pthread_mutex_lock(&lock);
    for (int i = 0; i < FILES; i++)
        if (files[i].inode == info.st_ino) forget(&files[i]);
    name_kept(info.st_ino, name);
    syscall(SYS_unlink, name);
    pthread_mutex_unlock(&lock);
}

static void keep(int fd, const struct stat *info, struct changed *file) {
    char name[4200], self[64];
    static char page[PAGE];
    name_kept(info->st_ino, name);
    int to = (int)syscall(SYS_openat, AT_FDCWD, name, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    /* Opened anew, since the file may be open for writing alone. */
    snprintf(self, sizeof self, "/proc/self/fd/%d", fd);
    int from = (int)syscall(SYS_openat, AT_FDCWD, self, O_RDONLY | O_CLOEXEC, 0);
    if (to < 0 || from < 0) abort();
    if (file->cut >= 0) {
        struct stat had;
        if (syscall(SYS_fstat, to, &had) == 0 && had.st_size > file->cut) syscall(SYS_ftruncate, to, file->cut);
    }
    for (size_t n = 0; n < file->pages; n++) {
        if (!file->page[n]) continue;
        off_t at = (off_t)n * PAGE;
        ssize_t got = syscall(SYS_pread64, from, page, PAGE, at);
        if (got > 0 && syscall(SYS_pwrite64, to, page, got, at) != got) abort();
    }
    syscall(SYS_ftruncate, to, info->st_size);
    syscall(SYS_close, to);
    syscall(SYS_close, from);
}

static int fail_now(const char *path) {
    if (!fails || !(strstr(path, "/audit-2") || strstr(path, "/state.db"))) return 0;
    int every = fails->every;
    if (every > 0 && ++syncs % every == 0) return 1;
    return fails->left > 0 && __sync_fetch_and_sub(&fails->left, 1) > 0;
}

static int synced(int fd, long call) {
    struct stat info;
    char path[4096];
    if (!on_disk(fd, &info, path)) return (int)syscall(call, fd);
    pthread_mutex_lock(&lock);
    struct changed *file = entry(info.st_ino);
    int failed = fail_now(path);
    if (!failed) keep(fd, &info, file);
    forget(file);
    pthread_mutex_unlock(&lock);
    if (!failed) return 0;
    errno = EIO;
    return -1;
}

int fsync(int fd) { return synced(fd, SYS_fsync); }
int fdatasync(int fd) { return synced(fd, SYS_fdatasync); }

ssize_t pwrite64(int fd, const void *from, size_t size, off64_t at) {
    ssize_t done = syscall(SYS_pwrite64, fd, from, size, at);
    wrote(fd, at, done);
    return done;
}

ssize_t pwrite(int fd, const void *from, size_t size, off_t at) { return pwrite64(fd, from, size, at); }

/* Where a plain write ended tells where it began. */
static ssize_t appended(int fd, ssize_t done) {
    int error = errno;
    if (done > 0) {
        off_t end = syscall(SYS_lseek, fd, 0, SEEK_CUR);
        if (end >= done) wrote(fd, end - done, done);
    }
    errno = error;
    return done;
}

ssize_t write(int fd, const void *from, size_t size) { return appended(fd, syscall(SYS_write, fd, from, size)); }
ssize_t writev(int fd, const struct iovec *from, int count) {
    return appended(fd, syscall(SYS_writev, fd, from, count));
}

int ftruncate64(int fd, off64_t to) {
    int done = (int)syscall(SYS_ftruncate, fd, to);
    if (done == 0) cut(fd, to);
    return done;
}

int ftruncate(int fd, off_t to) { return ftruncate64(fd, to); }

#define OPEN(name)                                                              \
    int name(const char *path, int flags, ...) {                                \
        va_list more;                                                           \
        va_start(more, flags);                                                  \
        mode_t mode = flags & (O_CREAT | O_TMPFILE) ? va_arg(more, mode_t) : 0; \
        va_end(more);                                                           \
        int fd = (int)syscall(SYS_openat, AT_FDCWD, path, flags, mode);         \
        if (fd >= 0 && (flags & O_TRUNC)) cut(fd, 0);                           \
        return fd;                                                              \
    }
OPEN(open)
OPEN(open64)

int unlink(const char *path) {
    removed(path);
    return (int)syscall(SYS_unlink, path);
}

int rename(const char *from, const char *to) {
    removed(to);
    return (int)syscall(SYS_renameat2, AT_FDCWD, from, AT_FDCWD, to, 0);
}
