package cluster

import (
	"context"
	"errors"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sluicerun/sluice/internal/cluster/faults"
)

// server is a round tripper that plays a server, in virtual time.
type server struct {
	// answer says what a request gets.
	answer func(n int, r *http.Request) *http.Response

	mu      sync.Mutex
	began   time.Time
	n       int
	at      []time.Duration // when requests came
	bodies  []string
	flying  int
	highest int
}

func (s *server) RoundTrip(r *http.Request) (*http.Response, error) {
	body := ""
	if r.Body != nil {
		data, err := io.ReadAll(r.Body)
		if err != nil {
			return nil, err
		}
		body = string(data)
	}
	s.mu.Lock()
	n := s.n
	s.n++
	s.at = append(s.at, time.Since(s.began))
	s.bodies = append(s.bodies, body)
	s.flying++
	s.highest = max(s.highest, s.flying)
	s.mu.Unlock()
	response := s.answer(n, r)
	s.mu.Lock()
	s.flying--
	s.mu.Unlock()
	if response == nil {
		<-r.Context().Done()
		return nil, r.Context().Err()
	}
	return response, nil
}

func respond(code int, retryAfter string) *http.Response {
	header := http.Header{}
	if retryAfter != "" {
		header.Set("Retry-After", retryAfter)
	}
	return &http.Response{StatusCode: code, Header: header, Body: io.NopCloser(strings.NewReader("answer"))}
}

// through returns a transport for the server, and the pauses that it told of.
func through(s *server, requests int) (*limited, *[]time.Duration) {
	s.began = time.Now()
	var pauses []time.Duration
	on := newLimits(requests, requestTimeout, func(d time.Duration) { pauses = append(pauses, d) }, nil)
	return &limited{base: s, on: on}, &pauses
}

func request(ctx context.Context, t *testing.T, query, body string) *http.Request {
	t.Helper()
	r, err := http.NewRequestWithContext(ctx, http.MethodPatch, "https://server/apis"+query, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// send sends a request and reads the answer.
func send(t *testing.T, tr *limited, r *http.Request) (*http.Response, error) {
	t.Helper()
	response, err := tr.RoundTrip(r)
	if err != nil {
		return nil, err
	}
	_, err = io.ReadAll(response.Body)
	return response, errors.Join(err, response.Body.Close())
}

// A busy server is asked again when the time that it named is over, with the same
// body, and not by client-go as well.
func TestBusy(t *testing.T) {
	for _, tc := range []struct {
		name  string
		said  []string
		after []time.Duration
	}{
		{"seconds", []string{"1", "2"}, []time.Duration{0, time.Second, 3 * time.Second}},
		{"a date", []string{"Sat, 01 Jan 2000 00:00:07 GMT"}, []time.Duration{0, 7 * time.Second}},
		{"none", []string{"", ""}, []time.Duration{0, time.Second, 2 * time.Second}},
		{"none, with a header", []string{"0", "0", "0"}, []time.Duration{0, 100 * time.Millisecond, 300 * time.Millisecond, 700 * time.Millisecond}},
		{"nonsense", []string{"soon", "-5"}, []time.Duration{0, time.Second, 1200 * time.Millisecond}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := &server{answer: func(n int, _ *http.Request) *http.Response {
					if n < len(tc.said) {
						return respond(http.StatusTooManyRequests, tc.said[n])
					}
					return respond(http.StatusOK, "")
				}}
				tr, pauses := through(s, 4)
				response, err := send(t, tr, request(t.Context(), t, "", "content"))
				if err != nil || response.StatusCode != http.StatusOK {
					t.Fatalf("%v, %v", response, err)
				}
				if !slices.Equal(s.at, tc.after) {
					t.Errorf("requests at %v, want %v", s.at, tc.after)
				}
				if len(*pauses) != len(tc.said) {
					t.Errorf("told of %v", *pauses)
				}
				for _, body := range s.bodies {
					if body != "content" {
						t.Errorf("body %q", body)
					}
				}
			})
		})
	}
}

