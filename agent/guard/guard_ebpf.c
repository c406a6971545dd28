/* SPDX-License-Identifier: Apache-2.0 */
#include "guard/guard_ebpf.h"

#include <bpf/bpf.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "base/owned.h"
#include "guard/bpf_log.h"
#include "guard/bpf_ring.h"

#define GONE_MAX    64
#define GONE_FOR_MS 1000 /* no packet is on its way for so long */

struct ebpf {
	struct loop *loop;
	char *pin_dir;
	struct guard_pins pins;
	struct guard_load *load;
	struct guard_progs progs;
	struct guard_maps maps;
	struct guard_attacher attacher;
	struct guard_late *late;
	struct bpf_ring *events;
	struct guard_hooks hooks;
	bool kept;        /* a former agent's maps are in use */
	unsigned buckets; /* of each pod's part of the flow table */
	/* Pods that were removed a moment ago: a packet that was on its way just then may have put
	 * a flow behind our back.
	 */
	struct timer settle_gone;
	uint32_t gone[GONE_MAX];
	size_t n_gone;
	bool more_gone; /* than there was room for */
};

static unsigned buckets_of(unsigned flows)
{
	unsigned n = flows / GUARD_FLOW_WAYS + (flows % GUARD_FLOW_WAYS != 0);

	return n == 0 ? 1 : n > GUARD_MAX_BUCKETS ? GUARD_MAX_BUCKETS : n;
}

/* ---- pods that went ---- */

static bool is_gone(const struct ebpf *e, uint32_t ifindex)
{
	for (size_t i = 0; i < e->n_gone; i++) {
		if (e->gone[i] == ifindex)
			return true;
	}
	return e->more_gone;
}

static void on_settle_gone(struct timer *t)
{
	struct ebpf *e = CONTAINER_OF(t, struct ebpf, settle_gone);

	for (size_t i = 0; i < e->n_gone; i++) {
		if (!guard_entries_are_there(&e->maps, e->gone[i]))
			guard_entries_purge(&e->maps, e->gone[i]);
	}
	if (e->more_gone)
		guard_entries_sweep(&e->maps);
	e->n_gone = 0;
	e->more_gone = false;
}

/* Starts the time anew: each has it in full. */
static void note_gone(struct ebpf *e, uint32_t ifindex)
{
	if (e->n_gone < GONE_MAX)
		e->gone[e->n_gone++] = ifindex;
	else
		e->more_gone = true;
	timer_start(e->loop, &e->settle_gone, GONE_FOR_MS);
}

/* ---- pods ---- */

/* When nothing of ours is attached, this interface is another than the one that entries under its
 * number were made for: none of them may pass to it.
 */
static int ebpf_add(void *self, const struct guard_pod_at *pod, char error[static GUARD_ERROR_MAX])
{
	struct ebpf *e = self;
	bool fresh = !guard_is_attached(&e->attacher, pod->ifindex);
	struct guard_pod value;
	int r;

	if (fresh && is_gone(e, pod->ifindex))
		guard_entries_purge(&e->maps, pod->ifindex);
	else if (fresh)
		guard_entries_begin(&e->maps, pod->ifindex);
	r = guard_pod_value(pod, e->buckets, &value);
	if (r < 0)
		return guard_fail(r, error, "cannot find interface %u: %s", pod->ifindex,
				  strerrordesc_np(-r));
	r = guard_entries_set(&e->maps, pod, &value, error);
	if (r == 0)
		r = guard_attach(&e->attacher, pod->ifindex, error);
	if (r < 0 && fresh) {
		guard_detach(&e->attacher, pod->ifindex);
		guard_entries_purge(&e->maps, pod->ifindex);
	}
	return r;
}

static int ebpf_verify(void *self, const struct guard_pod_at *pod)
{
	struct ebpf *e = self;
	struct guard_pod value;
	int r;

	r = guard_check_attached(&e->attacher, pod->ifindex);
	if (r < 0)
		return r;
	r = guard_pod_value(pod, e->buckets, &value);
	if (r < 0)
		return r == -ENODEV ? -ESTALE : r;
	return guard_entries_check(&e->maps, pod, &value);
}

static int ebpf_remove(void *self, uint32_t ifindex)
{
	struct ebpf *e = self;

	guard_detach(&e->attacher, ifindex);
	guard_entries_purge(&e->maps, ifindex);
	note_gone(e, ifindex);
	return 0;
}

static int ebpf_list(void *self, void (*each)(void *ctx, uint32_t ifindex), void *ctx)
{
	struct ebpf *e = self;

	guard_pins_each_link(&e->pins, each, ctx);
	return guard_entries_each(e->maps.pods, each, ctx);
}

