/* A server that binds and listens by the calls of 32-bit x86, which no filter for 64 bit sees. Arguments: port, version. */
#include <arpa/inet.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

enum { BIND = 361, LISTEN = 363 };

static long old_call(long number, long a, long b, long c)
{
	long result;
	__asm__ volatile("int $0x80" : "=a"(result) : "a"(number), "b"(a), "c"(b), "d"(c) : "memory", "r8", "r9", "r10", "r11");
	return result;
}

int main(int argc, char **argv)
{
	int one = 1, server = socket(AF_INET, SOCK_STREAM, 0);
	/* Pointers have 32 bits there. */
	struct sockaddr_in *at = mmap(0, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_32BIT, -1, 0);
	char answer[256];

	if (argc != 3)
		return 64;
	setsockopt(server, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
	at->sin_family = AF_INET;
	at->sin_port = htons(atoi(argv[1]));
	at->sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	if (old_call(BIND, server, (long)at, sizeof *at) != 0 || old_call(LISTEN, server, 16, 0) != 0)
		return 1;
	for (;;) {
		int client = accept(server, 0, 0);
		char request[4096];

		if (client < 0)
			continue;
		if (read(client, request, sizeof request) > 0) {
			int length = snprintf(answer, sizeof answer, "%s %d 0", argv[2], (int)getpid());
			dprintf(client, "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: %d\r\n\r\n%s", length, answer);
		}
		close(client);
	}
}
