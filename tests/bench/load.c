/* SPDX-License-Identifier: Apache-2.0 */

/* Load for the bench, client and server in one program, one thread with one epoll each.
 *
 *   load serve ADDR:PORT
 *   load run ADDR:PORT --hello FILE [--head FILE] [--rounds N] [--up BYTES] [--down BYTES]
 *                      [--connections N] [--concurrency N] [--hold]
 *
 * A connection starts with the bytes of --head (sent first, for the proxy alone: a PROXY header),
 * the TLS ClientHello of --hello and a struct order. Then, `rounds` times, `up` bytes go to the
 * server and `down` bytes come back; the last eight of each message are a mark that is checked, as
 * is a sum over the hello. Bulk, round trips and new connections are all such orders. The client
 * prints "ready", starts at the first line on standard input and ends with a line of JSON; with
 * --hold it keeps every connection open after that, until its input ends.
 */
#include <fcntl.h>
#include <getopt.h>
#include <inttypes.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>

#include "base/addr.h"
#include "base/num.h"
#include "base/owned.h"

#define CHUNK       (256U << 10)
#define HEAD_MAX    8192 /* PROXY header, hello and order */
#define RECORD_HEAD 5    /* of a TLS record: type, version, length */
#define BATCH       256
#define ORDER_MAGIC UINT64_C(0x31686362656c7573)
#define MARK        UINT64_C(0x6b72616d666f6e65)

/* Both ends are one program on one machine, so host order will do. */
struct order {
	uint64_t magic;
	uint64_t hello_sum;
	uint64_t rounds;
	uint64_t up, down; /* bytes per round; 0, or at least a mark */
};

enum step {
	STEP_CONNECT, /* client only */
	STEP_HEAD,
	STEP_UP,
	STEP_DOWN,
	STEP_FINISH, /* the client has said FIN, or the server waits for it */
	STEP_OVER,
};

/* Client and server end have the same steps, but what one sends the other receives. */
struct end {
	int fd;
	bool client;
	enum step step;
	uint32_t polled;
	struct order order;
	uint64_t left;      /* bytes of the message in hand still to move */
	uint64_t last;      /* the newest eight bytes received */
	size_t head_len;    /* of what was read, or sent, of the head */
	struct end *next;   /* server: free list */
	uint8_t *head_read; /* server: until the order is whole */
};

struct options {
	struct sockaddr_storage sa;
	socklen_t sa_len;
	uint8_t head[HEAD_MAX];
	size_t head_len;
	uint64_t connections, concurrency;
	bool hold;
	struct order order;
};

static uint8_t out[CHUNK]; /* ends in the mark: a message's last bytes are sent from its end */
static uint8_t in[CHUNK];
static int epfd = -1;

static uint64_t sum_of(const uint8_t *p, size_t n)
{
	uint64_t h = UINT64_C(0xcbf29ce484222325);

	for (size_t i = 0; i < n; i++)
		h = (h ^ p[i]) * UINT64_C(0x100000001b3);
	return h;
}

static int poll_for(struct end *e, uint32_t events)
{
	struct epoll_event ev = {.events = events, .data.ptr = e};
	int op = e->polled ? EPOLL_CTL_MOD : EPOLL_CTL_ADD;

	if (e->polled == events)
		return 0;
	if (epoll_ctl(epfd, op, e->fd, &ev) < 0)
		return -errno;
	e->polled = events;
	return 0;
}

/* Waiting is -EAGAIN, with the right event polled for. */
static int wait_for(struct end *e, uint32_t events)
{
	int r = poll_for(e, events);

	return r < 0 ? r : -EAGAIN;
}

static int send_some(struct end *e, const uint8_t *p, size_t n)
{
	ssize_t r = send(e->fd, p, n, MSG_NOSIGNAL);

	if (r < 0 && errno == EAGAIN)
		return wait_for(e, EPOLLOUT);
	return r < 0 ? -errno : (int)r;
}

/* 0 when the whole message is sent. */
static int send_message(struct end *e)
{
	while (e->left > 0) {
		bool final = e->left <= CHUNK;
		int r = send_some(e, final ? out + CHUNK - e->left : out, final ? e->left : CHUNK);

		if (r < 0)
			return r;
		e->left -= (uint64_t)r;
	}
	return 0;
}

static void remember_last(struct end *e, size_t n)
{
	uint8_t last[2 * sizeof(e->last)];
	size_t fresh = n < sizeof(e->last) ? n : sizeof(e->last);

	memcpy(last, &e->last, sizeof(e->last));
	memcpy(last + sizeof(e->last), in + n - fresh, fresh);
	memcpy(&e->last, last + fresh, sizeof(e->last));
}

