/* A preload for `cargo xtask crash --power`: notes how long each file was when it was last synced.
 *
 * SYNCED names a folder. After each fsync or fdatasync that succeeded the file's path and length are written to a file
 * there whose name is the inode's number. What was never synced has no note: a power loss may leave nothing of it. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static void note(int fd) {
    const char *folder = getenv("SYNCED");
    struct stat info;
    char link[64], path[4096], line[4200], name[4200], fresh[4300];
    if (!folder || fstat(fd, &info) != 0 || !S_ISREG(info.st_mode)) return;
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, path, sizeof path - 1);
    if (length < 0) return;
    path[length] = 0;
    int size = snprintf(line, sizeof line, "%lld %s\n", (long long)info.st_size, path);
    snprintf(name, sizeof name, "%s/%llu", folder, (unsigned long long)info.st_ino);
    snprintf(fresh, sizeof fresh, "%s.%d.%p", name, (int)getpid(), (void *)&info);
    /* Renamed into place, so that a kill leaves the last note or the one before. */
    int to = open(fresh, O_WRONLY | O_CREAT | O_TRUNC, 0600);
    if (to < 0) return;
    if (write(to, line, (size_t)size) == size) rename(fresh, name);
    close(to);
}

/* One thread writes each of the proxy's files and syncs it itself, so nothing is written between sync and note. */
int fsync(int fd) {
    int (*real)(int) = (int (*)(int))dlsym(RTLD_NEXT, "fsync");
    int done = real(fd);
    if (done == 0) note(fd);
    return done;
}

int fdatasync(int fd) {
    int (*real)(int) = (int (*)(int))dlsym(RTLD_NEXT, "fdatasync");
    int done = real(fd);
    if (done == 0) note(fd);
    return done;
}
