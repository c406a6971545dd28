/* SPDX-License-Identifier: Apache-2.0 */
#include "redirect/ipt_known.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#define KNOWN_MAX 8
#define BYTES_MAX (16U << 20) /* all together */

static struct known {
	char *bytes;
	size_t n;
} all[KNOWN_MAX + 1]; /* one too many for a moment; what was asked for last comes first */
static size_t n_all, n_bytes;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

static void move_to_front(size_t i)
{
	struct known known = all[i];

	memmove(&all[1], &all[0], i * sizeof(all[0]));
	all[0] = known;
}

static bool find(const char *bytes, size_t n)
{
	for (size_t i = 0; i < n_all; i++) {
		if (all[i].n == n && memcmp(all[i].bytes, bytes, n) == 0) {
			move_to_front(i);
			return true;
		}
	}
	return false;
}

static void add(char *bytes, size_t n)
{
	all[n_all] = (struct known){bytes, n};
	n_bytes += n;
	move_to_front(n_all++);
	while (n_all > KNOWN_MAX || n_bytes > BYTES_MAX) {
		struct known *last = &all[--n_all];

		n_bytes -= last->n;
		free(last->bytes);
	}
}

bool ipt_known(const char *bytes, size_t n)
{
	bool found;

	pthread_mutex_lock(&lock);
	found = find(bytes, n);
	pthread_mutex_unlock(&lock);
	return found;
}

void ipt_known_add(const char *bytes, size_t n)
{
	char *copy = n > 0 && n <= BYTES_MAX ? malloc(n) : NULL;

	if (!copy)
		return;
	memcpy(copy, bytes, n);
	pthread_mutex_lock(&lock);
	if (find(bytes, n))
		free(copy);
	else
		add(copy, n);
	pthread_mutex_unlock(&lock);
}
