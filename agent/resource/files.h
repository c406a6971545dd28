/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* Configured paths to the files that hold resources, and what they looked like when last seen. */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "resource/report.h"

#define FILES_MAX      10000
#define FILE_BYTES_MAX ((size_t)64 * 1024 * 1024) /* bytes of one file */

/* Whether a file of this name in a folder is read: *.yaml, *.yml, *.json, no dot in front. */
bool file_is_resource(const char *name);

struct file_list {
	char **paths;
	size_t n;
};

/* The files behind `paths`: files as they are, folders by what file_is_resource(), sorted. What
 * cannot be read is noted in `report` (may be NULL). Fill `ret` with zeros before; it may be in
 * part filled after.
 */
void file_list_collect(struct file_list *ret, const char *const *paths, size_t n,
		       struct report *report);
void file_list_done(struct file_list *list);

/* A number that changes when a file behind `paths` is written, replaced, added or taken away. */
uint64_t file_fingerprint(const char *const *paths, size_t n);

/* Reads a regular file of up to `max` bytes; *ret is for the caller to free. -errno: -EFBIG when it
 * is larger, -EBADF when it is no regular file, -EAGAIN when it grew meanwhile.
 */
int file_read(const char *path, size_t max, char **ret, size_t *ret_len);
const char *file_read_str(int r); /* what file_read() returned, in words */
