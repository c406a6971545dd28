/* SPDX-License-Identifier: Apache-2.0 */

/* How long it takes to build a registry of N hosts (argv[1], default 100,000) and to look names up
 * in it, in random order. CPU time, because the machine may have other work; of the lookups, the
 * median of some rounds. Prints one line of JSON.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/num.h"
#include "base/owned.h"
#include "registry/registry.h"

#define ROUNDS          5
#define ROUND           200000
#define LOOKUPS         (ROUNDS * ROUND)
#define WILDCARD_EVERY  10
#define NAME_ROOM       48
#define HOSTS_PER_ENTRY 10

struct name {
	char text[NAME_ROOM];
};

static double now_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
	return (double)t.tv_sec * 1e9 + (double)t.tv_nsec;
}

static long rss_kib(void)
{
	FILE *f = fopen("/proc/self/statm", "re");
	long pages = 0;

	if (!f)
		return 0;
	if (fscanf(f, "%*d %ld", &pages) != 1)
		pages = 0;
	fclose(f);
	return pages * (sysconf(_SC_PAGESIZE) / 1024);
}

static void write_hosts(struct name *names, const char **hosts, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		snprintf(names[i].text, NAME_ROOM, "%s%zu.service.example%zu.com",
			 i % WILDCARD_EVERY == 0 ? "*.w" : "h", i, i % 1000);
		hosts[i] = names[i].text;
	}
}

static size_t write_entries(struct service_entry *entries, const char *const *hosts, size_t n)
{
	static const struct entry_port ports[] = {
		{.number = 443, .protocol = PROTOCOL_TLS, .name = "tls"}};
	size_t k = 0;

	for (size_t i = 0; i < n; i += HOSTS_PER_ENTRY, k++)
		entries[k] = (struct service_entry){
			.ns = "bench",
			.name = hosts[i],
			.created = INT64_MAX,
			.hosts = hosts + i,
			.n_hosts = n - i < HOSTS_PER_ENTRY ? n - i : HOSTS_PER_ENTRY,
			.ports = ports,
			.n_ports = 1,
			.resolution = RESOLUTION_DNS,
			.source = "bench:1",
		};
	return k;
}

/* LOOKUPS names of the wanted kind in random order, each with `prefix` in front. */
static struct name *ask(const struct name *names, size_t n, bool wildcards, const char *prefix)
{
	struct name *asked = calloc(LOOKUPS, sizeof(*asked));
	uint64_t random = 88172645463325252U;

	for (size_t i = 0; asked && i < LOOKUPS;) {
		size_t at;

		random ^= random << 13;
		random ^= random >> 7;
		random ^= random << 17;
		at = random % n;
		if ((at % WILDCARD_EVERY == 0) == wildcards)
			snprintf(asked[i++].text, NAME_ROOM, "%s%.*s", prefix, NAME_ROOM - 8,
				 names[at].text + (wildcards ? 2 : 0));
	}
	return asked;
}

static int compare_numbers(const void *pa, const void *pb)
{
	const double *a = pa, *b = pb;

	return *a < *b ? -1 : *a > *b;
}

/* The median of the rounds, in nanoseconds a lookup; takes `asked`. Exits unless all, or none, are
 * found.
 */
static double lookup_ns(const struct registry *reg, struct name *asked, bool all)
{
	double rounds[ROUNDS];
	enum reason reason;
	size_t found = 0;

	if (!asked)
		exit(1);
	for (size_t r = 0; r < ROUNDS; r++) {
		double start = now_ns();

		for (size_t i = r * ROUND; i < (r + 1) * ROUND; i++)
			found += registry_find_name(reg, span_of(asked[i].text), 443, "team",
						    &reason) != NULL;
		rounds[r] = (now_ns() - start) / ROUND;
	}
	free(asked);
	if (found != (all ? LOOKUPS : 0)) {
		fprintf(stderr, "registry_bench: %zu of %d found\n", found, LOOKUPS);
		exit(1);
	}
	qsort(rounds, ROUNDS, sizeof(rounds[0]), compare_numbers);
	return rounds[ROUNDS / 2];
}

int main(int argc, char **argv)
{
	OWNED_MEM struct name *names = NULL;
	OWNED_MEM const char **hosts = NULL;
	OWNED_MEM struct service_entry *entries = NULL;
	struct registry *reg = NULL;
	uint64_t n = 100000;
	size_t n_entries;
	double build, exact_ns, wildcard_ns, miss_ns;
	long rss;

	if (argc > 1 && num_parse_u64(argv[1], 2, 10000000, &n) < 0) {
		fprintf(stderr, "usage: registry_bench [HOSTS, 2 to 10000000]\n");
		return 2;
	}
	names = calloc(n, sizeof(*names));
	hosts = calloc(n, sizeof(*hosts));
	entries = calloc(n, sizeof(*entries));
	if (!names || !hosts || !entries)
		return 1;
	write_hosts(names, hosts, n);
	n_entries = write_entries(entries, hosts, n);

	rss = rss_kib();
	build = now_ns();
	if (registry_new(&reg, entries, n_entries, NULL, NULL) < 0)
		return 1;
	build = now_ns() - build;
	rss = rss_kib() - rss;

	exact_ns = lookup_ns(reg, ask(names, n, false, ""), true);
	wildcard_ns = lookup_ns(reg, ask(names, n, true, "a.b."), true);
	miss_ns = lookup_ns(reg, ask(names, n, false, "evil"), false);
	registry_unref(reg);

	printf("{\"hosts\":%llu,\"build_ms\":%.1f,\"lookup_ns\":%.1f,\"lookup_wildcard_ns\":%.1f,"
	       "\"lookup_miss_ns\":%.1f,\"rss_kib\":%ld}\n",
	       (unsigned long long)n, build / 1e6, exact_ns, wildcard_ns, miss_ns, rss);
	return 0;
}
