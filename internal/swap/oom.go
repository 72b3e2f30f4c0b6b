package swap

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/hotswap-init/entrypoint/reaper"
)

// expendable is the oom_score_adj of a candidate while another generation serves: where the memory of the container ends, the kernel kills its
// largest process, which could be the one that serves, and so it takes the candidate first. Raising the number needs no privilege, nor does taking that
// back from a process of our user (proc(5), Linux 2.6.36). It is one that nobody chooses, so that ours are known. Where it cannot be set nothing changes.
const expendable = 987

// ownScore is ours, which all that we start inherits.
var ownScore = sync.OnceValue(func() int { n, _ := oomScore(os.Getpid()); return n })

func scoreFile(pid int) string { return fmt.Sprintf("/proc/%d/oom_score_adj", pid) }

func oomScore(pid int) (int, error) {
	b, err := os.ReadFile(scoreFile(pid))
	if err != nil {
		return 0, err
	}
	return strconv.Atoi(strings.TrimSpace(string(b)))
}

func setOOMScore(pid, score int) error {
	return os.WriteFile(scoreFile(pid), []byte(strconv.Itoa(score)), 0)
}

// expend makes a process that is to be started the first that is killed, if a generation serves that is not its own: from before its first
// instruction, for it can have used up the memory before anybody else gets to it. Only where we may take it back: what serves is of the same user.
func (a *App) expend(spec *reaper.Spec, gen int) {
	a.mu.Lock()
	defer a.mu.Unlock()
	serves := false
	for other, p := range a.processes {
		serves = serves || other.Generation == a.steered && other.Generation != gen && !ended(p) && unix.Access(scoreFile(p.PID()), unix.W_OK) == nil
	}
	if serves && ownScore() < expendable {
		spec.OOMScoreAdj = expendable
	}
}

// noteExpended notes that one of a generation's processes runs that is killed first. The caller holds the lock.
func (a *App) noteExpended(gen int) {
	a.expended = max(a.expended, gen)
	if a.steered == gen { // a worker of it, started while it got the traffic
		a.spareLater(gen)
	}
}

// spareLater is spare on a goroutine that Close waits for. The caller holds the lock.
func (a *App) spareLater(gen int) {
	if gen <= a.expended && !a.closed {
		a.serving.Go(func() { a.spare(gen) })
	}
}

// spare makes the processes of a generation, which has the traffic now, as likely to be killed as all others, and with them what has left its tree;
// not what belongs to a later candidate. What forks meanwhile is found in the next round.
func (a *App) spare(gen int) {
	a.mu.Lock()
	var others []int
	for at, p := range a.processes {
		if at.Generation != gen {
			others = append(others, p.PID())
		}
	}
	a.mu.Unlock()
	another := func(pid int) bool {
		return slices.ContainsFunc(others, func(root int) bool { return inTree(pid, root) })
	}
	for range 10 {
		found := false
		for _, pid := range a.Reaper.Descendants() {
			if n, err := oomScore(pid); err != nil || n != expendable || another(pid) {
				continue
			}
			found = true
			if err := setOOMScore(pid, ownScore()); err != nil && !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, unix.ESRCH) {
				a.logf("generation %d: where memory ends its process %d is killed first: cannot take that back: %v", gen, pid, err)
				return
			}
		}
		if !found {
			return
		}
	}
}
