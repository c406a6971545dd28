/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "base/owned.h"
#include "resource/decode.h"
#include "resource/hostname.h"

#define X63 "xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx"

/* ---- verdicts on one spec ---- */

enum want {
	GOOD,   /* without a word */
	WARNED, /* accepted, with a warning that holds `text` */
	BAD,    /* refused, with an error that holds `text` */
};

struct spec_case {
	const char *name, *spec;
	enum want want;
	const char *text;
};

#define HTTP1    "{number: 80, protocol: http, name: http-valid1}"
#define HTTP2    "{number: 8080, protocol: http, name: http-valid2}"
#define TCP81    "{number: 81, protocol: TCP, name: tcp-valid1}"
#define P1       "ports: [" HTTP1 "]"
#define P2       "ports: [" HTTP1 ", " HTTP2 "]"
#define EP(a, p) "{address: " a ", ports: {" p "}}"
#define EP2                                                                  \
	"endpoints: [" EP("1.1.1.1", "http-valid1: 8080") ", " EP("2.2.2.2", \
								  "http-valid2: 9080") "]"
#define LON_IN                                                                            \
	"endpoints: [" EP("lon.google.com", "http-valid1: 8080") ", " EP("in.google.com", \
									 "http-valid2: 9080") "]"
#define ISTIO                                                            \
	"{address: lon.google.com, ports: {http-valid1: 8080}, labels: " \
	"{security.istio.io/tlsMode: istio}}"
#define ISTIO2                                                          \
	"{address: in.google.com, ports: {http-valid2: 9080}, labels: " \
	"{security.istio.io/tlsMode: istio}}"
#define G            "hosts: [google.com]"
#define WG           "hosts: ['*.google.com']"
#define HTTPS443     "{number: 443, protocol: https, name: https}"
#define OWN_HOSTS(h) "hosts: [" h "], " P1 ", resolution: NONE"

/* clang-format off */
/* Istio's own table (pkg/config/validation, TestValidateServiceEntries), one row a case. Where we
 * are stricter, or the warning would be wrong here, the row says why.
 */
