/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <netinet/in.h> /* before the kernel's, which leave out what it has */
#include <linux/netfilter/x_tables.h>
#include <linux/netfilter_ipv4/ip_tables.h>
#include <linux/netfilter_ipv6/ip6_tables.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "base/owned.h"
#include "redirect/ipt_kernel.h"

/* Where an entry of a family has what both have. ip6_tables.h repeats the structs around entries
 * under other names.
 */
static const struct shape {
	int domain, level;
	const char *tables; /* those that are there: asking for one that is not makes it */
	size_t size, target, next, comefrom, counters;
} shapes[] = {
	[IPT_V4] = {AF_INET, IPPROTO_IP, "/proc/thread-self/net/ip_tables_names",
		    sizeof(struct ipt_entry), offsetof(struct ipt_entry, target_offset),
		    offsetof(struct ipt_entry, next_offset), offsetof(struct ipt_entry, comefrom),
		    offsetof(struct ipt_entry, counters)},
	[IPT_V6] = {AF_INET6, IPPROTO_IPV6, "/proc/thread-self/net/ip6_tables_names",
		    sizeof(struct ip6t_entry), offsetof(struct ip6t_entry, target_offset),
		    offsetof(struct ip6t_entry, next_offset), offsetof(struct ip6t_entry, comefrom),
		    offsetof(struct ip6t_entry, counters)},
};
_Static_assert(ARRAY_SIZE(shapes) == IPT_FAMILY_N_, "every family has a shape");
_Static_assert((int)IPT_SO_GET_INFO == (int)IP6T_SO_GET_INFO &&
		       (int)IPT_SO_GET_ENTRIES == (int)IP6T_SO_GET_ENTRIES &&
		       sizeof(struct ipt_getinfo) == sizeof(struct ip6t_getinfo) &&
		       sizeof(struct ipt_get_entries) == sizeof(struct ip6t_get_entries),
	       "one family is asked as the other is");

static uint16_t read_u16(const char *p)
{
	uint16_t v;

	memcpy(&v, p, sizeof(v));
	return v;
}

/* A chain begins with an entry that says so, and its name. */
static bool begins_chain_of_ours(const char *target, size_t size)
{
	struct xt_error_target t = {0};

	if (size < sizeof(t))
		return false;
	memcpy(&t, target, sizeof(t));
	t.target.u.user.name[sizeof(t.target.u.user.name) - 1] = '\0';
	t.errorname[sizeof(t.errorname) - 1] = '\0';
	return strcmp(t.target.u.user.name, XT_ERROR_TARGET) == 0 && ipt_is_ours(t.errorname);
}

/* `comefrom` is scratch space of the kernel's check for loops. */
static int read_entries(const struct shape *s, char *p, size_t size, struct ipt_kernel *kernel)
{
	while (size > 0) {
		uint16_t target, next;

		if (size < s->size)
			return -EBADMSG;
		target = read_u16(p + s->target);
		next = read_u16(p + s->next);
		if (target < s->size || next < target || next > size)
			return -EBADMSG;
		memset(p + s->comefrom, 0, sizeof(unsigned int));
		memset(p + s->counters, 0, sizeof(struct xt_counters));
		kernel->ours |= begins_chain_of_ours(p + target, next - target);
		p += next;
		size -= next;
	}
	return 0;
}

static int read_table(int fd, enum ipt_family family, enum ipt_table_id table,
		      struct ipt_kernel *kernel, FILE *content)
{
	const struct shape *s = &shapes[family];
	OWNED_MEM struct ipt_get_entries *entries = NULL;
	struct ipt_getinfo info = {0};
	socklen_t len = sizeof(info);
	int r;

	snprintf(info.name, sizeof(info.name), "%s", ipt_table_str(table));
	if (getsockopt(fd, s->level, IPT_SO_GET_INFO, &info, &len) < 0)
		return errno == ENOENT ? -EAGAIN : -errno;
	if (info.size > IPT_CONTENT_MAX)
		return -EFBIG;
	len = (socklen_t)(sizeof(*entries) + info.size);
	entries = calloc(1, len);
	if (!entries)
		return -ENOMEM;
	memcpy(entries->name, info.name, sizeof(entries->name));
	entries->size = info.size;
	if (getsockopt(fd, s->level, IPT_SO_GET_ENTRIES, entries, &len) < 0)
		return -errno;
	r = read_entries(s, (char *)entries->entrytable, info.size, kernel);
	if (r < 0)
		return r;
	kernel->n[family][table] = info.num_entries;
	fwrite(&info, sizeof(info), 1, content);
	fwrite(entries->entrytable, info.size, 1, content);
	return 0;
}

static void close_file(FILE **f)
{
	if (*f)
		fclose(*f);
}

static int look_at_family(enum ipt_family family, struct ipt_kernel *kernel, FILE *content)
{
	OWNED(close_file) FILE *names = fopen(shapes[family].tables, "re");
	OWNED_FD int fd = -1;
	char name[XT_TABLE_MAXNAMELEN + 1];
	int r = 0;

	if (!names)
		return errno == ENOENT ? 0 : errno == EACCES ? -EPERM : -errno;
	fd = socket(shapes[family].domain, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return errno == EAFNOSUPPORT ? 0 : -errno;
	while (r == 0 && fgets(name, sizeof(name), names)) {
		enum ipt_table_id table;

		name[strcspn(name, "\n")] = '\0';
		kernel->any[family] = true;
		table = ipt_table_find(name);
		if (table < IPT_TABLE_N_)
			r = read_table(fd, family, table, kernel, content);
	}
	return r;
}

/* Modules may be loaded when they are used first: that nothing is there says nothing. */
int ipt_kernel_look_legacy(struct ipt_kernel *ret, FILE *content)
{
	int r = 0;

	for (enum ipt_family f = 0; f < IPT_FAMILY_N_ && r == 0; f++)
		r = look_at_family(f, ret, content);
	return r;
}
