/* Binds and listens COUNT times under a timer of USEC microseconds, with FLAGS of sigaction. Says how many calls were interrupted and
 * done again, and how many had any other error. */
#include <arpa/inet.h>
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

static void nothing(int sig) { (void)sig; }

static int interrupted, failed, wrong;

#define AGAIN(call)                                \
	do {                                       \
		while ((call) != 0) {              \
			if (errno != EINTR) {      \
				failed++;          \
				break;             \
			}                          \
			interrupted++;             \
		}                                  \
	} while (0)

int main(int argc, char **argv)
{
	int count = atoi(argv[1]), usec = atoi(argv[2]);
	struct sigaction action = {.sa_handler = nothing, .sa_flags = argc > 3 ? SA_RESTART : 0};
	struct itimerval timer = {{0, usec}, {0, usec}};
	struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(7), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)}, is;
	sigaction(SIGALRM, &action, NULL);
	setitimer(ITIMER_REAL, &timer, NULL);
	for (int i = 0; i < count; i++) {
		int fd = socket(AF_INET, SOCK_STREAM, 0);
		socklen_t size = sizeof is;
		AGAIN(bind(fd, (struct sockaddr *)&address, sizeof address));
		AGAIN(listen(fd, 5));
		if (getsockname(fd, (struct sockaddr *)&is, &size) != 0 || is.sin_port == address.sin_port || is.sin_port == 0)
			wrong++;
		close(fd);
	}
	printf("%d %d %d\n", interrupted, failed, wrong);
	return 0;
}