static const struct spec_case istio_cases[] = {
	{"static", G ", addresses: [172.1.2.16], " P2 ", " EP2 ", resolution: STATIC", GOOD, NULL},
	{"empty protocol", G ", addresses: [172.1.2.16/16], ports: [" HTTP1 ", {number: 8080, name: http-valid2}], resolution: NONE", GOOD, NULL},
	{"static, cidr addresses with endpoints", G ", addresses: [172.1.2.16/16], " P2 ", " EP2 ", resolution: STATIC", GOOD, NULL},
	{"dns round robin with more than one endpoint", G ", addresses: [], ports: [{number: 8081, protocol: http, name: http-valid1}], endpoints: [" EP("api-v1.istio.io", "http-valid1: 8081") ", " EP("1.1.1.2", "http-valid1: 8081") "], resolution: DNS_ROUND_ROBIN", BAD, "spec.endpoints: has 2 items: DNS_ROUND_ROBIN takes one"},
	{"empty hosts", P1 ", endpoints: [" EP("in.google.com", "http-valid1: 9080") "], resolution: DNS", BAD, "spec.hosts: is missing"},
	{"empty hosts, port of no name", P1 ", endpoints: [" EP("in.google.com", "http-valid2: 9080") "], resolution: DNS", BAD, "spec.endpoints[0].ports.http-valid2: 'http-valid2' is not the name of a port"},
	{"dns round robin with 0 endpoints", G ", addresses: [], ports: [{number: 8081, protocol: http, name: http-valid1}], endpoints: [], resolution: DNS_ROUND_ROBIN", GOOD, NULL},
	{"warn target port", G ", workloadSelector: {labels: {key: bar}}, ports: [{number: 80, protocol: http, name: http-valid1, targetPort: 1234}]", WARNED, "spec.ports[0].targetPort: has no effect with resolution NONE"},
	{"DYNAMIC_DNS, FQDN host", G ", addresses: [], ports: [{number: 80, protocol: http, name: http-valid}], resolution: DYNAMIC_DNS", BAD, "spec.hosts[0]: 'google.com' is no wildcard"},
	{"none, conflicting port numbers", G ", ports: [{number: 80, protocol: http, name: http-conflict1}, {number: 80, protocol: http, name: http-conflict2}], resolution: NONE", BAD, "spec.ports[1].number: 80 is defined twice"},
	{"DYNAMIC_DNS, unsupported TCP protocol", WG ", addresses: [], ports: [" HTTP1 ", " TCP81 "], resolution: DYNAMIC_DNS", BAD, "spec.ports[1].protocol: must be HTTP, HTTP2, GRPC or TLS"},
	{"DNS, non-FQDN endpoint", WG ", " P2 ", endpoints: [" EP("'*.lon.google.com'", "http-valid1: 8080") "], resolution: DNS", BAD, "spec.endpoints[0].address: '*.lon.google.com' must be a full name"},
	{"DNS, unknown endpoint port", WG ", " P2 ", endpoints: [" EP("in.google.com", "http-dne: 9080") "], resolution: DNS", BAD, "spec.endpoints[0].ports.http-dne"},
	{"none", G ", " P2 ", resolution: NONE", GOOD, NULL},
	{"DYNAMIC_DNS, internal mesh location", WG ", addresses: [], " P1 ", resolution: DYNAMIC_DNS, location: MESH_INTERNAL", GOOD, NULL},
	{"static, FQDN in endpoints", G ", addresses: [172.1.2.16], " P2 ", endpoints: [" EP("google.com", "http-valid1: 8080") ", " EP("2.2.2.2", "http-valid2: 9080") "], resolution: STATIC", BAD, "spec.endpoints[0].address: 'google.com' is no IP address, which STATIC needs"},
	{"DYNAMIC_DNS, endpoints set", WG ", addresses: [], " P1 ", endpoints: [" EP("in.google.com", "http-valid1: 9080") "], resolution: DYNAMIC_DNS", BAD, "spec.endpoints: must not be given with resolution DYNAMIC_DNS"},
	{"DNS, no endpoints", G ", " P2 ", resolution: DNS", GOOD, NULL},
	{"valid endpoint port", G ", ports: [{number: 80, protocol: http, name: http-valid1, targetPort: 81}], resolution: STATIC, endpoints: [" EP("1.1.1.1", "http-valid1: 8081") "]", GOOD, NULL},
	/* Istio takes it: its proxy runs beside the socket. A gateway does not. */
	{"unix socket", "hosts: [uds.cluster.local], ports: [{number: 6553, protocol: grpc, name: grpc-service1}], resolution: STATIC, endpoints: [{address: 'unix:///path/to/socket'}]", BAD, "spec.endpoints[0].address: 'unix:///path/to/socket' is a unix socket"},
	{"DNS, unix endpoint", WG ", " P1 ", endpoints: [{address: 'unix:///lon/google/com'}], resolution: DNS", BAD, "is a unix socket"},
	{"DYNAMIC_DNS, multiple wildcarded hosts", "hosts: ['*.google.com', '*.amazon.com'], addresses: [], " P1 ", resolution: DYNAMIC_DNS", GOOD, NULL},
	{"none, endpoints provided", G ", " P2 ", endpoints: [" EP("lon.google.com", "http-valid1: 8080") "], resolution: NONE", BAD, "spec.endpoints: must not be given with resolution NONE"},
	/* Nothing to dial is worth a word here. */
	{"static, missing endpoints", G ", addresses: [172.1.2.16], " P2 ", resolution: STATIC", WARNED, "spec.endpoints: is missing"},
	{"DYNAMIC_DNS, nil port", WG ", location: MESH_EXTERNAL, ports: [null], resolution: DYNAMIC_DNS", BAD, "spec.ports[0]: must be a map, not null"},
	{"DNS, non-FQDN host", WG ", " P2 ", resolution: DNS", BAD, "spec.hosts[0]: '*.google.com' is no full name, which resolution DNS needs"},
	{"static, bad endpoint port name", G ", addresses: [172.1.2.16], " P2 ", endpoints: [" EP("1.1.1.1", "http-valid1: 8080") ", " EP("2.2.2.2", "http-dne: 9080") "], resolution: STATIC", BAD, "spec.endpoints[1].ports.http-dne: 'http-dne' is not the name of a port"},
	/* A warning in Istio; here '*' is a whole label or an error. */
	{"partial wildcard hosts", "hosts: ['*.nytimes.com', '*washingtonpost.com'], addresses: [], ports: [{number: 443, protocol: HTTPS, name: https-nytimes}], endpoints: [], resolution: NONE", BAD, "spec.hosts[1]: '*washingtonpost.com' may have '*' only as its whole first label"},
	{"invalid endpoint port", G ", ports: [{number: 80, protocol: http, name: http-valid1, targetPort: 81}], resolution: STATIC, endpoints: [" EP("1.1.1.1", "http-valid1: 65536") "]", BAD, "spec.endpoints[0].ports.http-valid1: must be 1 to 65535, not 65536"},
	{"DYNAMIC_DNS", WG ", " P2 ", resolution: DYNAMIC_DNS", GOOD, NULL},
	/* No workloads of a mesh here: a warning that Istio has no reason for. */
	{"selector and resolution DNS", G ", workloadSelector: {labels: {foo: bar}}, " P1 ", resolution: DNS", WARNED, "spec.workloadSelector: selects workloads of a mesh"},
	{"protocol is TCP for addresses empty", G ", addresses: [], ports: [" HTTP1 ", " TCP81 "], resolution: NONE", WARNED, "spec.ports[1].protocol: TCP names no host, so this port matches nothing"},
	{"DNS Round Robin", "hosts: ['*.istio.io'], " P2 ", endpoints: [" EP("api-v1.istio.io", "http-valid1: 8080") "], resolution: DNS_ROUND_ROBIN", GOOD, NULL},
	{"DNS, one host set with IP address and https port", "hosts: [httpbin.org], addresses: [10.10.10.10], ports: [" HTTP1 ", " HTTP2 ", " HTTPS443 "], resolution: DNS", GOOD, NULL},
	/* Istio warns that the address cannot tell the hosts apart; here TLS goes by name first. */
	{"DNS, multi hosts set with IP address and https port", "hosts: [httpbin.org, wikipedia.org], addresses: [10.10.10.10], ports: [" HTTP1 ", " HTTP2 ", " HTTPS443 "], resolution: DNS", GOOD, NULL},
	{"workload selector without labels", G ", " P2 ", workloadSelector: {}", WARNED, "spec.workloadSelector: has no labels"},
	{"DNS", WG ", " P2 ", " LON_IN ", resolution: DNS", GOOD, NULL},
	{"full wildcard host", "hosts: [foo.com, '*'], " P1 ", endpoints: [" EP("in.google.com", "http-valid1: 9080") "], resolution: DNS", BAD, "spec.hosts[1]: '*' would match every host"},
	{"protocol unset for addresses empty", G ", addresses: [], ports: [" HTTP1 ", {number: 8080, name: http-valid2}], resolution: NONE", WARNED, "spec.ports[1].protocol: is not given"},
	{"none, conflicting port names", G ", ports: [{number: 80, protocol: http, name: http-conflict}, {number: 8080, protocol: http, name: http-conflict}], resolution: NONE", BAD, "spec.ports[1].name: 'http-conflict' is defined twice"},
	{"repeat target port", G ", resolution: DNS, ports: [{number: 80, protocol: http, name: http-valid1, targetPort: 80}, {number: 81, protocol: http, name: http-valid2, targetPort: 80}]", GOOD, NULL},
	{"DNS, label tlsMode: istio", WG ", " P2 ", endpoints: [" ISTIO ", " ISTIO2 "], resolution: DNS", GOOD, NULL},
	{"selector and endpoints", G ", workloadSelector: {labels: {foo: bar}}, " P1 ", endpoints: [{address: 1.1.1.1}]", BAD, "spec.endpoints: must not be given together with workloadSelector"},
	{"DNS, IP address set", WG ", addresses: [10.10.10.10], " P2 ", " LON_IN ", resolution: DNS", GOOD, NULL},
	{"bad hosts", "hosts: ['-'], " P1 ", endpoints: [" EP("in.google.com", "http-valid1: 9080") "], resolution: DNS", BAD, "spec.hosts[0]: '-' is no host name"},
};

