package envcfg

// Prefix begins the name of every variable that is ours.
const Prefix = "ENTRYPOINT_"

// Source says where the value of a variable came from.
type Source string

// The sources of a value.
const (
	FromDefault Source = "default" // not set, or set and empty
	FromEnv     Source = "env"     // the variable itself
	FromFile    Source = "file"    // the file named by NAME_FILE; such a value is never shown
)

// Variables holds the value of every variable. The name of a variable is
// Prefix and the field's name in upper case, words joined by underscores:
// StartTimeout is ENTRYPOINT_START_TIMEOUT.
//
// Tags: default is the value used when the variable is unset, choice lists the
// only values of a text, doc and group make the reference; scope container says
// that one of several apps cannot have its own.
type Variables struct {
	Command    Argv   `split_words:"true" group:"command" doc:"The program and its arguments, as a JSON array or as words with quotes; no shell is involved. The arguments of the process, if any, win. With neither, the sockets are held and the init waits for 'entrypoint run'."`
	Dir        string `split_words:"true" group:"command" doc:"Working directory of the app; a symbolic link is resolved again at each start. Unset: the directory of the init."`
	AppEnv     AppEnv `split_words:"true" group:"command" doc:"Additional variables for the app: 'A=1,B=\"x,y\"', or a JSON object, or a JSON array of 'K=V' texts. They win over the container's and over ENTRYPOINT_ENV_FILE. Treated as a secret: never shown."`
	EnvFile    string `split_words:"true" group:"command" doc:"A file of K=V lines for the app, with comments and quotes; read again at each start of the app. Its values win over the container's."`
	User       string `split_words:"true" group:"command" doc:"Whom the app runs as: 'user[:group]', names or numbers. Unset: as the init."`
	Umask      Umask  `split_words:"true" group:"command" doc:"File mode mask of the app, octal, such as 027. Unset: the mask of the init."`
	Apps       Names  `split_words:"true" group:"command" scope:"container" doc:"Several apps in one container: their names, separated by commas, in the order in which they are started; they are stopped in the opposite order. A variable of one of them is ENTRYPOINT_APP_<NAME>_<VARIABLE>, such as ENTRYPOINT_APP_WEB_COMMAND; what it does not set comes from the plain name (docs/apps.md)."`
	Main       string `split_words:"true" group:"command" scope:"container" doc:"Of several apps the one whose end ends the container, with its status. Unset: the first one."`
	NoNewPrivs Bool   `split_words:"true" group:"command" default:"false" doc:"Forbid the app and everything it starts to gain privileges by set-uid programs or file capabilities. Off, as in any plain init, because set-uid helpers must go on working; Kubernetes' 'allowPrivilegeEscalation: false' sets the same thing for the whole container."`

	Workers Count  `split_words:"true" group:"command" default:"1" doc:"So many processes of the app run in each generation, 1 to 64, each with a share of the connections; '{worker}' in the command line and ENTRYPOINT_WORKER tell each its number, from 0. 'entrypoint scale' changes it while they run (docs/workers.md)."`
	Rollout string `split_words:"true" group:"command" default:"bluegreen" choice:"bluegreen|rolling" doc:"How a new generation of several workers takes over. bluegreen: all of them start beside the old ones, and the traffic is switched once. rolling: one after the other takes the place of an old one, and the first that fails turns it back."`

	Listen    string `split_words:"true" group:"sockets" doc:"Addresses to hold for the container's whole life: '[name=]scheme://address[?option=value&…]', separated by commas; schemes tcp, tcp4, tcp6, udp, udp4, udp6, unix, unixgram, unixpacket."`
	Handoff   string `split_words:"true" group:"sockets" default:"auto" choice:"auto|transparent|inherit|proxy|exclusive|none" doc:"How a new generation gets the traffic. transparent: old and new overlap; what the app binds by itself is noticed (seccomp user notification) and held. inherit: old and new overlap, sockets are passed as descriptors. proxy: old and new overlap, each at a port of its own behind a proxy that accepts from ENTRYPOINT_LISTEN (docs/proxy.md). exclusive: the old one stops first, clients queue in the held socket. none: a plain init that holds nothing. auto: transparent where the system allows it, and inherit for ENTRYPOINT_LISTEN."`
	Steer     string `split_words:"true" group:"sockets" default:"auto" choice:"auto|off" doc:"auto: each generation has a socket of its own where the kernel can choose between them. off: all generations share one socket."`
	Protocols string `split_words:"true" group:"sockets" default:"all" doc:"Descriptor protocols spoken to the app: all, or a list of systemd, einhorn, server_starter, crank, notify."`

	Proxy               string   `split_words:"true" group:"proxy" default:"http" choice:"http|tcp" doc:"What the proxy of ENTRYPOINT_HANDOFF=proxy carries. http: requests, so that clients keep their connections over a swap; HTTP/1.1, HTTP/2, WebSocket, gRPC. tcp: connections."`
	ProxyRange          string   `split_words:"true" group:"proxy" default:"10000-11000" doc:"Ports of the loopback interface, one of which each worker listens on: it stands for {port} in the command line and in ENTRYPOINT_APP_ENV, and in the app's variable PORT."`
	ProxyConnectTimeout Duration `split_words:"true" group:"proxy" default:"60s" doc:"How long a client waits while nobody serves. Then a request is answered with 503, and a connection closed."`
	ProxyIdleTimeout    Duration `split_words:"true" group:"proxy" default:"0s" doc:"A client's connection on which nothing moves is closed after so long. 0: after 10m without a request (http), never (tcp)."`
	ProxyTLS            string   `split_words:"true" group:"proxy" doc:"Certificate and key for TLS towards clients (http): 'cert.pem:key.pem', of one address 'NAME=cert.pem:key.pem', several separated by commas. The files are read anew when they change."`
	ProxyTrust          string   `split_words:"true" group:"proxy" doc:"Networks of proxies in front of this one, separated by commas: what they say in X-Forwarded-Proto, X-Forwarded-Host and Forwarded is passed on (http). X-Forwarded-For is always continued."`
	ProxyProtocol       string   `split_words:"true" group:"proxy" default:"off" choice:"off|v1|v2" doc:"Tell the app by the PROXY protocol, in that version, where each connection comes from (tcp)."`

	Ready        string   `split_words:"true" group:"swap" default:"auto" doc:"What shows that a new generation is ready: auto, notify, accept, delay:2s, tcp://…, unix://…, http://…, https://…, h2c://…, grpc://…, grpcs://…, exec:CMD, with options behind semicolons (docs/checks.md); of several, separated by commas, all must hold."`
	StartTimeout Duration `split_words:"true" group:"swap" default:"60s" doc:"A generation that is not ready by then has failed."`
	Smoke        string   `split_words:"true" group:"swap" doc:"Checks that a ready candidate has to pass, once each and in this order, before any client reaches it: as in ENTRYPOINT_READY."`
	Canary       string   `split_words:"true" group:"swap" doc:"Shares of the new connections that a candidate gets first: '1%:30s,25%:1m'; a step without a time waits for 'entrypoint promote'. Networks in place of a share, '10.1.0.0/16:30s', send exactly those clients to it."`
	Bake         Duration `split_words:"true" group:"swap" default:"0s" doc:"After that the candidate has all of the traffic for so long, with the old generation kept ready to take it back."`

	Health         string   `split_words:"true" group:"swap" doc:"Checks of the generation that serves, and of a candidate in canary and bake: as in ENTRYPOINT_READY."`
	HealthInterval Duration `split_words:"true" group:"swap" default:"10s" doc:"Pause between two rounds of health checks."`
	HealthTimeout  Duration `split_words:"true" group:"swap" default:"5s" doc:"A health check that takes longer has failed."`
	HealthFailures Count    `split_words:"true" group:"swap" default:"3" doc:"So many failures in a row make a generation unhealthy."`
	Watchdog       Duration `split_words:"true" group:"swap" default:"0s" doc:"The app has to send WATCHDOG=1 (sd_notify) at least this often while it has traffic, or counts as unhealthy; it reads the time from WATCHDOG_USEC. 0: only if the app asks for it with WATCHDOG_USEC=."`
	HealthAction   string   `split_words:"true" group:"swap" default:"replace" choice:"replace|exit" doc:"What becomes of an unhealthy active generation. replace: a new one of the same bytes takes its place. exit: the container ends."`

	DrainQuiet   Duration `split_words:"true" group:"drain" default:"5s" doc:"Before the old generation is signalled, wait at most so long until its connections are gone or idle. 0: signal it at once."`
	StopSignal   Signal   `split_words:"true" group:"drain" default:"TERM" doc:"The signal that asks the app to end."`
	DrainTimeout Duration `split_words:"true" group:"drain" default:"30s" doc:"From that signal until the old generation's process group is killed."`
	MaxDraining  Count    `split_words:"true" group:"drain" default:"2" doc:"So many old generations may drain at the same time; one more swap ends the oldest: by its stop signal, or by KILL if it has had that."`

	ShutdownDelay   Duration `split_words:"true" group:"shutdown" scope:"container" default:"0s" doc:"After a stop was asked for, keep serving (as not ready) for so long while load balancers forget us."`
	ShutdownTimeout Duration `split_words:"true" group:"shutdown" scope:"container" default:"8s" doc:"After that, the app has so long to end before everything is killed. A second stop ends the wait."`

	Restart            string    `split_words:"true" group:"restart" default:"no" choice:"no|on-failure|always" doc:"Whether an app that ended by itself is started again."`
	RestartDelay       Duration  `split_words:"true" group:"restart" default:"100ms" doc:"Wait before the first restart; doubled at each further one."`
	RestartMaxDelay    Duration  `split_words:"true" group:"restart" default:"30s" doc:"The wait does not grow beyond this."`
	StartLimitBurst    Count     `split_words:"true" group:"restart" default:"5" doc:"So many restarts within ENTRYPOINT_START_LIMIT_INTERVAL are allowed; one more is fatal."`
	StartLimitInterval Duration  `split_words:"true" group:"restart" default:"60s" doc:"The time over which restarts are counted. 0: no limit."`
	OnFatal            string    `split_words:"true" group:"restart" default:"exit" choice:"exit|wait" doc:"What happens when the app cannot be kept running. exit: the container ends with its status. wait: the sockets stay held until the next reload or 'entrypoint run'."`
	Rollback           string    `split_words:"true" group:"restart" default:"off" choice:"off|auto" doc:"auto: where a crash of bytes that were swapped in would end the container, the bytes that served before are started again instead."`
	ExitRemap          ExitRemap `split_words:"true" group:"restart" scope:"container" doc:"Exit statuses to report as others: '143=0,130=0'."`

	Signals   Signals `split_words:"true" group:"signals" scope:"container" default:"HUP=reload,TERM=stop" doc:"What signals do: 'NAME=reload', '=stop', '=forward', '=ignore', or '=OTHER' to forward another signal instead. Names with or without SIG, numbers, RTMIN+3. What is not named keeps its default; every other signal is forwarded."`
	Group     Bool    `split_words:"true" group:"signals" default:"true" doc:"Forward signals to the app's whole process group, or else to its main process alone."`
	Subreaper string  `split_words:"true" group:"signals" scope:"container" default:"auto" choice:"auto|true|false" doc:"Adopt orphans although we are not PID 1. auto: when we are not PID 1."`
	TTY       string  `split_words:"true" group:"signals" scope:"container" default:"auto" choice:"auto|true|false" doc:"Give the app the terminal as its foreground process group. auto: when standard input is one."`

	Watch       string   `split_words:"true" group:"watch" doc:"Act when files change: 'auto' (the app's own file) or a list of 'path[=action]', action swap (the default), trigger (a swap at each touch too), signal:NAME, hook or ignore. The last component of a path may be a pattern, as in '/etc/app/*.conf=signal:HUP'. Unset or off: nothing is watched (docs/watch.md)."`
	WatchSettle Duration `split_words:"true" group:"watch" default:"300ms" doc:"A change counts once the file has been quiet for so long."`
	WatchPoll   Duration `split_words:"true" group:"watch" default:"2s" doc:"Beside the kernel's events, look at the watched files this often."`
	Exec        string   `split_words:"true" group:"watch" default:"auto" choice:"auto|copy|path" doc:"copy: a private copy of the program is executed, so that its file may be overwritten at any time. path: the file itself is. auto: a copy, except of programs that need their path (docs/artifact.md)."`
	Keep        Count    `split_words:"true" group:"watch" default:"2" doc:"The bytes of so many generations are kept for rollback, those that run included."`
	Verify      string   `split_words:"true" group:"watch" doc:"What a program has to show before it is run: 'sha256:HEX' or 'minisign:PUBLICKEY' with the signature in FILE.minisig; of several, separated by commas, one is enough. Unset: nothing."`
	TarRoots    string   `split_words:"true" group:"watch" scope:"container" doc:"The directories, as absolute paths separated by commas, below which the applets tar and rm may write and remove; they exist where a link of that name leads to the init (docs/uploads.md). Unset: everywhere except /proc, /sys and /dev."`
	StateDir    string   `split_words:"true" group:"watch" scope:"container" doc:"A writable directory, as an absolute path, in which what must survive a restart of the container is kept. Unset: nothing is written anywhere."`

	HookPreStart    Argv `split_words:"true" group:"hooks" doc:"A command that runs before a generation is started, and before anything is stopped for it; if it fails, the swap is refused (docs/hooks.md). As all hooks it is written like ENTRYPOINT_COMMAND, runs as the app's user in the app's environment, and is told in ENTRYPOINT_HOOK_EVENT, _GENERATION, _PREVIOUS, _PID and others what happens. What it writes becomes lines of our log."`
	HookPrePromote  Argv `split_words:"true" group:"hooks" doc:"A command that runs when a candidate is ready and has passed its smoke tests, before any traffic goes to it; if it fails, the candidate is refused."`
	HookPostPromote Argv `split_words:"true" group:"hooks" doc:"A command that runs when a generation has become active. If it fails, that is logged and nothing else, as with those below."`
	HookDrained     Argv `split_words:"true" group:"hooks" doc:"A command that runs when a generation that was replaced has ended."`
	HookFailed      Argv `split_words:"true" group:"hooks" doc:"A command that runs when a start or a swap was refused or rolled back, and when the app ended by itself and is to be started again."`
	HookExit        Argv `split_words:"true" group:"hooks" doc:"A command that runs when nothing of the app is left and the container ends, in what is left of ENTRYPOINT_SHUTDOWN_TIMEOUT."`

	HookWatch   Argv     `split_words:"true" group:"hooks" doc:"The command that the watch action 'hook' runs, as in ENTRYPOINT_COMMAND: as the app's user, in its environment, with the path that changed in ENTRYPOINT_HOOK_PATH and what happened to it in ENTRYPOINT_HOOK_REASON. What it writes becomes lines of our log."`
	Render      string   `split_words:"true" group:"hooks" doc:"Files to write from templates, 'template:target' separated by commas, as absolute paths: before a candidate is promoted (and before the hook of that moment), and again when the set of generations changes. The templates are in the syntax of Go's text/template (docs/hooks.md). If a file cannot be written, the candidate is refused."`
	HookTimeout Duration `split_words:"true" group:"hooks" default:"30s" doc:"A hook that takes longer is killed, with all of its process group."`

	Control   string   `split_words:"true" group:"face" scope:"container" default:"auto" doc:"The socket on which the other commands reach the init. auto: an abstract one that needs no writable path. Else an absolute path, an abstract name that begins with @, or off."`
	Metrics   string   `split_words:"true" group:"face" scope:"container" doc:"Where metrics, /livez, /readyz, /status and a page for people are served, read only, by a process without privileges: 'tcp://:9090', 'tcp4://…', 'tcp6://…' or 'unix:///path'. Whoever can connect sees command lines and the last words of failed programs (docs/metrics.md). Unset or off: nowhere."`
	LogLevel  string   `split_words:"true" group:"face" scope:"container" default:"info" choice:"debug|info|warn|error" doc:"Least severity of the init's own log lines, on standard error."`
	LogFormat string   `split_words:"true" group:"face" scope:"container" default:"auto" choice:"auto|text|json" doc:"Form of the init's own log lines. auto: text on a terminal, else JSON."`
	Log       string   `split_words:"true" group:"face" default:"stderr" doc:"Where the init's own log lines go: stderr; syslog (the socket /dev/log), syslog:///PATH, udp://HOST:514 or tcp://HOST:601. What a syslog does not take goes to standard error (docs/syslog.md)."`
	AppLog    string   `split_words:"true" group:"face" default:"inherit" doc:"What becomes of what the app writes. inherit: it writes to the container's output directly, nothing stands between. prefix: lines with the generation in front. file:///PATH?option=value&…: files that are rotated; options size, age, count, compress, stderr, mode (docs/app-log.md)."`
	Grace     Duration `split_words:"true" group:"face" scope:"container" default:"0s" doc:"How long the container runtime itself waits between TERM and KILL (Docker 10s, Kubernetes 30s, unless changed): used only to warn when our own times do not fit in. 0: not known."`
}

// Config is a validated configuration. It is made by Load, is not changed
// afterwards, and may be read by any number of goroutines.
//
// The variables are fields of the embedded Variables; that of
// ENTRYPOINT_APP_ENV is Variables.AppEnv, because AppEnv is a method.
type Config struct {
	Variables

	sources map[string]Source // by variable; absent: FromDefault
	spelled map[string]string // of one of several apps: the names that its variables were written with
	links   []string          // names of Kubernetes service links that were met
	stray   []string          // those whose value does not look like Kubernetes wrote it
}

// Source says where the value of the named variable (with prefix) came from.
func (c *Config) Source(name string) Source {
	if s, ok := c.sources[name]; ok {
		return s
	}
	return FromDefault
}
