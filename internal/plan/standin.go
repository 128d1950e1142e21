package plan

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/sluicerun/sluice/internal/cluster/faults"
	"github.com/sluicerun/sluice/internal/cluster/rehearse"
)

// standInNamespace is where objects are dry-run whose own namespace does not
// exist. It is there in every cluster: the API server makes it.
const standInNamespace = "default"

// standIn dry-runs objects in a namespace that is not theirs, as the user that
// applies them.
//
// An acceptance says no more than that there is nothing wrong with the object
// by itself. A refusal counts only if it would be the same in any namespace and
// cannot be due to what else is there:
//
//   - it is that of the kind's own rules (the reason "Invalid" in the server's
//     own words), or that the fields do not fit the kind's schema; never one of
//     admission, rights, quotas, or of something that the object refers to;
//   - no object of that name is in the other namespace, whose fields would have
//     been merged with its own;
//   - nothing that changes objects on their way in, which may do so by
//     namespace, has to do with the kind: no mutating webhook and no mutating
//     policy, of the cluster or of the run, and none that is built in, as there
//     are for Pods;
//   - the kind is the server's own or that of a definition: what an aggregated
//     server thinks of namespaces is not known;
//   - it is not about a number or an address that another object has: that one
//     may have given it back by then.
//
// The questions behind these are asked only after a refusal. Whatever is not
// allowed, not served or in doubt leaves the object as it was, to be judged at
// its turn. A standIn is safe for concurrent use.
type standIn struct {
	owner string
	// coming are the mutations that the run brings.
	coming []resourceRule

	mu       sync.Mutex
	refused  map[string]bool       // who gets no answer about which kind
	mutators map[string]*mutations // by who asked
}

// mutations are what may change objects, read once.
type mutations struct {
	once  sync.Once
	known bool
	rules []resourceRule
}

// resourceRule is which resources a webhook or policy is for.
type resourceRule struct{ groups, resources []string }

// serverSideApply is the patch that ssa sends.
//
//lint:ignore SA1019 its successor takes typed apply configurations, which manifests are not
var serverSideApply = client.Apply

// ask reports whether the object was accepted in another namespace, or how it is
// refused in any. Neither, if that cannot be told. An error is also that the
// server cannot be reached.
func (s *standIn) ask(ctx context.Context, it *item) (accepted bool, err error) {
	who := it.node.Access + "\x00" + it.node.User
	may := who + "\x00" + it.gvk.String()
	if s.isRefused(may) {
		return false, nil
	}
	moved := it.object.DeepCopy().Unstructured
	moved.SetNamespace(standInNamespace)
	answer := rehearse.AskDryRun(rehearse.Quiet(ctx), it.client, moved, serverSideApply, client.DryRunAll, client.ForceOwnership, client.FieldOwner(s.owner))
	switch err := answer.Err; {
	case err == nil:
		return true, nil
	case ctx.Err() != nil:
		return false, nil
	case !errors.As(err, new(apierrors.APIStatus)):
		return false, err
	case classOf(err) != Invalid:
		// Who may not ask, or gets no answer (of a webhook, say), will not
		// for the next object of the kind, and each try may take long.
		s.refuse(may)
		return false, nil
	case !ownRefusal(err, it) || !s.holds(ctx, it, who):
		return false, nil
	default:
		return false, atHome(err, it)
	}
}

func (s *standIn) isRefused(may string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.refused[may]
}

func (s *standIn) refuse(may string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.refused == nil {
		s.refused = map[string]bool{}
	}
	s.refused[may] = true
}

// dependsOnNamespace are kinds that are changed on their way in according to
// their namespace (the limits, tolerations and accounts of Pods), or must be in
// that of what they are about.
var dependsOnNamespace = map[schema.GroupKind]bool{{Kind: "Pod"}: true, {Kind: "Event"}: true, {Group: "events.k8s.io", Kind: "Event"}: true}

// ownRefusal reports whether an answer is that of the kind's own rules.
func ownRefusal(err error, it *item) bool {
	if faults.IsSchema(err) {
		return true // which comes before everything else
	}
	if dependsOnNamespace[it.gvk.GroupKind()] {
		return false
	}
	var status apierrors.APIStatus
	if !errors.As(err, &status) {
		return false
	}
	st := status.Status()
	subject := it.gvk.Kind
	if it.gvk.Group != "" {
		subject += "." + it.gvk.Group
	}
	return st.Code == http.StatusUnprocessableEntity && st.Reason == metav1.StatusReasonInvalid &&
		strings.HasPrefix(st.Message, fmt.Sprintf("%s %q is invalid: ", subject, it.object.GetName())) &&
		st.Details != nil && len(st.Details.Causes) > 0 &&
		!slices.ContainsFunc(st.Details.Causes, func(c metav1.StatusCause) bool { return strings.Contains(c.Message, "already allocated") })
}

