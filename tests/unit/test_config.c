/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <fcntl.h>
#include <jansson.h>
#include <sys/stat.h>

#include "base/owned.h"
#include "config.h"

#define HEAD "apiVersion: sluice.io/v1alpha1\nkind: AgentConfig\n"
#define GATE HEAD "role: Gateway\n"
#define NODE HEAD "role: Node\ngateways: [{name: gw, endpoints: ['192.0.2.10:15443']}]\n"

static char folder[] = "/tmp/sluice-unit-config-XXXXXX";
static char file[sizeof(folder) + sizeof("/agent.yaml")];

static int set_up(void **state)
{
	(void)state;
	if (!mkdtemp(folder))
		return -1;
	snprintf(file, sizeof(file), "%s/agent.yaml", folder);
	return 0;
}

static int tear_down(void **state)
{
	(void)state;
	unlink(file);
	return rmdir(folder);
}

static void write_file(const char *text)
{
	FILE *f = fopen(file, "we");

	assert_non_null(f);
	fputs(text, f);
	assert_int_equal(fclose(f), 0);
}

static int load(const char *text, const struct config **ret)
{
	write_file(text);
	return config_load(file, ret);
}

/* Loads with standard error going to `log`. */
static int load_logged(const char *text, char *log, size_t size)
{
	const struct config *config = NULL;
	int saved = dup(STDERR_FILENO), pipes[2], r;
	ssize_t n;

	write_file(text);
	assert_int_equal(pipe2(pipes, O_NONBLOCK), 0);
	dup2(pipes[1], STDERR_FILENO);
	r = config_load(file, &config);
	dup2(saved, STDERR_FILENO);
	close(saved);
	close(pipes[1]);
	n = read(pipes[0], log, size - 1);
	log[n > 0 ? n : 0] = '\0';
	close(pipes[0]);
	config_unref(config);
	return r;
}

