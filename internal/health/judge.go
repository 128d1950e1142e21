package health

import (
	"context"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/sluicerun/sluice/internal/flux"
)

// Judge says what a live object's own content tells of its health, by the rules that a wait has for it, without waiting and without
// a look at its pods. The expressions of healthCheckExprs are not known here.
func Judge(ctx context.Context, o *unstructured.Unstructured) Status {
	s := evaluate(ctx, Target{Ref: flux.RefOf(o)}, o, nil)
	s.Message = oneLine(s.Message)
	return s
}

// NeedsContent reports whether Judge has to see more of an object of the kind than its metadata. It is false for Secrets: nobody
// need read one to know its health.
func NeedsContent(kind schema.GroupKind) bool { return !onlyMetadata[kind] }
