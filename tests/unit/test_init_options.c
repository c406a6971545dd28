/* SPDX-License-Identifier: Apache-2.0 */

/* sluice-init's command line and environment: what Istio's own command takes, and what it means
 * here.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/owned.h"
#include "init/advice.h"
#include "init/options.h"
#include "init/value.h"

#define WORDS_MAX 40
#define POD       "POD_NAMESPACE=shop|POD_NAME=web-1"

/* Words with '|' between, as argv and environment have them. "" is none. */
struct words {
	char text[2048];
	char *v[WORDS_MAX + 1];
	int n;
};

static void split(const char *text, struct words *ret)
{
	char *p = ret->text;

	snprintf(ret->text, sizeof(ret->text), "%s", text);
	ret->n = 0;
	while (p && *text) {
		assert_true(ret->n < WORDS_MAX);
		ret->v[ret->n++] = p;
		p = strchr(p, '|');
		if (p)
			*p++ = '\0';
	}
	ret->v[ret->n] = NULL;
}

/* The options borrow from the words. */
struct parsed {
	struct words args, env;
	struct init_options o;
	char error[INIT_ERROR_MAX];
	int r;
};

static void parse(const char *args, const char *env, struct parsed *ret)
{
	char line[2048];

	memset(ret, 0, sizeof(*ret));
	snprintf(line, sizeof(line), "sluice-init%s%s", *args ? "|" : "", args);
	split(line, &ret->args);
	split(env, &ret->env);
	ret->r = init_options_parse(ret->args.n, ret->args.v, ret->env.v, &ret->o, ret->error);
}

static void parse_well(const char *args, const char *env, struct parsed *ret)
{
	parse(args, env, ret);
	if (ret->r < 0)
		fail_msg("'%s' '%s': %s", args, env, ret->error);
}

/* ---- what is taken ---- */

