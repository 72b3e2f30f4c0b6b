// A Node server that knows nothing of swaps, at the port that {port} became in the command line.
const http = require("http");

const answer = `v${process.env.ENTRYPOINT_GENERATION} ${process.pid}\n`;
http.createServer((request, response) => {
  request.on("end", () => response.end(answer));
  request.resume();
}).listen(Number(process.argv[2]), "127.0.0.1");