// While one waits for a busy server all do, and afterwards fewer ask at once.
func TestBusyHoldsAll(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		busy := true
		s := &server{answer: func(int, *http.Request) *http.Response {
			time.Sleep(10 * time.Millisecond)
			if busy {
				return respond(http.StatusTooManyRequests, "5")
			}
			return respond(http.StatusOK, "")
		}}
		tr, pauses := through(s, 8)
		var done sync.WaitGroup
		for range 50 {
			done.Go(func() {
				if _, err := send(t, tr, request(t.Context(), t, "", "x")); err != nil {
					t.Error(err)
				}
			})
		}
		time.Sleep(time.Second)
		synctest.Wait()
		if s.n != 8 || s.highest != 8 {
			t.Errorf("%d requests before the pause, %d at once", s.n, s.highest)
		}
		busy, s.highest = false, 0
		late := time.Now()
		if err := func() error { // watches wait too
			_, err := send(t, tr, request(t.Context(), t, "?watch=true", ""))
			return err
		}(); err != nil {
			t.Error(err)
		}
		if waited := time.Since(late); waited < 4*time.Second {
			t.Errorf("a watch was opened after %v of the pause", waited)
		}
		synctest.Wait()
		s.mu.Lock()
		if s.highest > 5 { // four, and the watch
			t.Errorf("%d at once after the pause", s.highest)
		}
		s.mu.Unlock()
		done.Wait()
		if len(*pauses) != 1 {
			t.Errorf("told of %v", *pauses)
		}
		for _, at := range s.at[8:] {
			if at < 5*time.Second {
				t.Errorf("a request at %v, during the pause", at)
			}
		}
	})
}

// A request that cannot wait as long gets the answer at once, and what client-go
// would repeat by itself is taken out of it.
func TestBusyTooLong(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &server{answer: func(int, *http.Request) *http.Response { return respond(http.StatusTooManyRequests, "10") }}
		tr, _ := through(s, 4)
		ctx, cancel := context.WithTimeout(t.Context(), 15*time.Second)
		defer cancel()
		response, err := send(t, tr, request(ctx, t, "", "x"))
		if err != nil || response.StatusCode != http.StatusTooManyRequests || response.Header.Get("Retry-After") != "" {
			t.Errorf("%+v, %v", response, err)
		}
		if spent := time.Since(s.began); spent != 10*time.Second || s.n != 2 {
			t.Errorf("%d requests in %v", s.n, spent)
		}
		// Without a limit of its own it ends some time, too.
		response, err = send(t, tr, request(t.Context(), t, "", "x"))
		if err != nil || response.StatusCode != http.StatusTooManyRequests || time.Since(s.began) > maxBusy+20*time.Second {
			t.Errorf("%+v, %v after %v", response, err, time.Since(s.began))
		}
		// And when its context ends.
		ctx, cancel = context.WithCancel(t.Context())
		time.AfterFunc(time.Second, cancel)
		if _, err := send(t, tr, request(ctx, t, "", "x")); !errors.Is(err, context.Canceled) {
			t.Errorf("cancelled: %v", err)
		}
		s.answer = func(int, *http.Request) *http.Response { return respond(http.StatusServiceUnavailable, "10") }
		time.Sleep(time.Minute)
		if response, err := send(t, tr, request(t.Context(), t, "", "x")); err != nil || response.Header.Get("Retry-After") != "" {
			t.Errorf("%+v, %v", response, err)
		}
	})
}

