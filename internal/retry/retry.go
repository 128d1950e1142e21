// Package retry repeats work that may fail for a passing reason.
//
// The policy is plain data, the error decides and the loop obeys: an error marked with [Permanent] ends it at once, one
// marked with [After] says how long to wait, an unmarked one is tried again after the policy's back-off. The package knows
// nothing of networks, Git or Kubernetes: whoever makes an error knows best whether it can pass.
package retry

import (
	"context"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"time"
)

// Policy says how often and at what distance work is repeated. It holds no state and can be shared.
type Policy struct {
	// Attempts is how often the work is tried in all, the first time included. Below 1 counts as 1.
	Attempts int
	// Base is the wait after the first failure.
	Base time.Duration
	// Max limits every wait that the policy computes; 0 sets no limit. A wait asked for with [After] is not limited by it:
	// a server that names a time means it.
	Max time.Duration
	// Factor multiplies the wait after each further failure. Below 1 counts as 1.
	Factor float64
	// Jitter is the share of a computed wait by which it is prolonged at most, at random: what failed at the same moment is
	// then not tried again at the same moment. 0 adds nothing.
	Jitter float64
}

// Delay is the wait after the given failed attempt, counted from 1, without jitter.
func (p Policy) Delay(attempt int) time.Duration {
	if p.Base <= 0 {
		return 0
	}
	limit := float64(math.MaxInt64 / 2)
	if p.Max > 0 {
		limit = float64(p.Max)
	}
	wait := float64(p.Base) * math.Pow(max(p.Factor, 1), float64(max(attempt, 1)-1))
	return time.Duration(min(wait, limit))
}

// Do calls fn until it returns nil, an error marked [Permanent], or the policy's attempts, or those of [AtMost], are used up.
//
// The result is nil or the error of the last attempt, without its marks. When more than one attempt was made the error is an
// [*ExhaustedError] that names their number. When ctx ends, no further attempt is made and the result is the context's cause,
// with the last attempt's error in its text. A wait that could not end before ctx's deadline is not begun: the last error
// comes back at once, because an answer now is worth more than the same answer later.
//
// fn gets the number of the attempt, counted from 1. It is never called concurrently.
func Do(ctx context.Context, p Policy, fn func(ctx context.Context, attempt int) error) error {
	attempts := max(p.Attempts, 1)
	for attempt := 1; ; attempt++ {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		err := fn(ctx, attempt)
		if err == nil {
			return nil
		}
		bare := unmark(err)
		if ctx.Err() != nil {
			return interrupted(ctx, bare)
		}
		if IsPermanent(err) {
			return bare
		}
		wait, asked := askedDelay(err)
		if !asked {
			wait = p.Delay(attempt)
			wait += time.Duration(p.Jitter * rand.Float64() * float64(wait))
		}
		if most, limited := askedAttempts(err); limited {
			attempts = min(attempts, max(most, 1))
		}
		if attempt >= attempts || !fits(ctx, wait) {
			if attempt == 1 {
				return bare
			}
			return &ExhaustedError{Attempts: attempt, Err: bare}
		}
		timer := time.NewTimer(wait)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return interrupted(ctx, bare)
		}
	}
}

// ExhaustedError says that the last of several attempts failed as the others did.
type ExhaustedError struct {
	// Attempts is how many were made, at least 2.
	Attempts int
	// Err is the error of the last one, without marks.
	Err error
}

// Error is the last attempt's text and the number of attempts.
func (e *ExhaustedError) Error() string {
	return fmt.Sprintf("%v (after %d attempts)", e.Err, e.Attempts)
}

// Unwrap gives the last attempt's error.
func (e *ExhaustedError) Unwrap() error { return e.Err }

// Permanent marks err as one that trying again cannot change. A nil err stays nil.
func Permanent(err error) error {
	if err == nil {
		return nil
	}
	return &mark{err: err, permanent: true}
}

// After marks err as one that may pass, not before d is over: what a server says in Retry-After. A nil err stays nil; a
// negative d counts as 0.
func After(err error, d time.Duration) error {
	if err == nil {
		return nil
	}
	return &mark{err: err, asked: true, after: max(d, 0)}
}

// AtMost marks err as one after which no more than so many attempts are made in all, if the policy allows as many. It may be
// combined with [After]. A nil err stays nil.
func AtMost(err error, attempts int) error {
	if err == nil {
		return nil
	}
	return &mark{err: err, most: attempts}
}

// IsPermanent reports whether err, or an error it wraps, was marked with [Permanent].
func IsPermanent(err error) bool {
	_, ok := marked(err, func(m *mark) bool { return m.permanent })
	return ok
}

// mark is invisible in texts: what a person reads is the error itself. Exactly one of permanent, asked and most is set.
type mark struct {
	err       error
	permanent bool
	asked     bool // to wait for after
	after     time.Duration
	most      int
}

func (m *mark) Error() string { return m.err.Error() }
func (m *mark) Unwrap() error { return m.err }

// marked returns the outermost mark of a kind.
func marked(err error, kind func(*mark) bool) (*mark, bool) {
	for {
		var m *mark
		if !errors.As(err, &m) {
			return nil, false
		}
		if kind(m) {
			return m, true
		}
		err = m.err
	}
}

func askedDelay(err error) (time.Duration, bool) {
	if m, ok := marked(err, func(m *mark) bool { return m.asked }); ok {
		return m.after, true
	}
	return 0, false
}

func askedAttempts(err error) (int, bool) {
	if m, ok := marked(err, func(m *mark) bool { return m.most != 0 }); ok {
		return m.most, true
	}
	return 0, false
}

// unmark removes marks from the outside. A mark below other wrapping stays; it neither shows nor hinders errors.As.
func unmark(err error) error {
	for {
		m, ok := err.(*mark)
		if !ok {
			return err
		}
		err = m.err
	}
}

func fits(ctx context.Context, wait time.Duration) bool {
	deadline, ok := ctx.Deadline()
	return !ok || time.Until(deadline) > wait
}

// interrupted names the cause first: it is why the work ended. The attempt's error often only repeats it.
func interrupted(ctx context.Context, last error) error {
	cause := context.Cause(ctx)
	if errors.Is(last, cause) {
		return last
	}
	return fmt.Errorf("%w (last attempt: %v)", cause, last)
}