/* TestValidateWorkloadEntry, as endpoints. */
static const struct spec_case endpoint_cases[] = {
	{"valid unix endpoint", G ", " P1 ", resolution: DNS, endpoints: [{address: 'unix:///lon/google/com'}]", BAD, "is a unix socket"},
	{"valid IP", G ", ports: [{number: 80, protocol: HTTP, name: '7777'}], resolution: STATIC, endpoints: [" EP("172.16.1.1", "7777: 7777") "]", GOOD, NULL},
	{"valid FQDN", G ", ports: [{number: 80, protocol: HTTP, name: '7777'}], resolution: DNS, endpoints: [" EP("validdns.com", "7777: 7777") "]", GOOD, NULL},
	/* Istio goes through the gateway of that network; there is none here. */
	{"missing address with network", G ", " P1 ", resolution: STATIC, endpoints: [{network: network-2}]", BAD, "spec.endpoints[0].address: is missing"},
	{"missing address", G ", " P1 ", resolution: STATIC, endpoints: [{}]", BAD, "spec.endpoints[0].address: is missing"},
	{"all fields", G ", " P1 ", resolution: STATIC, endpoints: [{address: '2001:db8::1', ports: {http-valid1: 1}, labels: {a: b}, network: net, locality: a/b/c, weight: 7, serviceAccount: sa}]", GOOD, NULL},
	{"unknown field", G ", " P1 ", resolution: STATIC, endpoints: [{address: 1.1.1.1, wieght: 7}]", BAD, "spec.endpoints[0].wieght: no such field; there are: address, ports"},
	{"weight", G ", " P1 ", resolution: STATIC, endpoints: [{address: 1.1.1.1, weight: -1}]", BAD, "spec.endpoints[0].weight: must be 0 to 4294967295, not -1"},
	{"label no string", G ", " P1 ", resolution: STATIC, endpoints: [{address: 1.1.1.1, labels: {a: 1}}]", BAD, "spec.endpoints[0].labels.a: must be a string, not a number: put it in quotes"},
	{"zone in the address", G ", " P1 ", resolution: STATIC, endpoints: [{address: 'fe80::1%eth0'}]", BAD, "spec.endpoints[0].address"},
};

/* Test_validateExportTo; the object lives in ns5. Rows that are about DestinationRules are not. */
static const struct spec_case export_cases[] = {
	{"bunch of namespaces", OWN_HOSTS("a.com") ", exportTo: [ns1, ns2, ns5]", GOOD, NULL},
	{"* and ns1 together", OWN_HOSTS("a.com") ", exportTo: ['*', ns1]", BAD, "spec.exportTo[0]: '*' stands alone"},
	{". and same namespace", OWN_HOSTS("a.com") ", exportTo: [., ns5]", BAD, "spec.exportTo[1]: 'ns5' is a duplicate"},
	{"same namespace and .", OWN_HOSTS("a.com") ", exportTo: [ns5, .]", BAD, "spec.exportTo[1]: 'ns5' is a duplicate"},
	{"~ and ns1", OWN_HOSTS("a.com") ", exportTo: ['~', ns1]", BAD, "spec.exportTo[0]: '~' stands alone"},
	{"~ twice", OWN_HOSTS("a.com") ", exportTo: ['~', '~', ns1]", BAD, "spec.exportTo[0]: '~' stands alone"},
	{"invalid namespace name", OWN_HOSTS("a.com") ", exportTo: [ns1_]", BAD, "spec.exportTo[0]: 'ns1_' is none of *, ., ~"},
	{"~ alone", OWN_HOSTS("a.com") ", exportTo: ['~']", GOOD, NULL},
	{"* alone", OWN_HOSTS("a.com") ", exportTo: ['*']", GOOD, NULL},
	{". alone", OWN_HOSTS("a.com") ", exportTo: [.]", GOOD, NULL},
	{"none", OWN_HOSTS("a.com") ", exportTo: []", GOOD, NULL},
	{"empty", OWN_HOSTS("a.com") ", exportTo: ['']", BAD, "spec.exportTo[0]: ''"},
	{"no list", OWN_HOSTS("a.com") ", exportTo: ns1", BAD, "spec.exportTo: must be a list, not a string"},
	{"YAML's null is not ~", OWN_HOSTS("a.com") ", exportTo: [~]", BAD, "spec.exportTo[0]: must be a string, not null"},
};

