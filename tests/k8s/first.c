/* SPDX-License-Identifier: Apache-2.0 */
/* first ADDRESS PORT: the first process of a pod that wants out before anybody could stop it. As
 * its very first deeds it sends a datagram there and opens a TCP connection, over which it asks for
 * a page; then it says on one line how early that was and what came back:
 *
 *   first: after 35 us: connect: 0 (Success), answer: HTTP/1.1 200 OK
 *
 * on standard output, and where Kubernetes reads what a container says at its end: the log of one
 * that ends at once can get lost.
 *
 * Exit code 0 when it made its attempt, whatever came of it. Linked statically: nothing runs before
 * main but the C library's own start.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define TIMEOUT_MS 3000

static const char request[] = "GET /first HTTP/1.0\r\nHost: unregistered.example.com\r\n\r\n";

/* Of its own: how long it had to wait for a processor is not what is asked. */
static long used_us(void)
{
	struct timespec t;

	clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
	return t.tv_sec * 1000000 + t.tv_nsec / 1000;
}

/* 0, or the errno that the connection ended in. */
static int finish_connect(int fd)
{
	struct pollfd p = {.fd = fd, .events = POLLOUT};
	socklen_t n = sizeof(int);
	int error = 0;

	if (poll(&p, 1, TIMEOUT_MS) <= 0)
		return ETIMEDOUT;
	getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &n);
	return error;
}

/* The first line of what comes back, or why nothing does. */
static void read_answer(int fd, char *line, size_t size)
{
	struct pollfd p = {.fd = fd, .events = POLLIN};
	ssize_t n;

	if (send(fd, request, sizeof(request) - 1, MSG_NOSIGNAL) < 0 ||
	    poll(&p, 1, TIMEOUT_MS) < 0) {
		snprintf(line, size, "none (%s)", strerror(errno));
		return;
	}
	n = recv(fd, line, size - 1, MSG_DONTWAIT);
	if (n <= 0) {
		snprintf(line, size, "none (%s)", n < 0 ? strerror(errno) : "closed");
		return;
	}
	line[n] = '\0';
	line[strcspn(line, "\r\n")] = '\0';
}

static void say(FILE *out, long took_us, int error, const char *answer)
{
	fprintf(out, "first: after %ld us: connect: %d (%s), answer: %s\n", took_us, error,
		strerror(error), answer);
}

int main(int argc, char **argv)
{
	struct sockaddr_in to = {.sin_family = AF_INET};
	char answer[128] = "none";
	long start = used_us(), took;
	int tcp, udp, error;
	FILE *last_words;

	if (argc != 3 || inet_pton(AF_INET, argv[1], &to.sin_addr) != 1)
		return 2;
	to.sin_port = htons((unsigned short)atoi(argv[2]));
	udp = socket(AF_INET, SOCK_DGRAM, 0);
	tcp = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
	if (udp < 0 || tcp < 0)
		return 1;
	sendto(udp, "first", 5, 0, (struct sockaddr *)&to, sizeof(to));
	error = connect(tcp, (struct sockaddr *)&to, sizeof(to)) < 0 ? errno : 0;
	took = used_us() - start;

	if (error == EINPROGRESS)
		error = finish_connect(tcp);
	if (error == 0)
		read_answer(tcp, answer, sizeof(answer));
	say(stdout, took, error, answer);
	last_words = fopen("/dev/termination-log", "r+");
	if (last_words) {
		say(last_words, took, error, answer);
		fclose(last_words);
	}
	return 0;
}
