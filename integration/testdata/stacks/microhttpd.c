/* A server on libmicrohttpd, with a thread for each connection. */
#include <microhttpd.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static enum MHD_Result answer(void *unused, struct MHD_Connection *connection, const char *url, const char *method,
		const char *version, const char *data, size_t *size, void **state) {
	static char body[64];
	int length = snprintf(body, sizeof body, "g%s served\n", getenv("ENTRYPOINT_GENERATION"));
	if (strcmp(url, "/slow") == 0)
		usleep(200000);
	struct MHD_Response *response = MHD_create_response_from_buffer(length, body, MHD_RESPMEM_PERSISTENT);
	enum MHD_Result result = MHD_queue_response(connection, 200, response);
	MHD_destroy_response(response);
	return result;
}

int main(int argc, char **argv) {
	struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	if (argc < 2)
		return puts(MHD_get_version()) < 0;
	address.sin_port = htons(atoi(argv[1]));
	if (!MHD_start_daemon(MHD_USE_INTERNAL_POLLING_THREAD | MHD_USE_THREAD_PER_CONNECTION | MHD_USE_ERROR_LOG, atoi(argv[1]),
			NULL, NULL, answer, NULL, MHD_OPTION_SOCK_ADDR, &address, MHD_OPTION_END))
		return 1;
	for (;;)
		pause();
}