static void test_values(void **state)
{
	static const struct {
		const char *args, *env;
		enum init_flag flag;
		const char *value;
	} cases[] = {
		{"", "", INIT_ENVOY_PORT, "15001"},
		{"-p|15001", "", INIT_ENVOY_PORT, "15001"},
		{"-p15002", "", INIT_ENVOY_PORT, "15002"},
		{"-p=15002", "", INIT_ENVOY_PORT, "15002"},
		{"--envoy-port|15002", "", INIT_ENVOY_PORT, "15002"},
		{"--envoy-port=15002", "", INIT_ENVOY_PORT, "15002"},
		{"", "ENVOY_PORT=15002", INIT_ENVOY_PORT, "15001"}, /* no automatic variable */
		{"-p|15002|-p|15003", "", INIT_ENVOY_PORT, "15003"},
		{"istio-iptables|-p|15002", "", INIT_ENVOY_PORT, "15002"},
		{"", "INBOUND_CAPTURE_PORT=16006", INIT_INBOUND_CAPTURE_PORT, "16006"},
		{"-z|17006", "INBOUND_CAPTURE_PORT=16006", INIT_INBOUND_CAPTURE_PORT, "17006"},
		{"", "INBOUND_CAPTURE_PORT=", INIT_INBOUND_CAPTURE_PORT, "15006"},
		{"-z|17006", "INBOUND_CAPTURE_PORT=none", INIT_INBOUND_CAPTURE_PORT, "17006"},
		{"-e|15009", "", INIT_INBOUND_TUNNEL_PORT, "15009"},
		{"-u|1337", "", INIT_PROXY_UID, "1337"},
		{"-u|3,4", "", INIT_PROXY_UID, "3,4"},
		{"-u|istio-proxy", "", INIT_PROXY_UID, "istio-proxy"},
		{"-g|1,2", "PROXY_GID=5", INIT_PROXY_GID, "1,2"},
		{"", "PROXY_GID=5", INIT_PROXY_GID, "5"},
		{"-m|TPROXY", "", INIT_INBOUND_MODE, "TPROXY"},
		{"-m|", "", INIT_INBOUND_MODE, ""},
		{"-b|*", "", INIT_INBOUND_PORTS, "*"},
		{"-b|", "ISTIO_INBOUND_PORTS=*", INIT_INBOUND_PORTS, ""},
		{"-b|4000,5000", "", INIT_INBOUND_PORTS, "4000,5000"},
		{"-d|6000,7000,", "", INIT_INBOUND_EXCLUDE_PORTS, "6000,7000,"},
		{"-d|6000, 7000", "", INIT_INBOUND_EXCLUDE_PORTS, "6000, 7000"},
		{"-c|not-istio-nic", "", INIT_EXCLUDE_INTERFACES, "not-istio-nic"},
		{"-i|*", "", INIT_INCLUDE_CIDRS, "*"},
		{"-i|127.1.2.3/32", "", INIT_INCLUDE_CIDRS, "127.1.2.3/32"},
		{"-i|", "", INIT_INCLUDE_CIDRS, ""},
		{"-x|", "", INIT_EXCLUDE_CIDRS, ""},
		{"-x|1.1.0.0/16,2001:db8::/32", "", INIT_EXCLUDE_CIDRS, "1.1.0.0/16,2001:db8::/32"},
		{"-q|32000,31000", "", INIT_OUTBOUND_PORTS, "32000,31000"},
		{"-o|443", "", INIT_OUTBOUND_EXCLUDE_PORTS, "443"},
		{"-k|eth0,eth1", "", INIT_VIRT_INTERFACES, "eth0,eth1"},
		{"-t|0x539", "", INIT_TPROXY_MARK, "0x539"},
		{"-r|133", "", INIT_TPROXY_TABLE, "133"},
		{"--iptables-probe-port|0", "", INIT_PROBE_PORT, "0"},
		{"--probe-timeout|1.5s", "", INIT_PROBE_TIMEOUT, "1.5s"},
		{"--probe-timeout=-1h2m3s", "", INIT_PROBE_TIMEOUT, "-1h2m3s"},
		{"--network-namespace|/run/netns/x", "", INIT_NETWORK_NAMESPACE, "/run/netns/x"},
		{"--force-iptables-binary=nft", "", INIT_FORCE_IPTABLES_BINARY, "nft"},
		{"", "ISTIO_OUTBOUND_OWNER_GROUPS=java,202", INIT_OWNER_GROUPS, "java,202"},
		{"", "ISTIO_OUTBOUND_OWNER_GROUPS_EXCLUDE=888,ftp", INIT_OWNER_GROUPS_EXCLUDE,
		 "888,ftp"},
		{"", "ISTIO_OUTBOUND_IPV4_LOOPBACK_CIDR=127.0.0.1/8", INIT_LOOPBACK_CIDR,
		 "127.0.0.1/8"},
		{"", "ISTIO_OUTBOUND_IPV4_LOOPBACK_CIDR=", INIT_LOOPBACK_CIDR, "127.0.0.1/32"},
		{"--log_output_level=default:info", "", INIT_LOG_OUTPUT_LEVEL, "default:info"},
		{"--log_output_level|all:debug,default:warn", "", INIT_LOG_OUTPUT_LEVEL,
		 "all:debug,default:warn"},
		{"--log_target|/dev/stdout|--log_rotate|x|--log_rotate_max_age=1", "",
		 INIT_LOG_TARGET, "/dev/stdout"},
		{"--log_rotate_max_size=1|--log_rotate_max_backups=2|--log_caller=default", "",
		 INIT_LOG_CALLER, "default"},
		{"--log_as_json|--log_stacktrace_level=default:none|--vklog=9", "", INIT_VKLOG,
		 "9"},
		{"--agent-socket=/x", "SLUICE_AGENT_SOCKET=/y", INIT_AGENT_SOCKET, "/x"},
		{"", "SLUICE_AGENT_SOCKET=/y", INIT_AGENT_SOCKET, "/y"},
		{"", "SLUICE_AGENT_SOCKET=", INIT_AGENT_SOCKET, "/run/sluice/agent.sock"},
		{"", "AGENT_SOCKET=/y", INIT_AGENT_SOCKET, "/run/sluice/agent.sock"},
		{"", "SLUICE_CLUSTER_CIDRS=10.0.0.0/8,fd00::/8", INIT_CLUSTER_CIDRS,
		 "10.0.0.0/8,fd00::/8"},
		{"", "SERVICE_ACCOUNT=cart", INIT_SERVICE_ACCOUNT, "cart"},
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		char env[512];
		struct parsed p;

		snprintf(env, sizeof(env), "%s%s" POD, cases[i].env, *cases[i].env ? "|" : "");
		parse(cases[i].args, env, &p);
		if (p.r < 0)
			fail_msg("'%s' '%s': %s", cases[i].args, cases[i].env, p.error);
		assert_string_equal(p.o.value[cases[i].flag], cases[i].value);
	}
}

