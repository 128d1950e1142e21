package schedule

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// gateOf is a gate that opens when the function says so.
func gateOf(name string, needs, after []string, open func(last bool) (bool, error)) Step {
	return Step{Name: name, Needs: needs, After: after, Open: func(_ context.Context, last bool) (bool, error) { return open(last) }}
}

// A gate opens by what a running step tells, before that step ends, and holds no
// worker meanwhile.
func TestGateOpensByWhatIsTold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log journal
		var applied atomic.Bool
		begin := time.Now()
		steps := append(plan("after gate", &log),
			Step{Name: "long", Run: func(ctx context.Context) (Growth, error) {
				time.Sleep(time.Second)
				applied.Store(true)
				Tell(ctx)
				time.Sleep(time.Minute)
				return Growth{}, errBroken
			}},
			gateOf("gate", nil, []string{"long"}, func(bool) (bool, error) { return applied.Load(), nil }))
		results, err := Run(t.Context(), steps, Options{Workers: 1})
		if err != nil {
			t.Fatal(err)
		}
		if got, want := texts(results), "gate succeeded\nafter succeeded\nlong failed\n"; got != want {
			t.Errorf("got\n%swant\n%s", got, want)
		}
		if took := time.Since(begin); took != 61*time.Second {
			t.Errorf("took %s", took)
		}
	})
}

// What may come of gates: opened by an end, good or bad, or shut with an error
// that is the cause for all behind it.
func TestGateEnds(t *testing.T) {
	never := func(bool) (bool, error) { return false, nil }
	for _, tc := range []struct {
		name  string
		steps string
		gates func(ended map[string]bool) []Step
		stop  bool
		want  string
	}{
		{"opened by a failure", "a!\nb gate", func(ended map[string]bool) []Step {
			return []Step{gateOf("gate", nil, []string{"a"}, func(bool) (bool, error) { return ended["a"], nil })}
		}, false, "a failed\nb succeeded\ngate succeeded\n"},
		{"by the end of a step that comes later in the order", "a!\nb gate\nz a", func(ended map[string]bool) []Step {
			return []Step{gateOf("gate", nil, []string{"a"}, func(bool) (bool, error) { return ended["z"], nil })}
		}, false, "a failed\nb succeeded\ngate succeeded\nz skipped a\n"},
		{"shut when nothing is left to happen", "a\nb gate\nc b", func(map[string]bool) []Step {
			return []Step{gateOf("gate", nil, []string{"a"}, never)}
		}, false, "a succeeded\nb skipped gate\nc skipped gate\ngate failed\n"},
		{"shut by an error", "a\nb gate", func(map[string]bool) []Step {
			return []Step{gateOf("gate", nil, []string{"a"}, func(bool) (bool, error) { return false, errBroken })}
		}, false, "a succeeded\nb skipped gate\ngate failed\n"},
		{"open at the last call", "a\nb gate", func(map[string]bool) []Step {
			return []Step{gateOf("gate", nil, []string{"a"}, func(last bool) (bool, error) { return last, nil })}
		}, false, "a succeeded\nb succeeded\ngate succeeded\n"},
		{"one that the last call opens lets another open", "a\nb gate1\nc gate2", func(ended map[string]bool) []Step {
			return []Step{
				gateOf("gate1", nil, nil, func(last bool) (bool, error) { return last, nil }),
				gateOf("gate2", nil, nil, func(bool) (bool, error) { return ended["b"], nil }),
			}
		}, false, "a succeeded\nb succeeded\nc succeeded\ngate1 succeeded\ngate2 succeeded\n"},
		{"two that wait for each other: one is shut, and that ends the other", "b gate1\nc gate2", func(ended map[string]bool) []Step {
			return []Step{
				gateOf("gate1", nil, nil, func(bool) (bool, error) { return ended["c"], nil }),
				gateOf("gate2", nil, nil, func(bool) (bool, error) { return ended["b"], nil }),
			}
		}, false, "b skipped gate1\nc succeeded\ngate1 failed\ngate2 succeeded\n"},
		{"not asked before its needs are met", "a!\nb gate", func(map[string]bool) []Step {
			return []Step{gateOf("gate", []string{"a"}, nil, func(bool) (bool, error) { return true, nil })}
		}, false, "a failed\nb skipped a\ngate skipped a\n"},
		{"a shut gate is a failure that stops the run", "a\nb gate\nlong a", func(ended map[string]bool) []Step {
			return []Step{gateOf("gate", nil, nil, func(bool) (bool, error) {
				if ended["a"] {
					return false, errBroken
				}
				return false, nil
			})}
		}, true, "a succeeded\nb skipped gate\ngate failed\nlong cancelled gate\n"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var log journal
				ended := map[string]bool{}
				results, err := Run(t.Context(), append(plan(tc.steps, &log), tc.gates(ended)...),
					Options{Workers: 8, StopOnFailure: tc.stop, Done: func(r Result) { ended[r.Name] = true }})
				if err != nil {
					t.Fatal(err)
				}
				if got := sorted(texts(results)); got != tc.want {
					t.Errorf("got\n%swant\n%s", got, tc.want)
				}
			})
		})
	}
}

