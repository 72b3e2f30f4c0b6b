// Package envcfg turns the environment of a container into one validated
// Config: the only configuration that the init has.
//
// # Model
//
// Every variable begins with ENTRYPOINT_ and is one exported field of
// Variables; its default, its group and its documentation are struct tags of
// that field, so that the loader, `entrypoint config` and docs/environment.md
// cannot disagree. Load takes the environment as a value, as os.Environ gives
// it, and returns either a Config in which every field is usable as it is, or
// one error that holds every fault at once (errors.Join of *Fault).
//
// The decoding itself is done by github.com/kelseyhightower/envconfig, which
// reads only the environment of the process, takes a set but empty variable
// for a value, stops at the first mistake and quotes the raw value of it. Load
// works around that: it resolves NAME_FILE, drops what is empty, sets what
// remains into the process environment, runs envconfig as often as there are
// mistakes, and puts the process environment back exactly as it was, order
// included.
//
// # Invariants
//
//   - Nothing is silently ignored: a name under the prefix that is not known
//     is a fault. The only exceptions are the names that Kubernetes makes up
//     for a Service called "entrypoint" or "entrypoint-…" (they belong to the
//     app), and ENTRYPOINT_GENERATION and ENTRYPOINT_WORKER, which an outer
//     init gives to an inner one. No variable of ours can have the form of a
//     service link.
//   - A set but empty variable is an unset one.
//   - A variable without the prefix is never read: PORT or USER are the app's.
//   - A value that came from a file, and the value of ENTRYPOINT_APP_ENV, is in
//     no error, no warning and no listing.
//   - No state stays behind in the package or in the process.
//
// # When to call it
//
// Load changes the process environment for some microseconds. Call it before
// the first goroutine that reads the environment or starts a process; in an
// init that is the first thing in main. Calls of Load exclude each other.
//
// # What it does not do
//
// It does not look up users, open addresses, check that programs exist or
// parse the texts that belong to other packages (LISTEN, READY, WATCH,
// PROTOCOLS): the package that knows the thing reports on the thing. It never
// reads a variable again after Load; only the file named by ENTRYPOINT_ENV_FILE
// is read at each start of the app, by Config.ReadEnvFile.
package envcfg
