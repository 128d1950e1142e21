package schedule

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sluicerun/sluice/internal/safe"
)

var errBroken = errors.New("broken")

// journal records the order in which steps started.
type journal struct {
	mu    sync.Mutex
	names []string
}

func (j *journal) add(name string) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.names = append(j.names, name)
}

// plan makes steps from lines "name needs…"; a name ending in "!" fails, one
// beginning with "~" takes no slot. Each step takes a second.
func plan(lines string, log *journal) []Step {
	var steps []Step
	for line := range strings.Lines(lines) {
		f := strings.Fields(line)
		name, fails := strings.CutSuffix(f[0], "!")
		steps = append(steps, Step{
			Name: name, Needs: f[1:], Slot: !strings.HasPrefix(name, "~"),
			Run: func(ctx context.Context) (Growth, error) {
				log.add(name)
				select {
				case <-time.After(time.Second):
				case <-ctx.Done():
					return Growth{}, context.Cause(ctx)
				}
				if fails {
					return Growth{}, errBroken
				}
				return Growth{}, nil
			},
		})
	}
	return steps
}

func texts(results []Result) string {
	var b strings.Builder
	for _, r := range results {
		fmt.Fprintf(&b, "%s %s %s\n", r.Name, r.State, r.Cause)
	}
	return strings.ReplaceAll(b.String(), " \n", "\n")
}

func TestRun(t *testing.T) {
	for name, tc := range map[string]struct {
		steps   string
		workers int
		stop    bool
		want    string
		seconds int
	}{
		"nothing":           {steps: "", workers: 1, want: ""},
		"one after another": {steps: "b a\na\nc b", workers: 8, want: "a succeeded\nb succeeded\nc succeeded\n", seconds: 3},
		"at once":           {steps: "c\nb\na", workers: 3, want: "a succeeded\nb succeeded\nc succeeded\n", seconds: 1},
		"one worker":        {steps: "c\nb\na", workers: 1, want: "a succeeded\nb succeeded\nc succeeded\n", seconds: 3},
		"no worker is one":  {steps: "b\na", workers: 0, want: "a succeeded\nb succeeded\n", seconds: 2},
		"waiting takes no slot": {steps: "~w\n~x\n~y\na\nb", workers: 1, seconds: 2,
			want: "a succeeded\n~w succeeded\n~x succeeded\n~y succeeded\nb succeeded\n"},
		"the cause is the root": {steps: "a!\nb a\nc b\nd c x\nx", workers: 8, seconds: 1,
			want: "a failed\nb skipped a\nc skipped a\nx succeeded\nd skipped a\n"},
		"others finish": {steps: "a!\nb a\nx\ny x", workers: 8, want: "a failed\nb skipped a\nx succeeded\ny succeeded\n", seconds: 2},
		"stop on failure": {steps: "a!\nb a\nx\ny x", workers: 1, stop: true, seconds: 1,
			want: "a failed\nb skipped a\nx cancelled a\ny cancelled a\n"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var log journal
				begin := time.Now()
				steps := plan(tc.steps, &log)
				// Steps that end at the same instant report in any order,
				// so compare what ended as a set with its order by name.
				results, err := Run(t.Context(), steps, Options{Workers: tc.workers, StopOnFailure: tc.stop})
				if err != nil {
					t.Fatal(err)
				}
				got, want := sorted(texts(results)), sorted(tc.want)
				if got != want {
					t.Errorf("got\n%swant\n%s", got, want)
				}
				if took := int(time.Since(begin) / time.Second); took != tc.seconds {
					t.Errorf("took %d s, want %d", took, tc.seconds)
				}
			})
		})
	}
}

func sorted(s string) string {
	lines := slices.Collect(strings.Lines(s))
	slices.Sort(lines)
	return strings.Join(lines, "")
}

