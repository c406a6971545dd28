/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <errno.h>
#include <net/if.h>
#include <string.h>

#include "base/owned.h"
#include "guard/pod_links.h"

#define NOW  5000
#define GONE 0x7ffffff0 /* no interface has that number */

/* Of the namespace that the test runs in, which is what the known ends are looked for in. */
static uint32_t there(void)
{
	return if_nametoindex("lo");
}

static struct addr ip(const char *text)
{
	struct addr a;

	assert_int_equal(addr_parse_ip(text, &a), 0);
	return a;
}

static struct host_link veth(const char *name, uint32_t ifindex, uint8_t mac)
{
	struct host_link l = {.ifindex = ifindex, .kind = "veth", .mac = {2, 0, 0, 0, 0, mac}};

	strcpy(l.name, name);
	return l;
}

static void add_addr(struct pod_links *links, size_t on[], size_t link, const char *text)
{
	if (on)
		on[links->n_addrs] = link;
	links->addrs[links->n_addrs++] = ip(text);
}

static void add_link(struct pod_links *links, struct host_link l)
{
	links->links[links->n_links++] = l;
}

static bool has(const struct pod_links *links, const char *text)
{
	struct addr a = ip(text);

	return pod_links_has_addr(links, &a);
}

static void test_the_first_reading_is_taken_whole(void **state)
{
	struct pod_links known = {0}, seen = {0}, ret;
	size_t on[HOST_LINK_MAX_ADDRS];

	(void)state;
	add_link(&seen, veth("eth0", there(), 1));
	add_link(&seen, (struct host_link){.name = "mv0", .kind = "macvlan"});
	add_addr(&seen, on, 0, "10.0.0.1");
	add_addr(&seen, on, 1, "10.0.0.2");
	assert_int_equal(pod_links_join(&known, &seen, on, NOW, &ret), 0);
	assert_int_equal(ret.n_links, 2);
	assert_int_equal(ret.n_addrs, 2);
	assert_false(pod_links_are_open(&ret, NOW));
	assert_true(pod_links_are_more(&ret, &known));
}

/* An interface came: what is found on it counts until it is configured. */
static void test_a_later_link_is_open_for_a_while(void **state)
{
	struct pod_links known = {0}, seen, next, ret;
	size_t on[HOST_LINK_MAX_ADDRS];

	(void)state;
	add_link(&known, veth("eth0", GONE - 1, 1));
	known.links[0].ifindex = 0; /* stays for as long as it is seen */
	add_addr(&known, NULL, 0, "10.0.0.1");
	seen = known;
	on[0] = 0;
	add_link(&seen, veth("net1", there(), 2));
	add_addr(&seen, on, 1, "fe80::1");
	add_addr(&seen, on, 0, "10.0.0.66"); /* on a known one: a process put it there */

	assert_int_equal(pod_links_join(&known, &seen, on, NOW, &ret), 0);
	assert_true(pod_links_are_more(&ret, &known));
	assert_true(has(&ret, "10.0.0.1") && has(&ret, "fe80::1") && !has(&ret, "10.0.0.66"));
	assert_true(pod_links_are_open(&ret, NOW + POD_LINK_OPEN_MS - 1));
	assert_false(pod_links_are_open(&ret, NOW + POD_LINK_OPEN_MS));

	/* DHCP has an answer, and its link address is another by now. */
	known = ret;
	add_addr(&seen, on, 1, "192.168.7.7");
	seen.links[1].mac[5] = 9;
	seen.links[0].mac[5] = 9;
	assert_int_equal(pod_links_join(&known, &seen, on, NOW + 9000, &ret), 0);
	assert_true(pod_links_are_more(&ret, &known));
	assert_true(has(&ret, "192.168.7.7") && !has(&ret, "10.0.0.66"));
	assert_int_equal(ret.links[1].mac[5], 9);
	assert_int_equal(ret.links[0].mac[5], 1);
	assert_true(pod_links_are_open(&ret, NOW + 9000 + POD_LINK_DONE_MS - 1));
	assert_false(pod_links_are_open(&ret, NOW + 9000 + POD_LINK_DONE_MS));

	/* Of the other family; then it is over, and stays so. */
	known = ret;
	add_addr(&seen, on, 1, "fd07::7");
	assert_int_equal(pod_links_join(&known, &seen, on, NOW + 9100, &ret), 0);
	assert_true(has(&ret, "fd07::7"));
	assert_false(pod_links_are_open(&ret, NOW + 9000 + POD_LINK_DONE_MS));
	known = ret;
	seen.links[1].mac[5] = 66;
	add_addr(&seen, on, 1, "192.168.7.66");
	for (uint64_t t = NOW + 9000 + POD_LINK_DONE_MS; t < NOW + 90000; t += 30000) {
		assert_int_equal(pod_links_join(&known, &seen, on, t, &next), 0);
		assert_false(pod_links_are_more(&next, &known));
		assert_false(has(&next, "192.168.7.66"));
		known = next;
	}
	assert_int_equal(known.links[1].mac[5], 9);
}

