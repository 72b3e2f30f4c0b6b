package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"slices"
	"strconv"
	"syscall"
	"time"
)

// ask times n questions to the init of this container, each on a connection of its own as the protocol has it. The owner of the
// generations answers them, so this is how long he lets others wait.
func ask(n int) error {
	info, err := os.Stat("/proc/self/ns/mnt")
	if err != nil {
		return err
	}
	proof, err := os.Open("/proc/self/ns/mnt")
	if err != nil {
		return err
	}
	defer proof.Close()
	inode := info.Sys().(*syscall.Stat_t).Ino
	address := &net.UnixAddr{Net: "unix", Name: "@entrypoint/" + strconv.FormatUint(inode, 10) + "/1"}
	var took []time.Duration
	for range n {
		began := time.Now()
		if err := askOnce(address, int(proof.Fd())); err != nil {
			return err
		}
		took = append(took, time.Since(began))
		time.Sleep(2 * time.Millisecond)
	}
	slices.Sort(took)
	fmt.Println(took[len(took)/2].Nanoseconds(), took[len(took)*99/100].Nanoseconds(), took[len(took)-1].Nanoseconds())
	return nil
}

func askOnce(address *net.UnixAddr, proof int) error {
	c, err := net.DialUnix("unix", nil, address)
	if err != nil {
		return err
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(20 * time.Second))
	if _, _, err := c.WriteMsgUnix([]byte(`{"v":1,"op":"health"}`+"\n"), syscall.UnixRights(proof), nil); err != nil {
		return err
	}
	for lines := bufio.NewScanner(c); lines.Scan(); {
		var answer struct {
			Event, Text string
			Code        int
		}
		if err := json.Unmarshal(lines.Bytes(), &answer); err != nil {
			return err
		}
		if answer.Event != "result" {
			continue
		}
		if answer.Code != 0 {
			return fmt.Errorf("the init says %d: %s", answer.Code, answer.Text)
		}
		return nil
	}
	return fmt.Errorf("the init did not answer")
}