/* 0 when the whole message is here and ends as it should. */
static int receive_message(struct end *e)
{
	while (e->left > 0) {
		bool looked_at = e->left <= 2 * CHUNK; /* the mark is in there, all of it */
		size_t want = e->left < CHUNK ? e->left : CHUNK;
		/* Bytes that nobody looks at need not be copied: the ends are to cost little, so
		 * that they do not hide what the middle costs.
		 */
		ssize_t r = recv(e->fd, in, want, looked_at ? 0 : MSG_TRUNC);

		if (r < 0 && errno == EAGAIN)
			return wait_for(e, EPOLLIN);
		if (r < 0)
			return -errno;
		if (r == 0)
			return -EPIPE;
		if (looked_at)
			remember_last(e, (size_t)r);
		e->left -= (uint64_t)r;
		/* A short read has emptied the socket: asking again would only cost a call. */
		if (e->left > 0 && (size_t)r < want)
			return wait_for(e, EPOLLIN);
	}
	return e->last == MARK ? 0 : -EBADMSG;
}

/* Whatever still comes is against the order; FIN is what is waited for. */
static int await_end(struct end *e)
{
	ssize_t r = recv(e->fd, in, CHUNK, 0);

	if (r < 0 && errno == EAGAIN)
		return wait_for(e, EPOLLIN);
	/* nginx closes both sides at the first FIN, which may come out as a reset. */
	if (r == 0 || (r < 0 && errno == ECONNRESET))
		return 0;
	return r < 0 ? -errno : -EBADMSG;
}

/* The next message that has bytes, or the end. */
static void next_message(struct end *e)
{
	e->step = e->step == STEP_UP ? STEP_DOWN : STEP_UP;
	if (e->step == STEP_UP && e->order.rounds-- == 0) {
		e->step = STEP_FINISH;
		return;
	}
	e->left = e->step == STEP_UP ? e->order.up : e->order.down;
}

static int check_order(const struct order *o)
{
	bool up_ok = o->up == 0 || o->up >= sizeof(uint64_t);
	bool down_ok = o->down == 0 || o->down >= sizeof(uint64_t);

	return o->magic == ORDER_MAGIC && up_ok && down_ok && o->rounds > 0 ? 0 : -EBADMSG;
}

/* Server: reads up to the end of the order and not a byte further. */
static int read_head(struct end *e)
{
	size_t want = RECORD_HEAD, hello;
	ssize_t r;

	for (;;) {
		if (e->head_len >= RECORD_HEAD) {
			hello = RECORD_HEAD + (size_t)(e->head_read[3] << 8 | e->head_read[4]);
			want = hello + sizeof(e->order);
			if (want > HEAD_MAX)
				return -EMSGSIZE;
			if (e->head_len == want)
				break;
		}
		r = recv(e->fd, e->head_read + e->head_len, want - e->head_len, 0);
		if (r < 0 && errno == EAGAIN)
			return wait_for(e, EPOLLIN);
		if (r <= 0)
			return r < 0 ? -errno : -EPIPE;
		e->head_len += (size_t)r;
	}
	memcpy(&e->order, e->head_read + hello, sizeof(e->order));
	if (sum_of(e->head_read, hello) != e->order.hello_sum)
		return -EBADMSG;
	free(e->head_read);
	e->head_read = NULL;
	return check_order(&e->order);
}

static int send_head(struct end *e, const struct options *o)
{
	while (e->head_len < o->head_len) {
		int r = send_some(e, o->head + e->head_len, o->head_len - e->head_len);

		if (r < 0)
			return r;
		e->head_len += (size_t)r;
	}
	return 0;
}

static int finish_connect(struct end *e)
{
	int err = 0;
	socklen_t len = sizeof(err);

	if (getsockopt(e->fd, SOL_SOCKET, SO_ERROR, &err, &len) < 0)
		return -errno;
	return -err;
}

/* A message that the other end has yet to make: there is nothing to read before the next event. */
static int next_step(struct end *e)
{
	bool receiving;

	do
		next_message(e);
	while (e->step != STEP_FINISH && e->left == 0);

	if (e->step == STEP_FINISH) {
		if (e->client && shutdown(e->fd, SHUT_WR) < 0)
			return -errno;
		return wait_for(e, EPOLLIN);
	}
	receiving = e->client ? e->step == STEP_DOWN : e->step == STEP_UP;
	return receiving ? wait_for(e, EPOLLIN) : 0;
}

static int do_step(struct end *e, const struct options *o)
{
	switch (e->step) {
	case STEP_CONNECT:
		return finish_connect(e);
	case STEP_HEAD:
		return e->client ? send_head(e, o) : read_head(e);
	case STEP_UP:
		return e->client ? send_message(e) : receive_message(e);
	case STEP_DOWN:
		return e->client ? receive_message(e) : send_message(e);
	case STEP_FINISH:
		return await_end(e);
	case STEP_OVER:
		break;
	}
	return 0;
}

