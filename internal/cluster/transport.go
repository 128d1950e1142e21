package cluster

import (
	"context"
	"errors"
	"io"
	"net/http"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"k8s.io/client-go/rest"
	clienttransport "k8s.io/client-go/transport"

	"github.com/sluicerun/sluice/internal/cluster/fair"
	"github.com/sluicerun/sluice/internal/cluster/faults"
	"github.com/sluicerun/sluice/internal/retry"
)

// MaxRequests is how many requests to one API server are under way at most,
// whoever they are for. More do not finish sooner: a server of the default
// configuration serves about fifty of one user at once and lets others queue
// (its flow control), and one with little CPU is busy with far fewer.
const MaxRequests = 32

// maxBusy is how long a request goes on that is told again and again that the
// server is busy.
const maxBusy = 3 * time.Minute

// busyRetry are the least waits of a request that is told so repeatedly, for
// servers that name no time or none at all.
var busyRetry = retry.Policy{Base: 100 * time.Millisecond, Max: 5 * time.Second, Factor: 2}

type (
	partyKey  struct{}
	urgentKey struct{}
	lockKey   struct{}
)

// For returns a context for the requests of a party, such as a Kustomization:
// whose share of the requests under way they count for. Those without a party
// count for one that has no name.
func For(ctx context.Context, party string) context.Context {
	return context.WithValue(ctx, partyKey{}, party)
}

// Urgent returns a context for requests that wait neither for others nor for a
// server that has asked others to wait. It is for few and small ones, such as what a
// run that was ended still saves.
func Urgent(ctx context.Context) context.Context { return context.WithValue(ctx, urgentKey{}, true) }

// ForLock returns a context for the requests that take, keep and free a lock. They are
// urgent, and [Options.MayWrite] is not asked about them: it is they that decide what
// it says. No other request may have it, however urgent.
func ForLock(ctx context.Context) context.Context {
	return context.WithValue(Urgent(ctx), lockKey{}, true)
}

// limited is what all requests of a connection go through, below credentials and
// retries: a slot for each, the time it may take, and the server's wish to be
// spared for a while. Watches take no slot and no time limit, since they last.
//
// client-go repeats by itself what is answered with Retry-After and a GET whose
// connection was lost, each request alone and up to ten times, below those that
// this package makes. Here a 429 is repeated for it, and all others are held back
// meanwhile; the header of other answers is taken away, and a lost connection
// told in other words, so that only the client decides on them.
type limited struct {
	base http.RoundTripper
	on   *limits
}

// limits are those of a connection.
type limits struct {
	queue atomic.Pointer[fair.Queue]
	// life is the context of questions that bring none; nil for none.
	life context.Context
	// patience is how long the server may take for a request.
	patience time.Duration
	// busy hears of the beginning of each pause that the server asked for.
	busy func(pause time.Duration)
	// mayWrite says why nothing may be changed any more; nil permits all.
	mayWrite func() error
	// again counts what was sent again.
	again atomic.Int64
	// down are the webhooks that do not answer.
	down webhooks
}

func newLimits(requests int, patience time.Duration, busy func(time.Duration), mayWrite func() error) *limits {
	l := &limits{patience: patience, busy: busy, mayWrite: mayWrite}
	l.queue.Store(fair.New(requests))
	return l
}

// wrap puts the limits next to the wire: what other wrappers ask for while they
// prepare a request, such as a token of the same server, must not wait for a
// slot that this request has.
func (l *limits) wrap(config *rest.Config) {
	config.WrapTransport = clienttransport.Wrappers(func(base http.RoundTripper) http.RoundTripper { return &limited{base: base, on: l} }, config.WrapTransport)
}

// WrappedRoundTripper lets client-go reach the transport below.
func (t *limited) WrappedRoundTripper() http.RoundTripper { return t.base }