// A server, or what stands before it, that asks for longer than any request goes on
// is not waited for: nobody would get an answer until then.
func TestBusyForHours(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &server{answer: func(n int, _ *http.Request) *http.Response {
			if n == 0 {
				return respond(http.StatusTooManyRequests, "7200")
			}
			return respond(http.StatusOK, "")
		}}
		tr, pauses := through(s, 4)
		for _, want := range []int{http.StatusTooManyRequests, http.StatusOK} {
			response, err := send(t, tr, request(t.Context(), t, "", "x"))
			if err != nil || response.StatusCode != want || response.Header.Get("Retry-After") != "" {
				t.Errorf("%+v, %v, want %d", response, err, want)
			}
		}
		if spent := time.Since(s.began); spent != 0 || len(*pauses) != 0 {
			t.Errorf("%v, told of pauses %v", spent, *pauses)
		}
	})
}

// Urgent requests wait neither for slots nor for a pause.
func TestUrgent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &server{answer: func(_ int, r *http.Request) *http.Response {
			if isUrgent(r.Context()) {
				return respond(http.StatusOK, "")
			}
			return respond(http.StatusTooManyRequests, "30")
		}}
		tr, _ := through(s, 1)
		var done sync.WaitGroup
		ctx, cancel := context.WithCancel(t.Context())
		for range 10 {
			done.Go(func() { _, _ = send(t, tr, request(ctx, t, "", "x")) })
		}
		time.Sleep(time.Second)
		if _, err := send(t, tr, request(Urgent(t.Context()), t, "", "x")); err != nil {
			t.Error(err)
		}
		if at := s.at[len(s.at)-1]; at != time.Second {
			t.Errorf("an urgent request at %v", at)
		}
		cancel()
		done.Wait()
	})
}

// The slot is held until the answer is read, but not by watches; the time that a
// request may take does not begin before it has its slot.
func TestSlots(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &server{answer: func(int, *http.Request) *http.Response { return respond(http.StatusOK, "") }}
		tr, _ := through(s, 1)
		for _, query := range []string{"?watch=true", "?limit=1&watch=1", "?follow=true"} {
			if _, err := tr.RoundTrip(request(t.Context(), t, query, "")); err != nil { // never closed
				t.Fatal(err)
			}
		}
		open, err := tr.RoundTrip(request(t.Context(), t, "?labelSelector=a%26watch%3Dtrue", ""))
		if err != nil {
			t.Fatal(err)
		}
		ended := make(chan time.Duration)
		go func() {
			if _, err := send(t, tr, request(t.Context(), t, "", "x")); err != nil {
				t.Error(err)
			}
			ended <- time.Since(s.began)
		}()
		time.Sleep(3 * requestTimeout)
		if err := open.Body.Close(); err != nil {
			t.Error(err)
		}
		if at := <-ended; at != 3*requestTimeout {
			t.Errorf("the slot became free at %v", at)
		}
		// A server that says nothing.
		s.answer = func(int, *http.Request) *http.Response { return nil }
		_, err = send(t, tr, request(t.Context(), t, "", "x"))
		if faults.Of(err) != faults.Silent || time.Since(s.began) != 4*requestTimeout {
			t.Errorf("error %v after %v", err, time.Since(s.began))
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, err = send(t, tr, request(ctx, t, "", "x")); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("the caller's own end: %v", err)
		}
		// One that stops in the middle of an answer.
		s.answer = func(_ int, r *http.Request) *http.Response {
			response := respond(http.StatusOK, "")
			response.Body = io.NopCloser(reader(func([]byte) (int, error) { <-r.Context().Done(); return 0, r.Context().Err() }))
			return response
		}
		if _, err = send(t, tr, request(t.Context(), t, "", "x")); err == nil || !strings.Contains(err.Error(), "has not answered within") {
			t.Errorf("error %v", err)
		}
		// The slot is free again after each.
		s.answer = func(int, *http.Request) *http.Response { return respond(http.StatusOK, "") }
		if _, err = send(t, tr, request(t.Context(), t, "", "x")); err != nil {
			t.Error(err)
		}
	})
}

type reader func([]byte) (int, error)

func (r reader) Read(p []byte) (int, error) { return r(p) }