/* TestValidatePortName, TestValidatePort and what else one field alone must be. */
static const struct spec_case field_cases[] = {
	{"port name empty", G ", ports: [{number: 80, protocol: HTTP, name: ''}]", BAD, "spec.ports[0].name: '' must be 1 to 63"},
	{"port name missing", G ", ports: [{number: 80, protocol: HTTP}]", BAD, "spec.ports[0].name: is missing"},
	{"port name full", G ", ports: [{number: 80, protocol: HTTP, name: full}]", GOOD, NULL},
	{"port name simple", G ", ports: [{number: 80, protocol: HTTP, name: simple}]", GOOD, NULL},
	{"port name too long", G ", ports: [{number: 80, protocol: HTTP, name: x" X63 "}]", BAD, "must be 1 to 63"},
	{"port name underscore", G ", ports: [{number: 80, protocol: HTTP, name: a_b}]", BAD, "'a_b' must be 1 to 63 letters"},
	{"port name bool", G ", ports: [{number: 80, protocol: HTTP, name: on}]", BAD, "spec.ports[0].name: must be a string, not a boolean: put it in quotes"},
	{"port number missing", G ", ports: [{name: a, protocol: HTTP}]", BAD, "spec.ports[0].number: is missing"},
	{"port 0", G ", ports: [{number: 0, protocol: HTTP, name: a}]", BAD, "spec.ports[0].number: must be 1 to 65535, not 0"},
	{"port 70000", G ", ports: [" HTTP1 ", {number: 70000, protocol: HTTP, name: a}]", BAD, "spec.ports[1].number: must be 1 to 65535, not 70000"},
	{"port negative", G ", ports: [{number: -1, protocol: HTTP, name: a}]", BAD, "must be 1 to 65535, not -1"},
	{"port 65535", G ", ports: [{number: 65535, protocol: HTTP, name: a}]", GOOD, NULL},
	{"port octal", G ", ports: [{number: 0443, protocol: HTTP, name: a}]", BAD, "spec.ports[0].number: must be a whole decimal number, not 0443"},
	{"port float", G ", ports: [{number: 80.0, protocol: HTTP, name: a}]", BAD, "must be a whole decimal number"},
	{"port string", G ", ports: [{number: '80', protocol: HTTP, name: a}]", BAD, "must be a number from 1 to 65535, not a string"},
	{"port huge", G ", ports: [{number: 99999999999999999999, protocol: HTTP, name: a}]", BAD, "must be 1 to 65535"},
	{"targetPort huge", G ", ports: [{number: 80, protocol: HTTP, name: a, targetPort: 65536}]", BAD, "spec.ports[0].targetPort: must be 0 to 65535, not 65536"},
	{"targetPort 0", G ", resolution: DNS, ports: [{number: 80, protocol: HTTP, name: a, targetPort: 0}]", GOOD, NULL},
	{"unknown protocol", G ", ports: [{number: 80, protocol: SCTP, name: a}]", BAD, "spec.ports[0].protocol: 'SCTP' is none of HTTP"},
	{"UDP", G ", ports: [{number: 53, protocol: UDP, name: a}]", WARNED, "spec.ports[0].protocol: UDP is not carried"},
	{"MONGO without address", G ", ports: [{number: 27017, protocol: MONGO, name: a}]", WARNED, "names no host, so this port matches nothing"},
	{"TCP with address", G ", addresses: [192.0.2.1], ports: [{number: 5432, protocol: TCP, name: a}]", GOOD, NULL},
	{"unknown field of a port", G ", ports: [{number: 80, nmae: a}]", BAD, "spec.ports[0].nmae: no such field; there are: number, protocol, name, targetPort"},
	{"ports no list", G ", ports: {number: 80}", BAD, "spec.ports: must be a list, not a map"},
	{"no ports", G ", resolution: DNS", WARNED, "spec.ports: is missing: this entry matches nothing"},
	{"resolution lower case", G ", " P1 ", resolution: dns", BAD, "spec.resolution: 'dns' is none of NONE, STATIC, DNS, DNS_ROUND_ROBIN, DYNAMIC_DNS"},
	{"resolution null", G ", " P1 ", resolution: null", GOOD, NULL},
	{"location", G ", " P1 ", location: OUTSIDE", BAD, "spec.location: 'OUTSIDE' is none of MESH_EXTERNAL, MESH_INTERNAL"},
	{"unknown field", G ", " P1 ", host: a.com", BAD, "spec.host: no such field; there are: hosts,"},
	{"address", G ", " P1 ", addresses: [a.com]", BAD, "spec.addresses[0]: 'a.com' is neither an IP address nor a network"},
	{"address prefix", G ", " P1 ", addresses: [10.0.0.0/33]", BAD, "spec.addresses[0]"},
	{"address as number", G ", " P1 ", addresses: [1.5]", BAD, "spec.addresses[0]: must be a string, not a number"},
	{"all addresses", G ", addresses: [0.0.0.0/0], ports: [" TCP81 "]", WARNED, "spec.addresses[0]: registers every address"},
	{"all v6 addresses", G ", addresses: ['::/0'], ports: [" TCP81 "]", WARNED, "spec.addresses[0]: registers every address"},
	{"network with DNS", G ", addresses: [10.0.0.0/8], " P1 ", resolution: DNS", BAD, "spec.addresses[0]: networks are for resolution NONE and STATIC only"},
	{"address with DYNAMIC_DNS", WG ", addresses: [10.0.0.1], " P1 ", resolution: DYNAMIC_DNS", BAD, "spec.addresses: must not be given with resolution DYNAMIC_DNS"},
	{"HTTPS with DYNAMIC_DNS", WG ", ports: [" HTTPS443 "], resolution: DYNAMIC_DNS", BAD, "must be HTTP, HTTP2, GRPC or TLS"},
	{"no protocol with DYNAMIC_DNS", WG ", ports: [{number: 80, name: a}], resolution: DYNAMIC_DNS", BAD, "must be HTTP, HTTP2, GRPC or TLS"},
	{"TLS, GRPC, HTTP2 with DYNAMIC_DNS", WG ", ports: [{number: 1, name: a, protocol: TLS}, {number: 2, name: b, protocol: GRPC}, {number: 3, name: c, protocol: HTTP2}], resolution: DYNAMIC_DNS", GOOD, NULL},
	{"hosts that TCP cannot tell apart", "hosts: [a.com, b.com], addresses: [192.0.2.1], ports: [" TCP81 "], resolution: DNS", BAD, "spec.ports[0]: is neither HTTP nor TLS, so the 2 hosts"},
	{"the same without protocol", "hosts: [a.com, b.com], addresses: [192.0.2.1], ports: [{number: 1, name: a}], resolution: DNS", BAD, "spec.ports[0]: is neither HTTP nor TLS"},
	{"the same with NONE", "hosts: [a.com, b.com], addresses: [192.0.2.1], ports: [" TCP81 "], resolution: NONE", GOOD, NULL},
	{"wildcard round robin without endpoints", WG ", " P1 ", resolution: DNS_ROUND_ROBIN", BAD, "which resolution DNS_ROUND_ROBIN needs"},
	{"selector field", G ", " P1 ", workloadSelector: {matchLabels: {}}", BAD, "spec.workloadSelector.matchLabels: no such field"},
	{"subjectAltNames", G ", " P1 ", subjectAltNames: [spiffe://a/b]", WARNED, "spec.subjectAltNames: has no effect"},
	{"subjectAltNames no list", G ", " P1 ", subjectAltNames: x", BAD, "spec.subjectAltNames: must be a list"},
	{"hosts no list", "hosts: a.com, " P1, BAD, "spec.hosts: must be a list, not a string"},
	{"hosts empty", "hosts: [], " P1, BAD, "spec.hosts: is missing"},
	{"hosts null", "hosts: , " P1, BAD, "spec.hosts: is missing"},
	{"host number", "hosts: [1.5], " P1, BAD, "spec.hosts[0]: must be a string, not a number"},
	{"host null", "hosts: [null], " P1, BAD, "spec.hosts[0]: must be a string, not null"},
};
/* clang-format on */

static void decode_spec(struct decoded *d, const char *spec)
{
	char text[4096];
	int n = snprintf(text, sizeof(text),
			 "apiVersion: networking.istio.io/v1\nkind: ServiceEntry\n"
			 "metadata: {name: x, namespace: ns5}\nspec: {%s}\n",
			 spec);

	assert_in_range(n, 1, (int)sizeof(text) - 1);
	decode_text(d, "f.yaml", span_of(text), TEXT_YAML, 1);
}

static bool list_has(const struct report_list *list, const char *text)
{
	for (size_t i = 0; i < REPORT_KEPT; i++) {
		if (list->text[i] && strstr(list->text[i], text))
			return true;
	}
	return false;
}

static void check_spec(const struct spec_case *c)
{
	OWNED(decoded_done) struct decoded d = {0};
	const struct report_list *list = c->want == BAD ? &d.report.errors : &d.report.warnings;
	size_t errors, warnings;

	decode_spec(&d, c->spec);
	errors = d.report.errors.n;
	warnings = d.report.warnings.n;
	if ((errors > 0) != (c->want == BAD) || (c->want == GOOD && warnings > 0) ||
	    (c->want == WARNED && warnings == 0) || d.n != (c->want == BAD ? 0 : 1) ||
	    (c->text && !list_has(list, c->text)))
		fail_msg("%s: want %d '%s'; %zu errors, %zu warnings, %zu entries: %s; %s", c->name,
			 c->want, c->text ? c->text : "", errors, warnings, d.n,
			 errors > 0 ? d.report.errors.text[0] : "",
			 warnings > 0 ? d.report.warnings.text[0] : "");
	if (c->text && !list_has(list, "f.yaml:4: ServiceEntry ns5/x: spec."))
		fail_msg("%s: no place: %s", c->name, list->text[0]);
}

