package retry_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sluicerun/sluice/internal/retry"
)

var errPassing = errors.New("connection reset")

func TestDelayGrowsToItsLimit(t *testing.T) {
	p := retry.Policy{Base: time.Second, Max: 5 * time.Second, Factor: 2}
	for attempt, want := range map[int]time.Duration{
		-1: time.Second, 1: time.Second, 2: 2 * time.Second, 3: 4 * time.Second, 4: 5 * time.Second, 5000: 5 * time.Second,
	} {
		if got := p.Delay(attempt); got != want {
			t.Errorf("Delay(%d) = %v, want %v", attempt, got, want)
		}
	}
	if got := (retry.Policy{Base: time.Second, Factor: 10}).Delay(5000); got <= 0 {
		t.Errorf("without a limit a late delay overflowed to %v", got)
	}
	if got := (retry.Policy{}).Delay(3); got != 0 {
		t.Errorf("zero policy waits %v", got)
	}
	if got := (retry.Policy{Base: time.Second, Factor: 0.1}).Delay(3); got != time.Second {
		t.Errorf("a factor below 1 shortened the wait to %v", got)
	}
}

// TestDo tells the time of each attempt; the clock is synctest's, so the times are exact.
func TestDo(t *testing.T) {
	policy := retry.Policy{Attempts: 4, Base: time.Second, Max: 3 * time.Second, Factor: 2}
	tests := []struct {
		name   string
		policy retry.Policy
		fails  []error // by attempt; nil succeeds
		at     []time.Duration
		want   string
	}{
		{"at once", policy, []error{nil}, []time.Duration{0}, ""},
		{"third time", policy, []error{errPassing, errPassing, nil}, []time.Duration{0, 1 * time.Second, 3 * time.Second}, ""},
		{"never", policy, []error{errPassing, errPassing, errPassing, errPassing},
			[]time.Duration{0, 1 * time.Second, 3 * time.Second, 6 * time.Second}, "connection reset (after 4 attempts)"},
		{"permanent", policy, []error{errPassing, retry.Permanent(errors.New("not found"))},
			[]time.Duration{0, time.Second}, "not found"},
		{"permanent below other text", policy, []error{fmt.Errorf("fetching: %w", retry.Permanent(errors.New("not found")))},
			[]time.Duration{0}, "fetching: not found"},
		{"after", policy, []error{retry.After(errPassing, 10*time.Second), nil}, []time.Duration{0, 10 * time.Second}, ""},
		{"after a negative time", policy, []error{retry.After(errPassing, -time.Second), nil}, []time.Duration{0, 0}, ""},
		{"zero policy tries once", retry.Policy{}, []error{errPassing}, []time.Duration{0}, "connection reset"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				start := time.Now()
				var at []time.Duration
				err := retry.Do(t.Context(), tt.policy, func(_ context.Context, attempt int) error {
					at = append(at, time.Since(start))
					if attempt != len(at) {
						t.Errorf("attempt is %d, want %d", attempt, len(at))
					}
					return tt.fails[attempt-1]
				})
				if got := fmt.Sprint(at); got != fmt.Sprint(tt.at) {
					t.Errorf("attempts at %v, want %v", got, tt.at)
				}
				if got := text(err); got != tt.want {
					t.Errorf("error %q, want %q", got, tt.want)
				}
			})
		})
	}
}

func TestDoKeepsTheErrorForErrorsIs(t *testing.T) {
	err := retry.Do(t.Context(), retry.Policy{Attempts: 2}, func(context.Context, int) error { return errPassing })
	var exhausted *retry.ExhaustedError
	if !errors.Is(err, errPassing) || !errors.As(err, &exhausted) || exhausted.Attempts != 2 {
		t.Errorf("lost the error or the count: %v", err)
	}
	if retry.Permanent(nil) != nil || retry.After(nil, time.Second) != nil {
		t.Error("marking nil made an error")
	}
}

func TestDoEndsWithTheCause(t *testing.T) {
	stop := errors.New("interrupted by SIGTERM")
	t.Run("during the wait", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			ctx, cancel := context.WithCancelCause(t.Context())
			start := time.Now()
			time.AfterFunc(500*time.Millisecond, func() { cancel(stop) })
			err := retry.Do(ctx, retry.Policy{Attempts: 9, Base: time.Hour}, func(context.Context, int) error { return errPassing })
			if !errors.Is(err, stop) || time.Since(start) != 500*time.Millisecond {
				t.Errorf("ended after %v with %v", time.Since(start), err)
			}
			if got, want := text(err), "interrupted by SIGTERM (last attempt: connection reset)"; got != want {
				t.Errorf("error %q, want %q", got, want)
			}
		})
	})
	t.Run("during an attempt", func(t *testing.T) {
		ctx, cancel := context.WithCancelCause(t.Context())
		calls := 0
		err := retry.Do(ctx, retry.Policy{Attempts: 9}, func(ctx context.Context, _ int) error {
			calls++
			cancel(stop)
			return fmt.Errorf("reading: %w", context.Cause(ctx))
		})
		if calls != 1 || text(err) != "reading: interrupted by SIGTERM" {
			t.Errorf("%d calls, error %v", calls, err)
		}
	})
	t.Run("before the first attempt", func(t *testing.T) {
		ctx, cancel := context.WithCancelCause(t.Context())
		cancel(stop)
		err := retry.Do(ctx, retry.Policy{}, func(context.Context, int) error { t.Error("called"); return nil })
		if err != stop {
			t.Errorf("got %v", err)
		}
	})
}

// A wait beyond the deadline would only turn a clear error into "deadline exceeded".
func TestDoDoesNotWaitPastTheDeadline(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
		defer cancel()
		start := time.Now()
		err := retry.Do(ctx, retry.Policy{Attempts: 9, Base: 1500 * time.Millisecond, Factor: 2}, func(context.Context, int) error { return errPassing })
		if got, want := text(err), "connection reset (after 2 attempts)"; got != want {
			t.Errorf("error %q, want %q", got, want)
		}
		if got := time.Since(start); got != 1500*time.Millisecond {
			t.Errorf("took %v", got)
		}
	})
}

func text(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}