static bool is_held(const struct end *e, const struct options *o)
{
	return o->hold && e->step == STEP_DOWN && e->order.rounds == 0;
}

/* Moves as far as it can. 0: the connection is over (or held); -EAGAIN: an event is awaited. */
static int end_step(struct end *e, const struct options *o)
{
	for (;;) {
		int r = do_step(e, o);

		if (r < 0)
			return r;
		if (e->step == STEP_FINISH || is_held(e, o)) {
			e->step = STEP_OVER;
			return 0;
		}
		if (e->step == STEP_CONNECT) {
			e->step = STEP_HEAD;
			continue;
		}
		if (e->step == STEP_HEAD)
			e->step = STEP_DOWN; /* what comes before the first message up */
		r = next_step(e);
		if (r < 0)
			return r;
	}
}

/* ---- server ---- */

static struct end *spare;
static const struct options serving; /* nothing of it is looked at */

static struct end *end_new(int fd)
{
	struct end *e = spare;

	if (e)
		spare = e->next;
	else
		e = malloc(sizeof(*e));
	if (!e)
		return NULL;
	*e = (struct end){.fd = fd, .step = STEP_HEAD, .head_read = malloc(HEAD_MAX)};
	return e;
}

static void end_free(struct end *e)
{
	close(e->fd);
	free(e->head_read);
	e->next = spare;
	spare = e;
}

static void serve_event(struct end *e)
{
	int r = end_step(e, &serving);

	if (r == -EAGAIN)
		return;
	/* A connection that ends before its head is a probe, and nobody's fault. */
	if (r < 0 && e->step != STEP_HEAD)
		fprintf(stderr, "load: server: %s\n", strerror(-r));
	end_free(e);
}

static int accept_all(int listener)
{
	for (;;) {
		struct end *e;
		int fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);

		if (fd < 0)
			return errno == EAGAIN || errno == ECONNABORTED ? 0 : -errno;
		setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &(int){1}, sizeof(int));
		e = end_new(fd);
		if (!e || !e->head_read || poll_for(e, EPOLLIN) < 0)
			return -ENOMEM;
	}
}

static int serve(const struct options *o)
{
	struct epoll_event ready[BATCH];
	struct end listener = {0};
	OWNED_FD int fd = socket(o->sa.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	int r;

	if (fd < 0)
		return -errno;
	setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &(int){1}, sizeof(int));
	if (bind(fd, (const struct sockaddr *)&o->sa, o->sa_len) < 0 || listen(fd, SOMAXCONN) < 0)
		return -errno;
	listener.fd = fd;
	r = poll_for(&listener, EPOLLIN);
	if (r < 0)
		return r;
	puts("ready");
	fflush(stdout);
	for (;;) {
		int n = epoll_wait(epfd, ready, BATCH, -1);

		if (n < 0 && errno != EINTR)
			return -errno;
		for (int i = 0; i < n; i++) {
			if (ready[i].data.ptr != &listener)
				serve_event(ready[i].data.ptr);
			else if ((r = accept_all(fd)) < 0)
				return r;
		}
	}
}

/* ---- client ---- */

static int start_one(struct end *e, const struct options *o)
{
	int fd = socket(o->sa.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);

	if (fd < 0)
		return -errno;
	*e = (struct end){.fd = fd, .client = true, .step = STEP_CONNECT, .order = o->order};
	setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &(int){1}, sizeof(int));
	if (connect(fd, (const struct sockaddr *)&o->sa, o->sa_len) < 0 && errno != EINPROGRESS)
		return -errno;
	return poll_for(e, EPOLLOUT);
}

struct progress {
	struct end *ends; /* with hold one for each connection, else one for each under way */
	uint64_t started, over;
};

/* Starts connections until `concurrency` are under way or all were started; `reuse` may be NULL. */
static int start_more(struct progress *p, const struct options *o, struct end *reuse)
{
	while (p->started < o->connections && p->started - p->over < o->concurrency) {
		int r = start_one(o->hold || !reuse ? &p->ends[p->started] : reuse, o);

		if (r < 0)
			return r;
		p->started++;
	}
	return 0;
}

static int client_event(struct progress *p, const struct options *o, struct end *e)
{
	int r = end_step(e, o);

	if (r == -EAGAIN)
		return 0;
	if (r < 0)
		return r;
	p->over++;
	if (!o->hold)
		close(e->fd);
	return start_more(p, o, e);
}

static int run_all(struct progress *p, const struct options *o)
{
	struct epoll_event ready[BATCH];
	int r = start_more(p, o, NULL);

	while (r == 0 && p->over < o->connections) {
		int n = epoll_wait(epfd, ready, BATCH, -1);

		if (n < 0 && errno != EINTR)
			return -errno;
		for (int i = 0; i < n && r == 0; i++)
			r = client_event(p, o, ready[i].data.ptr);
	}
	return r;
}

