/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
#pragma once

/* Every map of hostnet.bpf.c. User space is agent/guard/hostnet*.c. */
#include <linux/bpf.h>

#include <bpf/bpf_helpers.h>

#include "abi/guard.h"
#include "abi/hostnet.h"

#define HOSTNET_NETS_MAX 16384
/* What every cgroup may have, and as much again as can wait in a listener's queue: nobody's entry
 * can be pushed out or kept out by another cgroup.
 */
#define HOSTNET_ORIGINS_MAX (HOSTNET_MAX_CGROUPS * HOSTNET_MAX_LIVE + 65536)
#define HOSTNET_COUNTS_MAX  (HOSTNET_MAX_CGROUPS * 6 * HOSTNET_WHY_N_)

/* The captured cgroups. Key: id. Value: struct hostnet_cgroup, all zero at first. Made and freed by
 * the kernel with attachment and cgroup; `id` and `serial` are written by user space, the rest by
 * the programs. One for all programs of a cgroup since Linux 5.9.
 */
struct {
	__uint(type, BPF_MAP_TYPE_CGROUP_STORAGE);
	__type(key, __u64);
	__type(value, struct hostnet_cgroup);
} sluice_cgroups SEC(".maps");

/* Captured sockets. Key: socket. Value: struct hostnet_socket. Written, read, deleted by the
 * programs; goes with the socket, so that it needs no bound.
 */
struct {
	__uint(type, BPF_MAP_TYPE_SK_STORAGE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, int);
	__type(value, struct hostnet_socket);
} sluice_captured SEC(".maps");

/* Where captured connections meant to go. Key: struct hostnet_key. Value: struct hostnet_origin.
 * Written by sluice_sockops before the handshake ends; deleted by user space when the connection is
 * accepted, or by sluice_sockops when it closes before; what it marked HOSTNET_CLOSED waits for
 * user space in the listener's queue.
 */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, HOSTNET_ORIGINS_MAX);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, struct hostnet_key);
	__type(value, struct hostnet_origin);
} sluice_origins SEC(".maps");

/* The cluster's networks. Key: prefix. Value: GUARD_CLUSTER_*. Written and deleted by user space,
 * read by the programs.
 */
struct {
	__uint(type, BPF_MAP_TYPE_LPM_TRIE);
	__uint(max_entries, HOSTNET_NETS_MAX);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, struct guard_net4);
	__type(value, __u32);
} sluice_host4 SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_LPM_TRIE);
	__uint(max_entries, HOSTNET_NETS_MAX);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, struct guard_net6);
	__type(value, __u32);
} sluice_host6 SEC(".maps");

/* Refusals. Key: struct hostnet_count_key. Value: how many, of each CPU. Written by the programs,
 * deleted by user space with the cgroup.
 */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_HASH);
	__uint(max_entries, HOSTNET_COUNTS_MAX);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, struct hostnet_count_key);
	__type(value, __u64);
} sluice_refused SEC(".maps");

/* struct hostnet_report of refusals. Written by the programs, read by user space. When it is full,
 * events are lost and counted as suppressed.
 */
struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 128 * 1024);
} sluice_reports SEC(".maps");
