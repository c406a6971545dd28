/* SPDX-License-Identifier: Apache-2.0 */
#include "redirect/ipt_kernel.h"

#include <errno.h>
#include <net/if.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

#include "base/owned.h"

const char *ipt_variant_str(enum ipt_variant variant)
{
	return variant == IPT_NFT ? "nft" : "legacy";
}

enum ipt_table_id ipt_table_find(const char *name)
{
	enum ipt_table_id t = 0;

	while (t < IPT_TABLE_N_ && strcmp(name, ipt_table_str(t)) != 0)
		t++;
	return t;
}

int ipt_kernel_look(enum ipt_variant variant, struct ipt_kernel *ret)
{
	OWNED(ipt_kernel_done) struct ipt_kernel kernel = {0};
	FILE *content = open_memstream(&kernel.content, &kernel.size);
	int r;

	if (!content)
		return -ENOMEM;
	r = variant == IPT_NFT ? ipt_kernel_look_nft(&kernel, content)
			       : ipt_kernel_look_legacy(&kernel, content);
	if (fclose(content) != 0)
		return -ENOMEM;
	if (r < 0)
		return r;
	*ret = kernel;
	kernel.content = NULL;
	return 0;
}

void ipt_kernel_done(struct ipt_kernel *kernel)
{
	free(kernel->content);
	*kernel = (struct ipt_kernel){0};
}

/* Legacy iptables has one entry for each rule, one for the policy of a built-in chain, two for a
 * chain that is not built in (its name, and what it does at its end), and one at the end of all.
 */
bool ipt_kernel_agrees(const struct ipt_kernel *kernel, enum ipt_variant variant,
		       enum ipt_family family, const struct ipt_listing *listing)
{
	for (enum ipt_table_id t = 0; t < IPT_TABLE_N_; t++) {
		size_t n = listing->n_rules[t];

		if (variant == IPT_LEGACY && listing->has_table[t])
			n += 2 * listing->n_chains[t] - listing->n_builtin[t] + 1;
		if (n != kernel->n[family][t])
			return false;
	}
	return true;
}

bool ipt_kernel_has_v6(void)
{
	OWNED_FD int fd = socket(AF_INET6, SOCK_DGRAM | SOCK_CLOEXEC, 0);

	return fd >= 0 || errno != EAFNOSUPPORT;
}

bool ipt_kernel_lo_is_lo(void)
{
	OWNED_FD int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	struct ifreq request = {.ifr_ifindex = 1};

	return fd >= 0 && ioctl(fd, SIOCGIFNAME, &request) == 0 &&
	       strcmp(request.ifr_name, "lo") == 0;
}
