/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* The second guard: table `inet sluice-node` in the node's network namespace. Where the node
 * forwards a pod's packet, or sends one with a pod's address (IPVS, transparent proxies), it judges
 * the final destination, after DNAT: only cluster networks, and answers to what was opened towards
 * the pod. Nothing to ::1 leaves the node. Control thread; does not log above debug level.
 */
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include "base/addr.h"

struct plan;

/* What it refuses is reported there, a bounded number a second. */
#define FORWARD_NFLOG_GROUP 15001

/* Replaces the whole table in one transaction: these pods' addresses and no others. An address that
 * is there twice counts once. -errno.
 */
int forward_apply(const struct plan *plan, const struct addr *pods, size_t n);

/* One pod more, one less; one element each. 0 also when it is there, or gone, already. -ENOENT when
 * the table is not there.
 */
int forward_add(const struct addr *pods, size_t n);
int forward_remove(const struct addr *pods, size_t n);

/* 0: the kernel holds exactly this. -ESTALE. -errno. */
int forward_verify(const struct plan *plan, const struct addr *pods, size_t n);

/* Packets and bytes refused since the table was made. -errno. */
int forward_counts(uint64_t *ret_packets, uint64_t *ret_bytes);

/* Takes the table away. 0 also when there is none. */
int forward_uninstall(void);

/* What forward_apply() would tell the kernel. For tests. */
int forward_print(const struct plan *plan, const struct addr *pods, size_t n, FILE *out);
