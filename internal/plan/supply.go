package plan

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"

	"github.com/fluxcd/pkg/ssa/utils"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	utilruntime "k8s.io/apimachinery/pkg/util/runtime"
	"k8s.io/client-go/kubernetes/scheme"

	"github.com/sluicerun/sluice/internal/definition"
	"github.com/sluicerun/sluice/internal/flux"
)

var (
	namespaceGVK = schema.GroupVersionKind{Version: "v1", Kind: "Namespace"}
	secretGVK    = schema.GroupVersionKind{Version: "v1", Kind: "Secret"}
)

// supply knows what a run itself brings to the cluster. A dry run that fails
// for want of it is no failure: the object is judged when its turn comes.
type supply struct {
	// declared are the namespaces that the run declares, promised those
	// that the caller makes; fresh are those of both that do not exist yet,
	// or are being deleted.
	declared map[string]bool
	promised []string
	fresh    map[string]bool
	// kinds are the definitions in the run, by what they define; changed are
	// those that the run creates or changes.
	kinds   map[schema.GroupKind]string
	changed map[schema.GroupKind]*change
	// services are the group versions of the run's APIServices.
	services map[schema.GroupVersion]string
	// mutators are what the run's mutating webhooks and policies are for.
	mutators []resourceRule
	// registrar is set if the run gives somebody the right to make such.
	registrar bool
	// rights is set if the run changes roles or bindings.
	rights bool
	// named are the objects that the run brings and that a refusal may name:
	// quotas, accounts, classes.
	named []flux.Ref
	// makers are the nodes whose objects can make others.
	makers map[flux.ID]bool
	after  map[flux.ID][]flux.ID
}

// change is a definition that the run creates or changes.
type change struct {
	node flux.ID
	// says is what it will say; nil if it cannot be read.
	says *definition.Definition
}

func newSupply(nodes []Node, items []*item, promised []string) *supply {
	s := &supply{
		declared: map[string]bool{}, promised: promised, fresh: map[string]bool{},
		kinds: map[schema.GroupKind]string{}, changed: map[schema.GroupKind]*change{},
		services: map[schema.GroupVersion]string{}, makers: map[flux.ID]bool{}, after: map[flux.ID][]flux.ID{},
	}
	for _, n := range nodes {
		s.after[n.ID] = n.After
	}
	for _, it := range items {
		switch {
		case it.gvk == namespaceGVK:
			s.declared[it.object.GetName()] = true
		case utils.IsCRD(it.object.Unstructured):
			s.kinds[definedKind(it.object.Unstructured)] = it.object.GetName()
		case it.gvk.Group == "apiregistration.k8s.io":
			group, _, _ := unstructured.NestedString(it.object.Object, "spec", "group")
			version, _, _ := unstructured.NestedString(it.object.Object, "spec", "version")
			s.services[schema.GroupVersion{Group: group, Version: version}] = it.object.GetName()
		}
		s.mutators = append(s.mutators, mutationsOf(it.object.Unstructured)...)
		s.registrar = s.registrar || letsRegister(it.object.Unstructured)
		if canMake(it.gvk) {
			s.makers[it.node.ID] = true
		}
	}
	return s
}

func definedKind(crd *unstructured.Unstructured) schema.GroupKind {
	group, _, _ := unstructured.NestedString(crd.Object, "spec", "group")
	kind, _, _ := unstructured.NestedString(crd.Object, "spec", "names", "kind")
	return schema.GroupKind{Group: group, Kind: kind}
}

// canMake reports whether objects of a kind may lead to others that are in no
// manifest: workloads can, and custom resources can have an operator that does
// (a HelmRelease brings definitions).
func canMake(gvk schema.GroupVersionKind) bool {
	switch gvk.Group {
	case "":
		return gvk.Kind == "Pod" || gvk.Kind == "ReplicationController"
	case "apps", "batch":
		return true
	}
	return strings.Contains(gvk.Group, ".") && !strings.HasSuffix(gvk.Group, ".k8s.io")
}

