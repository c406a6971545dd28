/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
#pragma once

/* Every map of the guard. User space is agent/guard; "the program" is guard.bpf.c. */
#include <linux/bpf.h>

#include <bpf/bpf_helpers.h>

#include "abi/guard.h"

#define OWN_MAX      (GUARD_MAX_PODS * 32)
#define NETS_MAX     16384
#define COUNTS_MAX   (GUARD_MAX_PODS * 32)
#define RATES_MAX    (GUARD_MAX_PODS * 4)
#define FRAGS_OF_POD 16 /* a power of two */

/* Enrolled pods. Key: interface index of the host end. Value: struct guard_pod. Written and deleted
 * by user space, read by the program; what is not here has no way out.
 */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, GUARD_MAX_PODS);
	__type(key, __u32);
	__type(value, struct guard_pod);
} sluice_pods SEC(".maps");

/* The pods' own addresses. Key: struct guard_own. Value: 1. Written and deleted by user space, read
 * by the program.
 */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, OWN_MAX);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, struct guard_own);
	__type(value, __u8);
} sluice_own SEC(".maps");

/* The cluster's networks. Key: prefix. Value: GUARD_CLUSTER_*. Written and deleted by user space,
 * read by the program.
 */
struct {
	__uint(type, BPF_MAP_TYPE_LPM_TRIE);
	__uint(max_entries, NETS_MAX);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, struct guard_net4);
	__type(value, __u32);
} sluice_net4 SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_LPM_TRIE);
	__uint(max_entries, NETS_MAX);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, struct guard_net6);
	__type(value, __u32);
} sluice_net6 SEC(".maps");

struct bucket {
	struct bpf_spin_lock lock;
	__u32 pad;
	struct guard_flow ways[GUARD_FLOW_WAYS];
};

/* What was opened towards the pods from outside the cluster. Key: pod and number of a bucket below
 * guard_pod.buckets, which is what bounds a pod. Value: struct bucket. Written and read by the
 * program: made by sluice_to_pod alone; deleted by user space when the pod goes.
 */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, GUARD_MAX_PODS *GUARD_MAX_BUCKETS);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, struct guard_flow_key);
	__type(value, struct bucket);
} sluice_flows SEC(".maps");

/* What the hash of a flow starts from, so that nobody outside can aim at a bucket. Key: 0. Value:
 * random, never 0 once drawn. Written by the program, once; it lives as long as sluice_flows, with
 * which it has to be pinned. Read by the program; never deleted.
 */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u64);
} sluice_seed SEC(".maps");

struct frag_key {
	__u32 ifindex;
	__u32 slot; /* below FRAGS_OF_POD */
};

struct frag {
	__u8 remote[16];
	__u32 id;
	__u32 proto;
	__u32 seen; /* as in struct guard_flow */
	__u32 pad;
};

/* Fragmented answers whose first fragment has passed. Key: pod and slot. Value: which datagram.
 * Written and read by sluice_from_pod; deleted by nobody: overwritten, and as many as there can be.
 */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, GUARD_MAX_PODS *FRAGS_OF_POD);
	__type(key, struct frag_key);
	__type(value, struct frag);
} sluice_frags SEC(".maps");

/* The agent's listeners, and by inheritance the connections they accepted. Key: socket. Value:
 * GUARD_SOCKET_AGENT. Written by user space for each listener, by its file descriptor; read by the
 * program; goes with the socket.
 */
struct {
	__uint(type, BPF_MAP_TYPE_SK_STORAGE);
	__uint(map_flags, BPF_F_NO_PREALLOC | BPF_F_CLONE);
	__type(key, int);
	__type(value, __u32);
} sluice_sockets SEC(".maps");

/* Refused packets. Key: struct guard_count_key. Value: struct guard_count of each CPU. Written by
 * the program, read by user space, and deleted by it when the pod goes. When it is full, what is
 * new in kind goes uncounted; it is refused all the same.
 */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_HASH);
	__uint(max_entries, COUNTS_MAX);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, struct guard_count_key);
	__type(value, struct guard_count);
} sluice_counts SEC(".maps");

struct rate {
	__u64 next_ns; /* when the pod's allowance is whole again */
	__u64 suppressed;
};

/* How often a pod may have an event. Key: interface index. Written and read by the program; deleted
 * by nobody: the least recently used makes room, and starts anew.
 */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, RATES_MAX);
	__type(key, __u32);
	__type(value, struct rate);
} sluice_rates SEC(".maps");

/* struct guard_event of refused packets. Written by the program, read by user space. When it is
 * full, events are lost and counted as suppressed.
 */
struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 256 * 1024);
} sluice_events SEC(".maps");
