/* Makes writes to files fail as on a read-only file system or on a full one, as long as the file that
 * READ_ONLY_FLAG or FULL_FLAG names is there. Nothing but a failing disk does this to a running process
 * otherwise. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <stdlib.h>
#include <unistd.h>

static int is_set(const char *variable) {
	const char *flag = getenv(variable);

	return flag && access(flag, F_OK) == 0;
}

ssize_t pwrite64(int file, const void *data, size_t length, off64_t offset) {
	static ssize_t (*real)(int, const void *, size_t, off64_t);

	if (is_set("READ_ONLY_FLAG")) {
		errno = EROFS;
		return -1;
	}
	if (is_set("FULL_FLAG")) {
		errno = ENOSPC;
		return -1;
	}
	if (!real)
		*(void **)&real = dlsym(RTLD_NEXT, "pwrite64");
	return real(file, data, length, offset);
}

ssize_t pwrite(int file, const void *data, size_t length, off_t offset) {
	return pwrite64(file, data, length, offset);
}
