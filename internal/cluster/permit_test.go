package cluster

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sluicerun/sluice/internal/retry"
)

// Who may not write any more is asked at the last moment: a request that has waited for a slot, or for a busy server, is not sent.
func TestMayWriteIsAskedBeforeEachAttempt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		lost := errors.New("lost the lock")
		var mu sync.Mutex
		var refusal error
		s := &server{answer: func(n int, _ *http.Request) *http.Response {
			time.Sleep(time.Second)
			if n == 0 {
				return respond(http.StatusTooManyRequests, "10")
			}
			return respond(http.StatusOK, "")
		}}
		tr, _ := through(s, 1)
		tr.on.mayWrite = func() error {
			mu.Lock()
			defer mu.Unlock()
			return refusal
		}
		var done sync.WaitGroup
		for range 3 { // one is under way and told to wait, two wait for its slot
			done.Go(func() {
				_, err := send(t, tr, request(t.Context(), t, "", "x"))
				if !errors.Is(err, lost) || asWithdrawn(err) != lost {
					t.Errorf("got %v", err)
				}
			})
		}
		time.Sleep(2 * time.Second)
		mu.Lock()
		refusal = lost
		mu.Unlock()
		done.Wait()
		if s.n != 1 {
			t.Errorf("%d requests were sent", s.n)
		}

		// That it is urgent is no excuse.
		if _, err := send(t, tr, request(Urgent(t.Context()), t, "", "x")); asWithdrawn(err) != lost || s.n != 1 {
			t.Errorf("an urgent one: %v, %d requests were sent", err, s.n)
		}

		// What changes nothing goes on, and what the lock itself needs.
		for what, r := range map[string]*http.Request{
			"a dry run": request(t.Context(), t, "?dryRun=All", "x"), "the lock's own": request(ForLock(t.Context()), t, "", "x"),
			"a question":      request(t.Context(), t, "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews", "x"),
			"a look":          get(t, "/api/v1/namespaces"),
			"a look at dries": get(t, "/api/v1/namespaces/dryRun"),
		} {
			if _, err := send(t, tr, r); err != nil {
				t.Errorf("%s: %v", what, err)
			}
		}
	})
}

func get(t *testing.T, path string) *http.Request {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "https://server"+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// The client does not try again what it may not send, and tells the reason without the request's address.
func TestWithdrawnIsFinal(t *testing.T) {
	lost := errors.New("lost the lock")
	c := &retryingClient{policy: retry.Policy{Attempts: 8, Base: time.Hour}, on: &limits{}}
	tries := 0
	err := c.do(t.Context(), true, func(context.Context) error {
		tries++
		return fmt.Errorf("Patch https://server/secret: %w", &withdrawn{lost})
	})
	if err != lost || tries != 1 {
		t.Errorf("%d tries, %v", tries, err)
	}
}
