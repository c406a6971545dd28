/* SPDX-License-Identifier: Apache-2.0 */
#include "init/flags.h"

#include <stdio.h>
#include <stdlib.h>

#define HELP_COLUMN 40

#define ISTIO .automatic = true
#define NO    .kind = VALUE_BOOL, .fallback = "false"

const struct flag init_flags[INIT_FLAG_N_] = {
	[INIT_ENVOY_PORT] = {"envoy-port", 'p', .kind = VALUE_PORT, .fallback = "15001",
			     .help = "the agent's: 15001"},
	[INIT_INBOUND_CAPTURE_PORT] = {"inbound-capture-port", 'z', ISTIO, VALUE_PORT, "15006",
				       .help = "nothing inbound is captured"},
	[INIT_INBOUND_TUNNEL_PORT] = {"inbound-tunnel-port", 'e', ISTIO, VALUE_PORT, "15008",
				      .help = "nothing inbound is captured"},
	[INIT_PROXY_UID] = {"proxy-uid", 'u', ISTIO, VALUE_IDS, "",
			    .help = "nobody is exempt by user"},
	[INIT_PROXY_GID] = {"proxy-gid", 'g', ISTIO, VALUE_IDS, "",
			    .help = "nobody is exempt by group"},
	[INIT_INBOUND_MODE] = {"istio-inbound-interception-mode", 'm', ISTIO, VALUE_INBOUND_MODE,
			       "", .help = "nothing inbound is captured"},
	[INIT_INBOUND_PORTS] = {"istio-inbound-ports", 'b', ISTIO, VALUE_PORTS_OR_ALL, "",
				.help = "nothing inbound is captured"},
	[INIT_INBOUND_EXCLUDE_PORTS] = {"istio-local-exclude-ports", 'd', ISTIO, VALUE_PORTS, "",
					.help = "nothing inbound is captured"},
	[INIT_EXCLUDE_INTERFACES] = {"istio-exclude-interfaces", 'c', ISTIO, VALUE_INTERFACES, "",
				     .help = "no interface is exempt"},
	[INIT_INCLUDE_CIDRS] = {"istio-service-cidr", 'i', ISTIO, VALUE_CIDRS_OR_ALL, "*",
				.help = "all networks are captured but the cluster's"},
	[INIT_EXCLUDE_CIDRS] = {"istio-service-exclude-cidr", 'x', ISTIO, VALUE_CIDRS, "",
				.help = "only the agent's clusterCIDRs are exempt"},
	[INIT_OUTBOUND_PORTS] = {"istio-outbound-ports", 'q', ISTIO, VALUE_PORTS, "",
				 .help = "all ports are captured"},
	[INIT_OUTBOUND_EXCLUDE_PORTS] = {"istio-local-outbound-ports-exclude", 'o', ISTIO,
					 VALUE_PORTS, "", .help = "no port is exempt"},
	[INIT_VIRT_INTERFACES] = {"kube-virt-interfaces", 'k', ISTIO, VALUE_INTERFACES, "",
				  .help = "what passes through the pod is refused"},
	[INIT_TPROXY_MARK] = {"istio-inbound-tproxy-mark", 't', ISTIO, VALUE_NUMBER, "1337",
			      .help = "nothing inbound is captured"},
	[INIT_TPROXY_TABLE] = {"istio-inbound-tproxy-route-table", 'r', ISTIO, VALUE_NUMBER, "133",
			       .help = "nothing inbound is captured"},
	[INIT_DRY_RUN] = {"dry-run", 'n', ISTIO, NO,
			  .help = "print what would be done, and change nothing"},
	[INIT_PROBE_PORT] = {"iptables-probe-port", 0, ISTIO, VALUE_PORT_OR_ZERO, "15002",
			     .help = "unused: rules are read back from the kernel"},
	[INIT_PROBE_TIMEOUT] = {"probe-timeout", 0, ISTIO, VALUE_DURATION, "5s", .help = "unused"},
	[INIT_SKIP_RULE_APPLY] = {"skip-rule-apply", 0, ISTIO, NO,
				  .help = "leave all of it to the agent"},
	[INIT_RUN_VALIDATION] = {"run-validation", 0, ISTIO, NO,
				 .help = "read back what is in force; 126 when it is not as it "
					 "should be"},
	[INIT_REDIRECT_DNS] =
		{"redirect-dns", 0, ISTIO, NO, {"ISTIO_META_DNS_CAPTURE"}, "DNS is not captured"},
	[INIT_CAPTURE_ALL_DNS] = {"capture-all-dns", 0, ISTIO, NO, .help = "DNS is not captured"},
	[INIT_DROP_INVALID] = {"drop-invalid", 0, ISTIO, NO, {"INVALID_DROP"}, "always so"},
	[INIT_DUAL_STACK] = {"dual-stack",
			     0,
			     ISTIO,
			     NO,
			     {"ISTIO_DUAL_STACK", "ISTIO_AGENT_DUAL_STACK"},
			     "always so"},
	[INIT_NETWORK_NAMESPACE] = {"network-namespace", 0, ISTIO, VALUE_TEXT, "",
				    .help = "path of the namespace to act on, instead of its own"},
	[INIT_CNI_MODE] = {"cni-mode", 0, ISTIO, NO, .help = "unused"},
	[INIT_RECONCILE] = {"reconcile", 0, ISTIO, NO, .help = "always so"},
	[INIT_CLEANUP_ONLY] = {"cleanup-only", 0, ISTIO, NO,
			       .help = "remove rules from a pod that the agent says is not "
				       "enrolled"},
	[INIT_FORCE_APPLY] = {"force-apply", 0, ISTIO, NO,
			      .help = "put the rules in place even if they are there already"},
	[INIT_NATIVE_NFTABLES] = {"native-nftables", 0, ISTIO, NO,
				  .help = "nftables, and nothing else"},
	[INIT_FORCE_IPTABLES_BINARY] = {"force-iptables-binary", 0, ISTIO, VALUE_IPTABLES_BINARY,
					"", .help = "iptables, and nothing else"},
	[INIT_RESTORE_FORMAT] = {"restore-format", 'f', ISTIO, VALUE_BOOL, "true",
				 .help = "unused"},
	[INIT_TRACE_LOGGING] = {"iptables-trace-logging", 0, ISTIO, NO, .help = "unused"},
	[INIT_HOST_NSENTER] = {"host-nsenter-exec", 0, ISTIO, NO, .help = "unused"},
	[INIT_LOOPBACK_CIDR] = {.kind = VALUE_LOOPBACK_CIDR,
				.fallback = "127.0.0.1/32",
				.names = {"ISTIO_OUTBOUND_IPV4_LOOPBACK_CIDR"},
				.help = "unused: loopback is never captured"},
	[INIT_OWNER_GROUPS] = {.kind = VALUE_GROUPS,
			       .fallback = "*",
			       .names = {"ISTIO_OUTBOUND_OWNER_GROUPS"},
			       .help = "all groups are captured"},
	[INIT_OWNER_GROUPS_EXCLUDE] = {.kind = VALUE_IDS,
				       .fallback = "",
				       .names = {"ISTIO_OUTBOUND_OWNER_GROUPS_EXCLUDE"},
				       .help = "no group is exempt"},
	[INIT_LOG_OUTPUT_LEVEL] = {"log_output_level", .kind = VALUE_LOG_LEVEL,
				   .fallback = "default:info",
				   .help = "debug, info, warn, error, none"},
	[INIT_LOG_AS_JSON] = {"log_as_json", NO, .help = "unused"},
	[INIT_LOG_CALLER] = {"log_caller", .fallback = "", .help = "unused"},
	[INIT_LOG_ROTATE] = {"log_rotate", .fallback = "", .help = "unused"},
	[INIT_LOG_ROTATE_MAX_AGE] = {"log_rotate_max_age", .kind = VALUE_NUMBER, .fallback = "30",
				     .help = "unused"},
	[INIT_LOG_ROTATE_MAX_BACKUPS] = {"log_rotate_max_backups", .kind = VALUE_NUMBER,
					 .fallback = "1000", .help = "unused"},
	[INIT_LOG_ROTATE_MAX_SIZE] = {"log_rotate_max_size", .kind = VALUE_NUMBER,
				      .fallback = "104857600", .help = "unused"},
	[INIT_LOG_STACKTRACE_LEVEL] = {"log_stacktrace_level", .kind = VALUE_LOG_LEVEL,
				       .fallback = "default:none", .help = "unused"},
	[INIT_LOG_TARGET] = {"log_target", .fallback = "", .help = "unused: standard error"},
	[INIT_VKLOG] = {"vklog", .kind = VALUE_NUMBER, .fallback = "0", .help = "unused"},
	[INIT_AGENT_SOCKET] = {"agent-socket", .kind = VALUE_PATH,
			       .fallback = "/run/sluice/agent.sock",
			       .names = {"SLUICE_AGENT_SOCKET"},
			       .help = "where the node's agent listens"},
	[INIT_AGENT_TIMEOUT] = {"agent-timeout", .kind = VALUE_OWN_DURATION, .fallback = "30s",
				.names = {"SLUICE_AGENT_TIMEOUT"},
				.help = "how long to wait for an agent that does not answer"},
	[INIT_CLUSTER_CIDRS] = {"cluster-cidrs", .kind = VALUE_CIDRS, .fallback = "",
				.names = {"SLUICE_CLUSTER_CIDRS"},
				.help = "reached directly until the agent puts its own in place"},
	[INIT_POD] = {"pod", .kind = VALUE_POD, .fallback = "",
		      .help = "NAMESPACE/NAME; else POD_NAMESPACE and POD_NAME"},
	[INIT_SERVICE_ACCOUNT] = {"service-account", .kind = VALUE_NAME, .fallback = "",
				  .names = {"SERVICE_ACCOUNT"}, .help = "the pod's; \"default\""},
	[INIT_HELP] = {"help", 'h', NO, .help = "this list"},
};

