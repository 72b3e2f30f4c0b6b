// A Node server as people write it.
const http = require("http");

const body = `g${process.env.ENTRYPOINT_GENERATION} served\n`;
http
  .createServer((request, response) => {
    if (request.url.startsWith("/slow")) setTimeout(() => response.end(body), 200);
    else response.end(body);
  })
  .listen(Number(process.argv[2]), "127.0.0.1");
