//go:build integration

package integration

// The servers of TestStacks. The first thirteen are run in every shape.

const (
	python   = "/usr/bin/python3"
	slowPage = "/slow"
)

var stacks = []stack{
	{
		name: "go-net-http", version: "go version", build: []string{"go", "build", "-o", "{out}/server", "plain.go"},
		files: []string{"out/server"}, command: []string{"/app/server", "127.0.0.1:{port}"}, slow: slowPage,
	},
	{
		name: "python-http-server", version: python + " --version", files: []string{"threading_server.py"},
		command: []string{python, "/app/threading_server.py", "{port}"}, slow: slowPage,
	},
	{
		name: "gunicorn", version: "/usr/bin/gunicorn --version", files: []string{"wsgi.py"}, slow: slowPage,
		command: []string{"/usr/bin/gunicorn", "-w", "3", "-k", "gthread", "--threads", "4", "-b", "127.0.0.1:{port}", "--chdir", "/app", "wsgi"},
	},
	{
		name: "uvicorn", version: "/usr/bin/uvicorn --version", files: []string{"asgi.py"}, slow: slowPage,
		command: []string{"/usr/bin/uvicorn", "--workers", "2", "--port", "{port}", "--log-level", "warning", "--app-dir", "/app", "asgi:application"},
	},
	{
		name: "node-http", version: "node --version", files: []string{"plain.js"}, slow: slowPage,
		command: []string{"node", "/app/plain.js", "{port}"},
	},
	{
		name: "node-cluster", version: "node --version", files: []string{"cluster.js", "plain.js"}, slow: slowPage,
		command: []string{"node", "/app/cluster.js", "{port}"},
	},
	{
		name: "nginx", version: "nginx -v", files: []string{"nginx.conf"}, fields: []string{"{options}", ""}, slow: slowPage,
		command: []string{"nginx", "-e", "stderr", "-c", "/app/nginx.conf"},
	},
	{
		name: "nginx-reuseport", version: "nginx -v", files: []string{"nginx.conf"}, fields: []string{"{options}", "reuseport"}, slow: slowPage,
		command: []string{"nginx", "-e", "stderr", "-c", "/app/nginx.conf"},
	},
	{
		name: "haproxy", version: "haproxy -v", files: []string{"haproxy.cfg"}, slow: slowPage,
		command: []string{"haproxy", "-db", "-f", "/app/haproxy.cfg"},
	},
	{
		name: "haproxy-master-worker", version: "haproxy -v", files: []string{"haproxy.cfg"}, slow: slowPage,
		command: []string{"haproxy", "-W", "-f", "/app/haproxy.cfg"},
	},
	{
		name: "redis", version: "redis-server --version", files: []string{"redis.conf"}, slow: slowPage,
		command: []string{"redis-server", "/app/redis.conf"}, talk: talkRedis, pid: true,
		caveat: "Its data is in its memory: each generation begins with what it loads from its files.",
	},
	{
		name: "java-http-server", version: "java --version", build: []string{"javac", "-d", "{out}", "HttpAnswer.java"},
		files: []string{"out/HttpAnswer.class"}, command: []string{"java", "-cp", "/app", "HttpAnswer", "{port}"}, slow: slowPage,
	},
	{
		name: "java-server-socket", version: "java --version", build: []string{"javac", "-d", "{out}", "SocketAnswer.java"},
		files: []string{"out/SocketAnswer.class"}, command: []string{"java", "-cp", "/app", "SocketAnswer", "{port}"}, slow: slowPage,
	},
	{
		name: "puma", version: "puma --version", files: []string{"config.ru"}, slow: slowPage,
		command: []string{"puma", "-q", "-e", "none", "-w", "2", "-t", "4:4", "-b", "tcp://127.0.0.1:{port}", "/app/config.ru"},
	},
	{
		name: "unicorn", version: "unicorn --version", files: []string{"config.ru", "unicorn.rb"}, slow: slowPage,
		command: []string{"unicorn", "-E", "none", "-c", "/app/unicorn.rb", "/app/config.ru"},
	},
	{
		name: "php-built-in", version: "php --version", files: []string{"router.php"}, env: []string{"PHP_CLI_SERVER_WORKERS=6"},
		command: []string{"php", "-q", "-S", "127.0.0.1:{port}", "/app/router.php"}, slow: slowPage,
	},
	{
		name: "starman", version: "starman --version", files: []string{"app.psgi"}, slow: slowPage,
		command: []string{"starman", "--workers", "6", "--listen", "127.0.0.1:{port}", "/app/app.psgi"},
	},
	{
		name: "perl-fork", version: "perl -e 'print $^V'", files: []string{"fork.pl"},
		command: []string{"/usr/bin/perl", "/app/fork.pl", "{port}"}, slow: slowPage,
	},
	{
		name: "rust-std-net", version: "rustc --version", build: []string{"rustc", "-O", "-o", "{out}/server", "threads.rs"}, spare: true,
		files: []string{"out/server"}, command: []string{"/app/server", "{port}"}, slow: slowPage,
	},
	{
		name: "erlang-gen-tcp", version: `erl -noshell -eval 'io:format("~s", [erlang:system_info(version)]), halt().'`,
		build: []string{"erlc", "-o", "{out}", "server.erl"}, files: []string{"out/server.beam"}, slow: slowPage,
		command: []string{"erl", "-noshell", "-noinput", "-pa", "/app", "-run", "server", "start", "{port}"},
	},
	{
		name: "caddy", version: "caddy version", files: []string{"Caddyfile"},
		command: []string{"caddy", "run", "--config", "/app/Caddyfile", "--adapter", "caddyfile"},
		caveat:  "Its admin address is a port of its own; it is off here.",
	},
	{
		name: "apache-event", version: "apache2 -v", files: []string{"apache.conf", "index.shtml:www/index.shtml", "cgi.sh:www/cgi-bin/answer"},
		fields: []string{"{cgi}", "cgi"}, command: []string{"apache2", "-DFOREGROUND", "-f", "/app/apache.conf"}, slow: "/cgi-bin/answer?slow",
		caveat: "`PidFile` needs `${ENTRYPOINT_GENERATION}` in its name: Apache does not start while the process in it is alive.",
	},
	{
		name: "apache-pieces", version: "apache2 -v", files: []string{"apache.conf", "index.shtml:www/index.shtml", "pieces.shtml:www/pieces.shtml"},
		fields: []string{"{cgi}", "cgid"}, command: []string{"apache2", "-DFOREGROUND", "-f", "/app/apache.conf"}, slow: "/pieces.shtml",
		caveat: "Its slow page comes in pieces with pauses. With `mod_cgid` it binds a path with its own pid too, which is its own affair.",
	},
	{
		name: "lighttpd", version: "lighttpd -v", files: []string{"lighttpd.conf", "cgi.sh:www/cgi-bin/answer"},
		command: []string{"lighttpd", "-D", "-f", "/app/lighttpd.conf"}, path: "/cgi-bin/answer", slow: "/cgi-bin/answer?slow",
	},
	{
		name: "tornado", version: python + " -c 'import tornado; print(tornado.version)'", files: []string{"tornado_server.py"},
		command: []string{python, "/app/tornado_server.py", "{port}"}, slow: slowPage,
	},
	{
		name: "aiohttp", version: python + " -c 'import aiohttp; print(aiohttp.__version__)'", files: []string{"aiohttp_server.py"},
		command: []string{python, "/app/aiohttp_server.py", "{port}"}, slow: slowPage,
	},
	{
		name: "waitress", version: python + ` -c 'from importlib import metadata; print(metadata.version("waitress"))'`, files: []string{"wsgi.py"},
		command: []string{python, "-m", "waitress", "--listen=127.0.0.1:{port}", "--threads=8", "wsgi:application"}, env: []string{"PYTHONPATH=/app"}, slow: slowPage,
	},
	{
		name: "twisted", version: python + " -c 'import twisted; print(twisted.__version__)'", files: []string{"twisted_server.py"},
		command: []string{python, "/app/twisted_server.py", "{port}"}, slow: slowPage,
	},
	{
		name: "uwsgi", version: "uwsgi --version", files: []string{"wsgi.py"}, slow: slowPage,
		command: []string{"uwsgi", "--http-socket", "127.0.0.1:{port}", "--plugin", "python3", "--master", "--processes", "2", "--threads", "4",
			"--disable-logging", "--wsgi-file", "/app/wsgi.py"},
	},
	{
		name: "socat", version: "socat -V", files: []string{"inetd.sh"}, slow: slowPage,
		command: []string{"socat", "TCP-LISTEN:{port},bind=127.0.0.1,fork,reuseaddr,backlog=128", "EXEC:/app/inetd.sh"},
	},
	{
		name: "memcached", version: "memcached -V", talk: talkMemcached, pid: true,
		command: []string{"memcached", "-u", "root", "-l", "127.0.0.1", "-p", "{port}"},
		caveat: "Its data is in its memory: each generation begins empty. Started as root it must stay root (`-u root`) or be started as " +
			"another user (`ENTRYPOINT_USER`): with `-u USER` it binds after it has changed its user, and the init may not look into it then.",
	},
	{
		name: "libevent", version: "{out}/server",
		build: []string{"gcc", "-o", "{out}/server", "evhttp.c", "-levent"},
		files: []string{"out/server"}, command: []string{"/app/server", "{port}"}, slow: slowPage,
	},
	{
		name: "libmicrohttpd", version: "{out}/server", build: []string{"gcc", "-o", "{out}/server", "microhttpd.c", "-lmicrohttpd"},
		files: []string{"out/server"}, command: []string{"/app/server", "{port}"}, slow: slowPage,
	},
	{
		name: "busybox-httpd", version: "busybox", files: []string{"cgi.sh:www/cgi-bin/answer"},
		command: []string{"busybox", "httpd", "-f", "-p", "127.0.0.1:{port}", "-h", "/app/www"}, path: "/cgi-bin/answer", slow: "/cgi-bin/answer?slow",
	},
	{
		name: "tcl", version: "echo 'puts [info patchlevel]' | tclsh", files: []string{"events.tcl"},
		command: []string{"tclsh", "/app/events.tcl", "{port}"}, slow: slowPage,
	},
}