static void print_flag(const struct flag *f, FILE *out)
{
	char text[128];

	if (!f->name)
		snprintf(text, sizeof(text), "  %s", f->names[0]);
	else if (f->letter)
		snprintf(text, sizeof(text), "  -%c, --%s", f->letter, f->name);
	else
		snprintf(text, sizeof(text), "      --%s", f->name);
	fprintf(out, "%-*s %s", HELP_COLUMN, text, f->help);
	if (*f->fallback && f->kind != VALUE_BOOL)
		fprintf(out, " (%s)", f->fallback);
	fputc('\n', out);
}

char *init_help(void)
{
	char *text = NULL;
	size_t size;
	FILE *out = open_memstream(&text, &size);

	if (!out)
		return NULL;
	fputs("sluice-init [istio-iptables] [FLAG...]: the pod's outbound traffic to the node's "
	      "agent\n\n",
	      out);
	for (size_t i = 0; i < INIT_FLAG_N_; i++)
		print_flag(&init_flags[i], out);
	fputs("\nIstio's flags have a variable in the environment, in upper case with _ for -; so "
	      "have\n--agent-socket, --agent-timeout, --cluster-cidrs (with SLUICE_ in front) and "
	      "--service-account.\nExit: 0 done; 1 failed; 126 --run-validation found it not as it "
	      "should be.\n",
	      out);
	if (fclose(out) != 0) {
		free(text);
		return NULL;
	}
	return text;
}