/* Without any address it is closed as well. */
static void test_an_open_link_does_not_stay_open(void **state)
{
	struct pod_links known = {0}, seen = {0}, ret;
	size_t on[HOST_LINK_MAX_ADDRS];

	(void)state;
	add_link(&known, veth("eth0", GONE, 1));
	add_link(&seen, veth("net1", there(), 2));
	assert_int_equal(pod_links_join(&known, &seen, on, NOW, &ret), 0);
	known = ret;
	add_addr(&seen, on, 0, "192.168.7.7");
	assert_int_equal(pod_links_join(&known, &seen, on, NOW + POD_LINK_OPEN_MS, &ret), 0);
	assert_false(has(&ret, "192.168.7.7"));
	assert_false(pod_links_are_open(&ret, NOW + POD_LINK_OPEN_MS));
}

/* Without an end in the node's namespace anybody in the pod can have made it. */
static void test_a_later_link_without_a_host_end_has_no_address(void **state)
{
	struct pod_links known = {0}, seen, ret;
	size_t on[HOST_LINK_MAX_ADDRS];

	(void)state;
	add_link(&known, veth("eth0", there(), 1));
	seen = known;
	add_link(&seen, (struct host_link){.name = "tun0", .kind = "tun"});
	add_addr(&seen, on, 1, "10.0.0.66");
	assert_int_equal(pod_links_join(&known, &seen, on, NOW, &ret), 0);
	assert_int_equal(ret.n_links, 2);
	assert_int_equal(ret.n_addrs, 0);
	assert_false(pod_links_are_open(&ret, NOW));
}

static void test_what_is_known_goes_with_its_link(void **state)
{
	struct pod_links known = {0}, seen = {0}, ret;
	size_t on[HOST_LINK_MAX_ADDRS];

	(void)state;
	add_link(&known, veth("eth0", there(), 1));
	add_addr(&known, NULL, 0, "10.0.0.1");
	add_addr(&known, NULL, 0, "10.0.0.2");
	/* Nothing is seen of it, but its end is there. */
	assert_int_equal(pod_links_join(&known, &seen, on, NOW, &ret), 0);
	assert_int_equal(ret.n_links, 1);
	assert_int_equal(ret.n_addrs, 2);
	/* Its end is gone, one address is seen still. */
	known.links[0].ifindex = GONE;
	add_link(&seen, veth("net1", there(), 2));
	add_addr(&seen, on, 0, "10.0.0.2");
	assert_int_equal(pod_links_join(&known, &seen, on, NOW, &ret), 0);
	assert_int_equal(ret.n_links, 1);
	assert_int_equal(ret.links[0].ifindex, there());
	assert_true(has(&ret, "10.0.0.2") && !has(&ret, "10.0.0.1"));
}

static void test_there_are_bounds(void **state)
{
	struct pod_links known = {0}, seen = {0}, ret;
	size_t on[HOST_LINK_MAX_ADDRS] = {0};

	(void)state;
	for (size_t i = 0; i < HOST_LINK_MAX_LINKS; i++) {
		add_link(&known, veth("known", 0, 1));
		known.links[i].name[0] = (char)('a' + i);
	}
	seen = known;
	seen.links[0] = veth("another", there(), 2);
	/* The first one of them is gone, so there is room. */
	assert_int_equal(pod_links_join(&known, &seen, on, NOW, &ret), 0);
	assert_int_equal(ret.n_links, HOST_LINK_MAX_LINKS);
	known.links[0].ifindex = there();
	seen.links[0].ifindex = GONE;
	assert_int_equal(pod_links_join(&known, &seen, on, NOW, &ret), -E2BIG);

	known.n_links = seen.n_links = 1;
	seen.links[0] = veth("net1", GONE, 2);
	for (size_t i = 0; i < HOST_LINK_MAX_ADDRS; i++) {
		known.addrs[i] = ip("10.0.0.0");
		known.addrs[i].ip[15] = (uint8_t)i;
	}
	known.n_addrs = HOST_LINK_MAX_ADDRS;
	add_addr(&seen, on, 0, "10.9.9.9");
	assert_int_equal(pod_links_join(&known, &seen, on, NOW, &ret), -E2BIG);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_the_first_reading_is_taken_whole),
		cmocka_unit_test(test_a_later_link_is_open_for_a_while),
		cmocka_unit_test(test_an_open_link_does_not_stay_open),
		cmocka_unit_test(test_a_later_link_without_a_host_end_has_no_address),
		cmocka_unit_test(test_what_is_known_goes_with_its_link),
		cmocka_unit_test(test_there_are_bounds),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