static void test_switches(void **state)
{
	static const struct {
		const char *args, *env;
		enum init_flag flag;
		bool on;
	} cases[] = {
		{"", "", INIT_DRY_RUN, false},
		{"-n", "", INIT_DRY_RUN, true},
		{"--dry-run", "", INIT_DRY_RUN, true},
		{"--dry-run=false", "DRY_RUN=true", INIT_DRY_RUN, false},
		{"-n=0", "", INIT_DRY_RUN, false},
		{"", "DRY_RUN=T", INIT_DRY_RUN, true},
		{"", "DRY_RUN=", INIT_DRY_RUN, false},
		{"-np15001", "", INIT_DRY_RUN, true},
		{"-fn", "", INIT_DRY_RUN, true},
		{"--skip-rule-apply", "", INIT_SKIP_RULE_APPLY, true},
		{"", "RUN_VALIDATION=1", INIT_RUN_VALIDATION, true},
		{"--redirect-dns", "", INIT_REDIRECT_DNS, true},
		{"", "ISTIO_META_DNS_CAPTURE=true", INIT_REDIRECT_DNS, true},
		{"--redirect-dns=FALSE", "ISTIO_META_DNS_CAPTURE=true", INIT_REDIRECT_DNS, false},
		{"--capture-all-dns", "", INIT_CAPTURE_ALL_DNS, true},
		{"", "INVALID_DROP=true", INIT_DROP_INVALID, true},
		{"", "ISTIO_DUAL_STACK=true", INIT_DUAL_STACK, true},
		{"", "ISTIO_AGENT_DUAL_STACK=true", INIT_DUAL_STACK, true},
		{"--cni-mode|--reconcile|--force-apply", "", INIT_FORCE_APPLY, true},
		{"--cleanup-only", "", INIT_CLEANUP_ONLY, true},
		{"--native-nftables", "", INIT_NATIVE_NFTABLES, true},
		{"--restore-format=false|--iptables-trace-logging|--host-nsenter-exec", "",
		 INIT_TRACE_LOGGING, true},
		{"-h", "", INIT_HELP, true},
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		char env[512];
		struct parsed p;

		snprintf(env, sizeof(env), "%s%s" POD, cases[i].env, *cases[i].env ? "|" : "");
		parse_well(cases[i].args, env, &p);
		if (init_is_on(&p.o, cases[i].flag) != cases[i].on)
			fail_msg("'%s' '%s'", cases[i].args, cases[i].env);
	}
}

static void test_pod(void **state)
{
	static const struct {
		const char *args, *env, *ns, *name;
	} cases[] = {
		{"--pod|lab/db-0", "", "lab", "db-0"},
		{"--pod|lab/db-0", POD, "lab", "db-0"},
		{"", POD, "shop", "web-1"},
		{"--pod=", POD, "shop", "web-1"},
		{"-n", "POD_NAME=web", "", ""},
		{"--help", "", "", ""},
	};
	struct parsed p;

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		parse_well(cases[i].args, cases[i].env, &p);
		assert_string_equal(p.o.pod.ns, cases[i].ns);
		assert_string_equal(p.o.pod.name, cases[i].name);
	}
}

/* ---- what is refused ---- */

