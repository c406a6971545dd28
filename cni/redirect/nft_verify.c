/* SPDX-License-Identifier: Apache-2.0 */
#include "redirect/nft_netlink.h"

#include <errno.h>
#include <libnftnl/common.h>
#include <linux/netfilter.h>
#include <linux/netfilter/nf_tables.h>
#include <linux/netlink.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "base/log.h"
#include "base/owned.h"

#define DUMP_BUFFER (64U << 10)
#define DUMP_TRIES  5

void nft_socket_close(struct mnl_socket **nl)
{
	if (*nl)
		mnl_socket_close(*nl);
}

int nft_socket_open(struct mnl_socket **ret)
{
	struct mnl_socket *nl = mnl_socket_open2(NETLINK_NETFILTER, SOCK_CLOEXEC);

	if (!nl)
		return -errno;
	if (mnl_socket_bind(nl, 0, MNL_SOCKET_AUTOPID) < 0) {
		int r = -errno;

		mnl_socket_close(nl);
		return r;
	}
	/* Without it a refusal brings the whole refused message back. */
	mnl_socket_setsockopt(nl, NETLINK_CAP_ACK, &(int){1}, sizeof(int));
	*ret = nl;
	return 0;
}

/* ---- asking the kernel ---- */

int nft_ask(struct mnl_socket *nl, const struct nft_question *question, mnl_cb_t on_object,
	    void *data)
{
	static uint32_t last_seq;
	uint32_t seq = __atomic_add_fetch(&last_seq, 1, __ATOMIC_RELAXED);
	OWNED_MEM char *buf = malloc(DUMP_BUFFER);
	struct nlmsghdr *h;
	int r;

	if (!buf)
		return -ENOMEM;
	h = nftnl_nlmsg_build_hdr(buf, question->type, question->family, NLM_F_DUMP, seq);
	/* NFTA_*_TABLE is 1 for all of them, what is within it 2: NFTA_SET_ELEM_LIST_SET too. */
	if (question->table && question->type != NFT_MSG_GETTABLE)
		mnl_attr_put_strz(h, NFTA_RULE_TABLE, question->table);
	if (question->within)
		mnl_attr_put_strz(h, NFTA_RULE_CHAIN, question->within);
	if (mnl_socket_sendto(nl, h, h->nlmsg_len) < 0)
		return -errno;
	do {
		ssize_t n = mnl_socket_recvfrom(nl, buf, DUMP_BUFFER);

		if (n < 0)
			return -errno;
		errno = 0;
		r = mnl_cb_run(buf, (size_t)n, seq, mnl_socket_get_portid(nl), on_object, data);
		if (r < 0)
			return errno ? -errno : -ENOMEM;
	} while (r > MNL_CB_STOP);
	return 0;
}

struct dump {
	const struct nft_steps *steps;
	bool part;         /* what the steps do not speak of is left out */
	const char *table; /* of the steps */
	uint16_t family;
	FILE *out; /* lines as nft_print_*() make them */
	char chain[NFT_NAME_MAXLEN];
	unsigned index; /* of the next rule in that chain */
};

static bool is_named(const struct nft_step *step, uint16_t type, const char *name)
{
	if (step->type != type)
		return false;
	return strcmp(step->chain ? nftnl_chain_get_str(step->chain, NFTNL_CHAIN_NAME)
				  : nftnl_set_get_str(step->set, NFTNL_SET_NAME),
		      name) == 0;
}

/* Do the steps make it? `type`: NFT_MSG_NEWCHAIN, NFT_MSG_NEWSET. */
static bool is_asked_for(const struct dump *d, uint16_t type, const char *name)
{
	if (!d->part)
		return true;
	for (size_t i = 0; i < d->steps->n; i++) {
		if (is_named(&d->steps->v[i], type, name))
			return true;
	}
	return false;
}

/* With the device that a chain of the netdev family stands at. */
static void print_chain(struct nftnl_chain *c, FILE *out)
{
	nft_print_chain(c, out);
	if (nftnl_chain_is_set(c, NFTNL_CHAIN_DEV))
		fprintf(out, "device %s %s\n", nftnl_chain_get_str(c, NFTNL_CHAIN_NAME),
			nftnl_chain_get_str(c, NFTNL_CHAIN_DEV));
}

static int on_table(const struct nlmsghdr *h, void *data)
{
	struct nftnl_table *t = nftnl_table_alloc();
	struct dump *d = data;

	if (!t)
		return MNL_CB_ERROR;
	if (nftnl_table_nlmsg_parse(h, t) == 0 &&
	    strcmp(nftnl_table_get_str(t, NFTNL_TABLE_NAME), d->table) == 0)
		nft_print_table(t, d->out);
	nftnl_table_free(t);
	return MNL_CB_OK;
}

