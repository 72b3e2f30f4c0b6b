module github.com/hotswap-init/entrypoint

go 1.26.0

require (
	github.com/coreos/go-systemd/v22 v22.7.0
	github.com/google/go-cmp v0.7.0
	github.com/google/shlex v0.0.0-20191202100458-e7afc7fbc510
	github.com/jedisct1/go-minisign v0.0.0-20260527172527-a09352b57a22
	github.com/kelseyhightower/envconfig v1.4.0
	github.com/mitchellh/go-ps v1.0.0
	github.com/moby/sys/user v0.5.0
	github.com/rogpeppe/go-internal v1.16.0
	go.uber.org/goleak v1.3.0
	golang.org/x/sys v0.49.0
)

require (
	golang.org/x/crypto v0.52.0 // indirect
	golang.org/x/tools v0.26.0 // indirect
)
