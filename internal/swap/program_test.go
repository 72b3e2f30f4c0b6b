package swap

import (
	"errors"
	"os"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hotswap-init/entrypoint/reaper"
)

func (r *rig) swap(q Request) Result {
	q.Cause = "test"
	return r.Swap(r.t.Context(), q, nil)
}

// update writes new bytes to the file and swaps them in.
func (r *rig) update(bytes string) {
	r.t.Helper()
	r.w.write(bytes)
	wantCode(r.t, r.reload(), CodeDone)
	synctest.Wait()
}

// runs checks which bytes are active.
func (r *rig) runs(bytes string) Status {
	r.t.Helper()
	synctest.Wait()
	st, err := r.Status(r.t.Context())
	if err != nil {
		r.t.Fatal(err)
	}
	for _, g := range st.Generations {
		if g.Number == st.Active {
			if g.SHA256 != bytes {
				r.t.Fatalf("generation %d runs %q, want %q", g.Number, g.SHA256, bytes)
			}
			return st
		}
	}
	r.t.Fatalf("nothing is active, want %q", bytes)
	return st
}

func kept(st Status) string {
	var list []string
	for _, k := range st.Kept {
		list = append(list, k.SHA256)
	}
	return strings.Join(list, " ")
}

func TestRollback(t *testing.T) {
	inBubble(t, newWorld(t), func(o *Options) { o.Keep = 3 }, func(r *rig) {
		r.runs("one")
		if res := r.swap(Request{Kind: Rollback}); res.Code != CodeRejected || !strings.Contains(res.Text, "no other bytes") {
			t.Errorf("with nothing to go back to: %+v", res)
		}
		r.update("two")
		r.update("two") // the same again uses up no place
		r.update("three")
		if st := r.runs("three"); kept(st) != "two one" || !st.Drift || st.Image != "one" {
			t.Errorf("kept %q, drift %v, image %q", kept(st), st.Drift, st.Image)
		}
		wantCode(t, r.swap(Request{Kind: Rollback}), CodeDone)
		if st := r.runs("two"); kept(st) != "one" || st.Barred != "three" {
			t.Errorf("kept %q, barred %q", kept(st), st.Barred)
		}
		wantCode(t, r.swap(Request{Kind: Rollback}), CodeDone)
		if st := r.runs("one"); kept(st) != "" || st.Drift {
			t.Errorf("kept %q, drift %v", kept(st), st.Drift)
		}
	})
}

func TestKeepBoundsBytes(t *testing.T) {
	for keep, want := range map[int]string{1: "", 2: "four", 4: "four three two"} {
		inBubble(t, newWorld(t), func(o *Options) { o.Keep = keep }, func(r *rig) {
			for _, bytes := range []string{"two", "three", "four", "five"} {
				r.update(bytes)
			}
			time.Sleep(time.Minute) // the old ones end
			st := r.runs("five")
			if kept(st) != want || st.Memory != int64(10*(1+len(st.Kept))) {
				t.Errorf("keep %d: %q, %d bytes of memory", keep, kept(st), st.Memory)
			}
			if keep == 1 {
				if res := r.swap(Request{Kind: Rollback}); !strings.Contains(res.Text, "ENTRYPOINT_KEEP") {
					t.Errorf("%+v", res)
				}
			}
		})
	}
}

func TestRolledBackBytesAreBarred(t *testing.T) {
	inBubble(t, newWorld(t), nil, func(r *rig) {
		r.update("two")
		wantCode(t, r.swap(Request{Kind: Rollback}), CodeDone)
		if res := r.reload(); res.Code != CodeRejected || res.Phase != "check" || !strings.Contains(res.Text, "rolled back") {
			t.Errorf("a reload of barred bytes: %+v", res)
		}
		r.runs("one")
		r.update("three")
		r.update("two") // its bytes have changed meanwhile
		wantCode(t, r.swap(Request{Kind: Rollback}), CodeDone)
		r.runs("three")
		wantCode(t, r.swap(Request{Kind: Reload, Force: true}), CodeDone)
		r.runs("two")
	})
}