static void check_specs(const struct spec_case *cases, size_t n)
{
	for (size_t i = 0; i < n; i++)
		check_spec(&cases[i]);
}

static void test_specs(void **state)
{
	(void)state;
	check_specs(istio_cases, ARRAY_SIZE(istio_cases));
	check_specs(endpoint_cases, ARRAY_SIZE(endpoint_cases));
	check_specs(export_cases, ARRAY_SIZE(export_cases));
	check_specs(field_cases, ARRAY_SIZE(field_cases));
}

/* ---- names ---- */

static void test_hostnames(void **state)
{
	static const struct {
		const char *text;
		enum hostname_kind kind;
		const char *want, *why; /* one of them */
	} cases[] = {
		{"istio.io", HOSTNAME_EXACT, "istio.io", NULL},
		{"istio.io.", HOSTNAME_EXACT, "istio.io", NULL},
		{"Istio.IO", HOSTNAME_EXACT, "istio.io", NULL},
		{"istio-pilot.istio-system.svc.cluster.local", HOSTNAME_EXACT,
		 "istio-pilot.istio-system.svc.cluster.local", NULL},
		{"istio-pilot.istio-system.svc.cluster.local.", HOSTNAME_EXACT,
		 "istio-pilot.istio-system.svc.cluster.local", NULL},
		{X63, HOSTNAME_EXACT, X63, NULL},
		{"xn--mnchen-3ya.de", HOSTNAME_EXACT, "xn--mnchen-3ya.de", NULL},
		{"0.pool.ntp.org", HOSTNAME_EXACT, "0.pool.ntp.org", NULL},
		{"*.bar.com", HOSTNAME_WILDCARD, "*.bar.com", NULL},
		{"*.BAR.com.", HOSTNAME_WILDCARD, "*.bar.com", NULL},
		{"*.com", HOSTNAME_WILDCARD, "*.com", NULL},
		{"", HOSTNAME_EXACT, NULL, "is empty"},
		{".", HOSTNAME_EXACT, NULL, "empty label"},
		{"a..b", HOSTNAME_EXACT, NULL, "empty label"},
		{".a", HOSTNAME_EXACT, NULL, "empty label"},
		{"a.com..", HOSTNAME_EXACT, NULL, "empty label"},
		{"x" X63, HOSTNAME_EXACT, NULL, "more than 63"},
		{X63 "." X63 "." X63 "." X63, HOSTNAME_EXACT, NULL, "longer than 253"},
		{"*", HOSTNAME_WILDCARD, NULL, "would match every host"},
		{"*.", HOSTNAME_WILDCARD, NULL, "would match every host"},
		{"*foo", HOSTNAME_WILDCARD, NULL, "whole first label"},
		{"*foo.bar.com", HOSTNAME_WILDCARD, NULL, "whole first label"},
		{"*-foo.bar.com", HOSTNAME_WILDCARD, NULL, "whole first label"},
		{"foo.*.com", HOSTNAME_WILDCARD, NULL, "whole first label"},
		{"foo*.bar.com", HOSTNAME_WILDCARD, NULL, "whole first label"},
		{"*.*.com", HOSTNAME_WILDCARD, NULL, "whole first label"},
		{"*.bar.com", HOSTNAME_EXACT, NULL, "without '*'"},
		{"1.1.1.1", HOSTNAME_EXACT, NULL, "is an IP address"},
		{"2001:db8::1", HOSTNAME_EXACT, NULL, "is an IP address"},
		{"foo.1", HOSTNAME_EXACT, NULL, "digits alone"},
		{"1.1.1.1.1", HOSTNAME_EXACT, NULL, "digits alone"},
		{"a_b.com", HOSTNAME_EXACT, NULL, "is no host name"},
		{"-a.com", HOSTNAME_EXACT, NULL, "is no host name"},
		{"a-.com", HOSTNAME_EXACT, NULL, "is no host name"},
		{"a b.com", HOSTNAME_EXACT, NULL, "is no host name"},
		{"m\xc3\xbcnchen.de", HOSTNAME_EXACT, NULL, "A-label form (xn--...)"},
		{"https://a.com", HOSTNAME_EXACT, NULL, "scheme, port and path"},
		{"a.com:443", HOSTNAME_EXACT, NULL, "scheme, port and path"},
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		char name[HOSTNAME_MAX + 1] = "";
		const char *why = hostname_check(cases[i].text, cases[i].kind, name);

		if (!why != !cases[i].why || (why && !strstr(why, cases[i].why)) ||
		    (!why && strcmp(name, cases[i].want) != 0))
			fail_msg("'%s': got '%s' %s", cases[i].text, name, why ? why : "");
	}
}

static void test_subdomains(void **state)
{
	static const struct {
		const char *text;
		bool good;
	} cases[] = {
		{"x", true},  {"a.b-c.1", true}, {"1.2.3.4", true}, {"", false},
		{"A", false}, {"a..b", false},   {".a", false},     {"a.", false},
		{"-", false}, {"a_b", false},    {"a/b", false},
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		if (hostname_is_subdomain(cases[i].text) != cases[i].good)
			fail_msg("'%s'", cases[i].text);
	}
}

/* ---- objects and texts ---- */

#define META "metadata: {name: x}\n"
#define SPEC                                                                                    \
	"spec: {hosts: [a.com], ports: [{number: 443, protocol: TLS, name: tls}], resolution: " \
	"DNS}\n"
#define ENTRY(version) "apiVersion: networking.istio.io/" version "\nkind: ServiceEntry\n"

struct text_case {
	const char *text;
	size_t n;          /* entries of a good text */
	const char *error; /* or what the first error begins with */
};

static void check_text(const struct text_case *c, enum text_format format)
{
	OWNED(decoded_done) struct decoded d = {0};

	decode_text(&d, "f", span_of(c->text), format, 1);
	if (!c->error && (d.report.errors.n > 0 || d.n != c->n))
		fail_msg("%s\n%zu entries, %s", c->text, d.n,
			 d.report.errors.n > 0 ? d.report.errors.text[0] : "");
	if (c->error && (d.report.errors.n == 0 ||
			 strncmp(d.report.errors.text[0], c->error, strlen(c->error)) != 0))
		fail_msg("%s\nwant '%s', got '%s'", c->text, c->error,
			 d.report.errors.n > 0 ? d.report.errors.text[0] : "");
}

