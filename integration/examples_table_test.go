//go:build integration

package integration

// The servers of TestExamples, in the order of the page. What is plain is run with the files of TestStacks.
var examples = []example{
	{
		name: "go", recipe: "package graceful instead of net/http's ListenAndServe", version: "go version",
		build: []string{"go", "build", "-o", "{out}/server", "."},
		plain: stack{build: []string{"go", "build", "-o", "{out}/server", "plain.go"}, files: []string{"out/server"}, command: []string{"/app/server", "127.0.0.1:{port}"}},
	},
	{
		name: "node", recipe: "`Connection: close` from TERM on, linger, `close()`", version: "node --version", image: "node",
		plain: stack{files: []string{"plain.js"}, command: []string{"node", "/app/plain.js", "{port}"}},
	},
	{
		name: "python-gunicorn", recipe: "two hooks in gunicorn.conf.py", version: "/usr/bin/gunicorn --version",
		plain: stack{files: []string{"wsgi.py"}, command: []string{"gunicorn", "-w", "2", "-k", "gthread", "--threads", "8", "--keep-alive", "75",
			"-b", "127.0.0.1:{port}", "--chdir", "/app", "wsgi"}},
	},
	{
		name: "python-uvicorn", recipe: "a middleware and one method of uvicorn.Server", version: "/usr/bin/uvicorn --version",
		plain: stack{files: []string{"asgi.py"}, command: []string{"uvicorn", "--port", "{port}", "--log-level", "warning", "--timeout-keep-alive", "75",
			"--app-dir", "/app", "asgi:application"}},
	},
	{
		name: "ruby-puma", recipe: "a Rack middleware", version: "puma --version",
		plain: stack{files: []string{"config.ru"}, command: []string{"puma", "-q", "-e", "none", "-t", "4:32", "-b", "tcp://127.0.0.1:{port}", "/app/config.ru"}},
	},
	{
		name: "java", recipe: "a filter and a shutdown hook", version: "java --version",
		build: []string{"javac", "-d", "{out}", "Server.java", "Leave.java"}, compiled: []string{"out/Server.class", "out/Leave.class"},
		plain: stack{build: []string{"javac", "-d", "{out}", "HttpAnswer.java"}, files: []string{"out/HttpAnswer.class"},
			command: []string{"java", "-cp", "/app", "HttpAnswer", "{port}"}},
	},
	{
		name: "rust", recipe: "a flag that every answer looks at", version: "rustc --version", spare: true,
		build: []string{"rustc", "-O", "-o", "{out}/server", "main.rs"},
		plain: stack{from: "../examples/rust", build: []string{"rustc", "-O", "-o", "{out}/server", "main.rs"}, files: []string{"out/server"},
			command: []string{"/app/server"}, env: []string{"ENTRYPOINT_STOP_SIGNAL=INT"}}, // which it does not catch
	},
	{
		name: "php", recipe: "none: each answer closes its connection", version: "php --version",
		plain: stack{files: []string{"router.php"}, env: []string{"PHP_CLI_SERVER_WORKERS=6"}, command: []string{"php", "-q", "-S", "127.0.0.1:{port}", "/app/router.php"}},
	},
	{
		name: "nginx", recipe: "a file that turns on the header, then QUIT", version: "nginx -v", anonymous: true,
		plain: stack{files: []string{"nginx.conf"}, fields: []string{"{options}", ""}, command: []string{"nginx", "-e", "stderr", "-c", "/app/nginx.conf"},
			env: []string{"ENTRYPOINT_STOP_SIGNAL=QUIT"}},
	},
	{
		name: "haproxy", recipe: "`option idle-close-on-response`, USR1", version: "haproxy -v",
		plain: stack{files: []string{"haproxy.cfg"}, command: []string{"haproxy", "-db", "-f", "/app/haproxy.cfg"},
			env: []string{"ENTRYPOINT_STOP_SIGNAL=USR1"}},
	},
}
