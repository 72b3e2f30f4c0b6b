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
// only values of a text, doc and group make the reference.
type Variables struct {
	Command    Argv   `split_words:"true" group:"command" doc:"The program and its arguments, as a JSON array or as words with quotes; no shell is involved. The arguments of the process, if any, win. With neither, the sockets are held and the init waits for 'entrypoint run'."`
	Dir        string `split_words:"true" group:"command" doc:"Working directory of the app; a symbolic link is resolved again at each start. Unset: the directory of the init."`
	AppEnv     AppEnv `split_words:"true" group:"command" doc:"Additional variables for the app: 'A=1,B=\"x,y\"', or a JSON object, or a JSON array of 'K=V' texts. They win over the container's and over ENTRYPOINT_ENV_FILE. Treated as a secret: never shown."`
	EnvFile    string `split_words:"true" group:"command" doc:"A file of K=V lines for the app, with comments and quotes; read again at each start of the app. Its values win over the container's."`
	User       string `split_words:"true" group:"command" doc:"Whom the app runs as: 'user[:group]', names or numbers. Unset: as the init."`
	Umask      Umask  `split_words:"true" group:"command" doc:"File mode mask of the app, octal, such as 027. Unset: the mask of the init."`
	NoNewPrivs Bool   `split_words:"true" group:"command" default:"false" doc:"Forbid the app and everything it starts to gain privileges by set-uid programs or file capabilities. Off, as in any plain init, because set-uid helpers must go on working; Kubernetes' 'allowPrivilegeEscalation: false' sets the same thing for the whole container."`

	Listen    string `split_words:"true" group:"sockets" doc:"Addresses to hold for the container's whole life: '[name=]scheme://address[?option=value&…]', separated by commas; schemes tcp, tcp4, tcp6, udp, udp4, udp6, unix, unixgram, unixpacket."`
	Handoff   string `split_words:"true" group:"sockets" default:"auto" choice:"auto|transparent|inherit|exclusive|none" doc:"How a new generation gets the traffic. transparent: old and new overlap; what the app binds by itself is noticed (seccomp user notification) and held. inherit: old and new overlap, sockets are passed as descriptors. exclusive: the old one stops first, clients queue in the held socket. none: a plain init that holds nothing. auto: transparent where the system allows it, and inherit for ENTRYPOINT_LISTEN."`
	Steer     string `split_words:"true" group:"sockets" default:"auto" choice:"auto|off" doc:"auto: each generation has a socket of its own where the kernel can choose between them. off: all generations share one socket."`
	Protocols string `split_words:"true" group:"sockets" default:"all" doc:"Descriptor protocols spoken to the app: all, or a list of systemd, einhorn, server_starter, crank, notify."`

	Ready        string   `split_words:"true" group:"swap" default:"auto" doc:"What shows that a new generation is ready: auto, notify, accept, delay:2s, http://…, tcp://…, exec:CMD; of several, separated by commas, all must hold."`
	StartTimeout Duration `split_words:"true" group:"swap" default:"60s" doc:"A generation that is not ready by then has failed."`

	DrainQuiet   Duration `split_words:"true" group:"drain" default:"5s" doc:"Before the old generation is signalled, wait at most so long until its connections are gone or idle. 0: signal it at once."`
	StopSignal   Signal   `split_words:"true" group:"drain" default:"TERM" doc:"The signal that asks the app to end."`
	DrainTimeout Duration `split_words:"true" group:"drain" default:"30s" doc:"From that signal until the old generation's process group is killed."`
	MaxDraining  Count    `split_words:"true" group:"drain" default:"2" doc:"So many old generations may drain at the same time; one more swap ends the oldest: by its stop signal, or by KILL if it has had that."`

	ShutdownDelay   Duration `split_words:"true" group:"shutdown" default:"0s" doc:"After a stop was asked for, keep serving (as not ready) for so long while load balancers forget us."`
	ShutdownTimeout Duration `split_words:"true" group:"shutdown" default:"8s" doc:"After that, the app has so long to end before everything is killed. A second stop ends the wait."`

	Restart            string    `split_words:"true" group:"restart" default:"no" choice:"no|on-failure|always" doc:"Whether an app that ended by itself is started again."`
	RestartDelay       Duration  `split_words:"true" group:"restart" default:"100ms" doc:"Wait before the first restart; doubled at each further one."`
	RestartMaxDelay    Duration  `split_words:"true" group:"restart" default:"30s" doc:"The wait does not grow beyond this."`
	StartLimitBurst    Count     `split_words:"true" group:"restart" default:"5" doc:"So many restarts within ENTRYPOINT_START_LIMIT_INTERVAL are allowed; one more is fatal."`
	StartLimitInterval Duration  `split_words:"true" group:"restart" default:"60s" doc:"The time over which restarts are counted. 0: no limit."`
	OnFatal            string    `split_words:"true" group:"restart" default:"exit" choice:"exit|wait" doc:"What happens when the app cannot be kept running. exit: the container ends with its status. wait: the sockets stay held until the next reload or 'entrypoint run'."`
	ExitRemap          ExitRemap `split_words:"true" group:"restart" doc:"Exit statuses to report as others: '143=0,130=0'."`

	Signals   Signals `split_words:"true" group:"signals" default:"HUP=reload,TERM=stop" doc:"What signals do: 'NAME=reload', '=stop', '=forward', '=ignore', or '=OTHER' to forward another signal instead. Names with or without SIG, numbers, RTMIN+3. What is not named keeps its default; every other signal is forwarded."`
	Group     Bool    `split_words:"true" group:"signals" default:"true" doc:"Forward signals to the app's whole process group, or else to its main process alone."`
	Subreaper string  `split_words:"true" group:"signals" default:"auto" choice:"auto|true|false" doc:"Adopt orphans although we are not PID 1. auto: when we are not PID 1."`
	TTY       string  `split_words:"true" group:"signals" default:"auto" choice:"auto|true|false" doc:"Give the app the terminal as its foreground process group. auto: when standard input is one."`

	Watch       string   `split_words:"true" group:"watch" doc:"Swap when files change: 'auto' (the app's own file) or a list of 'path[=action]', action swap, signal:NAME or ignore. Unset or off: nothing is watched."`
	WatchSettle Duration `split_words:"true" group:"watch" default:"300ms" doc:"A change counts once the file has been quiet for so long."`
	WatchPoll   Duration `split_words:"true" group:"watch" default:"2s" doc:"Beside the kernel's events, look at the watched files this often."`
	StateDir    string   `split_words:"true" group:"watch" doc:"A writable directory, as an absolute path, in which what must survive a restart of the container is kept. Unset: nothing is written anywhere."`

	Control   string   `split_words:"true" group:"face" default:"auto" doc:"The socket on which the other commands reach the init. auto: an abstract one that needs no writable path. Else an absolute path, an abstract name that begins with @, or off."`
	LogLevel  string   `split_words:"true" group:"face" default:"info" choice:"debug|info|warn|error" doc:"Least severity of the init's own log lines, on standard error."`
	LogFormat string   `split_words:"true" group:"face" default:"auto" choice:"auto|text|json" doc:"Form of the init's own log lines. auto: text on a terminal, else JSON."`
	Grace     Duration `split_words:"true" group:"face" default:"0s" doc:"How long the container runtime itself waits between TERM and KILL (Docker 10s, Kubernetes 30s, unless changed): used only to warn when our own times do not fit in. 0: not known."`
}

// Config is a validated configuration. It is made by Load, is not changed
// afterwards, and may be read by any number of goroutines.
//
// The variables are fields of the embedded Variables; that of
// ENTRYPOINT_APP_ENV is Variables.AppEnv, because AppEnv is a method.
type Config struct {
	Variables

	sources map[string]Source // by variable; absent: FromDefault
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
