package report

import (
	"fmt"
	"math/rand/v2"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

// turnsOf reads turns from lines "name applied ended needs… <parent", in seconds;
// a "-" was never applied, a name that ends in "*" awaits its children.
func turnsOf(t *testing.T, lines string) []turn {
	t.Helper()
	var turns []turn
	second := func(text string) time.Duration {
		n, err := strconv.Atoi(text)
		if err != nil {
			t.Fatal(err)
		}
		return time.Duration(n) * time.Second
	}
	for line := range strings.Lines(lines) {
		f := strings.Fields(line)
		this := turn{applied: -1, ended: second(f[2])}
		this.id, this.awaitsChildren = strings.CutSuffix(f[0], "*")
		if f[1] != "-" {
			this.applied = second(f[1])
		}
		for _, other := range f[3:] {
			if parent, ok := strings.CutPrefix(other, "<"); ok {
				this.parent = parent
			} else {
				this.needs = append(this.needs, other)
			}
		}
		turns = append(turns, this)
	}
	return turns
}

func TestCriticalPath(t *testing.T) {
	for _, tc := range []struct{ name, turns, path, slack string }{
		{"none", "", "", ""},
		{"one", "a 1 3", "a 3s/2s", "a 0s"},
		{"a chain", "a 1 3\nb 4 9 a\nc 10 10 b", "a 3s/2s, b 6s/5s, c 1s/0s", "a 0s, b 0s, c 0s"},
		{"the longer of two", "a 1 3\nb 1 5\nc 6 7 a b", "b 5s/4s, c 2s/1s", "a 2s, b 0s, c 0s"},
		{"others end earlier", "a 1 3\nb 4 8 a\nx 2 2\ny 3 4 x", "a 3s/2s, b 5s/4s", "a 0s, b 0s, x 4s, y 4s"},
		{"children come after the apply", "root 1 20\na 4 9 <root\nb 30 32 a <root", "root 1s/0s, a 8s/5s, b 23s/2s", "root 12s, a 0s, b 0s"},
		{"a parent awaits its children", "root* 1 10\na 4 9 <root\nb 2 3 <root", "root 1s/0s, a 8s/5s, root 1s/1s", "root 0s, a 0s, b 6s"},
		{"one that failed", "a - 3\nb 1 2", "a 3s/3s", "a 0s, b 1s"},
		{"what is not there", "a 1 3 gone <nobody", "a 3s/2s", "a 0s"},
		{"events of one instant", "a 1 4\nb 3 3 a\nc 5 5 b", "a 3s/2s, b 0s/0s, c 2s/0s", "a 0s, b 0s, c 0s"},
		{"ties by name", "b 1 2\na 1 2", "a 2s/1s", "a 0s, b 0s"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			turns := turnsOf(t, tc.turns)
			path, slack := criticalPath(turns)
			var steps, spare []string
			if path != nil {
				for _, s := range path.Steps {
					steps = append(steps, fmt.Sprintf("%s %v/%v", s.Node, time.Duration(s.Duration), time.Duration(s.RollOut)))
				}
			}
			for _, this := range turns {
				spare = append(spare, fmt.Sprintf("%s %v", this.id, slack[this.id]))
			}
			if tc.name == "ties by name" {
				slices.Sort(spare)
			}
			if got := strings.Join(steps, ", "); got != tc.path {
				t.Errorf("path %s, want %s", got, tc.path)
			}
			if got := strings.Join(spare, ", "); got != tc.slack {
				t.Errorf("slack %s, want %s", got, tc.slack)
			}
		})
	}
}

// played is a run of random Kustomizations: each begins when all that it waits for
// is there, perhaps later for want of a worker.
func played(random *rand.Rand) []turn {
	var turns []turn
	n := 1 + random.IntN(12)
	for i := range n {
		this := turn{id: fmt.Sprintf("n%02d", i)}
		began := time.Duration(0)
		for _, other := range turns {
			switch random.IntN(6) {
			case 0:
				this.needs = append(this.needs, other.id)
				began = max(began, other.ended)
			case 1:
				if this.parent == "" && !other.awaitsChildren {
					this.parent = other.id
					began = max(began, other.applied)
				}
			}
		}
		if random.IntN(3) == 0 {
			began += time.Duration(random.IntN(5)) * time.Second
		}
		this.applied = began + time.Duration(random.IntN(5))*time.Second
		this.ended = this.applied + time.Duration(random.IntN(20))*time.Second
		turns = append(turns, this)
	}
	return turns
}

// The path is as long as the whole; nobody has less than no time to spare, and
// those on the path whose end it goes through have none; to take away what has
// time to spare changes nothing; nor does the order of the turns.
func TestCriticalPathProperties(t *testing.T) {
	for seed := range uint64(2000) {
		random := rand.New(rand.NewPCG(seed, 2))
		turns := played(random)
		path, slack := criticalPath(turns)
		end := time.Duration(0)
		for _, this := range turns {
			end = max(end, this.ended)
		}
		sum := time.Duration(0)
		on := map[string]bool{}
		for _, s := range path.Steps {
			sum += time.Duration(s.Duration)
			on[s.Node] = true
			if s.Duration < 0 || s.RollOut < 0 || s.RollOut > s.Duration {
				t.Fatalf("seed %d: step %+v", seed, s)
			}
		}
		if sum != end || time.Duration(path.Duration) != end {
			t.Fatalf("seed %d: the path is %v long, of %v", seed, sum, end)
		}
		if last := path.Steps[len(path.Steps)-1].Node; slack[last] != 0 {
			t.Fatalf("seed %d: %s ends last and has %v to spare", seed, last, slack[last])
		}
		for id, spare := range slack {
			if spare < 0 || spare > end {
				t.Fatalf("seed %d: %s has %v to spare", seed, id, spare)
			}
		}
		fewer := slices.DeleteFunc(slices.Clone(turns), func(this turn) bool { return slack[this.id] > 0 && !on[this.id] })
		if without, _ := criticalPath(fewer); !reflect.DeepEqual(without, path) {
			t.Fatalf("seed %d: %+v, without those that have time to spare %+v", seed, path, without)
		}
		random.Shuffle(len(turns), func(i, j int) { turns[i], turns[j] = turns[j], turns[i] })
		again, same := criticalPath(turns)
		if !reflect.DeepEqual(again, path) || !reflect.DeepEqual(same, slack) {
			t.Fatalf("seed %d: another order gives %+v %v, not %+v %v", seed, again, same, path, slack)
		}
	}
}