// learnNamespaces takes in what the cluster said about the run's namespaces.
// Those that the caller makes are not asked about: an object in one is judged
// by its dry run, and excused if the namespace is missing.
func (s *supply) learnNamespaces(items []*item) {
	for _, it := range items {
		if it.gvk == namespaceGVK && (it.change.Action == Create || it.change.Action == Recreate) { // made again: it was being deleted
			s.fresh[it.object.GetName()] = true
		}
	}
}

// newNamespace reports whether a namespace does not exist and comes with the
// run.
func (s *supply) newNamespace(name string) bool { return s.fresh[name] }

// learn takes in what the run does, once all is judged.
func (s *supply) learn(items []*item) {
	for _, it := range items {
		switch it.change.Action {
		case Unchanged, Skipped, "":
			continue
		}
		switch kind := it.gvk.Kind; {
		case utils.IsCRD(it.object.Unstructured):
			kind, c := definedKind(it.object.Unstructured), changeOf(it)
			if other := s.changed[kind]; other != nil && (other.says == nil || c.says == nil || other.says.Name != c.says.Name) {
				c.says = nil // two define it: which one the server takes is not known
			}
			s.changed[kind] = c
		case it.gvk.Group == "rbac.authorization.k8s.io":
			s.rights = true
		case slices.Contains([]string{"ServiceAccount", "ResourceQuota", "LimitRange", "PriorityClass", "RuntimeClass", "StorageClass", "IngressClass"}, kind):
			s.named = append(s.named, it.object.Ref())
		}
	}
}

// changeOf reads what a definition will say: as the server would have it, if it
// was asked. One that the server refuses says nothing.
func changeOf(it *item) *change {
	c := &change{node: it.node.ID}
	will := it.object.Unstructured
	if it.change.Merged != nil {
		will = it.change.Merged
	}
	if says, err := definition.New(will); err == nil && it.err == nil {
		c.says = says
	}
	return c
}

// changesKind reports whether the run creates or changes the definition of an
// item's kind, so that what the server says of it now may not hold at its turn.
func (s *supply) changesKind(it *item) bool { return s.changed[it.gvk.GroupKind()] != nil }

// definition returns what an item will be judged by at its turn, if the run
// creates or changes that, and it is certain that the item's turn comes after
// it: in one Kustomization definitions are applied first (S4.10), otherwise one
// has to wait for the other. An object of a kind that is not served yet cannot
// be applied before.
func (s *supply) definition(it *item) *definition.Definition {
	c := s.changed[it.gvk.GroupKind()]
	if c == nil || it.unserved == nil && c.node != it.node.ID && !s.follows(it.node.ID, c.node) {
		return nil
	}
	return c.says
}

// follows reports whether a node starts only after another one.
func (s *supply) follows(id, other flux.ID) bool {
	_, found := s.before(id, func(n flux.ID) bool { return n == other })
	return found
}

// excuse returns why an item that the server does not accept now may be
// accepted at its turn.
func (s *supply) excuse(it *item) (string, bool) {
	var failed *ObjectError
	if !errors.As(it.err, &failed) {
		return "", false
	}
	err := failed.Err
	switch {
	case it.unserved != nil:
		return s.excuseKind(it)
	case s.changesKind(it) && failed.Class == Invalid:
		return fmt.Sprintf("the definition of its kind, %s, changes with this run", s.kinds[it.gvk.GroupKind()]), true
	case isWebhook(err):
		return "an admission webhook does not answer now", true
	case missingNamespace(err) != "":
		return s.excuseNamespace(it, missingNamespace(err))
	case !apierrors.IsForbidden(err):
		return "", false
	}
	if failed.Class == Forbidden {
		if s.rights && it.node.User != "" {
			return fmt.Sprintf("the rights of %q change with this run", it.node.User), true
		}
		return "", false
	}
	for _, ref := range s.named {
		if (ref.Namespace == "" || ref.Namespace == it.object.GetNamespace()) && mentions(err.Error(), ref.Name) {
			return fmt.Sprintf("%s comes or changes with this run", ref), true
		}
	}
	return "", false
}