static int on_chain(const struct nlmsghdr *h, void *data)
{
	struct nftnl_chain *c = nftnl_chain_alloc();
	struct dump *d = data;

	if (!c)
		return MNL_CB_ERROR;
	/* The kernel gives those of all tables, whatever it is asked. */
	if (nftnl_chain_nlmsg_parse(h, c) == 0 &&
	    strcmp(nftnl_chain_get_str(c, NFTNL_CHAIN_TABLE), d->table) == 0 &&
	    is_asked_for(d, NFT_MSG_NEWCHAIN, nftnl_chain_get_str(c, NFTNL_CHAIN_NAME)))
		print_chain(c, d->out);
	nftnl_chain_free(c);
	return MNL_CB_OK;
}

static int on_set(const struct nlmsghdr *h, void *data)
{
	struct nftnl_set *s = nftnl_set_alloc();
	struct dump *d = data;

	if (!s)
		return MNL_CB_ERROR;
	if (nftnl_set_nlmsg_parse(h, s) == 0 &&
	    strcmp(nftnl_set_get_str(s, NFTNL_SET_TABLE), d->table) == 0 &&
	    is_asked_for(d, NFT_MSG_NEWSET, nftnl_set_get_str(s, NFTNL_SET_NAME)))
		nft_print_set(s, d->out);
	nftnl_set_free(s);
	return MNL_CB_OK;
}

static int on_elems(const struct nlmsghdr *h, void *data)
{
	struct nftnl_set *s = nftnl_set_alloc();
	struct dump *d = data;

	if (!s)
		return MNL_CB_ERROR;
	if (nftnl_set_elems_nlmsg_parse(h, s) == 0)
		nft_print_elems(s, d->out);
	nftnl_set_free(s);
	return MNL_CB_OK;
}

/* Rules of one chain come one after the other, in order. */
static int on_rule(const struct nlmsghdr *h, void *data)
{
	struct nftnl_rule *rule = nftnl_rule_alloc();
	struct dump *d = data;
	const char *chain;

	if (!rule)
		return MNL_CB_ERROR;
	if (nftnl_rule_nlmsg_parse(h, rule) == 0 &&
	    strcmp(nftnl_rule_get_str(rule, NFTNL_RULE_TABLE), d->table) == 0) {
		chain = nftnl_rule_get_str(rule, NFTNL_RULE_CHAIN);
		if (strcmp(chain, d->chain) != 0) {
			snprintf(d->chain, sizeof(d->chain), "%s", chain);
			d->index = 0;
		}
		nft_print_rule(rule, d->index++, d->out);
	}
	nftnl_rule_free(rule);
	return MNL_CB_OK;
}

static int dump_type(struct mnl_socket *nl, struct dump *d, uint16_t type, const char *within,
		     mnl_cb_t on_object)
{
	struct nft_question q = {d->family, type, d->table, within};

	return nft_ask(nl, &q, on_object, d);
}

static int dump_rules(struct mnl_socket *nl, struct dump *d)
{
	int r = 0;

	if (!d->part)
		return dump_type(nl, d, NFT_MSG_GETRULE, NULL, on_rule);
	for (size_t i = 0; i < d->steps->n && r == 0; i++) {
		const struct nft_step *s = &d->steps->v[i];

		if (s->type == NFT_MSG_NEWCHAIN)
			r = dump_type(nl, d, NFT_MSG_GETRULE,
				      nftnl_chain_get_str(s->chain, NFTNL_CHAIN_NAME), on_rule);
	}
	return r;
}

/* What rules put into a set comes and goes. */
static int dump_elems(struct mnl_socket *nl, struct dump *d)
{
	int r = 0;

	for (size_t i = 0; i < d->steps->n && r == 0; i++) {
		const struct nft_step *s = &d->steps->v[i];

		if (s->type == NFT_MSG_NEWSET &&
		    !(nftnl_set_get_u32(s->set, NFTNL_SET_FLAGS) & NFT_SET_EVAL))
			r = dump_type(nl, d, NFT_MSG_GETSETELEM,
				      nftnl_set_get_str(s->set, NFTNL_SET_NAME), on_elems);
	}
	return r;
}

static int dump_all(struct dump *d)
{
	OWNED(nft_socket_close) struct mnl_socket *nl = NULL;
	int r;

	d->chain[0] = '\0';
	r = nft_socket_open(&nl);
	if (r < 0)
		return r;
	r = dump_type(nl, d, NFT_MSG_GETTABLE, NULL, on_table);
	if (r == 0)
		r = dump_type(nl, d, NFT_MSG_GETCHAIN, NULL, on_chain);
	if (r == 0)
		r = dump_type(nl, d, NFT_MSG_GETSET, NULL, on_set);
	if (r == 0)
		r = dump_rules(nl, d);
	if (r == 0)
		r = dump_elems(nl, d);
	return r;
}

/* ---- comparing ---- */

