/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* Folders and maps in a BPF file system. Any thread; does not log. */
#include "guard/guard_ops.h"

struct bpf_map;

#define GUARD_PATH_MAX  512
#define BPF_PIN_DIR_MAX 320 /* of the folder that is configured: the rest is for names below it */

/* `pin_dir` is in a BPF file system from now on: one is mounted at /sys/fs/bpf where that would
 * help. -EOPNOTSUPP, -EINVAL, with what to do in `error`.
 */
int bpf_pin_open_fs(const char *pin_dir, char error[static GUARD_ERROR_MAX]);

/* Makes the folder and its parents with mode 0700 where they are missing. -errno. */
int bpf_pin_make_dirs(const char *path, char error[static GUARD_ERROR_MAX]);

/* 1: a map that this one could be loaded on is pinned there. 0: nothing is. -ESTALE: one of another
 * layout. -errno.
 */
int bpf_pin_look(const struct bpf_map *map, const char *path);

/* The map, before it is loaded, is the pinned one from now on. -errno. */
int bpf_pin_reuse(struct bpf_map *map, const char *path);