static void test_objects(void **state)
{
	static const struct text_case cases[] = {
		{ENTRY("v1") META SPEC, 1, NULL},
		{ENTRY("v1beta1") META SPEC, 1, NULL},
		{ENTRY("v1alpha3") META SPEC, 1, NULL},
		{ENTRY("v1alpha1") META SPEC, 0, "f:1: kind 'ServiceEntry' of apiVersion"},
		{ENTRY("v2") META SPEC, 0, "f:1: kind 'ServiceEntry' of apiVersion"},
		{"", 0, NULL},
		{"---\n---\n# nothing\n---\n", 0, NULL},
		{ENTRY("v1") META SPEC "---\n" ENTRY("v1") META SPEC "---\n", 2, NULL},
		{ENTRY("v1") META SPEC "status: {conditions: [{type: x}]}\n", 1, NULL},
		{ENTRY("v1") META SPEC "spce: {}\n", 0,
		 "f:5: ServiceEntry default/x: spce: no such field; there are: apiVersion, kind"},
		{ENTRY("v1") META, 0, "f:1: ServiceEntry default/x: spec: is missing"},
		{ENTRY("v1") META "spec:\n", 0, "f:4: ServiceEntry default/x: spec: is missing"},
		{ENTRY("v1") META "spec: []\n", 0,
		 "f:4: ServiceEntry default/x: spec: must be a map"},
		{ENTRY("v1") SPEC, 0, "f:1: ServiceEntry default/?: metadata: is missing"},
		{ENTRY("v1") "metadata: x\n" SPEC, 0,
		 "f:3: ServiceEntry default/?: metadata: must be"},
		{ENTRY("v1") "metadata: {namespace: a}\n" SPEC, 0,
		 "f:3: ServiceEntry a/?: metadata.name: is missing"},
		{ENTRY("v1") "metadata: {name: A}\n" SPEC, 0,
		 "f:3: ServiceEntry default/A: metadata.name: 'A' is no name of an object"},
		{ENTRY("v1") "metadata: {name: 1}\n" SPEC, 0,
		 "f:3: ServiceEntry default/?: metadata.name: must be a string, not a number"},
		{ENTRY("v1") "metadata: {name: x, namespace: a.b}\n" SPEC, 0,
		 "f:3: ServiceEntry a.b/x: metadata.namespace: 'a.b' is no name of a namespace"},
		{ENTRY("v1") "metadata: {name: x, uid: y, managedFields: [{a: 1}], labels: {a: b}, "
			     "annotations: {c: d}, creationTimestamp: null, generation: 3}\n" SPEC,
		 1, NULL},
		{ENTRY("v1") "metadata: {name: x, labels: {a: 1}}\n" SPEC, 0,
		 "f:3: ServiceEntry default/x: metadata.labels.a: must be a string"},
		{ENTRY("v1") "metadata: {name: x, annotations: []}\n" SPEC, 0,
		 "f:3: ServiceEntry default/x: metadata.annotations: must be a map"},
		{ENTRY("v1") "metadata: {name: x, creationTimestamp: yesterday}\n" SPEC, 0,
		 "f:3: ServiceEntry default/x: metadata.creationTimestamp: 'yesterday' is no time"},
		/* lists */
		{"apiVersion: v1\nkind: List\nitems:\n- {apiVersion: networking.istio.io/v1, kind: "
		 "ServiceEntry, " META "  ," SPEC "  }\n",
		 1, NULL},
		{"apiVersion: v1\nkind: List\nitems: []\n", 0, NULL},
		{"apiVersion: v1\nkind: List\nmetadata: {resourceVersion: ''}\nitems:\n", 0, NULL},
		{"apiVersion: v1\nkind: List\nitem: []\n", 0, "f:3: List: item: no such field"},
		{"apiVersion: v1\nkind: List\nitems: {}\n", 0, "f:3: List: items: must be a list"},
		{"apiVersion: v1\nkind: List\nitems: [1]\n", 0, "f:3: must be an object with"},
		{"apiVersion: v1\nkind: List\nitems: [{" META "}]\n", 0,
		 "f:3: apiVersion is missing"},
		{"apiVersion: v2\nkind: List\nitems: []\n", 0,
		 "f:1: kind 'List' of apiVersion 'v2'"},
		{"apiVersion: networking.istio.io/v1\nkind: ServiceEntryList\nitems:\n- {" META
		 "  ," SPEC "  }\n",
		 1, NULL},
		{"apiVersion: v1\nkind: List\nitems:\n- {apiVersion: v1, kind: List, items: "
		 "[{apiVersion: networking.istio.io/v1beta1, kind: ServiceEntry, " META "  ," SPEC
		 "  }]}\n",
		 1, NULL},
		/* others */
		{"apiVersion: v1\nkind: ConfigMap\n", 0,
		 "f:1: kind 'ConfigMap' of apiVersion 'v1'"},
		{"kind: ServiceEntry\n", 0, "f:1: apiVersion is missing"},
		{"apiVersion: networking.istio.io/v1\n", 0, "f:1: kind is missing"},
		{"hello\n", 0, "f:1: must be an object with apiVersion and kind, not a string"},
		{"- a\n", 0, "f:1: must be an object"},
		{"\n\na: [\n", 0, "f:4: not valid YAML"},
		{ENTRY("v1") META SPEC "---\na: b: c\n", 0, "f:6: not valid YAML"},
		{ENTRY("v1") "kind: ServiceEntry\n", 0, "f:3: key 'kind' appears twice"},
		/* anchors, as people use them */
		{ENTRY("v1") META
		 "spec: &s {hosts: [a.com], ports: [&p {number: 443, protocol: TLS, "
		 "name: tls}], resolution: DNS}\n---\n" ENTRY("v1") META SPEC,
		 2, NULL},
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++)
		check_text(&cases[i], TEXT_YAML);
}

#define J_META "\"metadata\": {\"name\": \"x\"}"
#define J_SPEC                                                                                  \
	"\"spec\": {\"hosts\": [\"a.com\"],\n\"ports\": [{\"number\": 443, \"name\": \"tls\", " \
	"\"protocol\": \"TLS\"}]}"
#define J_ENTRY                                                                             \
	"{\"apiVersion\": \"networking.istio.io/v1\", \"kind\": \"ServiceEntry\",\n" J_META \
	",\n" J_SPEC "}"

