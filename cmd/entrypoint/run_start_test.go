package main

import (
	"testing"
	"testing/synctest"
	"time"
)

// TestAwaitAll: the last one is waited for, but not for longer than a start may be put off.
func TestAwaitAll(t *testing.T) {
	for name, c := range map[string]struct{ closed, want time.Duration }{
		"known":  {300 * time.Millisecond, 300 * time.Millisecond},
		"slow":   {time.Hour, watchWait},
		"nobody": {0, 0},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var list []<-chan struct{}
				for _, after := range []time.Duration{c.closed, c.closed / 2} {
					if after > 0 {
						begun := make(chan struct{})
						time.AfterFunc(after, func() { close(begun) })
						list = append(list, begun)
					}
				}
				began := time.Now()
				awaitAll(list, watchWait)
				if took := time.Since(began); took != c.want {
					t.Errorf("took %v, want %v", took, c.want)
				}
			})
		})
	}
}