func TestCancel(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		stop := errors.New("told to stop")
		ctx, cancel := context.WithCancelCause(t.Context())
		var log journal
		steps := plan("a\nb a\nc b\nz", &log)
		time.AfterFunc(1500*time.Millisecond, func() { cancel(stop) })
		results, err := Run(ctx, steps, Options{Workers: 8})
		if err != nil {
			t.Fatal(err)
		}
		want := "a succeeded\nb cancelled\nc cancelled\nz succeeded\n"
		if got := sorted(texts(results)); got != want {
			t.Errorf("got\n%swant\n%s", got, want)
		}
		for _, r := range results {
			if r.Name == "b" && !errors.Is(r.Err, stop) {
				t.Errorf("b ended with %v", r.Err)
			}
			if r.Name == "c" && r.Err != nil {
				t.Errorf("c never ran, yet ended with %v", r.Err)
			}
		}
	})
}

// A step may find more to do: new steps, and new needs for steps that wait.
func TestGrowth(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log journal
		steps := plan("parent\n~parent-ready parent\napps parent", &log)
		inner := steps[0].Run
		steps[0].Run = func(ctx context.Context) (Growth, error) {
			_, err := inner(ctx)
			return Growth{
				Steps: plan("child parent\n~child-ready child", &log),
				Needs: map[string][]string{"~parent-ready": {"~child-ready"}, "apps": {"~child-ready"}},
			}, err
		}
		results, err := Run(t.Context(), steps, Options{Workers: 8})
		if err != nil {
			t.Fatal(err)
		}
		if len(results) != 5 {
			t.Errorf("results %v", results)
		}
		want := []string{"parent", "child", "~child-ready"}
		if !slices.Equal(log.names[:3], want) {
			t.Errorf("started %v, want %v first", log.names, want)
		}
	})
}

func TestGrowthThatIsUnsoundFailsItsStep(t *testing.T) {
	for name, growth := range map[string]Growth{
		"cycle":   {Needs: map[string][]string{"b": {"c"}}},
		"missing": {Steps: []Step{{Name: "x", Needs: []string{"nowhere"}}}},
		"twice":   {Steps: []Step{{Name: "b"}}},
		"started": {Needs: map[string][]string{"a": {"b"}}},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var log journal
				steps := plan("a\nb a\nc b", &log)
				steps[0].Run = func(context.Context) (Growth, error) { return growth, nil }
				results, err := Run(t.Context(), steps, Options{Workers: 1})
				if err != nil {
					t.Fatal(err)
				}
				if got, want := texts(results), "a failed\nb skipped a\nc skipped a\n"; got != want {
					t.Errorf("got\n%swant\n%s", got, want)
				}
			})
		})
	}
}

func TestUnsoundStepsRunNothing(t *testing.T) {
	ran := false
	_, err := Run(t.Context(), []Step{{Name: "a", Needs: []string{"b"}, Run: func(context.Context) (Growth, error) {
		ran = true
		return Growth{}, nil
	}}}, Options{})
	if err == nil || ran {
		t.Errorf("err %v, ran %v", err, ran)
	}
}

// Whatever the graph, the workers and the failures: every step ends once, no
// step starts before what it needs has succeeded, and a skipped step's cause
// is a failed one.
func TestProperties(t *testing.T) {
	for seed := range uint64(300) {
		synctest.Test(t, func(t *testing.T) {
			r := rand.New(rand.NewPCG(seed, 7))
			n := 1 + r.IntN(25)
			workers := 1 + r.IntN(4)
			ended := map[string]State{}
			running, most := 0, 0
			mu := make(chan struct{}, 1)
			steps := make([]Step, n)
			for i := range steps {
				name := fmt.Sprintf("v%02d", i)
				fails, takes, slot := r.IntN(8) == 0, time.Duration(r.IntN(5))*time.Second, r.IntN(3) > 0
				var needs []string
				for j := range i {
					if r.IntN(5) == 0 {
						needs = append(needs, fmt.Sprintf("v%02d", j))
					}
				}
				steps[i] = Step{Name: name, Needs: needs, Slot: slot, Run: func(context.Context) (Growth, error) {
					mu <- struct{}{}
					for _, need := range needs {
						if state, ok := ended[need]; !ok || state != Succeeded {
							t.Errorf("seed %d: %s started before %s had succeeded", seed, name, need)
						}
					}
					if slot {
						running++
						most = max(most, running)
					}
					<-mu
					time.Sleep(takes)
					mu <- struct{}{}
					if slot {
						running--
					}
					<-mu
					if fails {
						return Growth{}, errBroken
					}
					return Growth{}, nil
				}}
			}
			results, err := Run(t.Context(), steps, Options{Workers: workers, Done: func(res Result) {
				mu <- struct{}{}
				if _, twice := ended[res.Name]; twice {
					t.Errorf("seed %d: %s ended twice", seed, res.Name)
				}
				ended[res.Name] = res.State
				if res.State == Skipped && ended[res.Cause] != Failed {
					t.Errorf("seed %d: %s was skipped because of %q", seed, res.Name, res.Cause)
				}
				<-mu
			}})
			if err != nil || len(results) != n || len(ended) != n {
				t.Errorf("seed %d: %d of %d steps ended, error %v", seed, len(results), n, err)
			}
			if most > workers {
				t.Errorf("seed %d: %d steps at once with %d workers", seed, most, workers)
			}
		})
	}
}

