// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
/*
 * zerocopy ADDRESS PORT: reads a TCP connection to its end and writes what comes to standard output.
 * Pages that the kernel can map (TCP_ZEROCOPY_RECEIVE) are not copied on the way. To standard error:
 * bytes that were mapped, and bytes in all.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <linux/tcp.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#define WINDOW (1 << 20)

static char buffer[WINDOW];

static void fail(const char *what)
{
	perror(what);
	exit(1);
}

static void put(const char *data, size_t len)
{
	while (len) {
		ssize_t n = write(1, data, len);

		if (n <= 0)
			fail("write");
		data += n;
		len -= n;
	}
}

int main(int argc, char **argv)
{
	unsigned long long mapped = 0, total = 0;
	struct sockaddr_in to = { .sin_family = AF_INET };
	void *window;
	int s;

	if (argc != 3 || !inet_aton(argv[1], &to.sin_addr))
		return 2;
	to.sin_port = htons(atoi(argv[2]));
	s = socket(AF_INET, SOCK_STREAM, 0);
	if (s < 0 || connect(s, (struct sockaddr *)&to, sizeof(to)))
		fail("connect");
	window = mmap(NULL, WINDOW, PROT_READ, MAP_SHARED, s, 0);
	if (window == MAP_FAILED)
		fail("mmap");

	for (;;) {
		struct tcp_zerocopy_receive zc = {
			.address = (unsigned long)window,
			.length = WINDOW,
		};
		socklen_t len = sizeof(zc);
		struct pollfd ready = { .fd = s, .events = POLLIN };
		ssize_t n;

		if (poll(&ready, 1, -1) < 0)
			fail("poll");
		/* Fails when there is nothing and never will be: reading tells so, too. */
		if (getsockopt(s, IPPROTO_TCP, TCP_ZEROCOPY_RECEIVE, &zc, &len)) {
			if (errno != EIO)
				fail("TCP_ZEROCOPY_RECEIVE");
			zc.length = zc.recv_skip_hint = 0;
		}
		put(window, zc.length);
		mapped += zc.length;
		total += zc.length;
		if (zc.length && !zc.recv_skip_hint)
			continue;
		/* What comes next is not a whole page. */
		n = zc.recv_skip_hint && zc.recv_skip_hint < WINDOW ? zc.recv_skip_hint : WINDOW;
		n = recv(s, buffer, n, MSG_DONTWAIT);
		if (n < 0 && errno != EAGAIN)
			fail("recv");
		if (!n)
			break;
		if (n > 0) {
			put(buffer, n);
			total += n;
		}
	}
	fprintf(stderr, "%llu %llu\n", mapped, total);
	return 0;
}