static void print_step(const struct nft_step *step, FILE *out)
{
	if (step->type == NFT_MSG_NEWTABLE)
		nft_print_table(step->table, out);
	else if (step->type == NFT_MSG_NEWCHAIN)
		print_chain(step->chain, out);
	else if (step->type == NFT_MSG_NEWSETELEM)
		nft_print_elems(step->set, out);
	else if (step->type == NFT_MSG_NEWSET)
		nft_print_set(step->set, out);
}

void nft_print_result(const struct nft_steps *steps, FILE *out)
{
	const char *chain = "";
	unsigned index = 0;
	size_t first = 0;

	for (size_t i = 0; i < steps->n; i++) {
		if (steps->v[i].type == NFT_MSG_DELTABLE)
			first = i + 1;
	}
	for (size_t i = first; i < steps->n; i++) {
		struct nftnl_rule *rule = steps->v[i].rule;

		if (!rule) {
			print_step(&steps->v[i], out);
			continue;
		}
		if (strcmp(chain, nftnl_rule_get_str(rule, NFTNL_RULE_CHAIN)) != 0) {
			chain = nftnl_rule_get_str(rule, NFTNL_RULE_CHAIN);
			index = 0;
		}
		nft_print_rule(rule, index++, out);
	}
}

static int compare_lines(const void *a, const void *b)
{
	return strcmp(*(char *const *)a, *(char *const *)b);
}

/* Cuts `text` into its lines, in place, and sorts them. Returns how many; -ENOMEM. */
static int sort_lines(char *text, char ***ret)
{
	OWNED_MEM char **v = NULL;
	size_t n = 0, room = 1;
	char *save = NULL;

	for (const char *p = text; *p; p++)
		room += *p == '\n';
	v = calloc(room, sizeof(*v));
	if (!v)
		return -ENOMEM;
	for (char *l = strtok_r(text, "\n", &save); l && n < room; l = strtok_r(NULL, "\n", &save))
		v[n++] = l;
	qsort(v, n, sizeof(*v), compare_lines);
	*ret = TAKE_PTR(v);
	return (int)n;
}

/* The kernel lists chains, sets and elements in an order of its own; rules carry their place. */
static int compare_texts(char *want, char *have)
{
	OWNED_MEM char **w = NULL, **h = NULL;
	int n_want, n_have;

	n_want = sort_lines(want, &w);
	if (n_want < 0)
		return n_want;
	n_have = sort_lines(have, &h);
	if (n_have < 0)
		return n_have;
	for (int i = 0; i < n_want && i < n_have; i++) {
		if (strcmp(w[i], h[i]) != 0) {
			log_debug("nf_tables has \"%s\" where \"%s\" was planned", h[i], w[i]);
			return -ESTALE;
		}
	}
	if (n_want != n_have)
		log_debug("nf_tables has %d objects where %d were planned", n_have, n_want);
	return n_want == n_have ? 0 : -ESTALE;
}

/* Whatever `print` writes, malloc'ed. */
static int text_of(int (*print)(void *what, FILE *out), void *what, char **ret)
{
	OWNED_MEM char *text = NULL;
	size_t size = 0;
	FILE *out = open_memstream(&text, &size);
	int r;

	if (!out)
		return -ENOMEM;
	r = print(what, out);
	if (fclose(out) != 0 && r == 0)
		r = -ENOMEM;
	if (r < 0)
		return r;
	*ret = TAKE_PTR(text);
	return 0;
}

static int print_planned(void *what, FILE *out)
{
	const struct dump *d = what;

	nft_print_result(d->steps, out);
	return 0;
}

static int print_present(void *what, FILE *out)
{
	struct dump *d = what;

	d->out = out;
	return dump_all(d);
}

static int find_table(const struct nft_steps *steps, struct dump *ret)
{
	for (size_t i = 0; i < steps->n; i++) {
		struct nftnl_table *t = steps->v[i].table;

		if (!t)
			continue;
		ret->table = nftnl_table_get_str(t, NFTNL_TABLE_NAME);
		ret->family = (uint16_t)nftnl_table_get_u32(t, NFTNL_TABLE_FAMILY);
		return 0;
	}
	return -EINVAL;
}

static int verify(const struct nft_steps *steps, bool part)
{
	OWNED_MEM char *want = NULL, *have = NULL;
	struct dump d = {.steps = steps, .part = part};
	int r;

	r = find_table(steps, &d);
	if (r == 0)
		r = text_of(print_planned, &d, &want);
	if (r < 0)
		return r;
	for (int i = 0;; i++) {
		r = text_of(print_present, &d, &have);
		/* Interrupted: somebody changed rules meanwhile. */
		if (r != -EINTR || i + 1 == DUMP_TRIES)
			break;
	}
	if (r == -ENOENT)
		return -ESTALE; /* no such table, or no such set */
	if (r < 0)
		return r;
	return compare_texts(want, have);
}

int nft_verify(const struct nft_steps *steps)
{
	return verify(steps, false);
}

int nft_verify_part(const struct nft_steps *steps)
{
	return verify(steps, true);
}
