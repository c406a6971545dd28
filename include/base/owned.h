/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* Cleanup attributes: what a function owns is declared with OWNED* and initialised on that line,
 * and leaves only by TAKE_PTR or TAKE_FD. Libc only, any thread.
 */
#include <stdlib.h>
#include <unistd.h>
#include <errno.h>

#define OWNED(fn) __attribute__((cleanup(fn)))
#define OWNED_MEM OWNED(owned_free)
#define OWNED_FD  OWNED(owned_close)

#define TAKE_PTR(p)                               \
	({                                        \
		typeof(p) *pp_ = &(p), v_ = *pp_; \
		*pp_ = NULL;                      \
		v_;                               \
	})
#define TAKE_FD(fd)                          \
	({                                   \
		int *fp_ = &(fd), v_ = *fp_; \
		*fp_ = -1;                   \
		v_;                          \
	})

#define ARRAY_SIZE(a)                   (sizeof(a) / sizeof((a)[0]))
#define CONTAINER_OF(ptr, type, member) ((type *)(void *)((char *)(ptr)-offsetof(type, member)))

/* For OWNED_MEM: frees what the variable at `p` points to. */
static inline void owned_free(void *p)
{
	free(*(void **)p);
}

/* For OWNED_FD: closes the descriptor unless it is negative; errno is left alone. */
static inline void owned_close(int *fd)
{
	int saved = errno;

	if (*fd >= 0)
		close(*fd);
	errno = saved;
}
