package source

import (
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// A server that says nothing for a minute is given up; each byte gives it another.
func TestWatch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		start := time.Now()
		ctx, beat, stop := watch(t.Context())
		defer stop()
		time.Sleep(stallAfter - time.Second)
		beat()
		<-ctx.Done()
		if got := time.Since(start); got != 2*stallAfter-time.Second {
			t.Errorf("given up after %v", got)
		}
		if !errors.Is(context.Cause(ctx), errStalled) {
			t.Errorf("the cause is %v", context.Cause(ctx))
		}
		err := unreachable(ctx, location{scheme: "https", host: "example.org", path: "/o/r"}, ctx.Err())
		if !errors.Is(err, ErrUnreachable) || !strings.Contains(err.Error(), "said nothing for 1m0s") {
			t.Errorf("error %v", err)
		}
	})
}

func TestFirstLines(t *testing.T) {
	for in, want := range map[string]string{
		"":  "",
		"x": "x",
		"remote: \nremote: ======\nremote: \nremote: ERROR: no\nremote:\nremote: ====\nfatal: y\n": "ERROR: no; fatal: y",
		"a\nb\nc\nd":             "a; b; c",
		"\xff":                   "?",
		strings.Repeat("ö", 400): strings.Repeat("ö", 300) + "…",
	} {
		if got := firstLines(in); got != want {
			t.Errorf("firstLines(%q) = %q, want %q", in, got, want)
		}
	}
}

func TestShellQuote(t *testing.T) {
	if got, want := shellQuote("/it's a!r.git"), `'/it'\''s a'\!'r.git'`; got != want {
		t.Errorf("quoted %s, want %s", got, want)
	}
}