// holds asks what else could be the reason for a refusal, and reports whether
// there is nothing.
func (s *standIn) holds(ctx context.Context, it *item, who string) bool {
	other := rehearse.Ask(ctx, it.client, it.object.Unstructured, client.ObjectKey{Namespace: standInNamespace, Name: it.object.GetName()})
	if other.Err != nil || other.Object != nil {
		return false
	}
	if !own().Recognizes(it.gvk) && aggregated(ctx, it) {
		return false
	}
	mapping, err := it.client.RESTMapper().RESTMapping(it.gvk.GroupKind(), it.gvk.Version)
	return err == nil && !s.mutated(ctx, it.client, who, mapping.Resource)
}

// aggregated reports whether another server than the cluster's own has the
// kind, or whether that cannot be told.
func aggregated(ctx context.Context, it *item) bool {
	service := &unstructured.Unstructured{}
	service.SetGroupVersionKind(schema.GroupVersionKind{Group: "apiregistration.k8s.io", Version: "v1", Kind: "APIService"})
	if err := it.client.Get(ctx, client.ObjectKey{Name: it.gvk.Version + "." + it.gvk.Group}, service); err != nil {
		return true
	}
	_, remote, err := unstructured.NestedMap(service.Object, "spec", "service")
	return remote || err != nil
}

// mutated reports whether something may change objects of a resource on their
// way in, or whether that cannot be told.
func (s *standIn) mutated(ctx context.Context, c client.Client, who string, resource schema.GroupVersionResource) bool {
	matches := func(r resourceRule) bool { return r.matches(resource) }
	if slices.ContainsFunc(s.coming, matches) {
		return true
	}
	s.mu.Lock()
	if s.mutators == nil {
		s.mutators = map[string]*mutations{}
	}
	m := s.mutators[who]
	if m == nil {
		m = &mutations{}
		s.mutators[who] = m
	}
	s.mu.Unlock()
	m.once.Do(func() { m.rules, m.known = readMutations(ctx, c) })
	return !m.known || slices.ContainsFunc(m.rules, matches)
}

func (r resourceRule) matches(resource schema.GroupVersionResource) bool {
	has := func(list []string, name string) bool {
		return slices.Contains(list, "*") || slices.Contains(list, name)
	}
	return has(r.groups, resource.Group) && (has(r.resources, resource.Resource) || slices.Contains(r.resources, "*/*"))
}

// admissionGroup has the kinds of mutators.
const admissionGroup = "admissionregistration.k8s.io"

// mutators are the kinds that change objects on their way in.
var mutators = []struct {
	kind string
	path []string // to the lists of rules
}{
	{"MutatingWebhookConfiguration", []string{"webhooks", "rules"}},
	{"MutatingAdmissionPolicy", []string{"spec", "matchConstraints", "resourceRules"}},
}

// mutationsOf returns the rules of an object, none if it is no mutator.
func mutationsOf(o *unstructured.Unstructured) (rules []resourceRule) {
	for _, m := range mutators {
		if gvk := o.GroupVersionKind(); gvk.Group == admissionGroup && gvk.Kind == m.kind {
			collectRules(o.Object, m.path, &rules)
		}
	}
	return rules
}

// readMutations reads the cluster's mutating webhooks and policies.
func readMutations(ctx context.Context, c client.Client) ([]resourceRule, bool) {
	var rules []resourceRule
	for _, from := range mutators {
		mapping, err := c.RESTMapper().RESTMapping(schema.GroupKind{Group: admissionGroup, Kind: from.kind})
		if meta.IsNoMatchError(err) {
			continue // an older server, which has no such thing
		}
		if err != nil {
			return nil, false
		}
		all := &unstructured.UnstructuredList{}
		all.SetGroupVersionKind(mapping.GroupVersionKind.GroupVersion().WithKind(from.kind + "List"))
		if err := c.List(ctx, all); err != nil {
			return nil, false
		}
		for _, o := range all.Items {
			collectRules(o.Object, from.path, &rules)
		}
	}
	return rules, true
}

// collectRules gathers the rules at a path, through lists on the way.
func collectRules(value any, path []string, rules *[]resourceRule) {
	switch value := value.(type) {
	case []any:
		for _, item := range value {
			collectRules(item, path, rules)
		}
	case map[string]any:
		if len(path) > 0 {
			collectRules(value[path[0]], path[1:], rules)
			return
		}
		groups, _, _ := unstructured.NestedStringSlice(value, "apiGroups")
		resources, _, _ := unstructured.NestedStringSlice(value, "resources")
		*rules = append(*rules, resourceRule{groups, resources})
	}
}

// atHome puts the object's own namespace into a text that names the other one.
func atHome(err error, it *item) error {
	var status apierrors.APIStatus
	if !errors.As(err, &status) {
		return err
	}
	st := status.Status()
	st.Message = strings.ReplaceAll(st.Message, "("+standInNamespace+"/"+it.object.GetName()+";", "("+it.object.GetNamespace()+"/"+it.object.GetName()+";")
	return &apierrors.StatusError{ErrStatus: st}
}