static int ebpf_steer_to(void *self, int listen_fd)
{
	const uint32_t value = GUARD_SOCKET_AGENT;
	struct ebpf *e = self;

	return bpf_map_update_elem(e->maps.sockets, &listen_fd, &value, BPF_ANY);
}

static int ebpf_set_cluster(void *self, const struct plan *plan)
{
	struct ebpf *e = self;

	return guard_nets_set(&e->maps, plan);
}

static int ebpf_counts(void *self,
		       void (*each)(void *ctx, const struct guard_count_key *key,
				    const struct guard_count *count),
		       void *ctx)
{
	struct ebpf *e = self;

	return guard_entries_counts(&e->maps, each, ctx);
}

/* ---- taking up ---- */

static void take_up(void *ctx, uint32_t ifindex)
{
	char error[GUARD_ERROR_MAX];
	struct ebpf *e = ctx;
	int r;

	if (!guard_is_attached(&e->attacher, ifindex)) {
		ebpf_remove(e, ifindex); /* the interface went while no agent was there */
		return;
	}
	r = guard_attach(&e->attacher, ifindex, error);
	if (r < 0) /* verification finds it, too */
		log_debug("guard: interface %u keeps the programs it had: %s", ifindex, error);
}

/* Links whose pod has no entry in these maps run on older maps, and keep them: what they guard is
 * in force until the pod is added again.
 */
static void forget_dead(void *ctx, uint32_t ifindex)
{
	struct ebpf *e = ctx;

	if (!guard_is_attached(&e->attacher, ifindex))
		ebpf_remove(e, ifindex);
}

static void on_links(void *ctx, uint32_t ifindex, const int links[GUARD_DIR_N_])
{
	struct ebpf *e = ctx;

	guard_take_links(&e->attacher, ifindex, links);
}

static int prepare(struct ebpf *e, bool tcx, const struct guard_config *config,
		   char error[static GUARD_ERROR_MAX])
{
	int r;

	bpf_log_start();
	r = guard_pins_open(config->pin_dir, &e->pins, error);
	if (r < 0)
		return r;
	r = guard_load_open(&e->load, &e->pins, config, &e->progs, &e->maps, &e->kept, error);
	if (r < 0)
		return r;
	e->pin_dir = strdup(config->pin_dir);
	if (!e->pin_dir)
		return guard_fail(-ENOMEM, error, "out of memory");
	e->buckets = buckets_of(config->flows_per_pod);
	log_debug("guard: %s maps", e->kept ? "a former agent's" : "new");
	e->attacher = (struct guard_attacher){.tcx = tcx, .pins = &e->pins, .progs = &e->progs};
	return 0;
}

static void on_event(void *ctx, const void *record)
{
	const struct ebpf *e = ctx;

	e->hooks.on_event(e->hooks.ctx, record);
}

static int start(struct ebpf *e, struct loop *loop, const struct guard_hooks *hooks,
		 char error[static GUARD_ERROR_MAX])
{
	int r, link;

	r = guard_prove(&e->progs, e->attacher.tcx, &link, error);
	if (r < 0)
		return r;
	r = guard_late_new(&e->late, loop, &e->progs, on_links, e);
	if (r < 0) {
		owned_close(&link);
		return guard_fail(r, error, "cannot start a thread: %s", strerrordesc_np(-r));
	}
	e->attacher.late = e->late;
	guard_late_close(e->late, link);
	e->hooks = *hooks;
	r = bpf_ring_new(&e->events, loop, e->maps.events, sizeof(struct guard_event), on_event, e);
	return r < 0 ? guard_fail(r, error, "cannot listen to the guard: %s", strerrordesc_np(-r))
		     : 0;
}

static int adopt(struct ebpf *e, const struct plan *plan, char error[static GUARD_ERROR_MAX])
{
	int r;

	r = guard_load_pin(e->load, &e->pins, error);
	if (r < 0)
		return r;
	r = guard_nets_set(&e->maps, plan);
	if (r == 0)
		r = guard_entries_each(e->maps.pods, take_up, e);
	if (r == 0 && e->kept)
		r = guard_entries_sweep(&e->maps);
	if (r < 0)
		return guard_fail(r, error, "cannot fill the guard's tables: %s",
				  strerrordesc_np(-r));
	guard_pins_each_link(&e->pins, forget_dead, e);
	return 0;
}

