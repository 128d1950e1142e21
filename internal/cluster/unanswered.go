package cluster

import (
	"context"
	"net/http"
	"strings"
	"time"

	"k8s.io/client-go/rest"
)

// UnansweredError says that a request which was to change something was sent, and
// that the caller stopped waiting for the answer: whether it took effect nobody
// knows. It is the end of the caller's own context, so it is not [Transient].
type UnansweredError struct {
	// Err is the end of the context.
	Err error
}

func (e *UnansweredError) Error() string {
	return "was sent and not answered in time: whether it took effect is not known"
}

// Unwrap gives the end of the context.
func (e *UnansweredError) Unwrap() error { return e.Err }

// unanswered marks the error of a request that has left, if it was to change
// something and was given up by the caller.
func unanswered(request *http.Request, err error) error {
	if request.Context().Err() == nil || request.Method == http.MethodGet || isRehearsal(request) {
		return err
	}
	return &UnansweredError{Err: err}
}

// isRehearsal reports a dry run.
func isRehearsal(request *http.Request) bool {
	return strings.Contains(request.URL.RawQuery, "dryRun=")
}

// parting is how long a request whose context has ended has to come back with its
// own words.
const parting = 100 * time.Millisecond

// prompt returns at the end of a request's context even where what is below does
// not: client-go runs credential plug-ins, and asks for tokens, without one. What
// hangs there is left to itself.
type prompt struct{ base http.RoundTripper }

// bePrompt puts it on top of a client whose credentials may hang.
func bePrompt(c *http.Client, config *rest.Config) {
	if config.ExecProvider != nil || config.AuthProvider != nil {
		c.Transport = &prompt{c.Transport}
	}
}

// WrappedRoundTripper lets client-go reach the transport below.
func (p *prompt) WrappedRoundTripper() http.RoundTripper { return p.base }

// RoundTrip sends a request.
func (p *prompt) RoundTrip(request *http.Request) (*http.Response, error) {
	type outcome struct {
		response *http.Response
		err      error
	}
	done := make(chan outcome, 1)
	go func() {
		response, err := p.base.RoundTrip(request)
		done <- outcome{response, err}
	}()
	ctx := request.Context()
	select {
	case o := <-done:
		return o.response, o.err
	case <-ctx.Done():
	}
	timer := time.NewTimer(parting)
	defer timer.Stop()
	select {
	case o := <-done:
		return o.response, o.err
	case <-timer.C:
		go func() {
			if o := <-done; o.response != nil {
				_ = o.response.Body.Close()
			}
		}()
		return nil, context.Cause(ctx)
	}
}