static void test_errors(void **state)
{
	static const struct {
		const char *text, *want; /* follows "agent.yaml:" in the log */
	} cases[] = {
		{"", "1: AgentConfig: "},
		{"a: [", "2: not valid YAML"},
		{"x", "1: AgentConfig: must be a map"},
		{GATE "---\n" GATE, "5: a second document"},
		{"kind: AgentConfig\nrole: Gateway\n",
		 "1: AgentConfig: apiVersion: must be sluice.io/v1alpha1"},
		{"apiVersion: sluice.io/v1\nkind: AgentConfig\nrole: Gateway\n",
		 "1: AgentConfig: apiVersion: must be sluice.io/v1alpha1"},
		{"apiVersion: sluice.io/v1alpha1\nkind: Agent\nrole: Gateway\n",
		 "2: AgentConfig: kind: must be AgentConfig"},
		{HEAD, "1: AgentConfig: role: is missing: write role: Node or role: Gateway"},
		{HEAD "role: node\n", "3: AgentConfig: role: 'node' is none of Node, Gateway"},
		{HEAD "role: Node\n", "1: AgentConfig: gateways: is missing: a Node needs"},
		{HEAD "role: Node\ngateways: []\n", "4: AgentConfig: gateways: is missing"},
		{HEAD "role: Node\ngateways: [{name: gw}]\n",
		 "4: AgentConfig: gateways[0].endpoints: is missing"},
		{HEAD "role: Node\ngateways: [{name: gw, endpoints: []}]\n",
		 "4: AgentConfig: gateways[0].endpoints: is missing"},
		{HEAD "role: Node\ngateways: [{endpoints: ['192.0.2.1:1']}]\n",
		 "4: AgentConfig: gateways[0].name: is missing"},
		{HEAD "role: Node\ngateways: [{name: gw, endpoints: ['192.0.2.1']}]\n",
		 "4: AgentConfig: gateways[0].endpoints[0]: '192.0.2.1' is no address with a port"},
		{HEAD "role: Node\ngateways: [{name: gw, endpoints: ['gw.example.com:15443']}]\n",
		 "4: AgentConfig: gateways[0].endpoints[0]: 'gw.example.com:15443' is no address"},
		{HEAD "role: Node\ngateways: [{name: gw, endpoints: ['192.0.2.1:1', "
		      "'192.0.2.1:1']}]\n",
		 "4: AgentConfig: gateways[0].endpoints[1]: '192.0.2.1:1' is there already"},
		{HEAD "role: Node\ngateways: [{name: a, endpoints: ['192.0.2.1:1']}, {name: a, "
		      "endpoints: ['192.0.2.2:1']}]\n",
		 "4: AgentConfig: gateways[1]: there is a gateway 'a' already"},
		{GATE "rolle: Node\n",
		 "4: AgentConfig: rolle: no such field; there are: apiVersion,"},
		{GATE "limits: {helloByte: 1}\n",
		 "4: AgentConfig: limits.helloByte: no such field"},
		{GATE "limits:\n  helloBytes: 5\n",
		 "5: AgentConfig: limits.helloBytes: must be 1024 to 1048576, not 5"},
		{GATE "limits: {helloTimeout: 5}\n",
		 "4: AgentConfig: limits.helloTimeout: must be a string, not a number"},
		{GATE "limits: {helloTimeout: 0s}\n",
		 "4: AgentConfig: limits.helloTimeout: must be longer than 0"},
		{GATE "limits: {idleTimeout: 5 minutes}\n",
		 "4: AgentConfig: limits.idleTimeout: '5 minutes' is no duration"},
		{GATE "limits: {connections: -1}\n",
		 "4: AgentConfig: limits.connections: must be 0"},
		{GATE "workers: 2000\n", "4: AgentConfig: workers: must be 0 to 1024, not 2000"},
		{GATE "nodeName: ''\n", "4: AgentConfig: nodeName: must not be empty"},
		{GATE "trustDomain: A/b\n",
		 "4: AgentConfig: trustDomain: 'A/b' must be lower-case"},
		{GATE "clusterCIDRs: [10.0.0.0/40]\n",
		 "4: AgentConfig: clusterCIDRs[0]: '10.0.0.0/40' is no network"},
		{GATE "outboundTrafficPolicy: {mode: ALLOW_ALL}\n",
		 "4: AgentConfig: outboundTrafficPolicy.mode: 'ALLOW_ALL' is none of "
		 "REGISTRY_ONLY, "
		 "ALLOW_ANY"},
		{GATE "registry: {kubernetes: {enabled: 1}}\n",
		 "4: AgentConfig: registry.kubernetes.enabled: must be a boolean, not a number"},
		{GATE "registry: {kubernetes: {kubeconfig: 5}}\n",
		 "4: AgentConfig: registry.kubernetes.kubeconfig: must be a string, not a number"},
		{GATE "tunnel: {nodesOnly: true}\n",
		 "4: AgentConfig: tunnel.nodesOnly: needs the API"},
		{GATE "enrol: {mode: some}\n",
		 "4: AgentConfig: enrol.mode: 'some' is none of labelled, all"},
		{GATE "enrol: {excludedNamespaces: [Kube-System]}\n",
		 "4: AgentConfig: enrol.excludedNamespaces[0]: 'Kube-System' is no name of a"},
		{GATE "enrol: {excludedNamespaces: [a.b]}\n",
		 "4: AgentConfig: enrol.excludedNamespaces[0]: 'a.b' is no name of a"},
		{GATE "registry: {files: hosts.yaml}\n",
		 "4: AgentConfig: registry.files: must be a list, not a string"},
		{GATE "tunnel: {mode: MUTUAL}\n",
		 "4: AgentConfig: tunnel.mode: MUTUAL is not in this version"},
		{GATE "tunnel: {mode: mutual}\n",
		 "4: AgentConfig: tunnel.mode: 'mutual' is none of"},
		{GATE "tunnel: {handoff: 'true'}\n",
		 "4: AgentConfig: tunnel.handoff: must be a boolean, not a string"},
		{GATE "tunnel: {listen: [':1', '[::]:1']}\n",
		 "4: AgentConfig: tunnel.listen[1]: '[::]:1' is there already"},
		{GATE "tunnel: {listen: [':70000']}\n",
		 "4: AgentConfig: tunnel.listen[0]: ':70000' is nowhere to listen"},
		{GATE "egress: {sourceIPs: [203.0.113.10, 203.0.113.10]}\n",
		 "4: AgentConfig: egress.sourceIPs[1]: '203.0.113.10' is there already"},
		{GATE "egress: {sourceIPs: [0.0.0.0]}\n",
		 "4: AgentConfig: egress.sourceIPs[0]: '0.0.0.0' is no address to connect from"},
		{GATE "egress: {resolvers: [dns.example.com]}\n",
		 "4: AgentConfig: egress.resolvers[0]: 'dns.example.com' is no address"},
		{GATE "redirect: {backend: tproxy}\n",
		 "4: AgentConfig: redirect.backend: 'tproxy' is none of auto, ebpf, nftables, "
		 "iptables"},
		{GATE "redirect: {mark: 0}\n",
		 "4: AgentConfig: redirect.mark: must be 1 to 4294967295, not 0"},
		{GATE "redirect: {routeTable: 254}\n",
		 "4: AgentConfig: redirect.routeTable: must be 256 to 4294967295, not 254"},
		{GATE "redirect: {rulePriority: 32766}\n",
		 "4: AgentConfig: redirect.rulePriority: must be 1 to 32765, not 32766"},
		{GATE "guard: off\n", "4: AgentConfig: guard: must be a map, not a boolean"},
		{GATE "guard: none\n",
		 "4: AgentConfig: guard: 'none' is none of required, optional"},
		{GATE "guard: {mode: maybe}\n",
		 "4: AgentConfig: guard.mode: 'maybe' is none of required, optional"},
		{GATE "guard: {attach: xdp}\n",
		 "4: AgentConfig: guard.attach: 'xdp' is none of auto, tcx, tc, nftables"},
		{GATE "guard: {inboundFlows: 1000000}\n",
		 "4: AgentConfig: guard.inboundFlows: must be 8 to 4096, not 1000000"},
		{GATE "guard: {pinDir: ''}\n", "4: AgentConfig: guard.pinDir: must not be empty"},
		{GATE "admin: {metrics: 15020}\n",
		 "4: AgentConfig: admin.metrics: must be a string, not a number"},
		{GATE "accessLog: {encoding: json}\n",
		 "4: AgentConfig: accessLog.encoding: 'json' is none of JSON, TEXT"},
		{GATE
		 "enrol: {socket: /xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx"
		 "xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx}\n",
		 "4: AgentConfig: enrol.socket: '/xxx"},
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		char log[8192], want[512];
		int r = load_logged(cases[i].text, log, sizeof(log));

		snprintf(want, sizeof(want), "error %s:%s", file, cases[i].want);
		if (i == 0) /* an empty file has no line */
			snprintf(want, sizeof(want), "error %s: is empty", file);
		if (r != -EINVAL || !strstr(log, want))
			fail_msg("case %zu: r = %d, want '%s' in:\n%s", i, r, want, log);
	}
}