static void ebpf_close(void *self)
{
	struct ebpf *e = self;

	timer_stop(e->loop, &e->settle_gone);
	bpf_ring_free(e->events);
	guard_late_free(e->late);
	guard_load_close(e->load);
	free(e->pin_dir);
	free(e);
}

static int open_as(bool tcx, void **ret, struct loop *loop, const struct guard_config *config,
		   const struct plan *plan, const struct guard_hooks *hooks,
		   char error[static GUARD_ERROR_MAX])
{
	struct ebpf *e = calloc(1, sizeof(*e));
	int r;

	if (!e)
		return guard_fail(-ENOMEM, error, "out of memory");
	e->loop = loop;
	e->settle_gone.on_expire = on_settle_gone;
	r = prepare(e, tcx, config, error);
	if (r == 0)
		r = start(e, loop, hooks, error);
	if (r == 0)
		r = adopt(e, plan, error);
	if (r < 0) {
		ebpf_close(e);
		return r;
	}
	*ret = e;
	return 0;
}

static int open_tcx(void **ret, struct loop *loop, const struct guard_config *config,
		    const struct plan *plan, const struct guard_hooks *hooks,
		    char error[static GUARD_ERROR_MAX])
{
	return open_as(true, ret, loop, config, plan, hooks, error);
}

static int open_tc(void **ret, struct loop *loop, const struct guard_config *config,
		   const struct plan *plan, const struct guard_hooks *hooks,
		   char error[static GUARD_ERROR_MAX])
{
	return open_as(false, ret, loop, config, plan, hooks, error);
}

/* ---- taking away ---- */

static bool uses_map(uint32_t prog_id, uint32_t map_id)
{
	OWNED_FD int fd = bpf_prog_get_fd_by_id(prog_id);
	uint32_t ids[64];
	struct bpf_prog_info info = {.nr_map_ids = ARRAY_SIZE(ids),
				     .map_ids = (uint64_t)(uintptr_t)ids};
	__u32 len = sizeof(info);

	if (fd < 0 || bpf_obj_get_info_by_fd(fd, &info, &len) < 0)
		return false;
	for (uint32_t i = 0; i < info.nr_map_ids && i < ARRAY_SIZE(ids); i++) {
		if (ids[i] == map_id)
			return true;
	}
	return false;
}

/* Only filters whose programs look into this table: another agent may guard the same interface by
 * now.
 */
static void detach_filters(void *ctx, uint32_t ifindex)
{
	uint32_t map_id = *(uint32_t *)ctx, prog = 0;
	bool first;

	for (int dir = 0; dir < GUARD_DIR_N_; dir++) {
		if (guard_tc_look(ifindex, dir, &prog, &first) == 0 && uses_map(prog, map_id))
			guard_tc_detach(ifindex, dir);
	}
	guard_tc_tidy(ifindex);
}

static void remove_version(void *ctx, const struct guard_pins *pins)
{
	struct bpf_map_info info = {0};
	char path[GUARD_PATH_MAX];
	OWNED_FD int fd = bpf_obj_get(guard_pins_map(pins, "sluice_pods", path));
	__u32 len = sizeof(info);
	int *worst = ctx, r = 0;

	if (fd >= 0 && bpf_obj_get_info_by_fd(fd, &info, &len) == 0)
		r = guard_entries_each(fd, detach_filters, &info.id);
	if (r == 0)
		r = fd == -EPERM ? fd : guard_pins_remove(pins);
	if (r < 0)
		*worst = r;
}

/* All pods are known again: older versions of the tables guard nobody any more. */
static void ebpf_settle(void *self)
{
	struct ebpf *e = self;
	int ignored = 0;

	guard_pins_each_version(e->pin_dir, &e->pins, remove_version, &ignored);
}

static int ebpf_uninstall(const struct guard_config *config)
{
	int worst = 0;

	bpf_log_start();
	guard_pins_each_version(config->pin_dir, NULL, remove_version, &worst);
	rmdir(config->pin_dir); /* only when nobody else uses it */
	return worst;
}

#define COMMON                                                                            \
	.can_steer = true, .add = ebpf_add, .verify = ebpf_verify, .remove = ebpf_remove, \
	.list = ebpf_list, .steer_to = ebpf_steer_to, .set_cluster = ebpf_set_cluster,    \
	.counts = ebpf_counts, .close = ebpf_close, .uninstall = ebpf_uninstall,          \
	.settle = ebpf_settle

const struct guard_ops guard_ebpf_tcx = {.open = open_tcx, COMMON};
const struct guard_ops guard_ebpf_tc = {.open = open_tc, COMMON};