// An error that is harmless keeps only what needs the step from running.
func TestHarmless(t *testing.T) {
	for _, harmless := range []bool{true, false} {
		synctest.Test(t, func(t *testing.T) {
			var log journal
			results, err := Run(t.Context(), plan("a!\nb a\nc d\nd", &log), Options{
				Workers: 1, StopOnFailure: true, Harmless: func(err error) bool { return harmless && errors.Is(err, errBroken) },
			})
			if err != nil {
				t.Fatal(err)
			}
			want := "a failed\nb skipped a\nc succeeded\nd succeeded\n"
			if !harmless {
				want = "a failed\nb skipped a\nc cancelled a\nd cancelled a\n"
			}
			if got := sorted(texts(results)); got != want {
				t.Errorf("harmless %v: got\n%swant\n%s", harmless, got, want)
			}
		})
	}
}

// A step that pauses lets others work, and goes on before those that have not
// started.
func TestPause(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		begin := time.Now()
		var mu sync.Mutex
		var log []string
		note := func(what string) {
			mu.Lock()
			defer mu.Unlock()
			log = append(log, fmt.Sprintf("%s %d", what, int(time.Since(begin)/time.Second)))
		}
		work := func(name string, d time.Duration) Step {
			return Step{Name: name, Slot: true, Run: func(context.Context) (Growth, error) {
				note(name)
				time.Sleep(d)
				return Growth{}, nil
			}}
		}
		pausing := func(name string, slot bool) Step {
			return Step{Name: name, Slot: slot, Run: func(ctx context.Context) (Growth, error) {
				note(name)
				if err := Pause(ctx, 5*time.Second); err != nil {
					return Growth{}, err
				}
				note(name + " again")
				time.Sleep(time.Second)
				return Growth{}, nil
			}}
		}
		steps := []Step{pausing("a", true), work("b", 3*time.Second), work("c", 4*time.Second), work("d", time.Second), pausing("z", false)}
		results, err := Run(t.Context(), steps, Options{Workers: 1})
		if err != nil || len(results) != 5 {
			t.Fatalf("%v, %v", results, err)
		}
		want := []string{"a 0", "a again 7", "b 0", "c 3", "d 8", "z 0", "z again 5"}
		slices.Sort(log)
		if !slices.Equal(log, want) {
			t.Errorf("got %v, want %v", log, want)
		}
	})
}

// Told to stop, steps that pause or wait for their slot return.
func TestPauseCancelled(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		stop := errors.New("told to stop")
		ctx, cancel := context.WithCancelCause(t.Context())
		pausing := func(name string, d time.Duration) Step {
			return Step{Name: name, Slot: true, Run: func(ctx context.Context) (Growth, error) { return Growth{}, Pause(ctx, d) }}
		}
		busy := Step{Name: "c", Slot: true, Run: func(ctx context.Context) (Growth, error) {
			<-ctx.Done()
			return Growth{}, context.Cause(ctx)
		}}
		time.AfterFunc(10*time.Second, func() { cancel(stop) })
		begin := time.Now()
		results, err := Run(ctx, []Step{pausing("a", time.Second), pausing("b", time.Minute), busy}, Options{Workers: 1})
		if err != nil {
			t.Fatal(err)
		}
		if got := sorted(texts(results)); got != "a cancelled\nb cancelled\nc cancelled\n" {
			t.Errorf("got\n%s", got)
		}
		if took := time.Since(begin); took != 10*time.Second {
			t.Errorf("took %s", took)
		}
	})
}

