/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* What the parts of the capture by cgroup share among themselves; nobody else includes it. Control
 * thread. None of it logs above debug level; `error` says what a person can do about it.
 */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "guard/guard_ebpf.h"
#include "guard/hostnet.h"

_Static_assert(HOSTNET_ERROR_MAX == GUARD_ERROR_MAX, "guard_fail() writes both");

/* In the order in which they are attached: what lets nothing out comes first. */
enum hostnet_hook {
	HOSTNET_EGRESS,
	HOSTNET_SENDMSG4,
	HOSTNET_SENDMSG6,
	HOSTNET_SETSOCKOPT,
	HOSTNET_SOCKOPS,
	HOSTNET_PEERNAME4,
	HOSTNET_PEERNAME6,
	HOSTNET_CONNECT4,
	HOSTNET_CONNECT6,
	HOSTNET_HOOK_N_,
};

struct hostnet_progs {
	int fd[HOSTNET_HOOK_N_]; /* of this load; borrowed from the skeleton */
	uint32_t id[HOSTNET_HOOK_N_];
};

struct hostnet_maps {
	int cgroups, origins, net4, net6, refused, reports; /* borrowed from the skeleton */
};

/* ---- hostnet_pins.c: folders and names in the BPF file system ---- */

/* What is pinned: DIR/MAP for each map, DIR/CGROUP/HOOK for each link, with DIR =
 * PIN_DIR/hostnet/vN and CGROUP the decimal id.
 */
struct hostnet_pins {
	char dir[GUARD_PATH_MAX - 96];
};

/* Makes the folder. -EOPNOTSUPP when there is no BPF file system and none can be mounted. */
int hostnet_pins_open(const char *pin_dir, struct hostnet_pins *ret,
		      char error[static HOSTNET_ERROR_MAX]);

/* Both return buf. */
const char *hostnet_pins_map(const struct hostnet_pins *pins, const char *name,
			     char buf[static GUARD_PATH_MAX]);
const char *hostnet_pins_cgroup(const struct hostnet_pins *pins, uint64_t id,
				char buf[static GUARD_PATH_MAX]);

/* Makes room for what does not go with the pins that are there: they get the name of another
 * version, with all that is attached.
 */
int hostnet_pins_set_aside(const struct hostnet_pins *pins);

/* Calls `each` for every cgroup that has a folder; it may remove it. How many there were, the limit
 * of what is looked at being 4 * HOSTNET_MAX_CGROUPS. `each` may be NULL.
 */
size_t hostnet_pins_each_cgroup(const struct hostnet_pins *pins,
				void (*each)(void *ctx, uint64_t id), void *ctx);

/* Calls `each` for the folder of every version that has left something, `but` (may be NULL) not. */
void hostnet_pins_each_version(const char *pin_dir, const struct hostnet_pins *but,
			       void (*each)(void *ctx, const struct hostnet_pins *pins), void *ctx);

/* Removes the folder with the maps' pins; cgroups have to be gone already. 0 also when it is not
 * there.
 */
int hostnet_pins_remove(const struct hostnet_pins *pins);

/* Takes away PIN_DIR/hostnet when it is empty. */
void hostnet_pins_tidy(const char *pin_dir);

/* ---- hostnet_load.c: the programs and their maps ---- */

struct hostnet_load;

/* Loads the programs, on the maps that are pinned if all of them are and fit; sets those aside and
 * pins its own otherwise.
 */
int hostnet_load_open(struct hostnet_load **ret, const struct hostnet_pins *pins,
		      uint16_t capture_port, struct hostnet_progs *ret_progs,
		      struct hostnet_maps *ret_maps, char error[static HOSTNET_ERROR_MAX]);
void hostnet_load_close(struct hostnet_load *load); /* NULL is fine */

/* ---- hostnet_links.c: programs on one cgroup ---- */

/* Has every program attached and pinned. *ret_fresh: none was before. On failure what was attached
 * stays: it refuses.
 */
int hostnet_links_attach(const struct hostnet_pins *pins, const struct hostnet_progs *progs,
			 int cgroup_fd, uint64_t id, bool *ret_fresh,
			 char error[static HOSTNET_ERROR_MAX]);

/* 0: all are, and run this load's programs. -ESTALE. */
int hostnet_links_check(const struct hostnet_pins *pins, const struct hostnet_progs *progs,
			uint64_t id);

/* Has pinned links run this load's programs, on the same maps. -ENOENT: the cgroup is gone. */
int hostnet_links_renew(const struct hostnet_pins *pins, const struct hostnet_progs *progs,
			uint64_t id);

/* Detaches and unpins, however dead. 0 also when there is nothing. */
int hostnet_links_detach(const struct hostnet_pins *pins, uint64_t id);

/* ---- hostnet_tables.c: contents of the maps ---- */

/* Lets the programs on this cgroup begin. `fresh`: nothing of it counts any more. */
int hostnet_tables_begin(const struct hostnet_maps *maps, uint64_t id, bool fresh);
int hostnet_tables_check(const struct hostnet_maps *maps, uint64_t id); /* -ESTALE */
void hostnet_tables_forget(const struct hostnet_maps *maps, uint64_t id);
/* What closed connections left in the queue of a listener that is gone. */
void hostnet_tables_sweep(const struct hostnet_maps *maps);
