package plan

import (
	"errors"
	"fmt"
	"sync"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

// outages are the group versions whose objects the server cannot tell about,
// though it answers: another server has them, or a webhook that converts them,
// and that one is down. Of each one object finds out, or as many as are asked
// about at a time; the others need not wait as long. It is safe for concurrent
// use.
type outages struct {
	mu   sync.Mutex
	errs map[schema.GroupVersion]error
}

// note keeps an answer to an item as that for its group version, and reports
// whether it is one: the server's own kinds are never down alone.
func (o *outages) note(it *item, err error) bool {
	if !errors.As(err, new(apierrors.APIStatus)) || builtIn(it.gvk.Group) {
		return false
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.errs == nil {
		o.errs = map[schema.GroupVersion]error{}
	}
	if o.errs[it.gvk.GroupVersion()] == nil {
		o.errs[it.gvk.GroupVersion()] = err
	}
	return true
}

// spoils fails an item whose group version is known to be down.
func (o *outages) spoils(it *item) bool {
	o.mu.Lock()
	err := o.errs[it.gvk.GroupVersion()]
	o.mu.Unlock()
	if err == nil {
		return false
	}
	it.fail(fmt.Errorf("%s query failed: %w", it.object.Ref(), err), outageHint(it))
	return true
}

func outageHint(it *item) string {
	return fmt.Sprintf("what stands behind %s does not answer: look at the APIService %s.%s (kubectl get apiservices), or if it is a definition's, at its conversion webhook",
		it.gvk.GroupVersion(), it.gvk.Version, it.gvk.Group)
}