func TestRollbackNeedsIntactBytes(t *testing.T) {
	w := newWorld(t)
	inBubble(t, w, nil, func(r *rig) {
		r.update("two")
		w.programs[0].lost = errors.New("it was overwritten")
		if res := r.swap(Request{Kind: Rollback}); res.Code != CodeRejected || !strings.Contains(res.Text, "overwritten") {
			t.Errorf("%+v", res)
		}
		r.runs("two")
	})
}

func TestRollbackThatFailsChangesNothing(t *testing.T) {
	inBubble(t, newWorld(t, behaviour{}, behaviour{}, behaviour{exits: exits(1)}), nil, func(r *rig) {
		r.update("two")
		wantCode(t, r.swap(Request{Kind: Rollback}), CodeRejected)
		if st := r.runs("two"); kept(st) != "one" || st.Barred != "" {
			t.Errorf("kept %q, barred %q", kept(st), st.Barred)
		}
		wantCode(t, r.swap(Request{Kind: Rollback}), CodeDone)
		r.runs("one")
	})
}

func TestUnchangedBytesAreNotSwapped(t *testing.T) {
	w := newWorld(t)
	inBubble(t, w, nil, func(r *rig) {
		r.runs("one")
		res := r.swap(Request{Kind: Reload, Changed: true})
		if res.Code != CodeDone || !strings.Contains(res.Text, "nothing to do") || w.started() != 1 {
			t.Errorf("%+v after %d starts", res, w.started())
		}
		if st := r.want(1, "serving"); len(st.LastSwaps) != 1 {
			t.Errorf("%d swaps are on record", len(st.LastSwaps))
		}
		w.write("two")
		wantCode(t, r.swap(Request{Kind: Reload, Changed: true}), CodeDone)
		r.runs("two")
	})
}

// TestOlderFileDoesNotReplaceAnUpload: the watch looks late at the file of one upload, while the next one runs already.
func TestOlderFileDoesNotReplaceAnUpload(t *testing.T) {
	w := newWorld(t)
	inBubble(t, w, nil, func(r *rig) {
		watch := Request{Kind: Reload, Cause: "watch", Changed: true}
		w.changed = time.Now()
		w.write("two") // by an upload before the next one
		time.Sleep(time.Second)
		wantCode(t, r.swap(Request{Kind: Put, Upload: uploadOf(t, "three")}), CodeDone)
		if res := r.swap(watch); res.Code != CodeDone || !strings.Contains(res.Text, "newer than the file") {
			t.Errorf("%+v", res)
		}
		r.runs("three")
		time.Sleep(time.Second)
		w.changed = time.Now()
		time.Sleep(time.Second)
		wantCode(t, r.swap(Request{Kind: Restart}), CodeDone) // makes the upload no newer
		wantCode(t, r.swap(watch), CodeDone)
		r.runs("two")
	})
}

// TestRememberedWishIsTheStronger: whoever wants a swap in any case gets it, though a watch asked later.
func TestRememberedWishIsTheStronger(t *testing.T) {
	w := newWorld(t, behaviour{}, behaviour{slow: time.Second})
	inBubble(t, w, nil, func(r *rig) {
		r.Trigger(Request{Kind: Reload, Cause: "first"})
		synctest.Wait()
		r.Trigger(Request{Kind: Reload, Cause: "signal HUP", Remember: true})
		r.Trigger(Request{Kind: Reload, Cause: "watch", Remember: true, Changed: true})
		time.Sleep(time.Minute)
		r.want(3, "serving")
	})
}

