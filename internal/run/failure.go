package run

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"path"
	"reflect"
	"strings"

	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"github.com/sluicerun/sluice/internal/apply"
	"github.com/sluicerun/sluice/internal/cluster"
	"github.com/sluicerun/sluice/internal/cluster/faults"
	"github.com/sluicerun/sluice/internal/event"
	"github.com/sluicerun/sluice/internal/flux"
	"github.com/sluicerun/sluice/internal/lock"
	"github.com/sluicerun/sluice/internal/plan"
	"github.com/sluicerun/sluice/internal/safe"
)

// Errors of stages become failures here and nowhere else. A stage's error may
// say more than its text through these methods; none of them is required.
type (
	hinter   interface{ Hint() string }
	reasoned interface{ Reason() string }
)

// failures turns an error, or several that were joined, into failures of a
// node; n may be nil.
func (r *run) failuresOf(ctx context.Context, phase string, n *node, err error) []event.Failure {
	var all []event.Failure
	for _, e := range unjoin(err) {
		all = append(all, r.failure(ctx, phase, n, e))
	}
	return all
}

func (r *run) failure(ctx context.Context, phase string, n *node, err error) event.Failure {
	f := event.Failure{Phase: phase, Reason: defaultReason[phase], Text: err.Error()}
	if n != nil {
		f.Node, f.File, f.Line = n.ID.String(), n.File, n.Line
	}
	locate(&f, err)
	if f.Node != "" && !names(f.Text, f.Node) {
		f.Text = f.Node + ": " + f.Text
	}
	if e, ok := as[hinter](err); ok {
		f.Hint = e.Hint()
	}
	if trouble, hint := faults.Advice(err); hint != "" {
		f.Hint = cmp.Or(f.Hint, hint)
		if trouble != faults.NoTrouble {
			f.Reason = troubleReasons[trouble]
		}
	}
	if f.Hint == "" && apierrors.IsForbidden(err) {
		f.Reason = "Forbidden"
		account := "the account that sluice runs as"
		// Whom the server refused it names itself: variables are read, and
		// service accounts impersonated, as sluice also for a Kustomization
		// that is applied as another (S4.40).
		if n != nil && strings.Contains(err.Error(), fmt.Sprintf("User %q", r.user(n))) && r.user(n) != "" {
			name := cmp.Or(n.Spec.ServiceAccountName, r.options.DefaultServiceAccount)
			account = fmt.Sprintf("ServiceAccount %s/%s, as which %s is applied", n.Namespace, name, n.ID)
		}
		f.Hint = "grant the right that it names to " + account + " (docs/permissions.md lists what it needs)"
	}
	if e, ok := as[*homeError](err); ok {
		f.Reason = homeReasons[e.problem]
	}
	if e, ok := as[*cluster.Error](err); ok {
		f.Reason = clusterReasons[e.Problem]
	}
	if e, ok := as[reasoned](err); ok && e.Reason() != "" {
		f.Reason = e.Reason()
	}
	if ctx.Err() != nil && errors.Is(err, context.Cause(ctx)) {
		f.Reason = "Cancelled"
		if _, ok := context.Cause(ctx).(*TimeoutError); ok {
			f.Reason = "RunTimeout"
		}
	}
	if sent, ok := as[*cluster.UnansweredError](err); ok && (phase == "apply" || phase == "prune") {
		f.Reason, f.Hint = "OutcomeUnknown", "run it again: it looks at what is there, and goes on from it"
		if f.Object != "" {
			f.Text = f.Object + " " + sent.Error()
		}
	}
	if fault, ok := as[*safe.Error](err); ok {
		trace(&f, fault)
	}
	return f
}

// trace adds to a failure where a fault of sluice happened.
func trace(f *event.Failure, fault *safe.Error) {
	f.Logs, f.LogsNote = fault.Trace(), "none of a container; this is where in sluice it happened"
}

// names says whether a text names a Kustomization: the id by itself, not as a
// part of something longer, such as Secret/flux-system/apps or flux-system/apps-2.
func names(text, id string) bool {
	part := func(c byte) bool {
		return c == '/' || c == '-' || '0' <= c && c <= '9' || 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z'
	}
	for at := 0; ; at++ {
		i := strings.Index(text[at:], id)
		if i < 0 {
			return false
		}
		at += i
		end := at + len(id)
		if (at == 0 || !part(text[at-1])) && (end == len(text) || !part(text[end])) {
			return true
		}
	}
}

