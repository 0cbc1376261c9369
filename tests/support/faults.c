/* A preload for the tests of faults: a disk that fails on command. FAULT names a file, FAULT_DIR the folder that is on that
 * disk. What the file says:
 *
 *   readonly   what the kernel answers once it has mounted a file system read-only after an error (open files included,
 *              which `mount -o remount,ro` would not do): EROFS from whatever would change a file of the folder
 *   stall      each sync of an audit's file waits until the file says otherwise
 *
 * Memory-mapped files are out of its reach, as they are out of the kernel's then. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <unistd.h>

static int says(const char *what) {
    const char *name = getenv("FAULT");
    char text[16] = {0};
    /* By system call: `open` and `read` of this library are ours. */
    int fd = name ? (int)syscall(SYS_openat, AT_FDCWD, name, O_RDONLY | O_CLOEXEC) : -1;
    if (fd < 0) return 0;
    ssize_t length = syscall(SYS_read, fd, text, sizeof text - 1);
    syscall(SYS_close, fd);
    return length > 0 && strncmp(text, what, strlen(what)) == 0;
}

static int inside(const char *path) {
    const char *folder = getenv("FAULT_DIR");
    return folder && strncmp(path, folder, strlen(folder)) == 0;
}

static int of(int fd, char path[4096]) {
    char link[64];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, path, 4095);
    if (length < 0) return 0;
    path[length] = 0;
    return inside(path);
}

static int refused(int fd) {
    char path[4096];
    if (!says("readonly") || !of(fd, path)) return 0;
    errno = EROFS;
    return 1;
}

static void stall(int fd) {
    char path[4096];
    while (of(fd, path) && strstr(path, "/audit-") && says("stall")) usleep(5000);
}

#define REAL(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

#define OPEN(name)                                                                     \
    int name(const char *path, int flags, ...) {                                       \
        va_list more;                                                                  \
        va_start(more, flags);                                                         \
        mode_t mode = flags & (O_CREAT | O_TMPFILE) ? va_arg(more, mode_t) : 0;        \
        va_end(more);                                                                  \
        if ((flags & (O_WRONLY | O_RDWR | O_CREAT)) && inside(path) && says("readonly")) { \
            errno = EROFS;                                                             \
            return -1;                                                                 \
        }                                                                              \
        return REAL(name)(path, flags, mode);                                          \
    }
OPEN(open)
OPEN(open64)

ssize_t write(int fd, const void *from, size_t size) { return refused(fd) ? -1 : REAL(write)(fd, from, size); }

ssize_t pwrite(int fd, const void *from, size_t size, off_t at) {
    return refused(fd) ? -1 : REAL(pwrite)(fd, from, size, at);
}

ssize_t pwrite64(int fd, const void *from, size_t size, off64_t at) {
    return refused(fd) ? -1 : REAL(pwrite64)(fd, from, size, at);
}

int ftruncate(int fd, off_t to) { return refused(fd) ? -1 : REAL(ftruncate)(fd, to); }

int ftruncate64(int fd, off64_t to) { return refused(fd) ? -1 : REAL(ftruncate64)(fd, to); }

int fsync(int fd) {
    stall(fd);
    return refused(fd) ? -1 : REAL(fsync)(fd);
}

int fdatasync(int fd) {
    stall(fd);
    return refused(fd) ? -1 : REAL(fdatasync)(fd);
}

int unlink(const char *path) {
    if (inside(path) && says("readonly")) {
        errno = EROFS;
        return -1;
    }
    return REAL(unlink)(path);
}