static void test_json_objects(void **state)
{
	static const struct text_case cases[] = {
		{J_ENTRY, 1, NULL},
		{"{\"apiVersion\": \"v1\", \"kind\": \"List\", \"items\": [" J_ENTRY ",\n" J_ENTRY
		 "]}",
		 2, NULL},
		{"{\"apiVersion\": \"networking.istio.io/v1\", \"kind\": \"ServiceEntryList\", "
		 "\"items\": [{" J_META "," J_SPEC "}]}",
		 1, NULL},
		{"", 0, "f:1: not valid JSON"},
		{"{}\n{}", 0, "f:2: not valid JSON: end of file expected"},
		{"null", 0, "f:1: must be an object"},
		{ENTRY("v1") META SPEC, 0, "f:1: not valid JSON"},
		{"{\"apiVersion\": \"networking.istio.io/v1\", \"kind\": \"ServiceEntry\",\n" J_META
		 ",\n\"spec\":\n{\"hosts\":\n[\"*\"],\n\"ports\": [{\"number\": 70000, \"name\": "
		 "\"tls\"}]}}",
		 0, "f:5: ServiceEntry default/x: spec.hosts[0]: '*' would match every host"},
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++)
		check_text(&cases[i], TEXT_JSON);
}

static void test_lines(void **state)
{
	static const char text[] = "# one\n"
				   "---\n"
				   "apiVersion: networking.istio.io/v1\n"
				   "kind: ServiceEntry\n"
				   "metadata:\n"
				   "  name: shop\n"
				   "  namespace: web\n"
				   "spec:\n"
				   "  hosts:\n"
				   "  - good.example.com\n"
				   "  - bad_example.com\n"
				   "  ports:\n"
				   "  - number: 443\n"
				   "    name: tls\n"
				   "    protocol: TLS\n"
				   "  - number: 70000\n"
				   "    name: other\n"
				   "    color: red\n"
				   "  resolution: STATIC\n";
	static const char *const want[] = {
		"f.yaml:11: ServiceEntry web/shop: spec.hosts[1]: 'bad_example.com' is no host "
		"name: "
		"labels are letters, digits and '-', and do not begin or end with '-'",
		"f.yaml:16: ServiceEntry web/shop: spec.ports[1].number: must be 1 to 65535, not "
		"70000",
		"f.yaml:18: ServiceEntry web/shop: spec.ports[1].color: no such field; there are: "
		"number, protocol, name, targetPort",
	};
	OWNED(decoded_done) struct decoded d = {0};

	(void)state;
	decode_text(&d, "f.yaml", span_of(text), TEXT_YAML, 1);
	assert_int_equal(d.report.errors.n, ARRAY_SIZE(want));
	for (size_t i = 0; i < ARRAY_SIZE(want); i++)
		assert_string_equal(d.report.errors.text[i], want[i]);
	assert_int_equal(d.n, 0);
}

/* Known kinds are read past, each noted once, whatever they hold. */
static void test_skipped(void **state)
{
	static const struct {
		const char *version;
		enum skipped kind;
	} cases[] = {
		{"networking.istio.io/v1", SKIPPED_GATEWAY},
		{"networking.istio.io/v1alpha3", SKIPPED_VIRTUAL_SERVICE},
		{"networking.istio.io/v1beta1", SKIPPED_DESTINATION_RULE},
		{"networking.istio.io/v1", SKIPPED_SIDECAR},
		{"networking.istio.io/v1alpha3", SKIPPED_ENVOY_FILTER},
		{"networking.istio.io/v1", SKIPPED_WORKLOAD_ENTRY},
		{"networking.istio.io/v1", SKIPPED_WORKLOAD_GROUP},
		{"networking.istio.io/v1beta1", SKIPPED_PROXY_CONFIG},
		{"security.istio.io/v1", SKIPPED_AUTHORIZATION_POLICY},
		{"security.istio.io/v1beta1", SKIPPED_PEER_AUTHENTICATION},
		{"security.istio.io/v1", SKIPPED_REQUEST_AUTHENTICATION},
		{"telemetry.istio.io/v1alpha1", SKIPPED_TELEMETRY},
		{"extensions.istio.io/v1alpha1", SKIPPED_WASM_PLUGIN},
	};

	(void)state;
	_Static_assert(ARRAY_SIZE(cases) == SKIPPED_N_, "every kind has its line");
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		OWNED(decoded_done) struct decoded d = {0};
		char text[512];

		snprintf(text, sizeof(text),
			 "---\napiVersion: %s\nkind: %s\nspec: {any: [thing]}\n---\n"
			 "apiVersion: %s\nkind: %s\n",
			 cases[i].version, skipped_str(cases[i].kind), cases[i].version,
			 skipped_str(cases[i].kind));
		decode_text(&d, "f", span_of(text), TEXT_YAML, 1);
		assert_int_equal(d.report.errors.n, 0);
		assert_int_equal(d.n, 0);
		for (size_t k = 0; k < SKIPPED_N_; k++)
			assert_int_equal(d.skipped[k], k == cases[i].kind ? 2 : 0);
	}
}

/* More than REPORT_KEPT errors are counted, not kept. */
static void test_many_errors(void **state)
{
	OWNED(decoded_done) struct decoded d = {0};
	char text[4096] = "";

	(void)state;
	strcat(text, "ports: [");
	for (int i = 0; i < 30; i++)
		strcat(text, "{number: 0, name: a}, ");
	strcat(text, "]");
	decode_spec(&d, text);
	assert_int_equal(d.report.errors.n, 30);
	assert_non_null(d.report.errors.text[REPORT_KEPT - 1]);
	assert_int_equal(report_result(&d.report), -EINVAL);
}

static void print_list(FILE *f, const char *name, size_t n, const char *format)
{
	fprintf(f, "%s: [", name);
	for (size_t i = 0; i < n; i++)
		fprintf(f, format, i + 1, i + 1);
	fprintf(f, "]\n");
}