// RoundTrip sends a request when it has its turn.
func (t *limited) RoundTrip(request *http.Request) (*http.Response, error) {
	if request.Context().Done() == nil && t.on.life != nil && request.Method == http.MethodGet {
		// Discovery asks without a context of its own. It must not outlast the run.
		request = request.WithContext(t.on.life)
	}
	ctx := request.Context()
	began := time.Now()
	for attempt := 1; ; attempt++ {
		queue := t.on.queue.Load()
		done, err := t.enter(ctx, queue, request)
		if err == nil {
			if err = t.on.permit(request); err != nil {
				done()
			}
		}
		if err != nil {
			if request.Body != nil && attempt == 1 {
				_ = request.Body.Close() // nothing was read of it
			}
			return nil, err
		}
		response, err := t.send(request, attempt, done)
		if err != nil {
			return nil, err
		}
		if response.StatusCode != http.StatusTooManyRequests {
			queue.Good()
			if response.StatusCode >= http.StatusInternalServerError {
				response.Header.Del("Retry-After")
			}
			return response, nil
		}
		pause := max(askedFor(response), busyRetry.Delay(attempt))
		// A pause that no request would sit out is not imposed on the others
		// either: each hears from the server, and ends.
		if pause <= maxBusy && queue.Hold(pause) && t.on.busy != nil {
			t.on.busy(pause)
		}
		if !t.again(ctx, request, began, pause) {
			response.Header.Del("Retry-After")
			return response, nil
		}
		t.on.again.Add(1)
		_, _ = io.CopyN(io.Discard, response.Body, 4096) // so that the connection can be used again
		_ = response.Body.Close()
		if isUrgent(ctx) {
			if err := sleep(ctx, pause); err != nil {
				return nil, err
			}
		}
	}
}

// enter waits until the request may be sent.
func (t *limited) enter(ctx context.Context, queue *fair.Queue, request *http.Request) (done func(), err error) {
	switch {
	case isUrgent(ctx):
		return func() {}, nil
	case isWatch(request):
		return func() {}, queue.Await(ctx)
	}
	party, _ := ctx.Value(partyKey{}).(string)
	return queue.Acquire(ctx, party)
}

func isUrgent(ctx context.Context) bool { return ctx.Value(urgentKey{}) != nil }

func isForLock(ctx context.Context) bool { return ctx.Value(lockKey{}) != nil }

func isWatch(request *http.Request) bool {
	for parameter := range strings.SplitSeq(request.URL.RawQuery, "&") {
		if parameter == "watch=true" || parameter == "watch=1" || parameter == "follow=true" {
			return true
		}
	}
	return false
}

// again reports whether a request that was told to wait is sent once more.
func (t *limited) again(ctx context.Context, request *http.Request, began time.Time, pause time.Duration) bool {
	deadline, limited := ctx.Deadline()
	switch {
	case request.Body != nil && request.Body != http.NoBody && request.GetBody == nil:
		return false // it cannot be read again
	case limited && time.Until(deadline) <= pause:
		return false
	}
	return time.Since(began)+pause <= maxBusy
}

// send sends a request. done is called when the answer has been read.
func (t *limited) send(request *http.Request, attempt int, done func()) (*http.Response, error) {
	ctx, cancel := request.Context(), func() {}
	if !isWatch(request) {
		ctx, cancel = context.WithTimeoutCause(ctx, t.on.patience, &faults.SilenceError{After: t.on.patience})
	}
	finish := func() { cancel(); done() }
	sent := request.WithContext(ctx)
	if attempt > 1 && request.GetBody != nil {
		body, err := request.GetBody()
		if err != nil {
			finish()
			return nil, err
		}
		sent.Body = body
	}
	response, err := t.base.RoundTrip(sent)
	if err != nil {
		err = unanswered(request, faults.Lose(silence(ctx, err)))
		finish()
		return nil, err
	}
	response.Body = &answer{ReadCloser: response.Body, ctx: ctx, finish: finish}
	return response, nil
}

// askedFor is how long an answer says to wait: in seconds, or until a time (RFC
// 9110, 10.2.3). Without a word it is a second, as the API server says.
func askedFor(response *http.Response) time.Duration {
	said := response.Header.Get("Retry-After")
	if seconds, err := strconv.Atoi(said); err == nil {
		return time.Duration(max(seconds, 0)) * time.Second
	}
	if until, err := http.ParseTime(said); err == nil {
		return max(time.Until(until), 0)
	}
	return time.Second
}

// answer is the body of an answer. Its end frees the slot.
type answer struct {
	io.ReadCloser
	ctx    context.Context
	finish func()
}

func (a *answer) Read(p []byte) (int, error) {
	n, err := a.ReadCloser.Read(p)
	if err != nil && !errors.Is(err, io.EOF) {
		err = silence(a.ctx, err)
	}
	return n, err
}

func (a *answer) Close() error {
	defer a.finish()
	return a.ReadCloser.Close()
}

// silence returns the reason for an error if it is that the server took too
// long.
func silence(ctx context.Context, err error) error {
	if late, ok := context.Cause(ctx).(*faults.SilenceError); ok {
		return late
	}
	return err
}

// sleep waits, at most until the end of ctx.
func sleep(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