static void test_errors(void **state)
{
	static const struct {
		const char *args, *env, *error;
	} cases[] = {
		{"", "", "say which pod this is"},
		{"", "POD_NAME=web", "say which pod this is"},
		{"", "POD_NAMESPACE=Shop|POD_NAME=web", "metadata.namespace"},
		{"--pod|web", "", "--pod 'web': give NAMESPACE/NAME"},
		{"--no-such-flag", POD, "there is no flag --no-such-flag: --help"},
		{"--dry", POD, "there is no flag --dry:"},
		{"--envoy-port-x=1", POD, "there is no flag --envoy-port-x:"},
		{"-y", POD, "there is no flag -y: --help"},
		{"-ny", POD, "there is no flag -y: --help"},
		{"-p", POD, "--envoy-port: give a value"},
		{"-b", POD, "--istio-inbound-ports: give a value"},
		{"--log_target", POD, "--log_target: give a value"},
		{"*", POD, "'*' belongs to no flag: put a * in quotes"},
		{"bin|boot", POD, "'bin' belongs to no flag"},
		{"-n|istio-iptables", POD, "'istio-iptables' belongs to no flag"},
		{"--dry-run|true", POD, "'true' belongs to no flag"},
		{"-", POD, "'-' belongs to no flag"},
		{"--", POD, "'--' belongs to no flag"},
		{"-p|0", POD, "--envoy-port '0': give a port, 1 to 65535"},
		{"-p|65536", POD, "--envoy-port '65536': give a port"},
		{"-p|", POD, "--envoy-port '': give a port"},
		{"-z| 15006", POD, "--inbound-capture-port"},
		{"", "INBOUND_TUNNEL_PORT=x|" POD, "INBOUND_TUNNEL_PORT 'x': give a port"},
		{"-u|a b", POD, "--proxy-uid 'a b': give users"},
		{"-g|-1", POD, "--proxy-gid '-1'"},
		{"-m|NONE", POD, "give REDIRECT or TPROXY"},
		{"-m|redirect", POD, "give REDIRECT or TPROXY"},
		{"-b|80,*", POD, "--istio-inbound-ports"},
		{"-d|*", POD, "--istio-local-exclude-ports '*': give ports"},
		{"-d|80-90", POD, "--istio-local-exclude-ports"},
		{"-x|*", POD, "--istio-service-exclude-cidr '*': give networks"},
		{"-x|10.0.0.0/33", POD, "give networks"},
		{"-i|*,10.0.0.0/8", POD, "--istio-service-cidr"},
		{"", "ISTIO_SERVICE_EXCLUDE_CIDR=*|" POD, "ISTIO_SERVICE_EXCLUDE_CIDR '*'"},
		{"-c|sixteen-letters-", POD, "--istio-exclude-interfaces"},
		{"-k|a/b", POD, "--kube-virt-interfaces"},
		{"-t|0x", POD, "--istio-inbound-tproxy-mark '0x': give a number"},
		{"-r|4294967296", POD, "--istio-inbound-tproxy-route-table"},
		{"--dry-run=yes", POD, "--dry-run 'yes': give true or false"},
		{"-n=", POD, "--dry-run '': give true or false"},
		{"", "PROXY_GID=â¬|" POD, "PROXY_GID '"},
		{"", "DRY_RUN=yes|" POD, "DRY_RUN 'yes': give true or false"},
		{"", "ISTIO_META_DNS_CAPTURE=on|" POD, "ISTIO_META_DNS_CAPTURE 'on'"},
		{"--probe-timeout|5", POD, "--probe-timeout '5': give a duration"},
		{"--probe-timeout|.s", POD, "--probe-timeout"},
		{"--force-iptables-binary|iptables", POD, "give legacy or nft"},
		{"--native-nftables|--force-iptables-binary=nft", POD, "give one"},
		{"--log_output_level=loud", POD, "--log_output_level 'loud': give debug"},
		{"--log_output_level=", POD, "--log_output_level"},
		{"--log_as_json=2", POD, "--log_as_json"},
		{"", "ISTIO_OUTBOUND_IPV4_LOOPBACK_CIDR=10.0.0.0/8|" POD, "within 127.0.0.0/8"},
		{"", "ISTIO_OUTBOUND_IPV4_LOOPBACK_CIDR=127.0.0.1/7|" POD, "within 127.0.0.0/8"},
		{"", "ISTIO_OUTBOUND_IPV4_LOOPBACK_CIDR=127.0.0.1|" POD, "within 127.0.0.0/8"},
		{"--agent-socket=agent.sock", POD, "--agent-socket 'agent.sock': give an absolute"},
		{"--agent-timeout=30", POD, "--agent-timeout '30': give a duration"},
		{"--cluster-cidrs=*", POD, "--cluster-cidrs '*': give networks"},
		{"--service-account=A", POD, "--service-account 'A': give a name"},
	};
	struct parsed p;

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		parse(cases[i].args, cases[i].env, &p);
		assert_int_equal(p.r, -EINVAL);
		if (!strstr(p.error, cases[i].error))
			fail_msg("'%s' '%s': '%s'", cases[i].args, cases[i].env, p.error);
	}
}

