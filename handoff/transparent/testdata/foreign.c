/* Binds 127.0.0.1:PORT by the 32-bit ABI of x86 from a 64-bit program, and says what came of it. */
#include <stdio.h>
#include <stdlib.h>

static unsigned char address[16] = {2, 0};

static int call(int nr, long a, long b, long c)
{
	int result;
	__asm__ volatile("int $0x80" : "=a"(result) : "a"(nr), "b"(a), "c"(b), "d"(c) : "memory", "r8", "r9", "r10", "r11");
	return result;
}

int main(int argc, char **argv)
{
	int port = atoi(argv[argc - 1]);
	address[2] = port >> 8;
	address[3] = port;
	address[4] = 127;
	address[7] = 1;
	int fd = call(359, 2, 1, 0);
	printf("bind %d\n", call(361, fd, (long)address, 16));
	printf("listen %d\n", call(363, fd, 5, 0));
	return 0;
}