/* What is a short text may be much for the registry. */
static void test_size(void **state)
{
	static const struct {
		size_t hosts, addresses, ports, exports, endpoints;
		bool good;
	} cases[] = {
		{256, 0, 64, 0, 0, true},  {257, 0, 64, 0, 0, false},   {128, 128, 64, 0, 0, true},
		{1, 0, 1024, 0, 0, true},  {128, 129, 64, 0, 0, false}, {1, 0, 4, 0, 4095, true},
		{1, 0, 4, 0, 4096, false}, {16, 0, 1, 1024, 0, true},   {17, 0, 1, 1024, 0, false},
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		OWNED(decoded_done) struct decoded d = {0};
		OWNED_MEM char *text = NULL;
		size_t len;
		FILE *f = open_memstream(&text, &len);

		fputs("apiVersion: networking.istio.io/v1\nkind: ServiceEntry\n"
		      "metadata: {name: x, namespace: ns5}\nspec:\n",
		      f);
		print_list(f, "  hosts", cases[i].hosts, "h%zu.io, ");
		print_list(f, "  addresses", cases[i].addresses, "'2001:db8::%zu', ");
		print_list(f, "  exportTo", cases[i].exports, "ns%zu, ");
		print_list(f, "  ports", cases[i].ports,
			   "{number: %zu, name: p%zu, protocol: TLS}, ");
		if (cases[i].endpoints > 0)
			print_list(f, "  resolution: DNS\n  endpoints", cases[i].endpoints,
				   "{address: e%zu.io}, ");
		fclose(f);
		decode_text(&d, "f.yaml", (struct span){(uint8_t *)text, len}, TEXT_YAML, 1);
		if ((d.n == 1) != cases[i].good)
			fail_msg("case %zu: %zu, %s", i, d.n, d.report.errors.text[0]);
		if (!cases[i].good)
			assert_true(list_has(&d.report.errors, "use several ServiceEntries"));
	}
}

/* ---- what comes out ---- */

static void test_entry(void **state)
{
	OWNED(decoded_done) struct decoded d = {0};
	const struct service_entry *e;
	struct cidr net;

	(void)state;
	decode_spec(
		&d,
		"hosts: [A.Example.COM., '*.b.com'], addresses: [192.0.2.7/24, '2001:db8::1'], "
		"ports: [{number: 443, name: tls, protocol: TLS, targetPort: 8443}, "
		"{number: 80, name: http, protocol: http}], resolution: STATIC, location: "
		"MESH_EXTERNAL, endpoints: [{address: 192.0.2.9, ports: {http: 8080}, weight: 3}, "
		"{address: '2001:db8::9'}], exportTo: [., web]");
	assert_int_equal(d.report.errors.n, 0);
	assert_int_equal(d.n, 1);
	e = d.entries;
	assert_string_equal(e->ns, "ns5");
	assert_string_equal(e->name, "x");
	assert_string_equal(e->source, "f.yaml:1");
	assert_true(e->created == INT64_MAX);
	assert_int_equal(e->n_hosts, 2);
	assert_string_equal(e->hosts[0], "a.example.com");
	assert_string_equal(e->hosts[1], "*.b.com");
	assert_int_equal(e->n_addresses, 2);
	assert_int_equal(cidr_parse("192.0.2.0/24", &net), 0);
	assert_memory_equal(&e->addresses[0], &net, sizeof(net));
	assert_int_equal(e->addresses[1].bits, 128);
	assert_int_equal(e->n_ports, 2);
	assert_int_equal(e->ports[0].number, 443);
	assert_int_equal(e->ports[0].target_port, 8443);
	assert_int_equal(e->ports[0].protocol, PROTOCOL_TLS);
	assert_string_equal(e->ports[1].name, "http");
	assert_int_equal(e->ports[1].protocol, PROTOCOL_HTTP);
	assert_int_equal(e->resolution, RESOLUTION_STATIC);
	assert_int_equal(e->n_endpoints, 2);
	assert_string_equal(e->endpoints[0].address, "192.0.2.9");
	assert_int_equal(e->endpoints[0].weight, 3);
	assert_int_equal(e->endpoints[0].ports[0], 0);
	assert_int_equal(e->endpoints[0].ports[1], 8080);
	assert_int_equal(e->endpoints[1].weight, 0);
	assert_int_equal(e->endpoints[1].ports[1], 0);
	assert_int_equal(e->n_export_to, 2);
	assert_string_equal(e->export_to[0], "ns5");
	assert_string_equal(e->export_to[1], "web");
}

/* What follows from several fields. */
static void test_settled(void **state)
{
	OWNED(decoded_done) struct decoded d = {0};

	(void)state;
	decode_spec(
		&d,
		"hosts: [a.com], ports: [{number: 80, name: a, protocol: HTTP, targetPort: 81}]");
	decode_spec(&d,
		    "hosts: [a.com], " P1 ", resolution: DNS, workloadSelector: {labels: {a: b}}");
	decode_spec(&d, "hosts: [a.com], " P1 ", exportTo: ['*']");
	decode_spec(&d, "hosts: [a.com], " P1 ", exportTo: ['~']");
	assert_int_equal(d.n, 4);
	assert_int_equal(d.entries[0].ports[0].target_port, 0);
	/* Registered, with nothing to connect to. */
	assert_int_equal(d.entries[1].resolution, RESOLUTION_STATIC);
	assert_int_equal(d.entries[1].n_endpoints, 0);
	assert_int_equal(d.entries[2].n_export_to, 0);
	assert_int_equal(d.entries[3].n_export_to, 1);
	assert_string_equal(d.entries[3].export_to[0], "~");
}

static void test_times(void **state)
{
	static const struct {
		const char *text;
		int64_t want; /* -1: an error */
	} cases[] = {
		{"2024-05-01T10:00:00Z", 1714557600},
		{"2024-05-01T12:00:00+02:00", 1714557600},
		{"2024-05-01T05:30:00.123456-04:30", 1714557600},
		{"1970-01-01T00:00:01Z", 1},
		{"2024-05-01", -1},
		{"2024-05-01T10:00:00", -1},
		{"2024-05-01T10:00:00.Z", -1},
		{"2024-05-01T10:00:00+2:00", -1},
		{"2024-05-01T10:00:00+02:0x", -1},
		{"2024-05-01T10:00:00 02:00", -1},
		{"2024-05-01T10:00:00+24:00", -1},
		{"2024-05-01T10:00:00Zz", -1},
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		OWNED(decoded_done) struct decoded d = {0};
		char text[512];

		snprintf(text, sizeof(text),
			 ENTRY("v1") "metadata: {name: x, creationTimestamp: '%s'}\n" SPEC,
			 cases[i].text);
		decode_text(&d, "f", span_of(text), TEXT_YAML, 1);
		if (d.n != (cases[i].want < 0 ? 0 : 1) ||
		    (d.n == 1 && d.entries[0].created != cases[i].want))
			fail_msg("%s: %zu entries", cases[i].text, d.n);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_specs),        cmocka_unit_test(test_hostnames),
		cmocka_unit_test(test_subdomains),   cmocka_unit_test(test_objects),
		cmocka_unit_test(test_json_objects), cmocka_unit_test(test_lines),
		cmocka_unit_test(test_skipped),      cmocka_unit_test(test_many_errors),
		cmocka_unit_test(test_entry),        cmocka_unit_test(test_settled),
		cmocka_unit_test(test_times),        cmocka_unit_test(test_size),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
