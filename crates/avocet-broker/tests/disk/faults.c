/* Makes a disk slow, failing or full for the program it is loaded into. The file named by
   AVOCET_FAULTS says how: "delay" (200 ms for each sync), "sync" (each sync fails), "late" (so it does after those 200 ms), "full" (no write
   at a position finds space), or anything else for a disk that works. It is read at each call. */

#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/types.h>
#include <time.h>
#include <unistd.h>

static int fault(const char *name) {
    char text[16] = {0};
    const char *path = getenv("AVOCET_FAULTS");
    int file = path ? open(path, O_RDONLY | O_CLOEXEC) : -1;
    if (file < 0) {
        return 0;
    }
    ssize_t length = read(file, text, sizeof text - 1);
    close(file);
    return length > 0 && strncmp(text, name, strlen(name)) == 0;
}

static int synced(const char *name, int file) {
    int (*sync)(int) = (int (*)(int))dlsym(RTLD_NEXT, name);
    if (fault("sync")) {
        errno = EIO;
        return -1;
    }
    int fails = fault("late");
    if (fails || fault("delay")) {
        struct timespec wait = {0, 200000000};
        while (nanosleep(&wait, &wait) != 0) {
        }
    }
    if (fails) {
        errno = EIO;
        return -1;
    }
    return sync(file);
}

int fdatasync(int file) { return synced("fdatasync", file); }

int fsync(int file) { return synced("fsync", file); }

ssize_t pwrite64(int file, const void *bytes, size_t length, off64_t offset) {
    ssize_t (*write)(int, const void *, size_t, off64_t) =
        (ssize_t(*)(int, const void *, size_t, off64_t))dlsym(RTLD_NEXT, "pwrite64");
    if (fault("full")) {
        errno = ENOSPC;
        return -1;
    }
    return write(file, bytes, length, offset);
}
