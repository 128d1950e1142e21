package gate

import (
	"context"
	"errors"
	"fmt"

	"github.com/fluxcd/pkg/runtime/cel"
	"github.com/google/cel-go/common/types"

	"github.com/sluicerun/sluice/internal/flux"
)

// Expression is one spec.dependsOn[].readyExpr. It is safe for concurrent use.
type Expression struct {
	// Dep is the Kustomization that it is about.
	Dep flux.ID
	// Text is the expression as it is written.
	Text string

	compiled *cel.Expression
}

// Parse compiles the expressions of a Kustomization, in the order of its
// dependsOn; those without one are left out. As in Flux an expression must be
// of type boolean before it is evaluated: a field alone can be anything and is
// refused, a comparison is fine (S7.7). The error joins what is wrong with each.
func Parse(k *flux.Kustomization) ([]Expression, error) {
	var all []Expression
	var errs []error
	for i, dep := range k.Dependencies() {
		text := k.Spec.DependsOn[i].ReadyExpr
		if text == "" {
			continue
		}
		compiled, err := cel.NewExpression(text, cel.WithCompile(), cel.WithOutputType(types.BoolType), cel.WithStructVariables("self", "dep"))
		if err != nil {
			errs = append(errs, fmt.Errorf("%s: spec.dependsOn[%d].readyExpr: %w", k.ID, i, err))
			continue
		}
		all = append(all, Expression{Dep: dep, Text: text, compiled: compiled})
	}
	return all, errors.Join(errs...)
}

// Evaluate says whether the expression is true of the two as they are now. The
// error is that of the evaluation, such as a field that is not there: Flux tries
// such an expression again, since a status fills up in time (S7.7).
func (e Expression) Evaluate(ctx context.Context, self, dep *Object) (bool, error) {
	selfMap, err := self.content()
	if err != nil {
		return false, err
	}
	depMap, err := dep.content()
	if err != nil {
		return false, err
	}
	return e.compiled.EvaluateBoolean(ctx, map[string]any{"self": selfMap, "dep": depMap})
}
