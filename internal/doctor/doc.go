// Package doctor shows how an app takes leave of its clients: it loads the app while the init swaps it, and counts every request that
// got no answer, by what happened to it and when. It is a client of both; nothing of it runs in the init.
//
// Two kinds of clients ask over HTTP/1.1, each one request at a time with a pause after it, and never a second time for a request that was
// lost. Keep-alive clients stay on their connection until the app says Connection: close. The others make a new connection for each
// request; so does the first request of a keep-alive client count. A keep-alive client does not look whether its connection has
// been closed before it sends: one on the same machine could see it in time, one that is a network away could not, and it is
// the second that this stands for.
//
// A request belongs to the generation that new connections went to when its connection was made. When it is lost, the last
// thing that was done to that generation tells the cause: replaced, told to stop, or killed. Where all generations accept from one
// socket the owner is not known, and what was done last to any of them stands in.
package doctor
