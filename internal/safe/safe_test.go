package safe_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/sluicerun/sluice/internal/safe"
)

func TestRecover(t *testing.T) {
	sentinel := errors.New("sentinel")
	if err := safe.Do(func() error { return sentinel }); err != sentinel {
		t.Errorf("an error became %v", err)
	}
	if err := safe.Do(func() error { return nil }); err != nil {
		t.Errorf("nothing became %v", err)
	}
	err := safe.Do(func() error { panic(sentinel) })
	var fault *safe.Error
	if !errors.As(err, &fault) || !errors.Is(err, sentinel) || err.Error() != "internal error: sentinel" || fault.Reason() != "InternalError" {
		t.Errorf("a panic became %v", err)
	}
	if !strings.Contains(fault.Hint(), "safe_test.TestRecover") {
		t.Errorf("the hint does not say where: %s", fault.Hint())
	}
}

func explode() { panic("boom") }

// A panic that is raised again elsewhere still knows where it happened.
func TestRaise(t *testing.T) {
	failed := make(chan error)
	go func() { failed <- safe.Do(func() error { explode(); return nil }) }()
	wrapped := fmt.Errorf("work: %w", <-failed)
	err := safe.Do(func() error { safe.Raise(wrapped); return nil })
	var fault *safe.Error
	if !errors.As(err, &fault) || !strings.Contains(fault.Hint(), "safe_test.explode") {
		t.Errorf("%v", err)
	}
	safe.Raise(nil)
	safe.Raise(errors.New("no fault"))
}