// The end of the context ends a gate.
func TestGateIsCancelled(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		time.AfterFunc(time.Second/2, cancel)
		var log journal
		results, err := Run(ctx, append(plan("a\nb gate", &log), gateOf("gate", nil, nil, func(bool) (bool, error) { return false, nil })), Options{Workers: 1})
		if err != nil {
			t.Fatal(err)
		}
		if got, want := sorted(texts(results)), "a cancelled\nb cancelled\ngate cancelled\n"; got != want {
			t.Errorf("got\n%swant\n%s", got, want)
		}
	})
}

// What a gate comes after counts for cycles, also if it is only known later.
func TestGateCycles(t *testing.T) {
	nothing := func(context.Context) (Growth, error) { return Growth{}, nil }
	open := func(bool) (bool, error) { return true, nil }
	_, err := Run(t.Context(), []Step{{Name: "a", Needs: []string{"gate"}, Run: nothing}, gateOf("gate", nil, []string{"a"}, open)}, Options{})
	if err == nil || !strings.Contains(err.Error(), "a → gate → a") {
		t.Errorf("got %v", err)
	}
	_, err = Run(t.Context(), []Step{gateOf("gate", nil, []string{"gone"}, open)}, Options{})
	if err == nil || !strings.Contains(err.Error(), "gone") {
		t.Errorf("got %v", err)
	}
	var failed error
	_, err = Run(t.Context(), []Step{
		{Name: "holder", Run: func(context.Context) (Growth, error) {
			return Growth{Steps: []Step{{Name: "late", Needs: []string{"holder", "b"}, Run: nothing}}, After: map[string][]string{"gate": {"late"}}}, nil
		}},
		gateOf("gate", []string{"holder"}, nil, open),
		{Name: "b", Needs: []string{"gate"}, Run: nothing},
	}, Options{Workers: 1, Done: func(r Result) {
		if r.Name == "holder" {
			failed = r.Err
		}
	}})
	if err != nil || failed == nil || !strings.Contains(failed.Error(), "cycle") {
		t.Errorf("got %v and %v", err, failed)
	}
}

// Of several failed needs the cause is the first by name, in whatever order they
// were given.
func TestCauseIsTheFirstByName(t *testing.T) {
	for _, needs := range [][]string{{"a", "b", "c"}, {"c", "b", "a"}} {
		gates := []Step{{Name: "x", Needs: needs, Run: func(context.Context) (Growth, error) { return Growth{}, nil }}}
		for _, name := range needs {
			gates = append(gates, gateOf(name, nil, nil, func(bool) (bool, error) { return false, fmt.Errorf("%w: %s", errBroken, name) }))
		}
		results, err := Run(t.Context(), gates, Options{})
		if err != nil {
			t.Fatal(err)
		}
		i := slices.IndexFunc(results, func(r Result) bool { return r.Name == "x" })
		if results[i].Cause != "a" || !errors.Is(results[0].Err, errBroken) {
			t.Errorf("needs %v: %+v", needs, results[i])
		}
	}
}
