package cluster

import (
	"context"
	"errors"
	"net/http"
	"testing"
	"testing/synctest"

	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"

	"k8s.io/client-go/rest"
)

type transportFunc func(*http.Request) (*http.Response, error)

func (f transportFunc) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

// A credential plug-in is run without a context: a request ends without it, and its
// late answer is let go.
func TestRequestEndsThoughItsCredentialsHang(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		stop := errors.New("stopped by SIGTERM")
		released := make(chan struct{})
		c := &http.Client{Transport: transportFunc(func(*http.Request) (*http.Response, error) {
			<-released
			return &http.Response{StatusCode: http.StatusOK, Body: http.NoBody}, nil
		})}
		bePrompt(c, &rest.Config{ExecProvider: &clientcmdapi.ExecConfig{Command: "hangs"}})
		ctx, cancel := context.WithCancelCause(t.Context())
		request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://cluster.example/version", nil)
		if err != nil {
			t.Fatal(err)
		}
		go func() { cancel(stop) }()
		if _, err := c.Transport.RoundTrip(request); !errors.Is(err, stop) {
			t.Errorf("got %v", err)
		}
		close(released)
		synctest.Wait()
	})
}

// Without such credentials nothing is put on top: net/http ends by itself.
func TestPlainCredentialsNeedNoHelp(t *testing.T) {
	c := &http.Client{Transport: http.DefaultTransport}
	if bePrompt(c, &rest.Config{}); c.Transport != http.DefaultTransport {
		t.Errorf("%T", c.Transport)
	}
}

// Only a request that may have changed something is of unknown outcome, and only if
// it was given up.
func TestUnanswered(t *testing.T) {
	over, cancel := context.WithCancel(t.Context())
	cancel()
	for _, tc := range []struct {
		ctx         context.Context
		method, url string
		want        bool
	}{
		{over, http.MethodPatch, "http://cluster.example/api/v1/x?fieldManager=sluice", true},
		{over, http.MethodDelete, "http://cluster.example/api/v1/x", true},
		{over, http.MethodGet, "http://cluster.example/api/v1/x", false},
		{over, http.MethodPatch, "http://cluster.example/api/v1/x?dryRun=All&fieldManager=sluice", false},
		{t.Context(), http.MethodPatch, "http://cluster.example/api/v1/x", false},
	} {
		request, err := http.NewRequestWithContext(tc.ctx, tc.method, tc.url, nil)
		if err != nil {
			t.Fatal(err)
		}
		got := unanswered(request, context.Canceled)
		if _, ok := got.(*UnansweredError); ok != tc.want || !errors.Is(got, context.Canceled) {
			t.Errorf("%s %s: %v", tc.method, tc.url, got)
		}
	}
}
