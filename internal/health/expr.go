package health

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/fluxcd/cli-utils/pkg/kstatus/status"
	"github.com/fluxcd/pkg/runtime/cel"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/sluicerun/sluice/internal/flux"
)

// Expressions holds the spec.healthCheckExprs of a Kustomization, parsed. The nil value holds none. It is safe for concurrent
// use.
type Expressions struct {
	byKind map[schema.GroupKind]Evaluator
}

// ParseExpressions reads spec.healthCheckExprs. What is wrong with them can be told before anything is written: an expression
// that does not parse, one that is missing (S6.41), two entries for the same kind (S6.40). The error holds all of it, in the
// order of the spec. Expressions are parsed and not type-checked (S6.41).
func ParseExpressions(k *flux.Kustomization) (*Expressions, error) {
	e := &Expressions{byKind: map[schema.GroupKind]Evaluator{}}
	first := map[schema.GroupKind]int{}
	var errs []error
	for i, check := range k.Spec.HealthCheckExprs {
		wrong := func(format string, args ...any) {
			errs = append(errs, fmt.Errorf("kustomization %s: spec.healthCheckExprs[%d]: %w", k.ID, i, fmt.Errorf(format, args...)))
		}
		gv, err := schema.ParseGroupVersion(check.APIVersion)
		if err != nil {
			wrong("apiVersion %q is not of the form group/version", check.APIVersion)
			continue
		}
		kind := schema.GroupKind{Group: gv.Group, Kind: check.Kind}
		if other, ok := first[kind]; ok {
			wrong("%s has an entry already, spec.healthCheckExprs[%d]; the version plays no part", describeKind(kind), other)
			continue
		}
		first[kind] = i
		evaluator, err := cel.NewStatusEvaluator(&check.HealthCheckExpressions)
		if err != nil {
			wrong("%s: %w", describeKind(kind), err)
			continue
		}
		e.byKind[kind] = worded{evaluator}
	}
	if len(errs) > 0 {
		return nil, errors.Join(errs...)
	}
	return e, nil
}

// Attach returns the targets with the expressions for their kinds set. An entry without a kind stands for all kinds of its
// group that have no entry of their own (S6.40).
func (e *Expressions) Attach(targets []Target) []Target {
	targets = slices.Clone(targets)
	if e == nil {
		return targets
	}
	for i := range targets {
		kind := targets[i].Ref.GVK().GroupKind()
		if x, ok := e.byKind[kind]; ok {
			targets[i].Expr = x
		} else if x, ok := e.byKind[schema.GroupKind{Group: kind.Group}]; ok {
			targets[i].Expr = x
		}
	}
	return targets
}

func describeKind(gk schema.GroupKind) string {
	if gk.Kind == "" {
		return "every kind of " + apiGroup(gk)
	}
	return "kind " + gk.Kind + " of " + apiGroup(gk)
}

// worded says which expression a status comes from, which the evaluator (S6.43) leaves out.
type worded struct{ Evaluator }

func (w worded) Evaluate(ctx context.Context, o *unstructured.Unstructured) (*status.Result, error) {
	r, err := w.Evaluator.Evaluate(ctx, o)
	if err != nil || r.Message != "" {
		return r, err
	}
	switch r.Status {
	case status.FailedStatus:
		r.Message = "the expression \"failed\" of spec.healthCheckExprs is true"
	case status.InProgressStatus:
		r.Message = "by spec.healthCheckExprs it is in progress, or its newest generation is not observed yet"
	}
	return r, nil
}
