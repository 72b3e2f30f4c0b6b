package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"time"

	"github.com/hotswap-init/entrypoint/integration/engine"
	"github.com/hotswap-init/entrypoint/integration/load"
)

// stage is one container with the app of Dockerfile.example.
type stage struct {
	engine    engine.Engine
	container engine.Container
	binaries  engine.Binaries
	dir       string
	address   string
	load      *load.Load
	report    load.Report
}

const app = "/app/server"

// many old generations may drain at once: the swaps follow each other at once.
var many = []string{"ENTRYPOINT_MAX_DRAINING=10"}

// command is an app that lingers for longer than a client pauses on a busy machine: each hears in time that its connection ends.
func (s *stage) command() []string { return []string{app, "listen=tcp:" + s.address, "linger=3s"} }

// openStage takes Docker when a private engine can be started, else namespaces.
func openStage(ctx context.Context) (*stage, error) {
	dir, err := os.MkdirTemp("", "epdemo")
	if err != nil {
		return nil, err
	}
	s := &stage{dir: dir, address: freeAddress()}
	if err := s.open(ctx); err != nil {
		return nil, errors.Join(err, s.close())
	}
	return s, nil
}

func (s *stage) open(ctx context.Context) error {
	daemon, err := engine.StartDockerd(ctx)
	if err != nil {
		fmt.Printf("no private Docker engine (%v): using a private PID namespace\n", err)
		return s.openUnshare(ctx)
	}
	s.engine = engine.OnDockerd(daemon)
	return s.openDocker(ctx, daemon)
}

// openDocker builds Dockerfile.example as it is; only the builder's image is this
// machine's own toolchain, for there may be no registry to pull one from.
func (s *stage) openDocker(ctx context.Context, daemon *engine.Dockerd) error {
	begin := time.Now()
	builder, err := daemon.BuilderImage(ctx)
	if err != nil {
		return err
	}
	build := daemon.Command(ctx, "build", "-q", "--network", "none", "--build-arg", "BUILDER="+builder,
		"-f", "Dockerfile.example", "-t", "entrypoint-demo", ".")
	if out, err := build.CombinedOutput(); err != nil {
		return fmt.Errorf("cannot build Dockerfile.example: %w\n%s", err, out)
	}
	fmt.Printf("built the image of Dockerfile.example in %.0f s\n", time.Since(begin).Seconds())
	s.container, err = s.engine.Start(ctx, engine.Spec{
		Image: "entrypoint-demo", Command: s.command(), Env: many,
	})
	if err != nil {
		return err
	}
	s.binaries.TestApp = filepath.Join(s.dir, "server")
	return s.container.(engine.Fetcher).Fetch(app, s.binaries.TestApp)
}

func (s *stage) openUnshare(ctx context.Context) (err error) {
	if s.binaries, err = engine.Build(s.dir); err != nil {
		return err
	}
	if s.engine, err = engine.NewUnshare(s.binaries); err != nil {
		return err
	}
	s.container, err = s.engine.Start(ctx, engine.Spec{
		Command: s.command(), Env: many,
		Files: map[string]string{app: s.binaries.TestApp},
	})
	return err
}

func (s *stage) close() error {
	var errs []error
	if s.load != nil {
		s.load.Stop()
	}
	if s.container != nil {
		errs = append(errs, s.container.Close())
	}
	if s.engine != nil {
		errs = append(errs, s.engine.Close())
	}
	return errors.Join(append(errs, os.RemoveAll(s.dir))...)
}

// freeAddress is a loopback port below the range from which clients get theirs.
func freeAddress() string {
	for port := 18080; ; port++ {
		address := fmt.Sprintf("127.0.0.1:%d", port)
		if l, err := net.Listen("tcp", address); err == nil {
			l.Close()
			return address
		}
	}
}