static void test_groups_are_counted(void **state)
{
	char env[1024] = "ISTIO_OUTBOUND_OWNER_GROUPS=", line[1100];
	struct parsed p;

	(void)state;
	for (int n = 1; n <= 66; n++) {
		snprintf(env + strlen(env), sizeof(env) - strlen(env), "%d,", n);
		snprintf(line, sizeof(line), "%s|" POD, env);
		parse("", line, &p);
		assert_int_equal(p.r, n <= 64 ? 0 : -EINVAL);
	}
	assert_non_null(strstr(p.error, "at most 64 groups"));
}

/* ---- what it means ---- */

static void test_agent_timeout(void **state)
{
	static const struct {
		const char *args;
		uint64_t ms;
	} cases[] = {{"", 30000}, {"--agent-timeout=0s", 0}, {"--agent-timeout=1m30s", 90000}};
	struct parsed p;

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		parse_well(cases[i].args, POD, &p);
		assert_int_equal(init_agent_timeout_ms(&p.o), cases[i].ms);
	}
}

static void test_log_level(void **state)
{
	static const struct {
		const char *args;
		enum log_level level;
	} cases[] = {
		{"", LOG_LEVEL_INFO},
		{"--log_output_level=default:info", LOG_LEVEL_INFO},
		{"--log_output_level=debug", LOG_LEVEL_DEBUG},
		{"--log_output_level=default:warn", LOG_LEVEL_WARNING},
		{"--log_output_level=error", LOG_LEVEL_ERROR},
		{"--log_output_level=default:none", LOG_LEVEL_ERROR},
		{"--log_output_level=iptables:debug", LOG_LEVEL_INFO},
		{"--log_output_level=iptables:debug,default:error", LOG_LEVEL_ERROR},
	};
	struct parsed p;

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		parse_well(cases[i].args, POD, &p);
		assert_int_equal(init_log_level(&p.o), cases[i].level);
	}
}

struct heard {
	unsigned warnings, infos;
	char text[4096];
};

static void hear(void *ctx, enum log_level level, const char *text)
{
	struct heard *h = ctx;

	if (level == LOG_LEVEL_WARNING)
		h->warnings++;
	else
		h->infos++;
	snprintf(h->text + strlen(h->text), sizeof(h->text) - strlen(h->text), "%s\n", text);
}

