package retry

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"
)

var errStopped = errors.New("stopped")

func TestOutlive(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, end := context.WithCancelCause(t.Context())
		longer, cancel := Outlive(ctx, 2*time.Second)
		defer cancel()
		time.Sleep(time.Hour)
		if longer.Err() != nil {
			t.Fatal("ended before the other")
		}
		end(errStopped)
		time.Sleep(2*time.Second - 1)
		synctest.Wait()
		if longer.Err() != nil {
			t.Error("ended too early")
		}
		time.Sleep(time.Nanosecond)
		synctest.Wait()
		if !errors.Is(context.Cause(longer), errStopped) {
			t.Errorf("cause %v", context.Cause(longer))
		}
	})
}