/* All errors of a file are said, not only the first. */
static void test_all_errors(void **state)
{
	char log[8192];

	(void)state;
	assert_int_equal(
		load_logged(GATE "workers: x\nlimits: {connections: y}\n", log, sizeof(log)),
		-EINVAL);
	assert_non_null(strstr(log, "workers: must be"));
	assert_non_null(strstr(log, "limits.connections: must be"));
}

static void test_missing(void **state)
{
	const struct config *config;

	(void)state;
	unlink(file);
	assert_int_equal(config_load(file, &config), -ENOENT);
	assert_int_equal(config_load(folder, &config), -EBADF);
	assert_int_equal(config_load("/nowhere/at/all.yaml", &config), -ENOENT);
}

static void check_addr(const struct addr *a, const char *want)
{
	char text[ADDR_TEXT];

	assert_string_equal(addr_print(a, text), want);
}

static void test_defaults(void **state)
{
	const struct config *c;
	char name[256] = "";

	(void)state;
	assert_int_equal(load(GATE, &c), 0);
	assert_string_equal(c->path, file);
	assert_int_equal(c->role, ROLE_GATEWAY);
	gethostname(name, sizeof(name) - 1);
	assert_string_equal(c->node_name, name);
	assert_string_equal(c->trust_domain, "cluster.local");
	assert_int_equal(c->n_cluster_cidrs, 0);
	assert_int_equal(c->outbound_mode, OUTBOUND_REGISTRY_ONLY);
	assert_int_equal(c->n_registry_files, 0);
	assert_int_equal(c->n_gateways, 0);
	assert_int_equal(c->tunnel.mode, TUNNEL_PLAINTEXT);
	assert_true(c->tunnel.handoff);
	assert_int_equal(c->tunnel.n_listen, 2);
	check_addr(&c->tunnel.listen[0], "0.0.0.0:15443");
	check_addr(&c->tunnel.listen[1], "[::]:15443");
	assert_null(c->tunnel.certificate);
	assert_int_equal(c->egress.n_source_ips, 0);
	assert_int_equal(c->egress.n_resolvers, 0);
	assert_int_equal(c->redirect.backend, REDIRECT_AUTO);
	assert_int_equal(c->redirect.mark, 16);
	assert_int_equal(c->redirect.table, 15001);
	assert_int_equal(c->redirect.priority, 90);
	assert_int_equal(c->guard.mode, GUARD_REQUIRED);
	assert_int_equal(c->guard.attach, GUARD_ATTACH_AUTO);
	assert_string_equal(c->guard.pin_dir, "/sys/fs/bpf/sluice");
	assert_int_equal(c->guard.inbound_flows, 2048);
	assert_false(c->guard.dhcp);
	assert_string_equal(c->enrol.socket, "/run/sluice/agent.sock");
	assert_string_equal(c->enrol.state_dir, "/var/lib/sluice");
	assert_int_equal(c->enrol.mode, ENROL_LABELLED);
	assert_int_equal(c->enrol.n_excluded, 2);
	assert_string_equal(c->enrol.excluded[0], "kube-system");
	assert_false(c->enrol.startup_taint);
	assert_false(c->kubernetes.enabled);
	assert_false(c->tunnel.nodes_only);
	assert_int_equal(c->workers, 0);
	assert_int_equal(c->limits.connections, 0);
	assert_int_equal(c->limits.connections_per_pod, 0);
	assert_int_equal(c->limits.hello_bytes, 65536);
	assert_int_equal(c->limits.hello_timeout_ms, 5000);
	assert_int_equal(c->limits.connect_timeout_ms, 5000);
	assert_int_equal(c->limits.idle_timeout_ms, 3600000);
	assert_int_equal(c->limits.drain_timeout_ms, 20000);
	assert_int_equal(c->limits.deregister_grace_ms, 0);
	assert_string_equal(c->admin.socket, "/run/sluice/admin.sock");
	check_addr(&c->admin.metrics, "[::]:15020");
	check_addr(&c->admin.health, "[::]:15021");
	assert_true(c->admin.metrics_on && c->admin.health_on);
	assert_string_equal(c->access_log.file, "/dev/stdout");
	assert_int_equal(c->access_log.encoding, LOG_ENCODING_JSON);
	config_unref(c);

	/* Empty is what is not there. */
	assert_int_equal(load(GATE "outboundTrafficPolicy: {}\nlimits:\ntunnel: {}\n", &c), 0);
	assert_int_equal(c->outbound_mode, OUTBOUND_REGISTRY_ONLY);
	config_unref(c);

	assert_int_equal(load(GATE "guard: optional\n", &c), 0);
	assert_int_equal(c->guard.mode, GUARD_OPTIONAL);
	assert_int_equal(c->guard.inbound_flows, 2048);
	config_unref(c);
}