static void test_advice(void **state)
{
	static const struct {
		const char *args, *env;
		unsigned warnings, infos;
		const char *text;
	} cases[] = {
		{"", "", 0, 0, ""},
		{"-p|15001|-i|*|-x||-q||-o||-c||-k|", "", 0, 0, ""},
		{"-p|15002", "", 1, 0, "--envoy-port '15002': the agent listens on 15001"},
		{"-u|1337", "", 1, 0, "--proxy-uid '1337': no user is exempt"},
		{"-u|", "", 0, 0, ""},
		{"", "PROXY_UID=1337", 1, 0, "PROXY_UID '1337': no user"},
		{"-g|1337", "", 1, 0, "--proxy-gid '1337': no group is exempt"},
		{"-c|eth1", "", 1, 0, "clusterCIDRs of the agent"},
		{"-i|10.0.0.0/8", "", 1, 0, "--istio-service-cidr '10.0.0.0/8': all networks"},
		{"-i|", "", 1, 0, "--istio-service-cidr '': all networks"},
		{"-x|10.0.0.0/8", "", 1, 0, "clusterCIDRs of the agent"},
		{"-q|80", "", 0, 0, ""},
		{"-q|80|-i|*", "", 0, 0, ""},
		{"-q|80|-i|", "", 2, 0, "--istio-outbound-ports '80': all ports"},
		{"-o|80", "", 1, 0, "--istio-local-outbound-ports-exclude '80': these ports"},
		{"-k|eth1", "", 1, 0, "refused, not captured"},
		{"", "ISTIO_OUTBOUND_OWNER_GROUPS=*", 0, 0, ""},
		{"", "ISTIO_OUTBOUND_OWNER_GROUPS=java", 1, 0,
		 "ISTIO_OUTBOUND_OWNER_GROUPS 'java': all groups"},
		{"", "ISTIO_OUTBOUND_OWNER_GROUPS_EXCLUDE=888", 1, 0, "no group is exempt"},
		{"", "ISTIO_OUTBOUND_IPV4_LOOPBACK_CIDR=127.0.0.1/8", 0, 0, ""},
		{"--redirect-dns|--capture-all-dns", "", 2, 0, "DNS is not captured"},
		{"", "ISTIO_META_DNS_CAPTURE=true", 1, 0, "ISTIO_META_DNS_CAPTURE 'true'"},
		{"--skip-rule-apply", "", 0, 1, "left as it is"},
		{"--iptables-trace-logging", "", 0, 1, "access log"},
		{"-b|*|-m|TPROXY", "", 0, 1,
		 "--istio-inbound-interception-mode, --istio-inbound-ports: nothing inbound"},
		{"-z|15006|-e|15008|-d|15020|-t|1337|-r|133", "", 0, 1, "nothing inbound"},
		{"--drop-invalid|--dual-stack|--reconcile|--cni-mode|--force-apply", "", 0, 0, ""},
		{"-p|15001|-z|15006|-u|1337|-m|REDIRECT|-i|*|-x||-b|*|-d|15090,15021,15020|"
		 "--log_output_level=default:info",
		 "", 1, 1, "--proxy-uid '1337'"},
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		struct heard h = {0};
		struct parsed p;
		char env[512];

		snprintf(env, sizeof(env), "%s%s" POD, cases[i].env, *cases[i].env ? "|" : "");
		parse_well(cases[i].args, env, &p);
		init_advise(&p.o, hear, &h);
		if (h.warnings != cases[i].warnings || h.infos != cases[i].infos ||
		    !strstr(h.text, cases[i].text))
			fail_msg("'%s' '%s': %u %u '%s'", cases[i].args, cases[i].env, h.warnings,
				 h.infos, h.text);
	}
}

/* However long a value is, what is said of it stays one line with its advice. */
static void test_long_values(void **state)
{
	char args[1500] = "-u|";
	struct heard h = {0};
	struct parsed p;

	(void)state;
	for (size_t n = strlen(args); n < sizeof(args) - 10; n += 4)
		strcpy(args + n, "123,");
	parse_well(args, POD, &p);
	init_advise(&p.o, hear, &h);
	assert_int_equal(h.warnings, 1);
	assert_non_null(strstr(h.text, "no user is exempt"));
	strcat(args, "!");
	parse(args, POD, &p);
	assert_int_equal(p.r, -EINVAL);
	assert_non_null(strstr(p.error, "give users or groups"));
}

static void test_items(void **state)
{
	static const struct {
		const char *list, *want;
	} cases[] = {
		{"", ""},          {",", ""},           {"a", "a;"},     {"a,b", "a;b;"},
		{"a,,b,", "a;b;"}, {" a , b ", "a;b;"}, {" , ,a", "a;"}, {"a b", "a b;"},
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		char item[VALUE_ITEM_MAX], got[512] = "";
		const char *list = cases[i].list;

		while (value_cut_item(&list, item))
			snprintf(got + strlen(got), sizeof(got) - strlen(got), "%s;", item);
		assert_string_equal(got, cases[i].want);
	}
}

static void test_help_names_every_flag(void **state)
{
	char *text = init_help();
	struct parsed p;

	(void)state;
	assert_non_null(text);
	parse_well("", POD, &p);
	for (int i = 0; i < INIT_FLAG_N_; i++) {
		char buf[64];

		assert_non_null(strstr(text, init_flag_name(&p.o, (enum init_flag)i, buf)));
	}
	free(text);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_values),
		cmocka_unit_test(test_switches),
		cmocka_unit_test(test_pod),
		cmocka_unit_test(test_errors),
		cmocka_unit_test(test_groups_are_counted),
		cmocka_unit_test(test_agent_timeout),
		cmocka_unit_test(test_log_level),
		cmocka_unit_test(test_advice),
		cmocka_unit_test(test_long_values),
		cmocka_unit_test(test_items),
		cmocka_unit_test(test_help_names_every_flag),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
