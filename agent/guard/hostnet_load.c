/* SPDX-License-Identifier: Apache-2.0 */
#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/owned.h"
#include "bpf/hostnet.skel.h"
#include "guard/hostnet_own.h"

struct hostnet_load {
	struct hostnet_bpf *skel;
};

static void close_load(struct hostnet_load **load)
{
	hostnet_load_close(*load);
}

void hostnet_load_close(struct hostnet_load *load)
{
	if (load)
		hostnet_bpf__destroy(load->skel);
	free(load);
}

/* ---- maps of a former agent ---- */

static bool is_kept(const struct bpf_map *map, const struct hostnet_pins *pins)
{
	char path[GUARD_PATH_MAX];

	return bpf_pin_look(map, hostnet_pins_map(pins, bpf_map__name(map), path)) == 1;
}

static int reuse(struct bpf_map *map, const struct hostnet_pins *pins)
{
	char path[GUARD_PATH_MAX];

	return bpf_pin_reuse(map, hostnet_pins_map(pins, bpf_map__name(map), path));
}

/* All of them or none: what the programs on a cgroup have of theirs stays when they are renewed. */
static int take_pinned(const struct hostnet_bpf *skel, const struct hostnet_pins *pins,
		       bool *ret_kept)
{
	struct bpf_map *map;
	bool kept = true;
	int r;

	bpf_object__for_each_map(map, skel->obj)
	{
		kept = kept && (bpf_map__is_internal(map) || is_kept(map, pins));
		r = bpf_map__set_pin_path(map, NULL); /* we say where and when */
		if (r < 0)
			return r;
	}
	*ret_kept = kept;
	if (!kept)
		return hostnet_pins_set_aside(pins);
	bpf_object__for_each_map(map, skel->obj)
	{
		r = bpf_map__is_internal(map) ? 0 : reuse(map, pins);
		if (r < 0)
			return r;
	}
	return 0;
}

static int pin_all(const struct hostnet_bpf *skel, const struct hostnet_pins *pins)
{
	char path[GUARD_PATH_MAX];
	struct bpf_map *map;
	int r;

	bpf_object__for_each_map(map, skel->obj)
	{
		if (bpf_map__is_internal(map))
			continue;
		r = bpf_obj_pin(bpf_map__fd(map), hostnet_pins_map(pins, bpf_map__name(map), path));
		if (r < 0)
			return r;
	}
	return 0;
}

/* ---- loading ---- */

static int id_of(const struct bpf_program *prog, struct hostnet_progs *ret, enum hostnet_hook hook)
{
	struct bpf_prog_info info = {0};
	__u32 len = sizeof(info);
	int fd = bpf_program__fd(prog), r = bpf_obj_get_info_by_fd(fd, &info, &len);

	ret->fd[hook] = fd;
	ret->id[hook] = info.id;
	return r;
}

static int give_progs(const struct hostnet_bpf *skel, struct hostnet_progs *ret)
{
	const struct bpf_program *const progs[] = {
		[HOSTNET_EGRESS] = skel->progs.sluice_egress,
		[HOSTNET_SENDMSG4] = skel->progs.sluice_sendmsg4,
		[HOSTNET_SENDMSG6] = skel->progs.sluice_sendmsg6,
		[HOSTNET_SETSOCKOPT] = skel->progs.sluice_setsockopt,
		[HOSTNET_SOCKOPS] = skel->progs.sluice_sockops,
		[HOSTNET_PEERNAME4] = skel->progs.sluice_peername4,
		[HOSTNET_PEERNAME6] = skel->progs.sluice_peername6,
		[HOSTNET_CONNECT4] = skel->progs.sluice_connect4,
		[HOSTNET_CONNECT6] = skel->progs.sluice_connect6,
	};
	int r = 0;

	_Static_assert(ARRAY_SIZE(progs) == HOSTNET_HOOK_N_, "every hook has its program");
	for (enum hostnet_hook hook = 0; r == 0 && hook < HOSTNET_HOOK_N_; hook++)
		r = id_of(progs[hook], ret, hook);
	return r;
}

static struct hostnet_maps give_maps(const struct hostnet_bpf *skel)
{
	return (struct hostnet_maps){
		.cgroups = bpf_map__fd(skel->maps.sluice_cgroups),
		.origins = bpf_map__fd(skel->maps.sluice_origins),
		.net4 = bpf_map__fd(skel->maps.sluice_host4),
		.net6 = bpf_map__fd(skel->maps.sluice_host6),
		.refused = bpf_map__fd(skel->maps.sluice_refused),
		.reports = bpf_map__fd(skel->maps.sluice_reports),
	};
}

static int load_all(struct hostnet_load *load, const struct hostnet_pins *pins,
		    uint16_t capture_port, char error[static HOSTNET_ERROR_MAX])
{
	bool kept = false;
	int r;

	load->skel = hostnet_bpf__open();
	if (!load->skel)
		return guard_fail_bpf(-errno, "read the programs for cgroups", error);
	load->skel->rodata->capture_port = capture_port;
	r = take_pinned(load->skel, pins, &kept);
	if (r < 0)
		return guard_fail(r, error, "cannot take up the maps in '%.100s': %s", pins->dir,
				  strerrordesc_np(-r));
	r = hostnet_bpf__load(load->skel);
	if (r < 0)
		return guard_fail_bpf(r, "load the programs for cgroups", error);
	r = kept ? 0 : pin_all(load->skel, pins);
	return r < 0 ? guard_fail(r, error, "cannot pin maps in '%.100s': %s", pins->dir,
				  strerrordesc_np(-r))
		     : 0;
}

int hostnet_load_open(struct hostnet_load **ret, const struct hostnet_pins *pins,
		      uint16_t capture_port, struct hostnet_progs *ret_progs,
		      struct hostnet_maps *ret_maps, char error[static HOSTNET_ERROR_MAX])
{
	OWNED(close_load) struct hostnet_load *load = calloc(1, sizeof(*load));
	int r;

	if (!load)
		return guard_fail(-ENOMEM, error, "out of memory");
	r = guard_ask_bpf(error);
	if (r == 0)
		r = load_all(load, pins, capture_port, error);
	if (r < 0)
		return r;
	r = give_progs(load->skel, ret_progs);
	if (r < 0)
		return guard_fail(r, error, "cannot ask for the programs' numbers: %s",
				  strerrordesc_np(-r));
	*ret_maps = give_maps(load->skel);
	*ret = TAKE_PTR(load);
	return 0;
}