static uint64_t now_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000000000 + (uint64_t)ts.tv_nsec;
}

static void await_line(void)
{
	int c;

	do
		c = getchar();
	while (c != EOF && c != '\n');
}

static int run(const struct options *o)
{
	OWNED_MEM struct end *ends = NULL;
	uint64_t n = o->hold ? o->connections : o->concurrency, start;
	int r;

	ends = calloc(n, sizeof(*ends));
	if (!ends)
		return -ENOMEM;
	puts("ready");
	fflush(stdout);
	await_line();

	start = now_ns();
	r = run_all(&(struct progress){.ends = ends}, o);
	if (r < 0)
		return r;
	printf("{\"wall_ns\": %" PRIu64 ", \"connections\": %" PRIu64 "}\n", now_ns() - start,
	       o->connections);
	fflush(stdout);
	while (o->hold && getchar() != EOF)
		;
	return 0;
}

/* ---- options ---- */

/* Appends a file's bytes to the head. */
static int head_add_file(struct options *o, const char *path)
{
	OWNED_FD int fd = open(path, O_RDONLY | O_CLOEXEC);
	ssize_t n;

	if (fd < 0)
		return -errno;
	n = read(fd, o->head + o->head_len, sizeof(o->head) - sizeof(o->order) - o->head_len);
	if (n < 0)
		return -errno;
	o->head_len += (size_t)n;
	return (int)n;
}

static int make_head(struct options *o, const char *head, const char *hello)
{
	int r = head ? head_add_file(o, head) : 0;

	if (r >= 0)
		r = head_add_file(o, hello);
	if (r < 0)
		return r;
	o->order.magic = ORDER_MAGIC;
	o->order.hello_sum = sum_of(o->head + o->head_len - (size_t)r, (size_t)r);
	memcpy(o->head + o->head_len, &o->order, sizeof(o->order));
	o->head_len += sizeof(o->order);
	return check_order(&o->order);
}

/* What an option's number goes to, or NULL for the options that take none. */
static uint64_t *number_of(struct options *o, int opt)
{
	switch (opt) {
	case 'r':
		return &o->order.rounds;
	case 'u':
		return &o->order.up;
	case 'd':
		return &o->order.down;
	case 'c':
		return &o->connections;
	case 'j':
		return &o->concurrency;
	}
	return NULL;
}

static int parse_run(int argc, char **argv, struct options *o)
{
	static const struct option known[] = {
		{"head", 1, 0, 'h'}, {"hello", 1, 0, 't'},       {"rounds", 1, 0, 'r'},
		{"up", 1, 0, 'u'},   {"down", 1, 0, 'd'},        {"connections", 1, 0, 'c'},
		{"hold", 0, 0, 'H'}, {"concurrency", 1, 0, 'j'}, {0},
	};
	const char *head = NULL, *hello = NULL;
	int opt;

	o->order.rounds = o->connections = o->concurrency = 1;
	while ((opt = getopt_long(argc, argv, "", known, NULL)) != -1) {
		uint64_t *number = number_of(o, opt);

		if (number && num_parse_u64(optarg, 0, UINT64_C(1) << 50, number) < 0)
			return -EINVAL;
		if (opt == '?')
			return -EINVAL;
		head = opt == 'h' ? optarg : head;
		hello = opt == 't' ? optarg : hello;
		o->hold |= opt == 'H';
	}
	if (!hello || optind != argc || o->concurrency < 1 || o->concurrency > o->connections)
		return -EINVAL;
	return make_head(o, head, hello);
}

static int usage(void)
{
	fprintf(stderr,
		"usage: load serve ADDR:PORT\n"
		"       load run ADDR:PORT --hello FILE [--head FILE] [--rounds N] [--up N]\n"
		"                [--down N] [--connections N] [--concurrency N] [--hold]\n");
	return 2;
}

int main(int argc, char **argv)
{
	static struct options o;
	struct addr addr;
	bool is_server = argc == 3 && strcmp(argv[1], "serve") == 0;
	bool is_client = argc > 3 && strcmp(argv[1], "run") == 0;
	int r;

	if ((!is_server && !is_client) || addr_parse(argv[2], &addr) < 0)
		return usage();
	o.sa_len = addr_to_sockaddr(&addr, &o.sa);
	if (is_client && parse_run(argc - 2, argv + 2, &o) < 0)
		return usage();

	memcpy(out + CHUNK - sizeof(uint64_t), &(uint64_t){MARK}, sizeof(uint64_t));
	epfd = epoll_create1(EPOLL_CLOEXEC);
	if (epfd < 0)
		return 1;
	r = is_server ? serve(&o) : run(&o);
	if (r < 0)
		fprintf(stderr, "load: %s: %s\n", argv[1], strerror(-r));
	return r < 0;
}