func TestAutomaticRollback(t *testing.T) {
	crash := func(r *rig, gen int) {
		r.w.proc(gen).exit(reaper.ExitStatus(7))
		time.Sleep(time.Minute)
		synctest.Wait()
	}
	settled := func(r *rig) {
		r.update("two")
		time.Sleep(time.Minute) // the first generation has ended
	}
	auto := func(o *Options) { o.AutoRollback = true }
	t.Run("instead of the end", func(t *testing.T) {
		inBubble(t, newWorld(t), auto, func(r *rig) {
			settled(r)
			crash(r, 2)
			st := r.runs("one")
			if st.Barred != "two" || st.Active != 3 {
				t.Errorf("%+v", st)
			}
			crash(r, 3)
			r.wantEnd(Ending{Code: 7})
		})
	})
	t.Run("off", func(t *testing.T) {
		inBubble(t, newWorld(t), nil, func(r *rig) {
			settled(r)
			crash(r, 2)
			r.wantEnd(Ending{Code: 7})
		})
	})
	t.Run("a first generation has nothing behind it", func(t *testing.T) {
		inBubble(t, newWorld(t), auto, func(r *rig) {
			crash(r, 1)
			r.wantEnd(Ending{Code: 7})
		})
	})
	t.Run("the old bytes fail too", func(t *testing.T) {
		w := newWorld(t, behaviour{}, behaviour{}, behaviour{exits: exits(1)})
		inBubble(t, w, auto, func(r *rig) {
			settled(r)
			crash(r, 2)
			r.wantEnd(Ending{Code: 7})
			if w.started() != 3 {
				t.Errorf("%d starts", w.started())
			}
		})
	})
	t.Run("after the restart policy", func(t *testing.T) {
		w := newWorld(t)
		inBubble(t, w, func(o *Options) {
			auto(o)
			o.Restart, o.StartLimitBurst, o.StartLimitInterval = RestartOnFailure, 2, time.Hour
		}, func(r *rig) {
			settled(r)
			for gen := 2; gen <= 4; gen++ {
				crash(r, gen)
			}
			r.runs("one")
		})
	})
}

func TestPutRunsTheUpload(t *testing.T) {
	closed := func(u *Upload) {
		t.Helper()
		if err := u.File.Close(); !errors.Is(err, os.ErrClosed) {
			t.Error("the upload was not closed")
		}
	}
	w := newWorld(t, behaviour{}, behaviour{}, behaviour{slow: time.Second})
	inBubble(t, w, nil, func(r *rig) {
		u := uploadOf(t, "sent")
		res := r.swap(Request{Kind: Put, Upload: u})
		wantCode(t, res, CodeDone)
		closed(u)
		if st := r.runs("sent"); res.Path != "/real/app" || !st.Drift {
			t.Errorf("%+v, drift %v", res, st.Drift)
		}
		r.Trigger(Request{Kind: Reload, Cause: "slow"})
		synctest.Wait()
		u = uploadOf(t, "late")
		wantCode(t, r.swap(Request{Kind: Put, Upload: u}), CodeBusy)
		closed(u)
		time.Sleep(time.Minute)
		r.runs("one") // a reload runs what the file has
		r.Stop(r.t.Context(), true)
		u = uploadOf(t, "too late")
		wantCode(t, r.swap(Request{Kind: Put, Upload: u}), CodeNoInit)
		closed(u)
	})
}

func TestDrainedIsWaitedFor(t *testing.T) {
	w := newWorld(t, behaviour{handle: stubborn})
	inBubble(t, w, nil, func(r *rig) {
		began := time.Now()
		var phases []string
		res := r.Swap(r.t.Context(), Request{Kind: Reload, Cause: "test", Drained: true}, func(p Progress) { phases = append(phases, p.Phase) })
		wantCode(t, res, CodeDone)
		if took := time.Since(began); took < 30*time.Second || !strings.Contains(res.Text, "generation 1 has ended") || phases[len(phases)-1] != "drained" {
			t.Errorf("after %v: %+v, phases %v", took, res, phases)
		}
		r.wantState(1, Exited)
	})
}

// uploadOf is an upload of these bytes.
func uploadOf(t *testing.T, bytes string) *Upload {
	f, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	w.WriteString(bytes)
	w.Close()
	return &Upload{File: f, From: "test"}
}
