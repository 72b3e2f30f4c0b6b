// A Node server on the descriptor number that {fd} became in the command line.
const fs = require("fs");
const http = require("http");

const version = fs.readFileSync("/app/version", "utf8").trim();
const answer = (response) => response.end(version + " served\n");
const server = http.createServer((request, response) => {
  if (request.url.startsWith("/slow")) setTimeout(answer, 60, response);
  else answer(response);
});
server.listen({ fd: Number(process.argv[2]) });
process.on("SIGTERM", () => server.close(() => process.exit(0)));
