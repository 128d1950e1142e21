package fair_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sluicerun/sluice/internal/cluster/fair"
)

// grant is a slot that a party got.
type grant struct {
	party   string
	number  int
	release func()
}

// want has a party wait for so many slots, in order, and sends each that it gets.
func want(t *testing.T, q *fair.Queue, party string, n int, got chan<- grant) {
	t.Helper()
	for i := range n {
		go func() {
			release, err := q.Acquire(t.Context(), party)
			if err != nil {
				t.Errorf("%s %d: %v", party, i, err)
				return
			}
			got <- grant{party, i, release}
		}()
		synctest.Wait() // so that they come in this order
	}
}

// served returns the order in which those who wait get slots, one slot becoming
// free at a time.
func served(held []func(), got chan grant, n int) []string {
	var order []string
	for range n {
		held[0]()
		held = held[1:]
		synctest.Wait()
		g := <-got
		order = append(order, fmt.Sprintf("%s%d", g.party, g.number))
		held = append(held, g.release)
	}
	for _, release := range held {
		release()
	}
	return order
}

// fill takes all slots.
func fill(t *testing.T, q *fair.Queue) []func() {
	t.Helper()
	var held []func()
	for range q.Slots() {
		release, err := q.Acquire(t.Context(), "first")
		if err != nil {
			t.Fatal(err)
		}
		held = append(held, release)
	}
	return held
}

// Each party is served in turn, and within one the first first, whoever came
// with how many.
func TestTurns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := fair.New(2)
		held := fill(t, q)
		got := make(chan grant, 100)
		want(t, q, "big", 6, got)
		want(t, q, "small", 3, got)
		want(t, q, "late", 1, got)
		order := served(held, got, 10)
		if w := []string{"big0", "small0", "late0", "big1", "small1", "big2", "small2", "big3", "big4", "big5"}; !slices.Equal(order, w) {
			t.Errorf("served %v, want %v", order, w)
		}
	})
}

// Whatever comes and goes: no more slots are out than there are; all who wait get
// one; within a party the first is first; and nobody gets two while another, who
// waits all the time, gets none.
func TestFairness(t *testing.T) {
	for seed := range uint64(30) {
		synctest.Test(t, func(t *testing.T) { fairness(t, rand.New(rand.NewPCG(seed, 1))) })
	}
}

func fairness(t *testing.T, random *rand.Rand) {
	q := fair.New(1 + random.IntN(4))
	got := make(chan grant, 1000)
	var held []func()
	waiting := map[string][]int{} // numbers, in order
	total := map[string]int{}
	passed := map[string]map[string]int{} // by who waits, how often others were served since it began to
	outstanding := 0
	take := func() {
		synctest.Wait()
		var fresh []grant
		for len(got) > 0 {
			fresh = append(fresh, <-got)
		}
		if len(fresh) > 1 {
			t.Fatalf("%d slots given out for one", len(fresh))
		}
		for _, g := range fresh {
			outstanding--
			if waiting[g.party][0] != g.number {
				t.Fatalf("%s: %d is served before %d", g.party, g.number, waiting[g.party][0])
			}
			waiting[g.party] = waiting[g.party][1:]
			delete(passed, g.party)
			if len(waiting[g.party]) > 0 {
				passed[g.party] = map[string]int{}
			}
			for who, counts := range passed {
				if who == g.party {
					continue
				}
				if counts[g.party]++; counts[g.party] > 1 {
					t.Fatalf("%s was served twice while %s waited", g.party, who)
				}
			}
			held = append(held, g.release)
		}
		if len(held) > q.Slots() {
			t.Fatalf("%d of %d slots are out", len(held), q.Slots())
		}
		if outstanding > 0 && len(held) < q.Slots() {
			t.Fatalf("%d wait while a slot is free", outstanding)
		}
	}
	for range 300 {
		if outstanding == 0 || random.IntN(2) == 0 {
			party := string(rune('a' + random.IntN(4)))
			number := total[party]
			total[party]++
			if len(waiting[party]) == 0 {
				passed[party] = map[string]int{}
			}
			waiting[party] = append(waiting[party], number)
			outstanding++
			go func() {
				release, err := q.Acquire(t.Context(), party)
				if err != nil {
					t.Error(err)
					return
				}
				got <- grant{party, number, release}
			}()
		} else {
			i := random.IntN(len(held))
			release := held[i]
			held = slices.Delete(held, i, i+1)
			release()
			release() // a second time means nothing
		}
		take()
	}
	for outstanding > 0 {
		held[0]()
		held = held[1:]
		take()
	}
}