static const char everything[] = HEAD
	"role: Node\n"
	"nodeName: node-1\n"
	"trustDomain: example.org\n"
	"clusterCIDRs: [10.244.0.0/16, 10.96.0.0/12, \"fd00:10:244::/56\"]\n"
	"outboundTrafficPolicy: {mode: ALLOW_ANY}\n"
	"registry:\n"
	"  files: [registry.d, /etc/more.yaml]\n"
	"  kubernetes: {enabled: true, kubeconfig: kube.yaml}\n"
	"gateways:\n"
	"  - {name: egress.istio-system.svc.cluster.local, endpoints: [\"192.0.2.10:15443\", "
	"\"[2001:db8::1]:15443\"]}\n"
	"  - {name: other, endpoints: [\"192.0.2.11:1\"]}\n"
	"  - {name: egressgateway.sluice-system.svc.cluster.local}\n"
	"tunnel:\n"
	"  mode: PLAINTEXT\n"
	"  handoff: false\n"
	"  listen: [\"127.0.0.1:15443\"]\n"
	"  certificate: tls.crt\n"
	"  privateKey: tls.key\n"
	"  trustBundle: /etc/ca.crt\n"
	"  nodesOnly: true\n"
	"egress:\n"
	"  sourceIPs: [203.0.113.10, \"2001:db8::10\"]\n"
	"  resolvers: [\"10.96.0.10:53\", 10.96.0.11]\n"
	"  allowedPrivateCIDRs: [10.1.0.0/16]\n"
	"redirect: {backend: nftables, mark: 32, routeTable: 300, rulePriority: 80}\n"
	"guard: {mode: optional, attach: tc, pinDir: pins, inboundFlows: 64, dhcp: true}\n"
	"enrol: {socket: run/agent.sock, stateDir: state, mode: all, excludedNamespaces: [infra], "
	"startupTaint: true}\n"
	"workers: 4\n"
	"limits: {connections: 100, connectionsPerPod: 10, helloBytes: 2048, helloTimeout: "
	"1s, connectTimeout: 1500ms, idleTimeout: 1m, drainTimeout: 0s, deregisterGrace: 2s}\n"
	"admin: {socket: admin.sock, metrics: \"\", health: \"127.0.0.1:15021\"}\n"
	"accessLog: {file: access.log, encoding: TEXT}\n";

