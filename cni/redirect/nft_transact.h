/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* Tells nf_tables, in the network namespace that the calling thread is in. Any thread; does not log
 * above debug level.
 */
#include <stdint.h>

struct mnl_socket;
struct nft_steps;

/* All of the steps or none: one batch, one transaction. -errno is the first refusal's. */
int nft_transact(const struct nft_steps *steps);

/* The same on a socket of nft_socket_open(): whoever deletes often keeps one, because closing any
 * netlink socket of nf_tables after a deletion waits for an RCU grace period.
 */
int nft_transact_on(struct mnl_socket *nl, const struct nft_steps *steps);

/* 1: there is a table of that name, 0: there is none. `family`: NFPROTO_*. -errno. */
int nft_table_exists(uint16_t family, const char *name);
