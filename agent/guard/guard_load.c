/* SPDX-License-Identifier: Apache-2.0 */
#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/owned.h"
#include "bpf/guard.skel.h"
#include "guard/guard_ebpf.h"

struct guard_load {
	struct guard_bpf *skel;
	bool kept; /* pinned maps are used */
};

static void close_load(struct guard_load **load)
{
	guard_load_close(*load);
}

void guard_load_close(struct guard_load *load)
{
	if (load)
		guard_bpf__destroy(load->skel);
	free(load);
}

/* ---- maps of a former agent ---- */

static int look_at(const struct bpf_map *map, const struct guard_pins *pins)
{
	char path[GUARD_PATH_MAX];

	return bpf_pin_look(map, guard_pins_map(pins, bpf_map__name(map), path));
}

static int reuse(struct bpf_map *map, const struct guard_pins *pins)
{
	char path[GUARD_PATH_MAX];

	return bpf_pin_reuse(map, guard_pins_map(pins, bpf_map__name(map), path));
}

/* All of those that are pinned, or none: programs of one load share one set. */
static int take_pinned(struct guard_load *load, const struct guard_pins *pins)
{
	struct bpf_map *map;
	bool stale = false, any = false;
	int r = 0;

	bpf_object__for_each_map(map, load->skel->obj)
	{
		r = bpf_map__is_internal(map) ? 0 : look_at(map, pins);
		if (r < 0 && r != -ESTALE)
			return r;
		stale |= r == -ESTALE;
		any |= r == 1;
	}
	load->kept = any && !stale;
	if (!load->kept)
		return 0;
	bpf_object__for_each_map(map, load->skel->obj)
	{
		r = bpf_map__is_internal(map) || look_at(map, pins) == 0 ? 0 : reuse(map, pins);
		if (r < 0)
			return r;
	}
	return 0;
}

/* ---- loading ---- */

static int set_up(struct guard_load *load, const struct guard_config *config)
{
	struct bpf_map *map;

	load->skel->rodata->steer_mark = config->mark;
	load->skel->rodata->capture_port = config->capture_port;
	bpf_object__for_each_map(map, load->skel->obj)
	{
		int r = bpf_map__set_pin_path(map, NULL); /* we say where and when */

		if (r < 0)
			return r;
	}
	return 0;
}

static int id_of(const struct bpf_program *prog, int *ret_fd, uint32_t *ret_id)
{
	struct bpf_prog_info info = {0};
	__u32 len = sizeof(info);
	int fd = bpf_program__fd(prog), r = bpf_obj_get_info_by_fd(fd, &info, &len);

	if (r < 0)
		return r;
	*ret_fd = fd;
	*ret_id = info.id;
	return 0;
}

static int give_progs(const struct guard_bpf *skel, struct guard_progs *ret)
{
	int r = id_of(skel->progs.sluice_from_pod, &ret->fd[GUARD_FROM_POD],
		      &ret->id[GUARD_FROM_POD]);

	return r < 0 ? r
		     : id_of(skel->progs.sluice_to_pod, &ret->fd[GUARD_TO_POD],
			     &ret->id[GUARD_TO_POD]);
}

static struct guard_maps give_maps(const struct guard_bpf *skel)
{
	return (struct guard_maps){
		.pods = bpf_map__fd(skel->maps.sluice_pods),
		.own = bpf_map__fd(skel->maps.sluice_own),
		.net4 = bpf_map__fd(skel->maps.sluice_net4),
		.net6 = bpf_map__fd(skel->maps.sluice_net6),
		.flows = bpf_map__fd(skel->maps.sluice_flows),
		.frags = bpf_map__fd(skel->maps.sluice_frags),
		.rates = bpf_map__fd(skel->maps.sluice_rates),
		.sockets = bpf_map__fd(skel->maps.sluice_sockets),
		.counts = bpf_map__fd(skel->maps.sluice_counts),
		.events = bpf_map__fd(skel->maps.sluice_events),
		.flow_value = bpf_map__value_size(skel->maps.sluice_flows),
		.own_value = bpf_map__value_size(skel->maps.sluice_own),
		.n_frags = bpf_map__max_entries(skel->maps.sluice_frags) / GUARD_MAX_PODS,
	};
}

static int load_all(struct guard_load *load, const struct guard_pins *pins,
		    const struct guard_config *config, char error[static GUARD_ERROR_MAX])
{
	int r;

	load->skel = guard_bpf__open();
	if (!load->skel)
		return guard_fail_bpf(-errno, "read the guard's programs", error);
	r = set_up(load, config);
	if (r == 0)
		r = take_pinned(load, pins);
	if (r < 0)
		return guard_fail(r, error, "cannot take up the maps in '%.100s': %s", pins->dir,
				  strerrordesc_np(-r));
	r = guard_bpf__load(load->skel);
	return r < 0 ? guard_fail_bpf(r, "load the guard's programs", error) : 0;
}

int guard_load_open(struct guard_load **ret, const struct guard_pins *pins,
		    const struct guard_config *config, struct guard_progs *ret_progs,
		    struct guard_maps *ret_maps, bool *ret_kept, char error[static GUARD_ERROR_MAX])
{
	OWNED(close_load) struct guard_load *load = calloc(1, sizeof(*load));
	int r;

	if (!load)
		return guard_fail(-ENOMEM, error, "out of memory");
	r = guard_ask_bpf(error);
	if (r == 0)
		r = load_all(load, pins, config, error);
	if (r < 0)
		return r;
	r = give_progs(load->skel, ret_progs);
	if (r < 0)
		return guard_fail(r, error, "cannot ask for the programs' numbers: %s",
				  strerrordesc_np(-r));
	*ret_maps = give_maps(load->skel);
	*ret_kept = load->kept;
	*ret = TAKE_PTR(load);
	return 0;
}

/* ---- pinning ---- */

static int pin(struct bpf_map *map, const struct guard_pins *pins, bool kept)
{
	char path[GUARD_PATH_MAX];
	int r;

	guard_pins_map(pins, bpf_map__name(map), path);
	if (kept && look_at(map, pins) == 1)
		return 0;
	/* What does not fit stays in use by the programs that were loaded with it, until each
	 * interface gets its new one. */
	if (unlink(path) < 0 && errno != ENOENT)
		return -errno;
	r = bpf_obj_pin(bpf_map__fd(map), path);
	return r;
}

int guard_load_pin(struct guard_load *load, const struct guard_pins *pins,
		   char error[static GUARD_ERROR_MAX])
{
	struct bpf_map *map;

	bpf_object__for_each_map(map, load->skel->obj)
	{
		int r = bpf_map__is_internal(map) ? 0 : pin(map, pins, load->kept);

		if (r < 0)
			return guard_fail(r, error, "cannot pin map '%s' in '%.100s': %s",
					  bpf_map__name(map), pins->dir, strerrordesc_np(-r));
	}
	return 0;
}