static void check_path(const char *got, const char *name)
{
	char want[256];

	snprintf(want, sizeof(want), "%s/%s", folder, name);
	assert_string_equal(got, want);
}

static void test_everything(void **state)
{
	const struct config *c;
	char text[ADDR_TEXT];

	(void)state;
	assert_int_equal(load(everything, &c), 0);
	assert_int_equal(c->role, ROLE_NODE);
	assert_string_equal(c->node_name, "node-1");
	assert_int_equal(c->n_cluster_cidrs, 3);
	assert_string_equal(cidr_print(&c->cluster_cidrs[2], text), "fd00:10:244::/56");
	assert_int_equal(c->outbound_mode, OUTBOUND_ALLOW_ANY);
	assert_int_equal(c->n_registry_files, 2);
	check_path(c->registry_files[0], "registry.d");
	assert_string_equal(c->registry_files[1], "/etc/more.yaml");
	assert_true(c->kubernetes.enabled);
	check_path(c->kubernetes.kubeconfig, "kube.yaml");
	assert_int_equal(c->n_gateways, 3);
	assert_int_equal(c->gateways[2].n_endpoints, 0);
	assert_true(c->tunnel.nodes_only);
	assert_int_equal(c->enrol.mode, ENROL_ALL);
	assert_int_equal(c->enrol.n_excluded, 1);
	assert_string_equal(c->enrol.excluded[0], "infra");
	assert_true(c->enrol.startup_taint);
	assert_string_equal(c->gateways[0].name, "egress.istio-system.svc.cluster.local");
	assert_int_equal(c->gateways[0].n_endpoints, 2);
	check_addr(&c->gateways[0].endpoints[1], "[2001:db8::1]:15443");
	assert_false(c->tunnel.handoff);
	assert_int_equal(c->tunnel.n_listen, 1);
	check_path(c->tunnel.certificate, "tls.crt");
	check_path(c->tunnel.private_key, "tls.key");
	assert_string_equal(c->tunnel.trust_bundle, "/etc/ca.crt");
	assert_int_equal(c->egress.n_source_ips, 2);
	assert_int_equal(c->egress.source_ips[0].port, 0);
	check_addr(&c->egress.resolvers[1], "10.96.0.11:53");
	assert_int_equal(c->egress.n_allowed_private_cidrs, 1);
	assert_int_equal(c->redirect.backend, REDIRECT_NFTABLES);
	assert_int_equal(c->redirect.mark, 32);
	assert_int_equal(c->redirect.table, 300);
	assert_int_equal(c->redirect.priority, 80);
	assert_int_equal(c->guard.mode, GUARD_OPTIONAL);
	assert_int_equal(c->guard.attach, GUARD_ATTACH_TC);
	check_path(c->guard.pin_dir, "pins");
	assert_int_equal(c->guard.inbound_flows, 64);
	assert_true(c->guard.dhcp);
	check_path(c->enrol.socket, "run/agent.sock");
	check_path(c->enrol.state_dir, "state");
	assert_int_equal(c->workers, 4);
	assert_int_equal(c->limits.connections, 100);
	assert_int_equal(c->limits.connections_per_pod, 10);
	assert_int_equal(c->limits.hello_bytes, 2048);
	assert_int_equal(c->limits.connect_timeout_ms, 1500);
	assert_int_equal(c->limits.idle_timeout_ms, 60000);
	assert_int_equal(c->limits.drain_timeout_ms, 0);
	assert_int_equal(c->limits.deregister_grace_ms, 2000);
	assert_false(c->admin.metrics_on);
	assert_true(c->admin.health_on);
	check_addr(&c->admin.health, "127.0.0.1:15021");
	check_path(c->access_log.file, "access.log");
	assert_int_equal(c->access_log.encoding, LOG_ENCODING_TEXT);
	config_unref(config_ref(c));
	config_unref(c);
}

/* What is printed is a configuration again, and the same one. */
static void test_print(void **state)
{
	const struct config *c;
	char *first, *second;
	json_t *json;

	(void)state;
	assert_int_equal(load(everything, &c), 0);
	assert_int_equal(config_print(c, &first), 0);
	config_unref(c);

	json = json_loads(first, JSON_REJECT_DUPLICATES, NULL);
	assert_non_null(json);
	assert_string_equal(json_string_value(json_object_get(json, "role")), "Node");
	assert_int_equal(json_integer_value(json_object_get(json, "workers")), 4);
	json_decref(json);

	assert_int_equal(load(first, &c), 0);
	assert_int_equal(config_print(c, &second), 0);
	config_unref(c);
	assert_string_equal(first, second);
	free(first);
	free(second);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_errors),     cmocka_unit_test(test_all_errors),
		cmocka_unit_test(test_missing),    cmocka_unit_test(test_defaults),
		cmocka_unit_test(test_everything), cmocka_unit_test(test_print),
	};

	return cmocka_run_group_tests(tests, set_up, tear_down);
}