func (s *supply) excuseKind(it *item) (string, bool) {
	if crd, ok := s.kinds[it.gvk.GroupKind()]; ok {
		return fmt.Sprintf("the definition of its kind, %s, comes with this run", crd), true
	}
	if service, ok := s.services[it.gvk.GroupVersion()]; ok {
		return fmt.Sprintf("the APIService %s, which serves its kind, comes with this run", service), true
	}
	if builtIn(it.gvk.Group) {
		return "", false
	}
	if maker, ok := s.maker(it.node.ID); ok {
		return fmt.Sprintf("the server does not know its kind yet; something in %s may bring it", maker), true
	}
	return "", false
}

// unservedHint is what to do about a kind that the server does not have and
// nothing brings.
func unservedHint(it *item) string {
	if mapping, err := it.client.RESTMapper().RESTMapping(it.gvk.GroupKind()); err == nil {
		return "the server has it as " + mapping.GroupVersionKind.GroupVersion().String()
	}
	if builtIn(it.gvk.Group) {
		return "correct the kind or the apiVersion"
	}
	return "correct the kind or the apiVersion, or add its definition; what installs it otherwise has to come before, by dependsOn"
}

// builtIn reports whether only the API server itself can have kinds of a group:
// that of a definition has a dot, and Kubernetes' own are taken.
func builtIn(group string) bool {
	return !strings.Contains(group, ".") || own().IsGroupRegistered(group) ||
		group == "apiextensions.k8s.io" || group == "apiregistration.k8s.io"
}

// own are Kubernetes' own kinds: a scheme that nobody else adds to.
var own = sync.OnceValue(func() *runtime.Scheme {
	s := runtime.NewScheme()
	utilruntime.Must(scheme.AddToScheme(s))
	return s
})

func (s *supply) excuseNamespace(it *item, name string) (string, bool) {
	if s.declared[name] || slices.Contains(s.promised, name) {
		it.absent = true
		return fmt.Sprintf("its namespace %s comes with this run", name), true
	}
	if maker, ok := s.maker(it.node.ID); ok {
		it.homeless = true
		return fmt.Sprintf("its namespace %s does not exist yet; something in %s may make it", name, maker), true
	}
	return "", false
}

// maker returns a node before this one whose objects can make others.
func (s *supply) maker(id flux.ID) (flux.ID, bool) {
	return s.before(id, func(n flux.ID) bool { return s.makers[n] })
}

// before returns the nearest node before this one that is such.
func (s *supply) before(id flux.ID, such func(flux.ID) bool) (flux.ID, bool) {
	seen := map[flux.ID]bool{id: true}
	queue := slices.Clone(s.after[id])
	for len(queue) > 0 {
		next := queue[0]
		queue = queue[1:]
		if seen[next] {
			continue
		}
		seen[next] = true
		if such(next) {
			return next, true
		}
		queue = append(queue, s.after[next]...)
	}
	return flux.ID{}, false
}

// missingNamespace returns the namespace whose absence an answer is about.
func missingNamespace(err error) string {
	var status apierrors.APIStatus
	if !apierrors.IsNotFound(err) || !errors.As(err, &status) {
		return ""
	}
	if d := status.Status().Details; d != nil && d.Group == "" && d.Kind == "namespaces" {
		return d.Name
	}
	return ""
}

// mentions reports whether a text holds a name as a word of its own.
func mentions(text, name string) bool {
	word := func(r rune) bool {
		return r == '-' || r == '.' || (r >= '0' && r <= '9') || (r >= 'a' && r <= 'z') || (r >= 'A' && r <= 'Z')
	}
	return slices.ContainsFunc(strings.FieldsFunc(text, func(r rune) bool { return !word(r) }), func(w string) bool {
		return strings.TrimRight(w, ".") == name
	})
}
