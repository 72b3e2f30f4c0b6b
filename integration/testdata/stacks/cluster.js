// Node's own cluster: the primary process binds and deals the connections out to two workers.
const cluster = require("cluster");

if (cluster.isPrimary) {
  cluster.fork();
  cluster.fork();
} else {
  require("./plain.js");
}
