/* A disk with faults, as an LD_PRELOAD library for `cargo xtask crash --power` and for the end-to-end tests. Each kind of
 * fault is off unless its variable is set:
 *
 *   DISK_DIR    the folder on that disk; the files below it are affected, except the shared memory of SQLite
 *   DISK_KEPT   a folder. The disk loses unsynced writes: the file INODE in this folder is the durable content of the file
 *               with that inode. File names are durable at once.
 *   DISK_FAILS  a file of two int32 in native byte order: the number of further syncs of an audit segment or of state.db
 *               that fail, and n, where every n-th sync fails (0: none). As on Linux, the pages of a failed sync are clean
 *               afterwards: a read returns them, and no later sync writes them.
 *   DISK_FAULT  a file with one word:
 *                 readonly  every change of a file fails with EROFS, as after the kernel has remounted the file system
 *                           read-only because of an error (open files included, which `mount -o remount,ro` refuses)
 *                 stall     each sync of an audit segment waits until the file has another word
 *                           (a file with the suffix .stalled shows that one waits)
 *
 * Memory-mapped files are not affected. */
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
static const char *dir, *kept, *fault;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static int syncs;

/* Changes since the last sync: one byte per page, and the least length that the file was truncated to. */
static struct changed { ino_t inode; unsigned char *page; size_t pages; off_t cut; } files[FILES];

__attribute__((constructor)) static void begin(void) {
    dir = getenv("DISK_DIR");
    kept = getenv("DISK_KEPT");
    fault = getenv("DISK_FAULT");
    const char *name = getenv("DISK_FAILS");
    int fd = name ? (int)syscall(SYS_openat, AT_FDCWD, name, O_RDWR | O_CLOEXEC, 0) : -1;
    if (fd < 0) return;
    void *at = mmap(NULL, sizeof *fails, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (at != MAP_FAILED) fails = at;
    syscall(SYS_close, fd);
}

/* Whether a path is below DISK_DIR. */
static int below_dir(const char *path) {
    size_t length = dir ? strlen(dir) : 0;
    return dir && strncmp(path, dir, length) == 0 && path[length] == '/';
}

/* Whether an open file is below DISK_DIR; its path. */
static int path_below_dir(int fd, char path[4096]) {
    char link[64];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, path, 4095);
    if (length < 0) return 0;
    path[length] = 0;
    return below_dir(path);
}

/* Whether DISK_FAULT has this word. */
static int has_fault(const char *word) {
    char text[16] = {0};
    int fd = fault ? (int)syscall(SYS_openat, AT_FDCWD, fault, O_RDONLY | O_CLOEXEC, 0) : -1;
    if (fd < 0) return 0;
    ssize_t length = syscall(SYS_read, fd, text, sizeof text - 1);
    syscall(SYS_close, fd);
    return length > 0 && strncmp(text, word, strlen(word)) == 0;
}

/* Whether a change of this open file fails; sets errno. */
static int read_only(int fd) {
    char path[4096];
    if (!fault || !path_below_dir(fd, path) || !has_fault("readonly")) return 0;
    errno = EROFS;
    return 1;
}

/* Whether a change of this name fails; sets errno. */
static int read_only_path(const char *path) {
    if (!below_dir(path) || !has_fault("readonly")) return 0;
    errno = EROFS;
    return 1;
}

static void stall(int fd) {
    char path[4096];
    char marker[4200];
    while (fault && path_below_dir(fd, path) && strstr(path, "/audit-") && has_fault("stall")) {
        snprintf(marker, sizeof marker, "%s.stalled", fault);
        syscall(SYS_close, (int)syscall(SYS_openat, AT_FDCWD, marker, O_WRONLY | O_CREAT | O_CLOEXEC, 0600));
        usleep(5000);
    }
}

/* Whether the durable content of this file is tracked; its inode and path. */
static int tracked(int fd, struct stat *info, char path[4096]) {
    if (!kept || syscall(SYS_fstat, fd, info) != 0 || !S_ISREG(info->st_mode)) return 0;
    return path_below_dir(fd, path) && !strstr(path, "-shm");
}

static void name_kept(ino_t inode, char name[4200]) { snprintf(name, 4200, "%s/%llu", kept, (unsigned long long)inode); }

/* The entry of a file, created if there is none. The caller holds the lock. */
static struct changed *entry(ino_t inode) {
    struct changed *unused = NULL;
    for (int i = 0; i < FILES; i++) {
        if (files[i].inode == inode) return &files[i];
        if (!files[i].inode && !unused) unused = &files[i];
    }
    if (!unused) abort(); /* a proxy has fewer files */
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
    if (size <= 0 || !tracked(fd, &info, path)) return;
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
    if (!tracked(fd, &info, path)) return;
    pthread_mutex_lock(&lock);
    struct changed *file = entry(info.st_ino);
    if (file->cut < 0 || to < file->cut) file->cut = to;
    pthread_mutex_unlock(&lock);
}

/* Forgets a removed file: another file may get its inode. */
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
    /* Opened again, since the file may be open for writing only. */
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
    stall(fd);
    if (read_only(fd)) return -1;
    if (!tracked(fd, &info, path)) return (int)syscall(call, fd);
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
    if (read_only(fd)) return -1;
    ssize_t done = syscall(SYS_pwrite64, fd, from, size, at);
    wrote(fd, at, done);
    return done;
}

ssize_t pwrite(int fd, const void *from, size_t size, off_t at) { return pwrite64(fd, from, size, at); }

/* The position after a plain write, minus its length, is its start. */
static ssize_t appended(int fd, ssize_t done) {
    int error = errno;
    if (done > 0) {
        off_t end = syscall(SYS_lseek, fd, 0, SEEK_CUR);
        if (end >= done) wrote(fd, end - done, done);
    }
    errno = error;
    return done;
}

ssize_t write(int fd, const void *from, size_t size) {
    return read_only(fd) ? -1 : appended(fd, syscall(SYS_write, fd, from, size));
}

ssize_t writev(int fd, const struct iovec *from, int count) {
    return read_only(fd) ? -1 : appended(fd, syscall(SYS_writev, fd, from, count));
}

int ftruncate64(int fd, off64_t to) {
    if (read_only(fd)) return -1;
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
        int writes = flags & (O_WRONLY | O_RDWR | O_CREAT | O_TRUNC);           \
        if (writes && read_only_path(path)) return -1;                          \
        int fd = (int)syscall(SYS_openat, AT_FDCWD, path, flags, mode);         \
        if (fd >= 0 && (flags & O_TRUNC)) cut(fd, 0);                           \
        return fd;                                                              \
    }
OPEN(open)
OPEN(open64)

int unlink(const char *path) {
    if (read_only_path(path)) return -1;
    removed(path);
    return (int)syscall(SYS_unlink, path);
}

int rename(const char *from, const char *to) {
    if (read_only_path(to)) return -1;
    removed(to);
    return (int)syscall(SYS_renameat2, AT_FDCWD, from, AT_FDCWD, to, 0);
}
