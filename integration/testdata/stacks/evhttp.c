/* A server on libevent. */
#include <event2/buffer.h>
#include <event2/event.h>
#include <event2/http.h>
#include <stdio.h>
#include <stdlib.h>

static struct event_base *base;

static void answer(struct evhttp_request *request) {
	struct evbuffer *body = evbuffer_new();
	evbuffer_add_printf(body, "g%s served\n", getenv("ENTRYPOINT_GENERATION"));
	evhttp_send_reply(request, 200, "OK", body);
	evbuffer_free(body);
}

static void later(evutil_socket_t fd, short what, void *request) { answer(request); }

static void page(struct evhttp_request *request, void *unused) { answer(request); }

static void slow(struct evhttp_request *request, void *unused) {
	struct timeval delay = {0, 200000};
	event_base_once(base, -1, EV_TIMEOUT, later, request, &delay);
}

int main(int argc, char **argv) {
	if (argc < 2)
		return puts(event_get_version()) < 0;
	base = event_base_new();
	struct evhttp *server = evhttp_new(base);
	evhttp_set_gencb(server, page, NULL);
	evhttp_set_cb(server, "/slow", slow, NULL);
	if (evhttp_bind_socket(server, "127.0.0.1", atoi(argv[1])) != 0)
		return 1;
	return event_base_dispatch(base);
}
