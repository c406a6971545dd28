/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* What the parts of the eBPF guard share among themselves; nobody else includes it. Control thread,
 * but for guard_late.c's own. None of it logs above debug level.
 */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "guard/bpf_pin.h"
#include "guard/guard_fail.h"
#include "guard/guard_ops.h"

enum guard_dir {
	GUARD_FROM_POD, /* ingress of the host end */
	GUARD_TO_POD,   /* egress */
	GUARD_DIR_N_,
};

struct guard_progs {
	int fd[GUARD_DIR_N_]; /* of this load; borrowed from the skeleton */
	uint32_t id[GUARD_DIR_N_];
};

struct guard_maps {
	/* Borrowed from the skeleton. */
	int pods, own, net4, net6, flows, frags, rates, counts, events, sockets;
	size_t own_value, flow_value; /* bytes */
	unsigned n_frags;             /* slots of each pod */
};

/* ---- guard_pins.c: folders and names in the BPF file system ---- */

/* What is pinned: DIR/sluice_pods, ..., and DIR/links/IFINDEX-in and -out, with DIR =
 * PIN_DIR/guard-vN. An interface's number is what the maps are keyed with, and a link that is
 * pinned says itself which interface it is on, or that it has lost it.
 */
struct guard_pins {
	char dir[GUARD_PATH_MAX - 64];
};

/* Makes the folders. -EOPNOTSUPP when there is no BPF file system and none can be mounted. */
int guard_pins_open(const char *pin_dir, struct guard_pins *ret,
		    char error[static GUARD_ERROR_MAX]);

/* Writes "DIR/NAME"; returns buf. */
const char *guard_pins_map(const struct guard_pins *pins, const char *name,
			   char buf[static GUARD_PATH_MAX]);
const char *guard_pins_link(const struct guard_pins *pins, uint32_t ifindex, enum guard_dir dir,
			    char buf[static GUARD_PATH_MAX]);

/* Calls `each` for every interface that has a pinned link, perhaps twice; it may unpin. */
void guard_pins_each_link(const struct guard_pins *pins, void (*each)(void *ctx, uint32_t ifindex),
			  void *ctx);

/* Calls `each` for the folder of every version that has left something, `but` (may be NULL) not. */
void guard_pins_each_version(const char *pin_dir, const struct guard_pins *but,
			     void (*each)(void *ctx, const struct guard_pins *pins), void *ctx);

/* Removes the folder and what is in it, links last. 0 also when it is not there. */
int guard_pins_remove(const struct guard_pins *pins);

/* ---- guard_load.c: the programs and their maps ---- */

struct guard_load;

/* Loads the programs, on the maps that are pinned where they fit. *ret_kept: they did. */
int guard_load_open(struct guard_load **ret, const struct guard_pins *pins,
		    const struct guard_config *config, struct guard_progs *ret_progs,
		    struct guard_maps *ret_maps, bool *ret_kept,
		    char error[static GUARD_ERROR_MAX]);

/* Pins the maps that are not; those that did not fit give way. */
int guard_load_pin(struct guard_load *load, const struct guard_pins *pins,
		   char error[static GUARD_ERROR_MAX]);
void guard_load_close(struct guard_load *load); /* NULL is fine */

/* 0: a network namespace made for it was told to run the programs this way, and did. *ret_link is a
 * link to close at leisure, or -1.
 */
int guard_prove(const struct guard_progs *progs, bool tcx, int *ret_link,
		char error[static GUARD_ERROR_MAX]);

/* ---- guard_value.c ---- */

/* What stands for the pod in its table; asks the kernel for the link addresses that are in it.
 * -ENODEV, -errno.
 */
int guard_pod_value(const struct guard_pod_at *pod, unsigned buckets, struct guard_pod *ret);

/* ---- guard_maps.c, guard_nets.c: their contents ---- */

/* The pod's entries: what is missing first, then what is too much goes. -ENOSPC. */
int guard_entries_set(const struct guard_maps *maps, const struct guard_pod_at *pod,
		      const struct guard_pod *value, char error[static GUARD_ERROR_MAX]);
/* 0: exactly so. -ESTALE. -errno. */
int guard_entries_check(const struct guard_maps *maps, const struct guard_pod_at *pod,
			const struct guard_pod *value);
bool guard_entries_are_there(const struct guard_maps *maps, uint32_t ifindex);
/* For an interface that is about to have its first entries. Of a pod that had its number, and went
 * without a word, nothing stays; flows of one that was purged are guard_entries_sweep()'s.
 */
void guard_entries_begin(const struct guard_maps *maps, uint32_t ifindex);
/* Takes away flows of interfaces that have no pod: what an agent left that was killed while it
 * purged one. Looks at the whole table.
 */
int guard_entries_sweep(const struct guard_maps *maps);
/* Everything that is kept under this interface: the pod, its addresses, flows, counters. */
void guard_entries_purge(const struct guard_maps *maps, uint32_t ifindex);
/* The interfaces that have an entry in this map of pods; `each` may change it. -errno. */
int guard_entries_each(int pods_fd, void (*each)(void *ctx, uint32_t ifindex), void *ctx);
int guard_entries_counts(const struct guard_maps *maps,
			 void (*each)(void *ctx, const struct guard_count_key *key,
				      const struct guard_count *count),
			 void *ctx);

