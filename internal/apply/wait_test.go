package apply

import (
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sluicerun/sluice/internal/flux"
)

// S4.11, S8.3: the wait after a stage ends after 60 seconds, whatever else has a
// limit; the error names what was not ready.
func TestS4_11SixtySeconds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		began := time.Now()
		r := &runner{options: Options{RecreateTimeout: time.Second, StageWait: func(ctx context.Context, refs []flux.Ref) error {
			<-ctx.Done()
			return context.Cause(ctx)
		}}}
		namespace, class := object("", "Namespace", "", "b"), object("", "Namespace", "", "a")
		steps := []*step{
			{object: namespace, result: Result{Ref: namespace.Ref()}},
			{object: class, result: Result{Ref: class.Ref()}},
			{object: object("", "Namespace", "", "ready"), ready: true},
		}
		err := r.wait(t.Context(), "definitions", steps)
		if took := time.Since(began); took != 60*time.Second {
			t.Errorf("it took %s", took)
		}
		if want := "timeout waiting for the stage of definitions [Namespace/a, Namespace/b]: not ready after 1m0s"; err == nil || err.Error() != want {
			t.Errorf("error %q, want %q", err, want)
		}
	})
}

// The end of the run is no timeout of the stage.
func TestStageWaitEndsWithTheRun(t *testing.T) {
	ctx, cancel := context.WithCancelCause(t.Context())
	stop := errors.New("told to stop")
	r := &runner{options: Options{StageWait: func(ctx context.Context, _ []flux.Ref) error {
		cancel(stop)
		<-ctx.Done()
		return context.Cause(ctx)
	}}}
	err := r.wait(ctx, "definitions", []*step{{object: object("", "Namespace", "", "a")}})
	if !errors.Is(err, stop) || strings.Contains(err.Error(), "timeout") {
		t.Errorf("error %v", err)
	}
}