// Who waits stops with its context, and what it would have got is not lost.
func TestCancel(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := fair.New(1)
		held := fill(t, q)
		stop := errors.New("told to stop")
		ctx, cancel := context.WithCancelCause(t.Context())
		failed := make(chan error, 2)
		for range 2 {
			go func() {
				_, err := q.Acquire(ctx, "a")
				failed <- err
			}()
		}
		synctest.Wait()
		got := make(chan grant, 1)
		want(t, q, "a", 1, got)
		cancel(stop)
		for range 2 {
			if err := <-failed; !errors.Is(err, stop) {
				t.Errorf("error %v", err)
			}
		}
		if _, err := q.Acquire(ctx, "a"); !errors.Is(err, stop) {
			t.Errorf("after the end: %v", err)
		}
		if order := served(held, got, 1); !slices.Equal(order, []string{"a0"}) {
			t.Errorf("served %v", order)
		}
		// The end of the context and the grant at the same moment: whatever
		// comes of it, the slot is there for the next.
		for range 200 {
			held := fill(t, q)
			ctx, cancel := context.WithCancel(t.Context())
			done := make(chan struct{})
			go func() {
				if release, err := q.Acquire(ctx, "b"); err == nil {
					release()
				}
				close(done)
			}()
			synctest.Wait()
			go cancel()
			held[0]()
			<-done
		}
		fill(t, q)[0]()
	})
}

// While the server wants to be spared nobody gets a slot; then half as many do,
// and more with every round of good answers.
func TestHold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := fair.New(8)
		held := fill(t, q)
		got := make(chan grant, 100)
		want(t, q, "a", 20, got)
		began := time.Now()
		if !q.Hold(time.Second) || q.Hold(2*time.Second) || q.Hold(time.Second) {
			t.Error("only the first of a pause is the first")
		}
		idle := make(chan time.Duration)
		go func() {
			if err := q.Await(t.Context()); err != nil {
				t.Error(err)
			}
			idle <- time.Since(began)
		}()
		for _, release := range held {
			release()
		}
		synctest.Wait()
		if len(got) != 0 {
			t.Errorf("%d slots given out on hold", len(got))
		}
		if after := <-idle; after != 2*time.Second {
			t.Errorf("the pause took %v", after)
		}
		synctest.Wait()
		if len(got) != 4 {
			t.Errorf("%d slots after the first pause, want half of 8", len(got))
		}
		for range 4 {
			q.Good()
		}
		synctest.Wait()
		if len(got) != 5 {
			t.Errorf("%d slots after a good round", len(got))
		}
		for range 5 + 6 + 7 + 100 {
			q.Good()
		}
		synctest.Wait()
		if len(got) != 8 {
			t.Errorf("%d slots after good rounds, want all", len(got))
		}
		// However often: a quarter is left.
		for range 10 {
			q.Hold(time.Second)
			time.Sleep(time.Second)
			synctest.Wait()
		}
		for range 8 {
			(<-got).release()
		}
		synctest.Wait()
		if len(got) != 2 {
			t.Errorf("%d slots after many pauses, want a quarter of 8", len(got))
		}
		for range 12 {
			(<-got).release()
		}
		// The end of a context ends also the wait for a pause's end.
		q.Hold(time.Hour)
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := q.Await(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("await: %v", err)
		}
		if _, err := q.Acquire(ctx, "a"); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("acquire: %v", err)
		}
		time.Sleep(time.Hour)
	})
}

// What holds no slot, such as a watch, may be told to wait while nothing else is
// under way: that says little of how much the server can take.
func TestHoldWhileIdle(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := fair.New(8)
		q.Hold(time.Second)
		time.Sleep(time.Second)
		got := make(chan grant, 100)
		want(t, q, "a", 20, got)
		synctest.Wait()
		if len(got) != 2 {
			t.Errorf("%d slots after a pause, want a quarter of 8", len(got))
		}
		for range 20 {
			(<-got).release()
		}
	})
}
