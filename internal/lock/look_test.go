package lock

import (
	"testing"
	"time"

	"github.com/sluicerun/sluice/internal/kubetest"
)

// Who does not want the lock sees who has it, and that it has expired when its
// holder is gone.
func TestLook(t *testing.T) {
	t.Parallel()
	c := connect(t, "")
	namespace := kubetest.Namespace(t, kubetest.Shared(t))
	o := options(namespace, "one")
	if seen, err := Look(t.Context(), c, namespace, o.Name); seen != nil || err != nil {
		t.Fatalf("a lock that nobody has is %+v, %v", seen, err)
	}
	one, err := Acquire(t.Context(), c, o)
	if err != nil {
		t.Fatal(err)
	}
	seen, err := Look(t.Context(), c, namespace, o.Name)
	if err != nil || seen == nil || seen.Expired || seen.Holder.Identity != "one" || seen.Since.IsZero() {
		t.Fatalf("a lock that is held is %+v, %v", seen, err)
	}
	kill(one)
	if seen, err = Look(t.Context(), c, namespace, o.Name); err != nil || seen == nil {
		t.Fatalf("the lock of one that was killed a moment ago is %+v, %v", seen, err)
	}
	<-time.After(time.Until(seen.Expires))
	if seen, err = Look(t.Context(), c, namespace, o.Name); err != nil || seen == nil || !seen.Expired || seen.Holder.Identity != "one" {
		t.Errorf("a lock whose time is over is %+v, %v", seen, err)
	}
}
