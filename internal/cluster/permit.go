package cluster

import (
	"errors"
	"net/http"
	"strings"
)

// A run may write only as long as its lock is its own. Ending its context when the
// lock is lost is not enough: a request that waits for its turn, or for a server that
// is busy, would be sent later; one that is allowed to outlive the context, too; and
// who was asleep while time ran out does not know yet. So who holds the lock is asked
// as the last thing before a request goes out, at each attempt.

// withdrawn is the failure of a request that was not sent because the caller may not
// write any more. It passes for nothing else, whatever the reason is made of: trying
// again would not help.
type withdrawn struct{ error }

func (e *withdrawn) Unwrap() error { return e.error }

// permit asks whether a request may be sent.
func (l *limits) permit(request *http.Request) error {
	if l.mayWrite == nil || isForLock(request.Context()) || !changes(request) {
		return nil
	}
	if err := l.mayWrite(); err != nil {
		return &withdrawn{err}
	}
	return nil
}

// changes reports whether a request is to change something in the cluster: no dry run,
// and no question about who one is or what one may do.
func changes(request *http.Request) bool {
	switch request.Method {
	case http.MethodGet, http.MethodHead, http.MethodOptions:
		return false
	}
	if request.URL.Query().Has("dryRun") {
		return false
	}
	path := request.URL.Path
	return !strings.Contains(path, "/apis/authentication.k8s.io/") && !strings.Contains(path, "/apis/authorization.k8s.io/")
}

// asWithdrawn returns the bare reason if that is why a request failed, else nil.
func asWithdrawn(err error) error {
	var e *withdrawn
	if errors.As(err, &e) {
		return e.error
	}
	return nil
}