/* Makes the cluster's tables those of the plan, in place: until the end of the call the old
 * networks pass too, and at no moment one of the new that was an old one is not there.
 */
int guard_nets_set(const struct guard_maps *maps, const struct plan *plan);

/* ---- guard_tcx.c: programs by tcx links ---- */

/* The first program of the chain, and how many there are; 0 and 0 of an empty one. -EINVAL where
 * the kernel has no tcx, -ENODEV.
 */
int guard_tcx_head(uint32_t ifindex, enum guard_dir dir, uint32_t *ret_id, uint32_t *ret_n);

/* A link at the head of the chain; the caller's. Waits for an RCU grace period, some 10 ms. Any
 * thread.
 */
int guard_tcx_attach(const struct guard_progs *progs, uint32_t ifindex, enum guard_dir dir);

/* Pins the link in place of the one that may be pinned there, which goes. */
int guard_tcx_pin(const struct guard_pins *pins, uint32_t ifindex, enum guard_dir dir, int link_fd);

/* The pinned link on this interface, for the caller to close. -ENOENT when there is none, or when
 * it has lost its interface. *ret_prog is what it runs.
 */
int guard_tcx_open(const struct guard_pins *pins, uint32_t ifindex, enum guard_dir dir,
		   uint32_t *ret_prog);

/* True: pinned, running our program, first in the chain. */
bool guard_tcx_is_right(const struct guard_pins *pins, const struct guard_progs *progs,
			uint32_t ifindex, enum guard_dir dir);

/* Has the pinned link, if there is one, run our program. */
void guard_tcx_renew(const struct guard_pins *pins, const struct guard_progs *progs,
		     uint32_t ifindex, enum guard_dir dir);

/* Detaches and unpins whatever is pinned under this name, however dead. Waits as long. */
void guard_tcx_detach(const char *path);

/* ---- guard_tc.c: programs by clsact filters ---- */

/* Ours come first: the lowest priority there is. Handles are what tell them from others of the same
 * priority; the second is for a filter that takes the place of the first at the head.
 */
#define GUARD_TC_PRIORITY 1
#define GUARD_TC_HANDLE   0x51c0
#define GUARD_TC_HANDLE2  0x51c1

/* 0: a filter of ours is there: *ret_id is its program, *ret_first: no filter comes before it.
 * -ENOENT. -errno.
 */
int guard_tc_look(uint32_t ifindex, enum guard_dir dir, uint32_t *ret_id, bool *ret_first);

/* Puts our program first, in place of our former one at once. Never touches others' filters. */
int guard_tc_attach(const struct guard_progs *progs, uint32_t ifindex, enum guard_dir dir,
		    char error[static GUARD_ERROR_MAX]);

/* 0 also when there is none. The clsact qdisc stays: guard_tc_tidy(). */
int guard_tc_detach(uint32_t ifindex, enum guard_dir dir);

/* Takes the clsact qdisc away when it holds nobody's filters. Programs attached by tcx do not need
 * it.
 */
void guard_tc_tidy(uint32_t ifindex);

/* ---- guard_late.c: what waits for RCU grace periods, on a thread of its own ---- */

struct guard_late;

/* `done` is called on the loop's thread with links at the head of the chains, which it owns; -1 for
 * a direction that was not asked for. Not called for what was cancelled or failed.
 */
int guard_late_new(struct guard_late **ret, struct loop *loop, const struct guard_progs *progs,
		   void (*done)(void *ctx, uint32_t ifindex, const int links[GUARD_DIR_N_]),
		   void *ctx);
/* `dirs` has a bit for each direction. Nothing, while a former call for it is under way. */
void guard_late_attach(struct guard_late *late, uint32_t ifindex, unsigned dirs);
void guard_late_cancel(struct guard_late *late, uint32_t ifindex);
void guard_late_close(struct guard_late *late, int link_fd); /* takes it; -1 is fine */
/* Ends the thread, with what is to be closed closed. NULL is fine. */
void guard_late_free(struct guard_late *late);

/* ---- guard_attach.c: one interface, whichever way ---- */

struct guard_attacher {
	bool tcx;
	const struct guard_pins *pins;
	const struct guard_progs *progs;
	struct guard_late *late;
};

/* Our programs are in force in both directions when it returns. -ENODEV, -EBUSY, -errno. */
int guard_attach(const struct guard_attacher *a, uint32_t ifindex,
		 char error[static GUARD_ERROR_MAX]);
/* Something of ours, perhaps older, is attached: the interface is the one it was. */
bool guard_is_attached(const struct guard_attacher *a, uint32_t ifindex);
/* 0: ours, of this load, first in both directions. -ESTALE. */
int guard_check_attached(const struct guard_attacher *a, uint32_t ifindex);
void guard_detach(const struct guard_attacher *a, uint32_t ifindex);
/* The links that guard_late_attach() made. */
void guard_take_links(const struct guard_attacher *a, uint32_t ifindex,
		      const int links[GUARD_DIR_N_]);