// A panic of a step is its error; one of a callback is one of Run, which waits for the steps that run.
func TestPanics(t *testing.T) {
	boom := Step{Name: "boom", Run: func(context.Context) (Growth, error) { panic("boom") }}
	after := Step{Name: "after", Needs: []string{"boom"}, Run: func(context.Context) (Growth, error) { return Growth{}, nil }}
	results, err := Run(t.Context(), []Step{boom, after}, Options{Workers: 1})
	var fault *safe.Error
	if err != nil || len(results) != 2 || !errors.As(results[0].Err, &fault) || results[1].State != Skipped {
		t.Errorf("%v, %v", results, err)
	}

	ended := false
	slow := Step{Name: "slow", Run: func(ctx context.Context) (Growth, error) {
		<-ctx.Done() // the others are told to stop
		ended = true
		return Growth{}, context.Cause(ctx)
	}}
	quick := Step{Name: "quick", Run: func(context.Context) (Growth, error) {
		return Growth{Make: func() Growth { panic("boom") }}, nil
	}}
	err = safe.Do(func() error {
		_, err := Run(t.Context(), []Step{slow, quick}, Options{Workers: 2})
		return err
	})
	if !errors.As(err, &fault) || !ended {
		t.Errorf("%v; the other step has ended: %t", err, ended)
	}
}

// Of the steps that can start, the one with the longest chain behind it does, and
// no time passes between the end of one and the start of what it let go.
func TestLongestChainFirstAndAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log journal
		steps := plan("a\nb\nc\nx\ny x\nz y", &log)
		began := time.Now()
		if _, err := Run(t.Context(), steps, Options{Workers: 2}); err != nil {
			t.Fatal(err)
		}
		if took := time.Since(began); took != 3*time.Second {
			t.Errorf("six steps of a second took two workers %v in the order %v", took, log.names)
		}
		// All that becomes possible in an instant starts in it, whatever it
		// waited for: a step, a gate, or a worker.
		var mu sync.Mutex
		at := map[string]time.Duration{}
		began = time.Now()
		run := func(name string, d time.Duration) func(context.Context) (Growth, error) {
			return func(context.Context) (Growth, error) {
				mu.Lock()
				at[name] = time.Since(began)
				mu.Unlock()
				time.Sleep(d)
				return Growth{}, nil
			}
		}
		_, err := Run(t.Context(), []Step{
			{Name: "first", Slot: true, Run: run("first", 7*time.Millisecond)},
			{Name: "roll-out", Needs: []string{"first"}, Run: run("roll-out", 11*time.Millisecond)},
			{Name: "gate", Needs: []string{"roll-out"}, Open: func(context.Context, bool) (bool, error) { return true, nil }},
			{Name: "behind the gate", Needs: []string{"gate"}, Slot: true, Run: run("behind the gate", 13*time.Millisecond)},
			{Name: "without a worker", Slot: true, Needs: []string{"roll-out"}, Run: run("without a worker", time.Millisecond)},
		}, Options{Workers: 1})
		if err != nil {
			t.Fatal(err)
		}
		want := map[string]time.Duration{"first": 0, "roll-out": 7 * time.Millisecond}
		// Which of the last two comes first is told by their chains, which
		// are as long.
		want["without a worker"], want["behind the gate"] = 18*time.Millisecond, 19*time.Millisecond
		if at["behind the gate"] == 18*time.Millisecond {
			want["without a worker"], want["behind the gate"] = 31*time.Millisecond, 18*time.Millisecond
		}
		if !maps.Equal(at, want) {
			t.Errorf("started at %v, want %v", at, want)
		}
	})
}
