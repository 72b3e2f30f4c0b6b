// A Node server that takes leave of its clients: leave() is all that there is to copy.
const http = require("http");

const linger = 1000; // so long clients have for one more request, whose answer tells them

function leave(server) {
  const running = new Set();
  let leaving = false;
  const tell = (response) => response.headersSent || response.setHeader("Connection", "close");

  server.prependListener("request", (request, response) => {
    if (leaving) tell(response);
    running.add(response);
    response.once("close", () => running.delete(response));
  });
  process.once("SIGTERM", () => {
    leaving = true; // still accepting: what is in the queue is served
    running.forEach(tell);
    setTimeout(() => {
      server.close(); // the process ends with the last connection
      server.closeIdleConnections();
    }, linger);
  });
}

const server = http.createServer((request, response) => {
  response.end(`g${process.env.ENTRYPOINT_GENERATION} served\n`);
});
leave(server);
server.listen(Number(process.env.PORT || 8080));