// locate takes over where an error is: the manifest at fault rather than the
// Kustomization that led to it.
func locate(f *event.Failure, err error) {
	at := func(file string, line int, object string, text error) {
		if file != "" {
			f.File, f.Line = file, line
		}
		f.Object, f.Text = object, text.Error()
	}
	switch e := err.(type) {
	case *flux.Problem:
		at(e.File, e.Line, e.Object, e.Err)
		f.Text = e.Text()
	case *plan.ObjectError:
		at(e.File, 0, e.Ref.String(), e.Err) // begins with the object (S4.48)
	case *apply.ObjectError:
		at(e.File, 0, e.Ref.String(), e.Err)
	}
}

var troubleReasons = map[faults.Trouble]string{
	faults.WebhookDown: "WebhookUnavailable", faults.NamespaceGoing: "NamespaceTerminating",
}

// defaultReason is the stable code of a failure that brings none.
var defaultReason = map[string]string{
	"source": "SourceFailed", "discover": "InvalidKustomization", "build": "BuildFailed", "substitute": "SubstitutionFailed",
	"graph": "InvalidGraph", "cluster": "ClusterUnavailable", "plan": "DryRunFailed", "lock": "LockFailed", "guard": "Refused",
	"apply": "ApplyFailed", "health": "HealthCheckFailed", "prune": "PruneFailed", "record": "RecordFailed",
}

// as is errors.As with the target as the result.
func as[T any](err error) (T, bool) {
	var target T
	ok := errors.As(err, &target)
	return target, ok
}

// joined is the type behind errors.Join. Other errors that wrap several mean
// one thing by them and must not be taken apart.
var joined = reflect.TypeOf(errors.Join(errors.New("")))

// unjoin returns the errors that errors.Join joined, at any depth, in order.
func unjoin(err error) []error {
	if err == nil {
		return nil
	}
	if reflect.TypeOf(err) != joined {
		return []error{err}
	}
	var all []error
	for _, e := range err.(interface{ Unwrap() []error }).Unwrap() {
		all = append(all, unjoin(e)...)
	}
	return all
}

// interrupted is the failure of a stage that the end of the context cut short.
func interrupted(ctx context.Context) event.Failure {
	cause := context.Cause(ctx)
	f := event.Failure{Phase: "run", Reason: "Cancelled", Text: cause.Error()}
	if limit, ok := cause.(*TimeoutError); ok {
		f.Reason, f.Hint = "RunTimeout", limit.Hint()
	}
	if _, ok := cause.(*lock.LostError); ok {
		return lockFailure(cause)
	}
	if fault, ok := cause.(*safe.Error); ok {
		f.Reason, f.Hint = fault.Reason(), fault.Hint()
		trace(&f, fault)
	}
	return f
}

// lockFailure tells of a lock that was lost.
func lockFailure(lost error) event.Failure {
	return event.Failure{Phase: "lock", Reason: "LockLost", Text: lost.Error(), Hint: "see what the other run does, then run again: it goes on from here"}
}

// position is "file:line", as far as known.
func position(file string, line int) string {
	switch {
	case file == "":
		return "an unknown file"
	case line == 0:
		return file
	}
	return fmt.Sprintf("%s:%d", file, line)
}

// count is "1 object" or "3 objects".
func count(n int, one, many string) string {
	if n == 1 {
		return "1 " + one
	}
	return fmt.Sprintf("%d %s", n, many)
}

// outside says whether a path from the command line points out of the
// repository.
func outside(p string) bool {
	return path.IsAbs(p) || p == ".." || strings.HasPrefix(path.Clean(p), "../") || path.Clean(p) == ".."
}

// notice tells the user something, once per text; nothing of what is not to be
// shown.
func (r *run) notice(n event.Notice) {
	if id, err := flux.ParseID(n.Node); err == nil && r.options.Command.shows() {
		if about := r.nodes.get(id); about != nil && about.excluded {
			return
		}
	}
	key := n.Code + "\x00" + n.Node + "\x00" + n.Text
	r.noticeOnce(key, n)
}

// noticeOnce is notice with the key that decides what is the same.
func (r *run) noticeOnce(key string, n event.Notice) {
	r.mu.Lock()
	told := r.told[key]
	r.told[key] = true
	r.mu.Unlock()
	if told {
		return
	}
	n.At = now()
	r.emit(n)
}
